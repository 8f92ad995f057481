/* getsockopt(2) and setsockopt(2) of anything that has a descriptor. */

#ifndef CMSGX_SOCKOPT_H
#define CMSGX_SOCKOPT_H

#include "state.h"

PyObject *cmsgx_getsockopt(PyObject *module, PyObject *args);
PyObject *cmsgx_setsockopt(PyObject *module, PyObject *args);

/* (sock, level, name) for an option whose value is a new descriptor: an owning PidFd. */
PyObject *cmsgx_getsockopt_pidfd(PyObject *module, PyObject *args);

#endif
