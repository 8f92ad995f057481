/* Which descriptor a `sock` argument stands for, how long its calls may wait, and the loop
   around a system call: EINTR, EAGAIN, one deadline. */

#ifndef CMSGX_SOCK_H
#define CMSGX_SOCK_H

/* First, as it brings Python.h. */
#include "calls/overrides.h"

typedef enum {
    CMSGX_SOCKET,           /* a socket.socket, or of a class below */
    CMSGX_NUMBER,           /* an int, or an object with just a fileno() */
    CMSGX_GREEN,            /* the same, for which nothing may wait: see overrides.h */
} cmsgx_sock_kind;

/* Without a limit, and so without MSG_DONTWAIT: where the descriptor is non-blocking all the
   same, EAGAIN is raised, as in socket; or, where no limit was asked for, waited for. */
#define CMSGX_BLOCKING (-1)
#define CMSGX_FOR_EVER (-2)
/* One try, with MSG_DONTWAIT among its flags.  Where it would have to wait, what tries fails with
   EAGAIN and without an exception, which costs more than the system call. */
#define CMSGX_ONE_TRY (-3)

typedef struct {
    cmsgx_state *state;
    PyObject *object;       /* borrowed */
    PyObject *owner;        /* borrowed: the Descriptor to pin, or NULL */
    cmsgx_sock_kind kind;
    int fd;
    int family;             /* of what is no socket object, once asked; -1: not yet */
    int type;
    int64_t timeout;        /* nanoseconds, or one of these */
} cmsgx_sock;

/* Looks at `object`, whatever methods it has: overrides.h says who asks for those.  0, or -1 with
   an exception. */
int cmsgx_sock_resolve(cmsgx_state *state, PyObject *object, cmsgx_sock *sock);

/* The same for a typed call, with TypeError where it would pass over one of `names`:
   CMSGX_SENDING or CMSGX_RECEIVING. */
int cmsgx_sock_resolve_typed(cmsgx_state *state, PyObject *object, int names, cmsgx_sock *sock);

/* Reads a `timeout=` argument (None, or seconds) over the socket's own; NULL keeps that. */
int cmsgx_sock_set_timeout(cmsgx_sock *sock, PyObject *timeout);

/* Reads a `timeout` (None, or seconds): nanoseconds, `unlimited` for None.  0, or -1 with an
   exception. */
int cmsgx_as_timeout(PyObject *value, int64_t unlimited, int64_t *timeout);

/* The number, for no system call: it may be another file's.  -1 where it is closed. */
int cmsgx_sock_number(const cmsgx_sock *sock);

/* For a system call outside cmsgx_call(): its descriptor as it is now, that of an Fd pinned until
   it is given back; -1, and nothing to give back, where it is closed. */
int cmsgx_sock_borrow(const cmsgx_sock *sock);
void cmsgx_sock_give_back(const cmsgx_sock *sock);

/* A member of a socket object that was found to be a Py_T_INT, at the place that its class
   declares. */
static inline int
cmsgx_sock_value(const cmsgx_sock *sock, const PyMemberDef *member)
{
    int value;
    memcpy(&value, (const char *)sock->object + member->offset, sizeof(value));
    return value;
}

/* AF_* and SOCK_* of the socket: from the object, or asked of the kernel, once.  -1 where
   unknown. */
int cmsgx_sock_family(cmsgx_sock *sock);
int cmsgx_sock_type(cmsgx_sock *sock);
/* Its protocol, the same way, without being kept. */
int cmsgx_sock_proto(const cmsgx_sock *sock);

/* Asked of what the last try was made on, or what was resolved: an Fd is pinned, and counts as
   closed where it was closed since; of a socket object or an int the number is believed, as in
   socket. */
int cmsgx_sock_is_open(const cmsgx_sock *sock);
int cmsgx_sock_has_hung_up(const cmsgx_sock *sock);     /* as cmsgx_has_hung_up() */
int cmsgx_sock_is_table_full(const cmsgx_sock *sock);   /* no descriptor more can be made here */

/* Where the socket object keeps it: only where state->socket_fd_known. */
static inline int
cmsgx_kept_number(const cmsgx_sock *sock)
{
    return __atomic_load_n((const int *)(const void *)((const char *)sock->object
                                                       + sock->state->socket_fd_at),
                           __ATOMIC_RELAXED);
}

/* Calls fileno(), as long as it is not known where the object keeps its number. */
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
