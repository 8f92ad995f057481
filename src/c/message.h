/* Message: what one receive call brought, and the owner of each descriptor in it.

   The heart of the library is in cmsgx_receive(): everything is allocated before recvmsg(2);
   after it the message owns each number, and nothing in between can fail, collect garbage or
   run Python code. */

#ifndef CMSGX_MESSAGE_H
#define CMSGX_MESSAGE_H

#include "buffer.h"
#include "sock.h"

/* What a receiver was asked for: shared, unchanging, one for each configuration. */
typedef struct {
    cmsgx_count users;
    cmsgx_state *state;     /* borrowed: who has a request has an object of the module */
    size_t fds;             /* descriptors asked for */
    size_t control_size;    /* room given to the kernel */
    int family;             /* AF_*, -1 unknown */
    int type;               /* SOCK_*, -1: asked of the kernel when it matters */
    int raise_truncated;
    int in_background;      /* descriptors are closed by the background closer */
    int takes_pidfd;        /* PidFd was asked for, or the call takes what comes */
    int asked_pidfd;        /* PidFd was asked for */
    PyObject *want;         /* owned: tuple of kinds that were switched on, or NULL: unknown */
} cmsgx_request;

cmsgx_request *cmsgx_request_new(cmsgx_state *state);
void cmsgx_request_release(cmsgx_request *request);

/* A descriptor that was given out as an object, or not yet. */
typedef struct {
    PyObject *object;       /* owned, or NULL: then the number is in buffer->fds */
    int taken;              /* the caller owns it */
} cmsgx_slot;

#define CMSGX_INLINE_SLOTS 4

typedef struct {
    PyObject_HEAD
    cmsgx_busy busy;
    cmsgx_flag closed;
    char truncated;
    char eof;               /* 0, 1, or 2: cannot be told */
    char malformed;
    char is_table_full;
    int flags;              /* msg_flags, without what we added */
    size_t nbytes;
    size_t fds;             /* kept: buffer->fds[0 .. fds) */
    size_t pidfds;          /* buffer->fds[fds .. fds + pidfds): 0 or 1 */
    Py_ssize_t closed_fds;  /* -1: the kernel dropped some, uncounted */
    cmsgx_buffer *buffer;   /* owned use */
    cmsgx_request *request; /* owned use */
    PyObject *data;         /* owned, made on first use */
    PyObject *address;      /* owned, made on first use */
    cmsgx_slot *slots;      /* NULL until an object is asked for */
    cmsgx_slot inline_slots[CMSGX_INLINE_SLOTS + 1];
} cmsgx_message;

/* Receives one message.  `buffer` is exclusively the caller's, and becomes the message's too.
   Returns a new Message; NULL with an exception, and then no descriptor is left open. */
PyObject *cmsgx_receive(cmsgx_sock *sock, cmsgx_buffer *buffer, cmsgx_request *request,
                        int flags);

/* Closes what was not taken.  0, or -1 with RuntimeError where another thread uses it. */
int cmsgx_message_close(PyObject *self);

/* descriptors.c: the parts of Message that hand descriptors out.  cmsgx_message_object() is the
   object for one of them, which owns the number from then on: borrowed. */
PyObject *cmsgx_message_object(cmsgx_message *self, size_t at);
PyObject *cmsgx_message_take(PyObject *object, PyObject *which);
PyObject *cmsgx_message_take_all(PyObject *object, PyObject *ignored);
PyObject *cmsgx_descriptors_new(PyObject *message);

/* lookup.c: the parts of Message that find control messages. */
PyObject *cmsgx_message_subscript(PyObject *object, PyObject *kind);
PyObject *cmsgx_message_get(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_message_get_all(PyObject *object, PyObject *kind);
int cmsgx_message_contains(PyObject *object, PyObject *kind);
PyObject *cmsgx_message_control(PyObject *object, void *closure);
PyObject *cmsgx_message_iter(PyObject *object);

/* Gives up the GIL to close; or hands over to the background closer. */
void cmsgx_close_numbers(cmsgx_state *state, int *fds, size_t count, int in_background);

#endif
