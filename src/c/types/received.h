/* The path from recvmsg(2) to the owner of each descriptor.

   Everything is allocated before the call; cmsgx_take_received() is what follows it: the buffer
   holds each number, and nothing in there can fail, collect garbage or run Python code. */

#ifndef CMSGX_RECEIVED_H
#define CMSGX_RECEIVED_H

#include "types/buffer.h"
#include "calls/wait.h"

/* The descriptors that one message can bring: those of SCM_RIGHTS and one of SCM_PIDFD. */
#define CMSGX_MAX_PLACES (CMSGX_MAX_FDS + 1)

/* What a receiver was asked for: shared, unchanging, one for each configuration. */
typedef struct cmsgx_receive_config {
    cmsgx_count users;
    cmsgx_state *state;     /* borrowed: who has a config has an object of the module */
    size_t fds;             /* descriptors asked for */
    size_t control_size;    /* room given to the kernel */
    int family;             /* AF_*, -1 unknown */
    int type;               /* SOCK_*, -1: asked of the kernel when it matters */
    int raise_truncated;
    cmsgx_row *row;         /* owned use: closes in the background; or NULL */
    int takes_pidfd;        /* PidFd was asked for, or the call takes what comes */
    int asked_pidfd;        /* PidFd was asked for */
    PyObject *want;         /* owned: tuple of kinds that were switched on, or NULL: unknown */
    int is_traced;          /* what uses it may be in a cycle, by a kind of the user's or by `into`:
                               then each object that does holds a reference to `want` instead, and
                               the garbage collector tracks it; the others are spared that */
} cmsgx_receive_config;

/* One use, the caller's. */
cmsgx_receive_config *cmsgx_receive_config_new(cmsgx_state *state);
void cmsgx_receive_config_release(cmsgx_receive_config *config);

/* That of a call which asks for no kinds: the one of the last such call where it is the same.  One
   use, the caller's, or NULL with MemoryError.  Steals the use of `row`, also where it fails; NULL
   closes here. */
cmsgx_receive_config *cmsgx_receive_config_once(cmsgx_state *state, size_t fds, int family,
                                                int type, int raise_truncated, cmsgx_row *row);

/* Gives back the one that is kept. */
void cmsgx_receive_config_free_all(cmsgx_state *state);

static inline cmsgx_receive_config *
cmsgx_receive_config_share(cmsgx_receive_config *config)
{
    cmsgx_count_up(&config->users);
    if (config->is_traced) {
        Py_XINCREF(config->want);
    }
    return config;
}

/* For tp_traverse of an object that uses it. */
static inline int
cmsgx_receive_config_visit(const cmsgx_receive_config *config, visitproc visit, void *arg)
{
    if (config != NULL && config->is_traced) {
        Py_VISIT(config->want);
    }
    return 0;
}

/* From the arguments of _configure(); NULL with an exception. */
cmsgx_receive_config *cmsgx_receive_config_parse(cmsgx_state *state, PyObject *args);

/* Keeps the row of the one (or NULL) whose place it takes. */
void cmsgx_receive_config_inherit(cmsgx_receive_config *config, const cmsgx_receive_config *before);

/* Gives up the GIL to close; or hands over to the row, if there is one. */
void cmsgx_close_numbers(cmsgx_row *row, int *fds, size_t count);

/* Whether descriptors can come with a message of that family, -1 for one that is not known. */
static inline int
cmsgx_may_bring_fds(int family)
{
    return family == AF_UNIX || family < 0;
}

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
