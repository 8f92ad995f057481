/* The loop around a system call that may have to wait: EINTR, EAGAIN, one deadline, and pins on
   what the call uses. */

#ifndef CMSGX_WAIT_H
#define CMSGX_WAIT_H

#include "calls/sock.h"

#include "plain/poll.h"

#include <errno.h>

/* What a send borrows: its Fds are pinned during each try, never during a wait.  The socket
   itself, if it is an Fd, is pinned during both. */
typedef struct {
    PyTypeObject *type;     /* FdBase */
    PyObject **objects;     /* borrowed; NULL for a plain number */
    size_t count;
} cmsgx_pins;

/* wait_for(sock, events, timeout, rounds, /), for loops in Python that try and wait in turn. */
PyObject *cmsgx_wait_for_object(PyObject *module, PyObject *args);

typedef ssize_t (*cmsgx_try)(int fd, void *context, int flags);

/* Sets the deadline of a call: its timeout from now, unless that was set before.  For a call of
   several steps, which have the time together; otherwise it is set before the first wait. */
void cmsgx_start_clock(cmsgx_sock *sock);

/* The steps of cmsgx_call() that are not on the hot path. */
int cmsgx_before_try(cmsgx_sock *sock, const cmsgx_pins *pins, int *error);
void cmsgx_after_try(cmsgx_sock *sock, const cmsgx_pins *pins);
/* 0: try again; -1 with an exception. */
int cmsgx_after_failure(cmsgx_sock *sock, int events, int failed, int *rounds, int *error);

/* Calls `attempt`, without the GIL, until it succeeds or fails for good.  For a socket with a
   timeout each try has MSG_DONTWAIT, and poll(2) is called only after EAGAIN.  The descriptor is
   read again before each try.  EINTR is retried: PEP 475.

   Returns the result, or -1 with an exception.  *error_out (may be NULL) is then the errno of the
   call, ETIMEDOUT if time is up, or 0 if the exception is not an OSError of the call.  With
   CMSGX_ONE_TRY, EAGAIN is reported without an exception.

   Inline, and `attempt` with it: on a kernel that guards its returns, each return after a system
   call is mispredicted, so that each level of the stack costs about 8 ns. */
static inline __attribute__((always_inline)) ssize_t
cmsgx_call(cmsgx_sock *sock, int events, cmsgx_try attempt, void *context, int flags,
           const cmsgx_pins *pins, int *error_out)
{
    int rounds = 0, ignored;
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
        if (cmsgx_after_failure(sock, events, failed, &rounds, error) < 0) {
            return -1;
        }
    } while (1);
}

#endif
