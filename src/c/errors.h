/* Errors in one line: each of these sets an exception and returns NULL. */

#ifndef CMSGX_ERRORS_H
#define CMSGX_ERRORS_H

#include "compat.h"

/* OSError (or its subclass for that errno) with "strerror: message". */
PyObject *cmsgx_raise_errno(int error, const char *format, ...);

/* `type` is the NotSupportedError of the module's state. */
PyObject *cmsgx_raise_not_supported(PyObject *type, int error, const char *format, ...);

/* EBADF for a descriptor object that owns none: `what`, or `what[index]` where index >= 0. */
PyObject *cmsgx_raise_closed(const char *what, Py_ssize_t index, PyObject *object);

/* TypeError for what is no descriptor. */
PyObject *cmsgx_raise_no_descriptor(const char *what, Py_ssize_t index, PyObject *object);

/* OSError for a loop that cannot tell an empty message from the end. */
PyObject *cmsgx_raise_no_end(int error);

/* RuntimeError for an object that another thread is using. */
PyObject *cmsgx_raise_busy(PyObject *self);

#endif
