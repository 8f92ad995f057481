/* A lock that is released whatever happens. */

#ifndef CMSGX_LOCK_H
#define CMSGX_LOCK_H

#include "compat.h"

/* with_lock(lock, function, /): calls the function while it holds the lock. */
PyObject *cmsgx_with_lock(PyObject *module, PyObject *args);

#endif
