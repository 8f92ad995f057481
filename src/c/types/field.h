/* Field: a window into the payload of a Struct, a descriptor of the class that makes the value when
   it is read. */

#ifndef CMSGX_FIELD_H
#define CMSGX_FIELD_H

#include "types/codec.h"

/* The value of a field of a payload: a new reference.  None if the payload ends before the
   field. */
PyObject *cmsgx_field_load(cmsgx_state *state, const cmsgx_field *field,
                           const unsigned char *payload, size_t size);

/* Where in the payload the field will end with that value; -1 with an exception if the field cannot
   have it. */
Py_ssize_t cmsgx_field_end(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field,
                           PyObject *value);

/* Writes the value to a payload of at least `end` bytes, where `end` is what cmsgx_field_end()
   returned for it.  0, or -1 with an exception. */
int cmsgx_field_store(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field,
                      PyObject *value, unsigned char *payload, size_t end);

/* Adds its type to the module.  0, or -1 with an exception. */
int cmsgx_add_field(PyObject *module);

#endif
