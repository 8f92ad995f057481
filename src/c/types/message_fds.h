/* The descriptors of a message, as objects that are created on access. */

#ifndef CMSGX_MESSAGE_FDS_H
#define CMSGX_MESSAGE_FDS_H

#include "types/message.h"

/* Allocates `slots`, unless they exist already.  0, or -1 with MemoryError. */
int cmsgx_message_need_slots(cmsgx_message *self);

/* The number of descriptor `at`, for which no object was created; the message still owns it.  -1 if
   there is none; *error is then the errno that the kernel delivered in place of the descriptor, or
   0.  Always -1 if the message is closed: a number that is left in it then belongs to a thread that
   was closing it at the time of a fork, and has no owner in this process.  *error is set even
   then. */
int cmsgx_message_number(const cmsgx_message *self, size_t at, int *error);

/* The object for descriptor `at`, which owns the number from then on: a borrowed reference, or NULL
   with an exception. */
PyObject *cmsgx_message_object(cmsgx_message *self, size_t at);

/* msg.fds: a new reference. */
PyObject *cmsgx_message_fds_new(PyObject *message);

/* Frees the memory that is kept for the next one. */
void cmsgx_message_fds_free_all(cmsgx_state *state);

/* Adds the type to the module: 0, or -1 with an exception. */
int cmsgx_add_message_fds(PyObject *module);

#endif
