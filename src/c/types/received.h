/* The path from recvmsg(2) to the owner of each descriptor.

    Everything is allocated before the call.  After it comes cmsgx_take_received(): the buffer holds
   each number, and nothing in that function can fail, collect garbage or run Python code. */

#ifndef CMSGX_RECEIVED_H
#define CMSGX_RECEIVED_H

#include "types/buffer.h"
#include "types/receive_config.h"

/* The number of descriptors that one message can carry: those in SCM_RIGHTS and the one in
   SCM_PIDFD. */
#define CMSGX_MAX_PLACES (CMSGX_MAX_FDS + 1)

/* Closes them, with the GIL released; or hands them over to the row, if there is one. */
void cmsgx_close_numbers(cmsgx_row *row, int *fds, size_t count);

/* Takes ownership of the descriptors that `msg` received into `buffer`.  Those that are kept come
   first in buffer->fds; after them is a surplus, whose length is returned, and which the caller
   closes with cmsgx_received_close_surplus().  Fills buffer->received, except for the members that
   depend on the socket. */
size_t cmsgx_take_received(cmsgx_buffer *buffer, const cmsgx_receive_config *config,
                           const struct msghdr *msg, size_t nbytes, int asked_flags);

/* Closes the `count` descriptors after those that are kept. */
static inline void
cmsgx_received_close_surplus(cmsgx_buffer *buffer, const cmsgx_receive_config *config, size_t count)
{
    size_t kept = buffer->received.fds + buffer->received.pidfds;
    cmsgx_close_numbers(config->row, buffer->fds + kept, count);
}

/* For a read of 0 bytes from a socket of that type: sets whether it was the end of the stream, and
   drops the credentials that the kernel makes up for it. */
void cmsgx_received_set_eof(cmsgx_buffer *buffer, const cmsgx_receive_config *config, int type);

/* Closes the descriptors that cmsgx_take_received() kept in the buffer. */
void cmsgx_received_close(cmsgx_buffer *buffer, const cmsgx_receive_config *config);

/* Whether the control buffer had space for one more descriptor than the kernel delivered, so
   something else kept it back. */
int cmsgx_received_had_space(const cmsgx_buffer *buffer);

#endif
