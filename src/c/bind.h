/* The classes, exceptions and functions that C needs from the Python layer, passed in one call. */

#ifndef CMSGX_BIND_H
#define CMSGX_BIND_H

#include "state.h"

/* bind(*, Fd, PidFd, ...): sets all of them, or none. */
PyObject *cmsgx_bind(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* For module_exec().  Until bind() is called, the functions and exceptions are placeholders:
   calling or raising one raises a RuntimeError that says so.  The classes are NULL. */
int cmsgx_add_unbound(PyObject *module);

/* 0 if bind() was called, or -1 with RuntimeError.  For code that needs one of the classes. */
int cmsgx_raise_unbound(void);

static inline int
cmsgx_need_bound(const cmsgx_state *state)
{
    return state->Fd != NULL ? 0 : cmsgx_raise_unbound();
}

#endif
