/* getsockopt(2) and setsockopt(2) of anything that has a descriptor, and what the systems tell of a
   socket in different ways. */

#ifndef CMSGX_SOCKOPT_H
#define CMSGX_SOCKOPT_H

#include "state.h"

PyObject *cmsgx_getsockopt(PyObject *module, PyObject *args);
PyObject *cmsgx_setsockopt(PyObject *module, PyObject *args);

/* (sock, level, name) for an option whose value is a new descriptor: an owning PidFd. */
PyObject *cmsgx_getsockopt_pidfd(PyObject *module, PyObject *args);

/* (sock): AF_*. */
PyObject *cmsgx_getfamily(PyObject *module, PyObject *sock);

/* (sock): who connected, as bytes, a struct cmsgx_peer. */
PyObject *cmsgx_getpeer(PyObject *module, PyObject *sock);

#endif
