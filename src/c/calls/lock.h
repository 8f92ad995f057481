/* Calls a function under a lock that is always released. */

#ifndef CMSGX_LOCK_H
#define CMSGX_LOCK_H

#include "compat.h"

/* with_lock(lock, function, /): calls the function while holding the lock. */
PyObject *cmsgx_with_lock(PyObject *module, PyObject *args);

#endif
