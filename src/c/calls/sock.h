/* Which descriptor a `sock` argument stands for, its family and type, and how long its calls may
   wait. */

#ifndef CMSGX_SOCK_H
#define CMSGX_SOCK_H

/* First, as it includes Python.h. */
#include "calls/overrides.h"

typedef enum {
    CMSGX_SOCKET,           /* a socket.socket, or of a subclass */
    CMSGX_NUMBER,           /* an int, or another object with a fileno() */
    CMSGX_GREEN,            /* the same, but C must not wait for it: see overrides.h */
} cmsgx_sock_kind;

/* BLOCKING: no timeout; EAGAIN, which means that the descriptor is non-blocking, is raised, as in
   socket.  FOR_EVER: `timeout=None` was given; EAGAIN is waited for, without a deadline.  Neither
   adds MSG_DONTWAIT. */
#define CMSGX_BLOCKING (-1)
#define CMSGX_FOR_EVER (-2)
/* One try, whose flags include MSG_DONTWAIT.  If it would have to wait, it fails with EAGAIN and
   without an exception, which would cost more than the system call. */
#define CMSGX_ONE_TRY (-3)

typedef struct {
    cmsgx_state *state;
    PyObject *object;       /* borrowed */
    PyObject *owner;        /* borrowed: the FdBase to pin, or NULL */
    cmsgx_sock_kind kind;
    int fd;
    int family;             /* not of a socket object: asked of the kernel; -1: not yet */
    int type;
    int64_t timeout;        /* nanoseconds, or one of these */
    int64_t deadline;       /* of all tries together; 0: not set yet, see cmsgx_start_clock() */
} cmsgx_sock;

/* Looks at `object`, whatever methods it overrides: overrides.h says who asks about those.  0, or
   -1 with an exception. */
int cmsgx_sock_resolve(cmsgx_state *state, PyObject *object, cmsgx_sock *sock);

/* The same for a typed call: TypeError if it would bypass a method among `names`, CMSGX_SENDING or
   CMSGX_RECEIVING, that the object overrides. */
int cmsgx_sock_resolve_typed(cmsgx_state *state, PyObject *object, int names, cmsgx_sock *sock);

/* Replaces the socket's own timeout by a `timeout=` argument, None or seconds; NULL keeps it. */
int cmsgx_sock_set_timeout(cmsgx_sock *sock, PyObject *timeout);

/* Reads a `timeout` (None, or seconds): nanoseconds, `unlimited` for None.  0, or -1 with an
   exception. */
int cmsgx_as_timeout(PyObject *value, int64_t unlimited, int64_t *timeout);

/* The number, not for system calls, as it may be another file's by then.  -1 if it is closed. */
int cmsgx_sock_number(const cmsgx_sock *sock);

/* For a system call outside of cmsgx_call(): the current descriptor, pinned until it is given back
   if it is an Fd's; -1, and nothing to give back, if it is closed. */
int cmsgx_sock_borrow(const cmsgx_sock *sock);
void cmsgx_sock_give_back(const cmsgx_sock *sock);

/* An int member of a socket object, read where the class declares it. */
static inline int
cmsgx_sock_value(const cmsgx_sock *sock, const PyMemberDef *member)
{
    int value;
    memcpy(&value, (const char *)sock->object + member->offset, sizeof(value));
    return value;
}

/* AF_* and SOCK_* of the socket: from the object, or from the kernel, which is asked once.  -1 if
   unknown. */
int cmsgx_sock_family(cmsgx_sock *sock);
int cmsgx_sock_type(cmsgx_sock *sock);
/* Its protocol; the kernel is asked each time. */
int cmsgx_sock_proto(const cmsgx_sock *sock);

/* About the descriptor of the last try, or the one that was resolved.  An Fd is pinned, and counts
   as closed if it was closed since; the number of a socket object or an int is trusted, as in
   socket. */
int cmsgx_sock_is_open(const cmsgx_sock *sock);
int cmsgx_sock_has_hung_up(const cmsgx_sock *sock);     /* as cmsgx_has_hung_up() */
int cmsgx_sock_is_table_full(const cmsgx_sock *sock);   /* EMFILE for any new descriptor */

/* The number in the socket object itself; only if state->socket_fd_known. */
static inline int
cmsgx_kept_number(const cmsgx_sock *sock)
{
    return __atomic_load_n((const int *)(const void *)((const char *)sock->object
                                                       + sock->state->socket_fd_at),
                           __ATOMIC_RELAXED);
}

/* The slow half of the next one: calls fileno() while it is unknown where the number is kept. */
int cmsgx_sock_ask_number(cmsgx_sock *sock);

/* Sets sock->fd to the number that a socket object has now: -1 if it is closed, as in socket, and
   the kernel says EBADF.  0, or -1 with an exception. */
static inline int
cmsgx_sock_read_number(cmsgx_sock *sock)
{
    if (!cmsgx_flag_get(&sock->state->socket_fd_known)) {
        return cmsgx_sock_ask_number(sock);
    }
    sock->fd = cmsgx_kept_number(sock);
    return 0;
}

#endif
