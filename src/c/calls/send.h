/* The typed send, one try of it, and sends that are tracked. */

#ifndef CMSGX_SEND_H
#define CMSGX_SEND_H

#include "state.h"

PyObject *cmsgx_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames);

/* The same, for callers in Python that a signal handler may interrupt between any two of their
   steps: adds the number of bytes sent to the one in args[0], a list of one int.  It returns None,
   or, without raising it, the OSError of the system call: so an exception that is raised comes from
   elsewhere. */
PyObject *cmsgx_send_tracked(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

/* try_send(): one try, which never waits. */
PyObject *cmsgx_try_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);

/* The two halves of any tracked call: whether args[0] is a list of `count` ints, 0 with TypeError;
   and its result, after `sent` were sent.  A second int is for messages: the bytes that a stream
   took of the message after those; `part_sent` of them by this call.  If the call failed, its
   exception is current, and `error` is the errno of the system call, 0 if it is not about that. */
int cmsgx_is_progress(const char *function, PyObject *const *args, Py_ssize_t nargs, int count);
PyObject *cmsgx_tell_progress(PyObject *progress, ssize_t sent, ssize_t part_sent, int error);

#endif
