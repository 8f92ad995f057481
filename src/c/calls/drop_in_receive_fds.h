/* recv_fds, as in the socket module. */

#ifndef CMSGX_DROP_IN_RECEIVE_FDS_H
#define CMSGX_DROP_IN_RECEIVE_FDS_H

#include "state.h"

PyObject *cmsgx_recv_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);

/* The same as a method: it receives itself, whatever methods the type of args[0] defines. */
PyObject *cmsgx_recv_fds_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames);

#endif
