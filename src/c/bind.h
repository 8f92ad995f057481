/* What C takes from the Python layer: classes, exceptions and functions, given by one call. */

#ifndef CMSGX_BIND_H
#define CMSGX_BIND_H

#include "state.h"

/* bind(*, Fd, PidFd, ...): fills all of them, or none. */
PyObject *cmsgx_bind(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* For module_exec(): until bind() is called, the functions and exceptions are such that what calls
   or raises one is a RuntimeError that says so.  The classes are NULL. */
int cmsgx_add_unbound(PyObject *module);

/* Whether bind() was called: 0, or -1 with RuntimeError.  For what needs one of the classes. */
int cmsgx_raise_unbound(void);

static inline int
cmsgx_need_bound(const cmsgx_state *state)
{
    return state->Fd != NULL ? 0 : cmsgx_raise_unbound();
}

#endif
