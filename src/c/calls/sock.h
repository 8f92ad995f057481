/* Which descriptor a `sock` argument stands for, how long its calls may wait, and the loop
   around a system call: EINTR, EAGAIN, one deadline. */

#ifndef CMSGX_SOCK_H
#define CMSGX_SOCK_H

/* First, as it brings Python.h. */
#include "calls/overrides.h"

#include "plain/poll.h"

#include <errno.h>

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

/* What a send borrows: its Descriptors are pinned for each try, never across a wait.  The socket
   itself, where it is an Fd, is pinned for both. */
typedef struct {
    PyTypeObject *type;     /* Descriptor */
    PyObject **objects;     /* borrowed; NULL for a plain number */
    size_t count;
} cmsgx_pins;

/* wait_for(sock, events, timeout, rounds, /), for loops in Python that try and wait by turns. */
PyObject *cmsgx_wait_for_object(PyObject *module, PyObject *args);

typedef ssize_t (*cmsgx_try)(int fd, void *context, int flags);

/* Where the socket object keeps it: only where state->socket_fd_known. */
static inline int
cmsgx_kept_number(const cmsgx_sock *sock)
{
    return __atomic_load_n((const int *)(const void *)((const char *)sock->object
                                                       + sock->state->socket_fd_at),
                           __ATOMIC_RELAXED);
}

/* The steps of cmsgx_call() that are no system call of the hot path. */
int cmsgx_before_try(cmsgx_sock *sock, const cmsgx_pins *pins, int *error);
void cmsgx_after_try(cmsgx_sock *sock, const cmsgx_pins *pins);
/* 0: try again; -1 with an exception. */
int cmsgx_after_failure(cmsgx_sock *sock, int events, int failed, cmsgx_wait *wait, int *error);

/* Calls `attempt` until it succeeds or fails for good, without the GIL.  For a socket with a
   timeout each try carries MSG_DONTWAIT, and poll(2) waits only after EAGAIN.  The descriptor
   is read again before each try.  PEP 475.  The result, or -1 with an exception; *error (may
   be NULL) then has the errno, ETIMEDOUT where time is up, or 0 where it is no OSError of the call.
   With CMSGX_ONE_TRY, EAGAIN comes without an exception.

   Inline, and `attempt` with it: behind a system call each return is mispredicted where the
   kernel guards its own returns, so what is on the stack there costs some 8 ns a level. */
static inline __attribute__((always_inline)) ssize_t
cmsgx_call(cmsgx_sock *sock, int events, cmsgx_try attempt, void *context, int flags,
           const cmsgx_pins *pins, int *error_out)
{
    cmsgx_wait wait = {0, 0};
    int ignored;
    int *error = error_out != NULL ? error_out : &ignored;

    if (sock->timeout >= 0) {
        flags |= MSG_DONTWAIT;
    }
    do {
        if (sock->kind == CMSGX_SOCKET && cmsgx_flag_get(&sock->state->socket_fd_known)
            && (pins == NULL || pins->count == 0)) {
            *error = 0;
            sock->fd = cmsgx_kept_number(sock);
        }
        else if (cmsgx_before_try(sock, pins, error) < 0) {
            return -1;
        }
        ssize_t result;
        int failed = 0;
        /* The caller's stack and buffers keep every pointer in `context` alive. */
        Py_BEGIN_ALLOW_THREADS
        result = attempt(sock->fd, context, flags);
        if (result < 0) {
            failed = errno;
        }
        Py_END_ALLOW_THREADS
        if (sock->owner != NULL || (pins != NULL && pins->count > 0)) {
            cmsgx_after_try(sock, pins);
        }
        if (result >= 0) {
            return result;
        }
        if (cmsgx_after_failure(sock, events, failed, &wait, error) < 0) {
            return -1;
        }
    } while (1);
}

#endif
