/* FdBase: the owner of one file descriptor.  cmsgx.Fd is its public subclass. */

#ifndef CMSGX_FD_H
#define CMSGX_FD_H

#include "types/fd_ownership.h"

/* Makes `heir` the owner, in one step, by calling `init`, an __init__ in C, with `arguments`, which
   contain the number.  The number leaves this object before that call, so that two never own it,
   and comes back if the call fails.  Steals `arguments`, which may be NULL with an exception.  0,
   or -1 with an exception: ValueError if no number is owned. */
int cmsgx_fd_give_to(PyObject *self, PyObject *heir, initproc init, PyObject *arguments,
                     cmsgx_gone how);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_fd(PyObject *module);

#endif
