/* The path from recvmsg(2) to the owner of each descriptor.

   Everything is allocated before the call; cmsgx_take_received() is what follows it: the buffer
   holds each number, and nothing in there can fail, collect garbage or run Python code. */

#ifndef CMSGX_RECEIVED_H
#define CMSGX_RECEIVED_H

#include "types/buffer.h"
#include "calls/wait.h"
#include "types/receive_config.h"

/* The descriptors that one message can bring: those of SCM_RIGHTS and one of SCM_PIDFD. */
#define CMSGX_MAX_PLACES (CMSGX_MAX_FDS + 1)

/* Gives up the GIL to close; or hands over to the row, if there is one. */
void cmsgx_close_numbers(cmsgx_row *row, int *fds, size_t count);

/* MSG_CMSG_CLOEXEC, but for a family that is known to bring no descriptors: the recvmsg(2) of some
   fails for it, as for each flag that they do not know. */
static inline int
cmsgx_cloexec_flag(int family)
{
    return cmsgx_may_bring_fds(family) ? CMSGX_MSG_CMSG_CLOEXEC : 0;
}

/* What a receive with these flags waits for.  What is on the error queue shows as POLLERR, unasked;
   POLLIN would only be about the other queue. */
static inline int
cmsgx_events_of(int flags)
{
    return flags & CMSGX_MSG_ERRQUEUE ? 0 : POLLIN;
}

/* The room for an address.  A stream has one peer, whose address nobody needs each time; but what
   is on its error queue has a destination. */
static inline socklen_t
cmsgx_name_size(int type, int flags)
{
    return type == SOCK_STREAM && !(flags & CMSGX_MSG_ERRQUEUE) ? 0
                                                                : sizeof(struct sockaddr_storage);
}

/* Before `count` messages are received in the background: waits for room in the closer, as long as
   the socket would wait for a message, and reserves the places of all that they can bring.  0, or
   -1 with an exception; with CMSGX_ONE_TRY without one where it would have to wait.
   cmsgx_take_received() gives back what was not needed of one message. */
int cmsgx_received_begin(cmsgx_sock *sock, const cmsgx_receive_config *config, size_t count,
                         int flags);

/* For messages that did not come. */
static inline void
cmsgx_received_end(const cmsgx_receive_config *config, size_t count)
{
    if (config->row != NULL) {
        cmsgx_row_unreserve(config->row, count * CMSGX_MAX_PLACES);
    }
}

/* Takes possession of what `msg` brought into `buffer`: what is kept stands in buffer->fds, the
   surplus is closed, buffer->received is filled. */
void cmsgx_take_received(cmsgx_buffer *buffer, const cmsgx_receive_config *config, cmsgx_sock *sock,
                  const struct msghdr *msg, size_t nbytes, int asked_flags);

/* Closes what cmsgx_take_received() left in the buffer. */
void cmsgx_received_close(cmsgx_buffer *buffer, const cmsgx_receive_config *config);

/* Whether the kernel had room for a descriptor more than it gave: then something else kept it
   back. */
int cmsgx_received_had_room(const cmsgx_buffer *buffer);

#endif
