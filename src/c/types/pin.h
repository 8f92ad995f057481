/* Pin: keeps the number of an FdBase open while Python code makes system calls on it. */

#ifndef CMSGX_PIN_H
#define CMSGX_PIN_H

#include "state.h"

/* A Pin on an FdBase, a context manager.  NULL with an exception, or without one if it cannot be
   pinned. */
PyObject *cmsgx_pin_new(cmsgx_state *state, PyObject *owner);

/* borrow(sock, /): a Pin for a `sock` argument; only an FdBase is in fact pinned. */
PyObject *cmsgx_pin_of(PyObject *module, PyObject *object);

int cmsgx_add_pin(PyObject *module);

#endif
