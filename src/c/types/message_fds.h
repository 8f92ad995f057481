/* The descriptors of a message: objects that are made when they are asked for. */

#ifndef CMSGX_MESSAGE_FDS_H
#define CMSGX_MESSAGE_FDS_H

#include "types/message.h"

/* Room to note in `slots` which were taken.  0, or -1 with MemoryError. */
int cmsgx_message_need_slots(cmsgx_message *self);

/* Of a place without an object: the number in it, still owned there, or -1, and the errno that came
   in place of one, or 0.  In a message that was closed the number is -1, or a thread was closing it
   when a fork made this process: then nobody owns it here.  The errno stays. */
int cmsgx_message_number(const cmsgx_message *self, size_t at, int *error);

/* The object for a descriptor of the message, which owns the number from then on: borrowed. */
PyObject *cmsgx_message_object(cmsgx_message *self, size_t at);

/* msg.fds: a new reference. */
PyObject *cmsgx_message_fds_new(PyObject *message);

/* Gives back the memory that is kept for the next one. */
void cmsgx_message_fds_free_all(cmsgx_state *state);

/* Adds the type to the module: 0, or -1 with an exception. */
int cmsgx_add_message_fds(PyObject *module);

#endif
