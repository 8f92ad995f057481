/* Record: the base of every kind, an immutable object.  Its fields are slots of the class or, of a
   Struct (struct.h), in its payload. */

#ifndef CMSGX_RECORD_H
#define CMSGX_RECORD_H

#include "state.h"

/* Adds its type to the module.  0, or -1 with an exception. */
int cmsgx_add_record(PyObject *module);

#endif
