/* Batch: the result of one receive of a BatchReceiver, a sequence of Messages that are created on
   access.  Until then the batch owns the descriptors. */

#ifndef CMSGX_BATCH_H
#define CMSGX_BATCH_H

#include "types/received.h"

/* An empty batch with a capacity of `count` messages: a new reference. */
PyObject *cmsgx_batch_new(cmsgx_receive_config *config, size_t count);

/* Adds the message in `buffer`; the batch owns its descriptors from then on.  Cannot fail.  The
   batch must have capacity for it. */
void cmsgx_batch_add(PyObject *batch, cmsgx_buffer *buffer);

/* Whether the batch is only the end of the stream, as was found when it was received; as
   cmsgx_receiver_next() needs it. */
void cmsgx_batch_set_end(PyObject *batch, int is_end);
int cmsgx_batch_is_end(PyObject *batch);

/* Closes the descriptors that were not taken.  0, or -1 with RuntimeError if another thread uses
   the batch or one of its messages. */
int cmsgx_batch_close(PyObject *batch);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_batch(PyObject *module);

#endif
