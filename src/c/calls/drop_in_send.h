/* sendmsg() and send_fds(), drop-in replacements for those of the socket module. */

#ifndef CMSGX_DROP_IN_SEND_H
#define CMSGX_DROP_IN_SEND_H

#include "state.h"

PyObject *cmsgx_sendmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_send_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);

/* The same as methods: they send by themselves, whatever methods the type of args[0] has. */
PyObject *cmsgx_sendmsg_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_send_fds_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames);

#endif
