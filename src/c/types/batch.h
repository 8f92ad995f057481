/* Batch: what one receive call brought for a BatchReceiver, a sequence of Messages that are made
   when they are looked at.  Until then the batch owns what arrived. */

#ifndef CMSGX_BATCH_H
#define CMSGX_BATCH_H

#include "types/received.h"

/* Room for `count` messages, none in it yet: a new reference. */
PyObject *cmsgx_batch_new(cmsgx_receive_config *config, size_t count);

/* Adds what arrived in `buffer`, which the batch owns from then on, with its descriptors.  Cannot
   fail; not more often than there is room. */
void cmsgx_batch_add(PyObject *batch, cmsgx_buffer *buffer);

/* Closes what was not taken out of any message.  0, or -1 with RuntimeError where another thread
   uses it. */
int cmsgx_batch_close(PyObject *batch);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_batch(PyObject *module);

#endif
