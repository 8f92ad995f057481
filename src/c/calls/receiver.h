/* Receiver: receives many messages with the same buffers and settings. */

#ifndef CMSGX_RECEIVER_H
#define CMSGX_RECEIVER_H

#include "state.h"

/* Adds the type to the module: 0, or -1 with an exception. */
int cmsgx_add_receiver(PyObject *module);

#endif
