/* getsockopt(2) and setsockopt(2) for anything that has a descriptor, and facts about a socket that
   each system reports in its own way. */

#ifndef CMSGX_SOCKOPT_H
#define CMSGX_SOCKOPT_H

#include "state.h"

/* (sock, level, name, size): bytes; (sock, level, name, value): None. */
PyObject *cmsgx_getsockopt(PyObject *module, PyObject *args);
PyObject *cmsgx_setsockopt(PyObject *module, PyObject *args);

/* (sock, level, name) for an option whose value is a new descriptor: an owning PidFd. */
PyObject *cmsgx_getsockopt_pidfd(PyObject *module, PyObject *args);

/* (sock): AF_*. */
PyObject *cmsgx_getfamily(PyObject *module, PyObject *sock);

/* (sock): who connected, as bytes, a struct cmsgx_peer. */
PyObject *cmsgx_getpeer(PyObject *module, PyObject *sock);

#endif
