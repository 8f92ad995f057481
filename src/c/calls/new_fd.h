/* New descriptors and their owners.  The owner is made first, so that nothing can fail once there
   is a descriptor, and no signal handler runs before it is owned. */

#ifndef CMSGX_NEW_FD_H
#define CMSGX_NEW_FD_H

#include "state.h"

/* (name, flags): an Fd that owns a new memfd. */
PyObject *cmsgx_memfd_create(PyObject *module, PyObject *args);

/* (type, function): calls the function, which returns a descriptor that the caller owns, by itself
   or as the first item of a tuple.  (owner, result), where `owner` is of that type. */
PyObject *cmsgx_own_result(PyObject *module, PyObject *args);

/* (numbers), a buffer of C ints: closes each that is not negative, even if another close(2)
   fails. */
PyObject *cmsgx_close_each(PyObject *module, PyObject *numbers);

#endif
