/* Pin: what keeps the number of an FdBase while Python code makes system calls on it. */

#ifndef CMSGX_PIN_H
#define CMSGX_PIN_H

#include "state.h"

/* A pin for Python code, as a context manager.  NULL, without an exception where it cannot be
   pinned. */
PyObject *cmsgx_pin_new(cmsgx_state *state, PyObject *owner);

/* borrow(sock, /): the same of a `sock` argument; what is not an FdBase is not pinned. */
PyObject *cmsgx_pin_of(PyObject *module, PyObject *object);

int cmsgx_add_pin(PyObject *module);

#endif
