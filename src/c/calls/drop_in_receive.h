/* recvmsg and recvmsg_into, as in the socket module. */

#ifndef CMSGX_DROP_IN_RECEIVE_H
#define CMSGX_DROP_IN_RECEIVE_H

#include "state.h"

PyObject *cmsgx_recvmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_recvmsg_into(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
/* Without close-on-exec, for install(cloexec=False). */
PyObject *cmsgx_recvmsg_inheritable(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_recvmsg_into_inheritable(PyObject *module, PyObject *const *args,
                                         Py_ssize_t nargs);

/* The same as methods: they receive themselves, whatever methods the type of args[0] defines. */
PyObject *cmsgx_recvmsg_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_recvmsg_into_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_recvmsg_inheritable_method(cmsgx_state *state, PyObject *const *args,
                                           Py_ssize_t nargs);
PyObject *cmsgx_recvmsg_into_inheritable_method(cmsgx_state *state, PyObject *const *args,
                                                Py_ssize_t nargs);

#endif
