/* send_batch(): many messages with one system call, sendmmsg(2). */

#ifndef CMSGX_SEND_BATCH_H
#define CMSGX_SEND_BATCH_H

#include "state.h"

PyObject *cmsgx_send_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);

/* The same as a tracked call, which counts messages, and the bytes that were sent of the next one:
   see cmsgx_send_tracked(). */
PyObject *cmsgx_send_batch_tracked(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
/* A tracked call that does not wait: False if the socket takes no more now, else True. */
PyObject *cmsgx_try_send_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);

#endif
