/* Message: what one receive call brought, and the owner of each descriptor in it.

   The heart of the library is in cmsgx_receive(): everything is allocated before recvmsg(2);
   after it the message owns each number, and nothing in between can fail, collect garbage or
   run Python code. */

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

/* Receives one message.  `buffer` is exclusively the caller's, and becomes the message's too.
   Returns a new Message; NULL with an exception, and then no descriptor is left open.  With
   CMSGX_ONE_TRY NULL without an exception where nothing is there. */
PyObject *cmsgx_receive(cmsgx_sock *sock, cmsgx_buffer *buffer, cmsgx_receive_config *config,
                        int flags);

/* Gives back the memory that is kept for the next ones, and keeps none from then on. */
void cmsgx_message_free_all(cmsgx_state *state);

/* For who closes many at once.  While a message is held (0: another thread has it),
   cmsgx_message_collect() ends its ownership: what was not taken stands in buffer->fds from then
   on, in as many places as it returns, -1 where there is none. */
int cmsgx_message_hold(PyObject *self);
size_t cmsgx_message_collect(PyObject *self);
void cmsgx_message_let_go(PyObject *self);

/* Closes what was not taken.  0, or -1 with RuntimeError where another thread uses it. */
int cmsgx_message_close(PyObject *self);

/* message_fds.c: the parts of Message that show descriptors.  cmsgx_message_object() is the object
   for one of them, which owns the number from then on: borrowed. */
PyObject *cmsgx_message_object(cmsgx_message *self, size_t at);
PyObject *cmsgx_message_fds_new(PyObject *message);
void cmsgx_message_fds_free_all(cmsgx_state *state);

/* Room to note in `slots` which were taken.  0, or -1 with MemoryError. */
int cmsgx_message_need_slots(cmsgx_message *self);

/* Of a place without an object: the number in it, still owned there, or -1, and the errno that came
   in place of one, or 0.  In a message that was closed the number is -1, or a thread was closing it
   when a fork made this process: then nobody owns it here.  The errno stays. */
int cmsgx_message_number(const cmsgx_message *self, size_t at, int *error);

/* message_take.c: the parts of Message that move descriptors out. */
PyObject *cmsgx_message_take(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *cmsgx_message_take_one(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames);
PyObject *cmsgx_message_take_all(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames);
PyObject *cmsgx_message_detach_all(PyObject *object, PyObject *ignored);

/* message_control.c: the parts of Message that find control messages. */
PyObject *cmsgx_message_subscript(PyObject *object, PyObject *kind);
PyObject *cmsgx_message_get(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_message_get_all(PyObject *object, PyObject *kind);
int cmsgx_message_contains(PyObject *object, PyObject *kind);
PyObject *cmsgx_message_control(PyObject *object, void *closure);
PyObject *cmsgx_message_iter(PyObject *object);

/* A Message of what arrived in `buffer`, which owns its descriptors from then on; NULL with an
   exception, and then the buffer still has them. */
PyObject *cmsgx_message_new(cmsgx_state *state, cmsgx_buffer *buffer, cmsgx_receive_config *config);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_message(PyObject *module);

#endif
