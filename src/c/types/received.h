/* The path from recvmsg(2) to the owner of each descriptor.

   Everything is allocated before the call; cmsgx_take_received() is what follows it: the buffer
   holds each number, and nothing in there can fail, collect garbage or run Python code. */

#ifndef CMSGX_RECEIVED_H
#define CMSGX_RECEIVED_H

#include "types/buffer.h"
#include "types/receive_config.h"

/* The descriptors that one message can bring: those of SCM_RIGHTS and one of SCM_PIDFD. */
#define CMSGX_MAX_PLACES (CMSGX_MAX_FDS + 1)

/* Gives up the GIL to close; or hands over to the row, if there is one. */
void cmsgx_close_numbers(cmsgx_row *row, int *fds, size_t count);

/* Takes possession of what `msg` brought into `buffer`: what is kept stands in buffer->fds, and
   buffer->received is filled, but for what only the socket can tell.  After what is kept there is a
   surplus, of as many places as it returns, which the caller closes with
   cmsgx_received_close_surplus(). */
size_t cmsgx_take_received(cmsgx_buffer *buffer, const cmsgx_receive_config *config,
                           const struct msghdr *msg, size_t nbytes, int asked_flags);

/* Closes the `count` descriptors after those that are kept. */
static inline void
cmsgx_received_close_surplus(cmsgx_buffer *buffer, const cmsgx_receive_config *config, size_t count)
{
    size_t kept = buffer->received.fds + buffer->received.pidfds;
    cmsgx_close_numbers(config->row, buffer->fds + kept, count);
}

/* For a read of no bytes from a socket of that type: whether it was the end, and what the kernel
   made up to come with it. */
void cmsgx_received_set_eof(cmsgx_buffer *buffer, const cmsgx_receive_config *config, int type);

/* Closes what cmsgx_take_received() left in the buffer. */
void cmsgx_received_close(cmsgx_buffer *buffer, const cmsgx_receive_config *config);

/* Whether the kernel had room for a descriptor more than it gave: then something else kept it
   back. */
int cmsgx_received_had_room(const cmsgx_buffer *buffer);

#endif
