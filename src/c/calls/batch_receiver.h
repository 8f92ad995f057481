/* BatchReceiver: receives many messages with one system call, recvmmsg(2). */

#ifndef CMSGX_BATCH_RECEIVER_H
#define CMSGX_BATCH_RECEIVER_H

#include "state.h"

/* Adds the type to the module: 0, or -1 with an exception. */
int cmsgx_add_batch_receiver(PyObject *module);

#endif
