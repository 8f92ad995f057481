/* How the structs in payloads are laid out, for Python. */

#ifndef CMSGX_STRUCTS_H
#define CMSGX_STRUCTS_H

#include "state.h"

/* Adds the module's LAYOUTS: {name: (min_size, max_size, {member: (offset, format, size)})}.
   0, or -1 with an exception. */
int cmsgx_add_structs(PyObject *module);

#endif
