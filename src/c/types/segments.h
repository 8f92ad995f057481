/* Segments: the datagrams that the kernel coalesced (UDP_GRO, udp(7)), as views that are created on
   access. */

#ifndef CMSGX_SEGMENTS_H
#define CMSGX_SEGMENTS_H

#include "types/buffer.h"

/* Splits `size` bytes at `start` into pieces of `each` bytes (0: one piece): a new reference. */
PyObject *cmsgx_segments_new(cmsgx_state *state, cmsgx_buffer *buffer, const unsigned char *start,
                             size_t size, size_t each);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_segments(PyObject *module);

#endif
