/* The calls that send: sendmsg and send_fds as in the socket module, and the typed send. */

#ifndef CMSGX_SEND_H
#define CMSGX_SEND_H

#include "outgoing.h"

PyObject *cmsgx_sendmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_send_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);
PyObject *cmsgx_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames);
PyObject *cmsgx_send_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);

/* What a typed message has, in two steps; `fds` and `control` may be NULL.  The head: 1 ready, 0
   where C cannot convert the address, -1 with an exception.  The data, which the caller keeps
   alive until the message is sent, and the audit event: 0, or -1. */
int cmsgx_fill_head(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *fds, PyObject *control,
                    PyObject *address);
int cmsgx_fill_data(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *data, PyObject *address);

/* A control buffer of typed control messages and tuples, as bytes. */
PyObject *cmsgx_build(PyObject *module, PyObject *control);

#endif
