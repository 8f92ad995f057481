/* Message: the result of one receive call, and the owner of its descriptors. */

#ifndef CMSGX_MESSAGE_H
#define CMSGX_MESSAGE_H

#include "types/received.h"

/* One descriptor of a message, which may have been handed out as an object. */
typedef struct {
    PyObject *object;       /* owned, or NULL: then the number is in buffer->fds */
    int taken;              /* the caller owns it */
} cmsgx_slot;

#define CMSGX_INLINE_SLOTS 4

typedef struct {
    PyObject_HEAD
    cmsgx_busy busy;
    cmsgx_flag closed;
    cmsgx_flag viewed;      /* there is or was a View of the data, or Segments */
    char is_traced;         /* copied from its config */
    cmsgx_buffer *buffer;   /* owned use: the received data and descriptor numbers */
    cmsgx_receive_config *config; /* owned use */
    PyObject *data;         /* owned, made on first use */
    PyObject *address;      /* owned, made on first use */
    cmsgx_slot *slots;      /* NULL until an object is needed */
    cmsgx_slot inline_slots[CMSGX_INLINE_SLOTS + 1];
} cmsgx_message;

/* Frees the memory that is kept for new messages, and keeps none from then on. */
void cmsgx_message_free_all(cmsgx_state *state);

/* For callers that close the descriptors of many messages at once.  cmsgx_message_hold() returns 0
   if another thread uses the message.  While it is held, cmsgx_message_collect() ends its
   ownership, and returns the number of elements of buffer->fds that then contain the descriptors
   which were not taken, or -1 in place of one that was. */
int cmsgx_message_hold(PyObject *self);
size_t cmsgx_message_collect(PyObject *self);
void cmsgx_message_let_go(PyObject *self);

/* Closes the descriptors that were not taken from a message that the caller holds. */
void cmsgx_message_close_rest(cmsgx_message *self);

/* Closes the descriptors that were not taken.  0, or -1 with RuntimeError if another thread uses
   the message. */
int cmsgx_message_close(PyObject *self);

/* A Message of the data in `buffer`, which owns the descriptors in it from then on: a new
   reference.  NULL with an exception, and then the buffer still has the descriptors.  Inline,
   because every receive creates one. */
static inline __attribute__((always_inline)) PyObject *
cmsgx_message_new(cmsgx_state *state, cmsgx_buffer *buffer, cmsgx_receive_config *config)
{
    cmsgx_message *self;
#if CMSGX_FREE_LIST
    if (state->free_messages != NULL) {
        self = (cmsgx_message *)state->free_messages;
        state->free_messages = self->data;
        state->free_message_count--;
        (void)PyObject_INIT(self, state->Message);
    }
    else
#endif
    {
        self = PyObject_GC_New(cmsgx_message, state->Message);
        if (self == NULL) {
            return NULL;
        }
    }
    /* One by one, because gcc turns a memset of this size into a slow `rep stos`. */
    self->busy = 0;
    self->closed = self->viewed = 0;
    self->buffer = cmsgx_buffer_share(buffer);
    self->config = cmsgx_receive_config_share(config);
    self->data = self->address = NULL;
    self->slots = NULL;
    self->is_traced = config->is_traced != 0;
    if (self->is_traced) {
        Py_XINCREF(buffer->into);
        PyObject_GC_Track(self);
    }
    return (PyObject *)self;
}

/* Slots of the type. */
int cmsgx_message_traverse(PyObject *object, visitproc visit, void *arg);
void cmsgx_message_dealloc(PyObject *object);

#endif
