/* What Python code sees of the background closer. */

#ifndef CMSGX_BACKGROUND_H
#define CMSGX_BACKGROUND_H

#include "calls/wait.h"
#include "types/received.h"

PyObject *cmsgx_closer_submit(PyObject *module, PyObject *descriptor);
PyObject *cmsgx_closer_wait_for(PyObject *module, PyObject *seconds);
PyObject *cmsgx_closer_counts(PyObject *module, PyObject *ignored);
PyObject *cmsgx_closer_resume_all(PyObject *module, PyObject *ignored);

/* Before `count` messages are received in the background: waits for room in the closer, as long as
   the socket would wait for a message, and reserves the places of all that they can bring.  0, or
   -1 with an exception; with CMSGX_ONE_TRY without one where it would have to wait.
   cmsgx_take_received() gives back what was not needed of one message. */
int cmsgx_received_begin(cmsgx_sock *sock, const cmsgx_receive_config *config, size_t count,
                         int flags);

/* For messages that did not come. */
static inline void
cmsgx_received_end(const cmsgx_receive_config *config, size_t count)
{
    if (config->row != NULL) {
        cmsgx_row_unreserve(config->row, count * CMSGX_MAX_PLACES);
    }
}

#endif
