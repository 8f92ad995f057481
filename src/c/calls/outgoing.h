/* An outgoing message: its buffers, control data, descriptors and address, in arrays on the
   caller's stack unless there is too much of it. */

#ifndef CMSGX_OUTGOING_H
#define CMSGX_OUTGOING_H

#include "calls/wait.h"

#include <sys/uio.h>

/* The arrays that an outgoing message starts with, borrowed.  Where one is too small, a larger one
   is allocated in its place. */
typedef struct {
    Py_buffer *buffers;
    struct iovec *iov;
    Py_ssize_t buffer_capacity;         /* of both, at least 1 */
    int *fds;
    PyObject **fd_owners;
    size_t fd_capacity;                 /* of both */
    unsigned char *control;
    size_t control_capacity;
} cmsgx_outgoing_arrays;

typedef struct {
    cmsgx_state *state;
    cmsgx_sock *sock;           /* borrowed: what it is sent on; NULL if not known */
    int is_typed;               /* of a typed call: refuses what the kernel would drop */
    int never_waits;            /* of a call that does not: host names are not resolved */
    int packet_family;          /* over an AF_INET6 socket: AF_INET or AF_INET6, -1 if unknown,
                                   AF_UNSPEC until route.c has looked */
    struct msghdr msg;
    size_t data_size;
    cmsgx_outgoing_arrays initial;

    Py_buffer *buffers;         /* owned exports */
    struct iovec *iov;
    Py_ssize_t buffer_count;

    unsigned char *control;
    size_t control_used;
    size_t control_capacity;

    int *fds;
    PyObject **fd_owners;       /* owned: the objects they come from, NULL for plain numbers */
    size_t fd_count;
    size_t fd_capacity;
    size_t owned_fd_count;      /* how many of fd_owners are not NULL */

    struct sockaddr_storage name;
} cmsgx_outgoing;

/* Such arrays on the stack, for a call that sends one message: large enough for most. */
#define CMSGX_STACK_BUFFERS 8
#define CMSGX_STACK_FDS 64

typedef struct {
    Py_buffer buffers[CMSGX_STACK_BUFFERS];
    struct iovec iov[CMSGX_STACK_BUFFERS];
    int fds[CMSGX_STACK_FDS];
    PyObject *fd_owners[CMSGX_STACK_FDS];
    unsigned char control[CMSG_SPACE(CMSGX_STACK_FDS * sizeof(int)) + CMSG_SPACE(64)]
        __attribute__((aligned(16)));
} cmsgx_outgoing_stack;

static inline cmsgx_outgoing_arrays
cmsgx_stack_arrays(cmsgx_outgoing_stack *stack)
{
    return (cmsgx_outgoing_arrays){
        stack->buffers, stack->iov, CMSGX_STACK_BUFFERS,
        stack->fds, stack->fd_owners, CMSGX_STACK_FDS,
        stack->control, sizeof(stack->control),
    };
}

void cmsgx_outgoing_init(cmsgx_outgoing *out, cmsgx_outgoing_arrays arrays, cmsgx_state *state,
                         cmsgx_sock *sock);
/* Releases all that it owns. */
void cmsgx_outgoing_clear(cmsgx_outgoing *out);

/* Makes it own nothing, without a release. */
static inline void
cmsgx_outgoing_empty(cmsgx_outgoing *out)
{
    out->buffers = out->initial.buffers;
    out->iov = out->initial.iov;
    out->buffer_count = 0;
    out->control = out->initial.control;
    out->control_used = 0;
    out->control_capacity = out->initial.control_capacity;
    out->fds = out->initial.fds;
    out->fd_owners = out->initial.fd_owners;
    out->fd_count = 0;
    out->fd_capacity = out->initial.fd_capacity;
    out->owned_fd_count = 0;
}

/* The number of bytes that the arrays of a copy need which is to be kept: arrays of `from` that are
   on the stack.  Those that were allocated move to the copy. */
