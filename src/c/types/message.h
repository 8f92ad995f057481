/* Message: what one receive call brought, and the owner of each descriptor in it. */

#ifndef CMSGX_MESSAGE_H
#define CMSGX_MESSAGE_H

#include "types/received.h"

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
    char is_traced;         /* as its config */
    cmsgx_buffer *buffer;   /* owned use: what came, and the numbers of its descriptors */
    cmsgx_receive_config *config; /* owned use */
    PyObject *data;         /* owned, made on first use */
    PyObject *address;      /* owned, made on first use */
    cmsgx_slot *slots;      /* NULL until an object is asked for */
    cmsgx_slot inline_slots[CMSGX_INLINE_SLOTS + 1];
} cmsgx_message;

/* Gives back the memory that is kept for the next ones, and keeps none from then on. */
void cmsgx_message_free_all(cmsgx_state *state);

/* For who closes many at once.  While a message is held (0: another thread has it),
   cmsgx_message_collect() ends its ownership: what was not taken stands in buffer->fds from then
   on, in as many places as it returns, -1 where there is none. */
int cmsgx_message_hold(PyObject *self);
size_t cmsgx_message_collect(PyObject *self);
void cmsgx_message_let_go(PyObject *self);

/* Closes what was not taken, of a message that the caller holds. */
void cmsgx_message_close_rest(cmsgx_message *self);

/* Closes what was not taken.  0, or -1 with RuntimeError where another thread uses it. */
int cmsgx_message_close(PyObject *self);

/* A Message of what arrived in `buffer`, which owns its descriptors from then on; NULL with an
   exception, and then the buffer still has them.  Inline, as each receive makes one. */
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
    /* One by one: gcc makes a slow `rep stos` of a memset of this size. */
    self->busy = 0;
    self->closed = 0;
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

/* For the type. */
int cmsgx_message_traverse(PyObject *object, visitproc visit, void *arg);
void cmsgx_message_dealloc(PyObject *object);

#endif
