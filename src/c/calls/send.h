/* The calls that send: sendmsg and send_fds as in the socket module, and the typed send. */

#ifndef CMSGX_SEND_H
#define CMSGX_SEND_H

#include "calls/outgoing.h"

PyObject *cmsgx_sendmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_send_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);

/* The same as methods: they do it themselves, whatever methods the type of args[0] has. */
PyObject *cmsgx_sendmsg_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_send_fds_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames);

PyObject *cmsgx_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames);
PyObject *cmsgx_send_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);

/* The same two that count what they send, for callers in Python that a signal handler may interrupt
   between any two steps of theirs: adds it to the number in args[0], a list of one.  None, or the
   OSError that the system call was refused with, which is not raised; so what is raised is
   somebody else's.  NULL with an exception. */
PyObject *cmsgx_send_tracked(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *cmsgx_send_batch_tracked(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);

/* Their parts.  Whether args[0] is such a list; 0 with TypeError.  And what they return: with the
   exception of a call that failed, of which `error` is the errno, or 0. */
int cmsgx_is_progress(const char *function, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_tell_progress(PyObject *progress, ssize_t sent, int error);

/* What a typed message has, in two steps; `fds` and `control` may be NULL.  The head: 1 ready, 0
   where C cannot convert the address, -1 with an exception.  The data, which the caller keeps
   alive until the message is sent, and the audit event: 0, or -1. */
int cmsgx_fill_head(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *fds, PyObject *control,
                    PyObject *address);
int cmsgx_fill_data(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *data, PyObject *address);

/* A control buffer of typed control messages and tuples, as bytes. */
PyObject *cmsgx_build(PyObject *module, PyObject *control);

/* ValueError for an address that C cannot convert, where no method of the socket may. */
void cmsgx_raise_no_conversion(cmsgx_sock *sock, PyObject *address);

#endif