size_t cmsgx_outgoing_kept_size(const cmsgx_outgoing *from);
/* Moves all of `from`, which has nothing left, to `to`, so that it can be kept; `memory` is for the
   arrays, of that size, and aligned like the objects of malloc(3).  `data` is the argument that the
   buffers come from: where it was only borrowed, it is owned now.  Cannot fail. */
void cmsgx_outgoing_move(cmsgx_outgoing *to, cmsgx_outgoing *from, PyObject *data, void *memory);

/* Each of these: 0, or -1 with an exception. */

/* One bytes-like object.  `is_held`: the caller keeps it alive until the call is over. */
int cmsgx_outgoing_add_buffer(cmsgx_outgoing *out, PyObject *buffer, int is_held);
/* An iterable of bytes-like objects.  `name` and `needed` are words of the TypeError: the argument,
   and what it should be. */
int cmsgx_outgoing_add_buffers(cmsgx_outgoing *out, PyObject *buffers, const char *name,
                               const char *needed);
/* Descriptors, which are collected until cmsgx_outgoing_add_rights() writes them to the control
   data: one object with fileno(), or an iterable.  `strict`: what cannot be a descriptor is refused
   here, with its index; otherwise that is left to the kernel, as the socket module does. */
int cmsgx_outgoing_add_fds(cmsgx_outgoing *out, PyObject *fds, int strict);
/* Descriptors as the bytes of an int[n], as from array('i'). */
int cmsgx_outgoing_add_fd_bytes(cmsgx_outgoing *out, PyObject *bytes);
/* The same from a list or a tuple, whose reference it steals, or NULL with an exception. */
int cmsgx_outgoing_add_listed_fds(cmsgx_outgoing *out, PyObject *sequence, int strict);
/* Writes one SCM_RIGHTS with the collected descriptors, starting at index `from`. */
int cmsgx_outgoing_add_rights(cmsgx_outgoing *out, size_t from);
/* The same for a control message that the user gave as bytes.  In a typed call, however, the
   descriptors of an SCM_RIGHTS are collected with the others, so that the same checks apply. */
int cmsgx_outgoing_add_payload(cmsgx_outgoing *out, int level, int type,
                               const Py_buffer *payload);

/* For cmsgx_outgoing_reserve(), where it does not fit: makes the control buffer larger. */
unsigned char *cmsgx_outgoing_grow_control(cmsgx_outgoing *out, size_t size);

/* Space for a control message with `size` bytes of data: where to write it, or NULL with an
   exception.  The caller adds what it wrote to control_used. */
static inline unsigned char *
cmsgx_outgoing_reserve(cmsgx_outgoing *out, size_t size)
{
    if (size < out->control_capacity
        && CMSG_SPACE(size) <= out->control_capacity - out->control_used) {
        return out->control + out->control_used;
    }
    return cmsgx_outgoing_grow_control(out, size);
}

/* Writes one control message. */
static inline int
cmsgx_outgoing_add_cmsg(cmsgx_outgoing *out, int level, int type, const void *data, size_t size)
{
    unsigned char *to = cmsgx_outgoing_reserve(out, size);
    if (to == NULL) {
        return -1;
    }
    out->control_used += cmsgx_put(to, level, type, data, size);
    return 0;
}

/* Writes the numbers of the descriptors, which have changed, to the control data again. */
static inline void
cmsgx_outgoing_renew_rights(cmsgx_outgoing *out)
{
    size_t size = out->fd_count * sizeof(*out->fds);
    memcpy(out->control + out->control_used - CMSG_SPACE(size) + CMSG_LEN(0), out->fds, size);
}

/* Makes msg point to all of it, ready for sendmsg(2). */
static inline void
cmsgx_outgoing_finish(cmsgx_outgoing *out)
{
    out->msg.msg_iov = out->iov;
    out->msg.msg_iovlen = (__typeof__(out->msg.msg_iovlen))out->buffer_count;
    if (out->control_used > 0) {
        out->msg.msg_control = out->control;
        out->msg.msg_controllen = (__typeof__(out->msg.msg_controllen))out->control_used;
    }
}
#endif
