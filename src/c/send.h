/* The calls that send: sendmsg and send_fds as in the socket module, and the typed send. */

#ifndef CMSGX_SEND_H
#define CMSGX_SEND_H

#include "state.h"

PyObject *cmsgx_sendmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_send_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);
PyObject *cmsgx_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames);

/* A control buffer of typed control messages and tuples, as bytes. */
PyObject *cmsgx_build(PyObject *module, PyObject *control);

#endif
