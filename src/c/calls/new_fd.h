/* Descriptors that are made with their owner: the owner is there first, so that nothing can fail
   once there is a descriptor, and no signal handler runs before somebody owns it. */

#ifndef CMSGX_NEW_FD_H
#define CMSGX_NEW_FD_H

#include "state.h"

/* (name, flags): an Fd that owns a new memfd. */
PyObject *cmsgx_memfd_create(PyObject *module, PyObject *args);

/* (type, function): calls the function, which gives a descriptor away, as its result or as the
   first item of a tuple.  (owner, result). */
PyObject *cmsgx_own_result(PyObject *module, PyObject *args);

/* A buffer of numbers: closes each that is not negative, whatever the others' close(2) says. */
PyObject *cmsgx_close_each(PyObject *module, PyObject *numbers);

#endif
