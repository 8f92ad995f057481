/* Sends an outgoing message, and explains why it failed. */

#ifndef CMSGX_OUTGOING_SEND_H
#define CMSGX_OUTGOING_SEND_H

#include "calls/outgoing.h"

/* Sends it, waiting as `sock` allows: the number of bytes sent, or -1 with an exception, and *error
   as cmsgx_call() sets it.  On EBADF the exception names the descriptor that is not open. */
ssize_t cmsgx_outgoing_send(cmsgx_outgoing *out, cmsgx_sock *sock, int flags, int *error);

/* The same for what `out->msg` says, which cmsgx_outgoing_finish() has made and
   cmsgx_keep_unsent() may have shortened. */
ssize_t cmsgx_outgoing_send_msg(cmsgx_outgoing *out, cmsgx_sock *sock, int flags, int *error);

/* The most buffers that one call takes: IOV_MAX on each supported system. */
#define CMSGX_MAX_BUFFERS 1024

/* After a stream took only `sent` bytes, less than all: makes `msg` the rest of the message,
   without the control data, which went with the first byte.  Changes the iovecs it points to. */
void cmsgx_keep_unsent(struct msghdr *msg, size_t sent);

/* Sends the control data of `out`, and these buffers, by the method of socket.socket itself, past
   any override: the result of that method, a new reference, or NULL with an exception. */
PyObject *cmsgx_outgoing_send_by_method(const cmsgx_outgoing *out, const cmsgx_sock *sock,
                                        PyObject *buffers, int flags, PyObject *address);

/* After EBADF: if one of its descriptors is not open, raises an error that names it instead. */
void cmsgx_outgoing_name_closed_fd(const cmsgx_outgoing *out, const cmsgx_sock *sock);

/* If *error may be about its control messages, adds a note to the current exception which says what
   each of them needs.  If a signal handler raises meanwhile, that exception replaces the current
   one, and *error becomes 0. */
void cmsgx_outgoing_note_needs(const cmsgx_outgoing *out, int *error);

#endif
