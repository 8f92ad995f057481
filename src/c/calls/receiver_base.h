/* The common part of Receiver and BatchReceiver: the socket, the settings, the step of a loop. */

#ifndef CMSGX_RECEIVER_BASE_H
#define CMSGX_RECEIVER_BASE_H

#include "arguments.h"
#include "calls/sock.h"
#include "errors.h"
#include "types/receive_config.h"

/* The first member of both. */
typedef struct {
    PyObject_HEAD
    cmsgx_busy busy;
    cmsgx_state *state;
    PyObject *sock;             /* owned */
    cmsgx_receive_config *config;   /* owned use */
    size_t size;                /* maximum number of bytes of data for each message */
    PyObject *last;             /* owned: the result of the previous step of a loop */
    PyObject *asked;            /* owned: what Python was asked for, and keeps here; or NULL */
    PyObject *noted;            /* owned list: the options that were set; NULL before _open() */
    unsigned long generation;   /* of the process that set them */
    char is_open;               /* _open() was called */
} cmsgx_receiver_base;

/* tp_new. */
PyObject *cmsgx_receiver_make(PyTypeObject *type, PyObject *args, PyObject *kwargs);

/* _configure(): applies a ReceiveConfig to the calls from now on.  `renew` replaces the buffers
   that were made for the previous one, while the receiver is marked as in use. */
PyObject *cmsgx_receiver_configure(PyObject *object, PyObject *given, void (*renew)(PyObject *));

/* The rest of _open(), once the receiver has its socket.  `args` are those from `known` on; see its
   docstring. */
#define CMSGX_OPEN_ARGS 5
PyObject *cmsgx_receiver_open(PyObject *object, PyObject *const *args, void (*renew)(PyObject *));

/* What a receiver has for the Python class that derives from it. */
#define CMSGX_RECEIVER_MEMBERS(type) \
    {"_opened", Py_T_BOOL, offsetof(type, base.is_open), Py_READONLY, \
     "Whether _open() was called."}, \
    {"_asked", Py_T_OBJECT_EX, offsetof(type, base.asked), 0, "What it was asked for."}, \
    {"_before", Py_T_OBJECT_EX, offsetof(type, base.noted), Py_READONLY, \
     "The options that were set, as Options.set() notes them."}, \
    {"_generation", Py_T_ULONG, offsetof(type, base.generation), Py_READONLY, \
     "The generation() in which they were set."}

int cmsgx_receiver_traverse(PyObject *object, visitproc visit, void *arg);
void cmsgx_receiver_clear(cmsgx_receiver_base *self);

/* ValueError for a receiver whose __init__() was never called. */
PyObject *cmsgx_raise_not_initialised(const char *name);

/* What is_end() returns: True for 1, NULL with the OSError of a negative errno, otherwise False. */
PyObject *cmsgx_receiver_tell(int is_end);

/* The first step of each call, once the receiver is marked as in use: sets *sock to the socket, and
   adds its own flags to *flags.  With `once` it makes only one try, as for CMSGX_ONE_TRY.  0, or -1
   with an exception.  Inline, because it is on the fastest path. */
static inline __attribute__((always_inline)) int
cmsgx_receiver_begin(const cmsgx_receiver_base *self, const char *name, PyObject *timeout,
                     int once, int *flags, cmsgx_sock *sock)
{
    if (self->config == NULL || self->sock == NULL) {
        cmsgx_raise_not_initialised(name);
        return -1;
    }
    if (cmsgx_sock_resolve_typed(self->state, self->sock, CMSGX_RECEIVING, sock) < 0
        || (timeout != NULL && cmsgx_sock_set_timeout(sock, timeout) < 0)
        || cmsgx_check_peek(self->config->fds, *flags) < 0) {
        return -1;
    }
    *flags |= self->config->flags;
    if (once) {
        *flags |= MSG_DONTWAIT;
        sock->timeout = CMSGX_ONE_TRY;
    }
    return 0;
}

/* tp_iternext, one step of a loop: closes the result of the previous step, and receives the next.
   `receive` sets *is_end to whether that is only the end of the stream,
   as cmsgx_has_hung_up() says it, but with a negative errno.  The loop stops at CMSGX_BYTES_LEFT
   too.  Inlined together with both functions. */
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
        /* Released before the next receive, so that its buffers may be reused. */
        Py_CLEAR(self->last);
        next = receive(object, &is_end);
    }
    if (next != NULL && is_end != 0) {
        (void)close(next);
        Py_CLEAR(next);
        if (is_end < 0) {
            (void)cmsgx_receiver_tell(is_end);
        }
    }
    if (next != NULL) {
        self->last = Py_NewRef(next);
    }
    cmsgx_leave(&self->busy);
    return next;
}

#endif
