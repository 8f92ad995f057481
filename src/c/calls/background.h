/* Closing in the background: the functions for Python, and the places that a receive reserves. */

#ifndef CMSGX_BACKGROUND_H
#define CMSGX_BACKGROUND_H

#include "calls/wait.h"
#include "types/received.h"

/* closer_submit(descriptor, /), closer_wait(seconds, /), closer_counts(), closer_resume(): see
   their docstrings. */
PyObject *cmsgx_closer_submit(PyObject *module, PyObject *descriptor);
PyObject *cmsgx_closer_wait_for(PyObject *module, PyObject *seconds);
PyObject *cmsgx_closer_counts(PyObject *module, PyObject *ignored);
PyObject *cmsgx_closer_resume_all(PyObject *module, PyObject *ignored);

/* Called before a receive of `count` messages whose descriptors are closed in the background.
   Waits until the closer is below its limit, at most as long as the socket would wait for a
   message, and reserves places for all descriptors that they can carry.  0, or -1 with an
   exception; with CMSGX_ONE_TRY, -1 without an exception if it would have to wait.
   cmsgx_take_received() gives back the places that a message did not need. */
int cmsgx_received_begin(cmsgx_sock *sock, const cmsgx_receive_config *config, size_t count,
                         int flags);

/* Gives back the places of `count` messages that did not come. */
static inline void
cmsgx_received_end(const cmsgx_receive_config *config, size_t count)
{
    if (config->row != NULL) {
        cmsgx_row_unreserve(config->row, count * CMSGX_MAX_PLACES);
    }
}

#endif
