/* Segments: the datagrams that one read of a socket with UDP_GRO joined, as views that are made
   as they are asked for. */

#ifndef CMSGX_SEGMENTS_H
#define CMSGX_SEGMENTS_H

#include "types/buffer.h"

/* `size` bytes at `start`, in pieces of `each` (0: one piece): a new reference. */
PyObject *cmsgx_segments_new(cmsgx_state *state, cmsgx_buffer *buffer, const unsigned char *start,
                             size_t size, size_t each);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_segments(PyObject *module);

#endif
