/* The descriptor that an argument stands for, and what is wrong with one. */

#ifndef CMSGX_FD_ARGUMENT_H
#define CMSGX_FD_ARGUMENT_H

#include "types/fd_ownership.h"

/* The number of an argument that is no bool and not negative: an int, an FdBase (*owner is
   set to it, borrowed), or what has a fileno().  -1 with an exception.  A fileno() that is negative
   is that of something closed: EBADF.  So is a negative int as a `sock`; as anything else it is a
   ValueError. */
#define CMSGX_NO_INDEX (-1)
#define CMSGX_SOCK_INDEX (-2)
int cmsgx_fd_from_object(cmsgx_state *state, PyObject *object, const char *what, Py_ssize_t index,
                         PyObject **owner);

/* For a few system calls the number of a `sock` argument, that of an FdBase pinned:
   *owner is then set to it, borrowed.  0, or -1 with an exception. */
int cmsgx_borrow(cmsgx_state *state, PyObject *sock, int *fd, PyObject **owner);

/* Takes the pin off, if there is one, and keeps errno: so that what failed is raised after it. */
void cmsgx_give_back(PyObject *owner);

/* Of what could not be pinned: OSError EBADF, or EBUSY for too many pins.  `index` as above. */
PyObject *cmsgx_raise_unpinnable(const char *what, Py_ssize_t index, PyObject *self);

/* Of an argument that owns none: OSError EBADF that says how the number went. */
PyObject *cmsgx_raise_gone(const char *what, Py_ssize_t index, PyObject *self);

#endif
