/* Field: a window into the payload of a Struct, a descriptor of the class that makes the value when
   it is read. */

#ifndef CMSGX_FIELD_H
#define CMSGX_FIELD_H

#include "types/codec.h"

/* The value of a field of a payload: a new reference.  None where an optional one is not there. */
PyObject *cmsgx_field_load(cmsgx_state *state, const cmsgx_field *field,
                           const unsigned char *payload, size_t size);

/* Where in the payload the field will end with that value; -1 with an exception where the value
   is none of the field. */
Py_ssize_t cmsgx_field_end(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field,
                           PyObject *value);

/* Writes it, to a payload that reaches `end`, which cmsgx_field_end() gave.  0, or -1 with an
   exception. */
int cmsgx_field_store(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field,
                      PyObject *value, unsigned char *payload, size_t end);

/* Adds its type to the module.  0, or -1 with an exception. */
int cmsgx_add_field(PyObject *module);

#endif
