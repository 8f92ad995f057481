/* Fills an outgoing message: its address, and all that a typed message has. */

#ifndef CMSGX_OUTGOING_FILL_H
#define CMSGX_OUTGOING_FILL_H

#include "calls/outgoing.h"

/* 1 ready, 0 the socket's own method must convert it, -1 raised. */
int cmsgx_outgoing_set_address(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *address);

/* ValueError for an address that C cannot convert, where no method of the socket may. */
void cmsgx_raise_no_conversion(cmsgx_sock *sock, PyObject *address);

/* For a message with no byte of data: refuses control messages that the kernel would drop without a
   word.  0, or -1 with an exception. */
int cmsgx_outgoing_check_dropped(const cmsgx_outgoing *out, cmsgx_sock *sock);

/* What a typed message has, in two steps; `fds` and `control` may be NULL.  The head: 1 ready, 0
   where C cannot convert the address, -1 with an exception.  The data, which the caller keeps
   alive until the message is sent, and the audit event: 0, or -1. */
int cmsgx_outgoing_fill_head(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *fds,
                             PyObject *control, PyObject *address);
int cmsgx_outgoing_fill_data(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *data,
                             PyObject *address);

#endif
