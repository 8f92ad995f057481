/* Receives one message as a Message: for receive(), and for each call of a Receiver.

    The heart of the library is cmsgx_receive().  Everything is allocated before recvmsg(2); after
   it the message owns each descriptor, and nothing in between can fail, collect garbage or run
   Python code. */

#ifndef CMSGX_RECEIVE_H
#define CMSGX_RECEIVE_H

#include "calls/wait.h"
#include "types/received.h"
#include "types/sockaddr.h"

/* MSG_CMSG_CLOEXEC, or 0 for a family that is known not to carry descriptors: the recvmsg(2) of
   some such families fails for every flag that they do not know. */
static inline int
cmsgx_cloexec_flag(int family)
{
    return cmsgx_may_bring_fds(family) ? CMSGX_MSG_CMSG_CLOEXEC : 0;
}

/* The poll(2) events that a receive with these flags waits for.  poll(2) reports messages on the
   error queue as POLLERR, which need not be requested; POLLIN is only about the other queue. */
static inline int
cmsgx_events_of(int flags)
{
    return flags & CMSGX_MSG_ERRQUEUE ? 0 : POLLIN;
}

/* The size of the buffer for the address.  A stream has one peer, whose address is not needed with
   each message; but a message on its error queue has a destination. */
static inline socklen_t
cmsgx_name_size(int type, int flags)
{
    return type == SOCK_STREAM && !(flags & CMSGX_MSG_ERRQUEUE) ? 0
                                                                : sizeof(struct sockaddr_storage);
}

/* Takes ownership of the descriptors that `msg` received into `buffer`, as cmsgx_take_received()
   does, and fills the members that depend on the socket.  Inline, because every message passes
   through it. */
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
        /* Before anything is closed, because closing would change the result of the probe. */
        received->is_table_full = (char)cmsgx_sock_is_table_full(sock);
    }
    if (surplus > 0) {
        cmsgx_received_close_surplus(buffer, config, surplus);
    }
    /* The kernel sets the flag for a message from the error queue.  A family without an error queue
       ignores the request for one, so this may be the end of its stream. */
    if (nbytes == 0 && !(msg->msg_flags & CMSGX_MSG_ERRQUEUE)) {
        cmsgx_received_set_eof(buffer, config,
                               config->type < 0 ? cmsgx_sock_type(sock) : config->type);
    }
}

/* Receives one message into `buffer`, of which the caller is the only user; the message becomes its
   second user.  Returns a new Message, or NULL with an exception, and then no received descriptor
   is left open.  With CMSGX_ONE_TRY, NULL without an exception if no message has arrived. */
PyObject *cmsgx_receive(cmsgx_sock *sock, cmsgx_buffer *buffer, cmsgx_receive_config *config,
                        int flags);

/* receive(sock, bufsize, *, fds=0, flags=0, timeout=..., on_truncation='raise', close='now') */
PyObject *cmsgx_receive_once(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

#endif
