/* Sends an outgoing message, and explains what is refused. */

#ifndef CMSGX_OUTGOING_SEND_H
#define CMSGX_OUTGOING_SEND_H

#include "calls/outgoing.h"

/* Sends it: bytes sent, or -1 with an exception, and *error as of cmsgx_call().  EBADF names the
   descriptor that is not open. */
ssize_t cmsgx_outgoing_send(cmsgx_outgoing *out, cmsgx_sock *sock, int flags, int *error);

/* By the socket's own method, below any that a class may have: with the control data that `out` has
   by now.  What that returns, a new reference, or NULL with an exception. */
PyObject *cmsgx_outgoing_send_by_method(const cmsgx_outgoing *out, const cmsgx_sock *sock,
                                        PyObject *buffers, int flags, PyObject *address);

/* Where EBADF is about one of its descriptors, raises an error that names it instead. */
void cmsgx_outgoing_name_closed_fd(const cmsgx_outgoing *out, const cmsgx_sock *sock);

/* Adds to the exception that is being raised what each of its control messages needs, where *error
   may be about them.  What a signal handler raises meanwhile is raised instead, and *error is 0. */
void cmsgx_outgoing_note_needs(const cmsgx_outgoing *out, int *error);

#endif
