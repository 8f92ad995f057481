/* Receiving one message as a Message: what a Receiver does each time, and receive().

   The heart of the library is in cmsgx_receive(): everything is allocated before recvmsg(2);
   after it the message owns each number, and nothing in between can fail, collect garbage or
   run Python code. */

#ifndef CMSGX_RECEIVE_H
#define CMSGX_RECEIVE_H

#include "calls/wait.h"
#include "types/received.h"
#include "types/sockaddr.h"

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

/* Takes possession of what `msg` brought into `buffer`, as cmsgx_take_received() does, and asks the
   socket what only it can tell.  Inline, as it is on the path of each message. */
static inline void
cmsgx_receive_take(cmsgx_sock *sock, cmsgx_buffer *buffer, const cmsgx_receive_config *config,
                   const struct msghdr *msg, size_t nbytes, int asked_flags)
{
    cmsgx_received *received = &buffer->received;
    if (cmsgx_names_need_socket(config->family)) {
        buffer->name_fd = sock->fd;
        buffer->name_proto = sock->kind == CMSGX_SOCKET ? cmsgx_sock_proto(sock) : -1;
    }
    size_t surplus = cmsgx_take_received(buffer, config, msg, nbytes, asked_flags);
    if ((msg->msg_flags & MSG_CTRUNC) && received->fds < config->fds) {
        /* Before anything is closed: the probe tells the truth only now. */
        received->is_table_full = (char)cmsgx_sock_is_table_full(sock);
    }
    if (surplus > 0) {
        cmsgx_received_close_surplus(buffer, config, surplus);
    }
    /* The kernel sets the flag for what was on the error queue.  A family that has none ignores
       that it was asked for one, and this may be the end of its stream. */
    if (nbytes == 0 && !(msg->msg_flags & CMSGX_MSG_ERRQUEUE)) {
        cmsgx_received_set_eof(buffer, config,
                               config->type < 0 ? cmsgx_sock_type(sock) : config->type);
    }
}

/* Receives one message.  `buffer` is exclusively the caller's, and becomes the message's too.
   Returns a new Message; NULL with an exception, and then no descriptor is left open.  With
   CMSGX_ONE_TRY NULL without an exception where nothing is there. */
PyObject *cmsgx_receive(cmsgx_sock *sock, cmsgx_buffer *buffer, cmsgx_receive_config *config,
                        int flags);

/* receive(sock, bufsize, *, fds=0, flags=0, timeout=..., on_truncation='raise', close='now') */
PyObject *cmsgx_receive_once(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

#endif
