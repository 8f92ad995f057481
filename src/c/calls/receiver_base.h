/* What Receiver and BatchReceiver share: the socket, the configuration, the step of a loop. */

#ifndef CMSGX_RECEIVER_BASE_H
#define CMSGX_RECEIVER_BASE_H

#include "arguments.h"
#include "calls/sock.h"
#include "errors.h"
#include "types/receive_config.h"

/* The head of both. */
typedef struct {
    PyObject_HEAD
    cmsgx_busy busy;
    cmsgx_state *state;
    PyObject *sock;             /* owned */
    cmsgx_receive_config *config;   /* owned use */
    size_t size;                /* bytes of data for each message at most */
    PyObject *last;             /* owned: what the previous step of a loop returned */
} cmsgx_receiver_base;

/* tp_new. */
PyObject *cmsgx_receiver_make(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* _configure(): takes a ReceiveConfig for the calls from now on.  `renew` replaces what was made
   for the previous one, while the receiver is marked as in use. */
PyObject *cmsgx_receiver_configure(PyObject *object, PyObject *given, void (*renew)(PyObject *));

int cmsgx_receiver_traverse(PyObject *object, visitproc visit, void *arg);
void cmsgx_receiver_clear(cmsgx_receiver_base *self);

/* ValueError for one whose __init__() was never called. */
PyObject *cmsgx_raise_not_initialised(const char *name);

/* What each call begins with, once the receiver is marked as in use: *sock is what it receives
   from.  0, or -1 with an exception.  Inline, as it is on the fastest path. */
static inline __attribute__((always_inline)) int
cmsgx_receiver_begin(const cmsgx_receiver_base *self, const char *name, PyObject *timeout,
                     int flags, cmsgx_sock *sock)
{
    if (self->config == NULL || self->sock == NULL) {
        cmsgx_raise_not_initialised(name);
        return -1;
    }
    if (cmsgx_sock_resolve_typed(self->state, self->sock, CMSGX_RECEIVING, sock) < 0
        || (timeout != NULL && cmsgx_sock_set_timeout(sock, timeout) < 0)
        || cmsgx_check_peek(self->config->fds, flags) < 0) {
        return -1;
    }
    return 0;
}

/* tp_iternext, the step of a loop: closes what is left of the previous one, and receives the next.
   `receive` says in *is_end whether that is just the end: 1, 0, or a negative errno where it cannot
   be told.  Inline, and both functions with it. */
static inline __attribute__((always_inline)) PyObject *
cmsgx_receiver_next(PyObject *object, int (*close)(PyObject *),
                    PyObject *(*receive)(PyObject *, int *is_end))
{
    cmsgx_receiver_base *self = (cmsgx_receiver_base *)object;
    PyObject *next = NULL;
    int is_end = 0;

    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    if (self->last == NULL || close(self->last) == 0) {
        /* Gone before the next is received, so that its buffers may be free. */
        Py_CLEAR(self->last);
        next = receive(object, &is_end);
    }
    if (next != NULL && is_end != 0) {
        (void)close(next);
        Py_CLEAR(next);
        if (is_end < 0) {
            cmsgx_raise_no_end(-is_end);
        }
    }
    if (next != NULL) {
        self->last = Py_NewRef(next);
    }
    cmsgx_leave(&self->busy);
    return next;
}

#endif
