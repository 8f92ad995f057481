/* The descriptor that an argument stands for, and what is wrong with one. */

#ifndef CMSGX_FD_ARGUMENT_H
#define CMSGX_FD_ARGUMENT_H

#include "types/fd_ownership.h"

/* The number that an argument stands for: a non-negative int that is not a bool, an FdBase
   (*owner is set to it, borrowed), or an object with a fileno().  -1 with an exception that names
   the argument as `what`, or `what[index]` if index >= 0.  A negative fileno() means that the
   object is closed: EBADF.  So does a negative int with CMSGX_SOCK_INDEX; otherwise that is a
   ValueError. */
#define CMSGX_NO_INDEX (-1)
#define CMSGX_SOCK_INDEX (-2)
int cmsgx_fd_from_object(cmsgx_state *state, PyObject *object, const char *what, Py_ssize_t index,
                         PyObject **owner);

/* The number of a `sock` argument, for a few system calls.  An FdBase is pinned, and *owner is
   set to it, borrowed; otherwise *owner is NULL.  0, or -1 with an exception. */
int cmsgx_borrow(cmsgx_state *state, PyObject *sock, int *fd, PyObject **owner);

/* Unpins `owner`, unless it is NULL.  Keeps errno, so that a failure can be raised after it. */
void cmsgx_give_back(PyObject *owner);

/* For an FdBase that could not be pinned: OSError EBADF, or EBUSY for too many pins. */
PyObject *cmsgx_raise_unpinnable(const char *what, Py_ssize_t index, PyObject *self);

/* For an FdBase that owns no number: OSError EBADF that says how it was lost. */
PyObject *cmsgx_raise_gone(const char *what, Py_ssize_t index, PyObject *self);

#endif
