/* View: a read-only window into received bytes.  A memoryview of it works, but a View is cheaper to
   create and to slice. */

#ifndef CMSGX_VIEW_H
#define CMSGX_VIEW_H

#include "types/buffer.h"

/* Frees the memory that is kept for new views, and keeps none from then on. */
void cmsgx_view_free_all(cmsgx_state *state);

/* A read-only view of `size` bytes that keeps `buffer` in use: a new reference. */
PyObject *cmsgx_view_new(cmsgx_state *state, cmsgx_buffer *buffer, const unsigned char *start,
                         size_t size);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_view(PyObject *module);

#endif
