/* Fills an outgoing message from the arguments of a call. */

#ifndef CMSGX_OUTGOING_FILL_H
#define CMSGX_OUTGOING_FILL_H

#include "calls/outgoing.h"

/* For the function below: an address that is not None. */
int cmsgx_outgoing_convert_address(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *address);

/* Converts the address; None or NULL is none.  1: done; 0: only the socket's own method can convert
   it; -1 with an exception. */
static inline int
cmsgx_outgoing_set_address(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *address)
{
    return address == NULL || address == Py_None
        ? 1 : cmsgx_outgoing_convert_address(out, sock, address);
}

/* ValueError for an address that C cannot convert, in a call that cannot use the socket's own
   method. */
void cmsgx_raise_no_conversion(const cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *address);

/* For a message without data: refuses control messages that the kernel would silently drop.  0, or
   -1 with an exception. */
int cmsgx_outgoing_check_dropped(const cmsgx_outgoing *out, cmsgx_sock *sock);

/* A typed message, filled in two steps.  The head is the address, the descriptors and the control
   messages; `fds` and `control` may be NULL.  It returns what cmsgx_outgoing_set_address() returns.
   The second step raises the audit event, adds the data, which the caller keeps alive until the
   message is sent, and refuses what the kernel would silently drop: 0, or -1 with an exception. */
int cmsgx_outgoing_fill_head(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *fds,
                             PyObject *control, PyObject *address);
int cmsgx_outgoing_fill_data(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *data,
                             PyObject *address);

/* Both steps, for a call that cannot use the socket's own method.  0, or -1 with an exception. */
static inline int
cmsgx_outgoing_fill(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *data, PyObject *fds,
                    PyObject *control, PyObject *address)
{
    int known = cmsgx_outgoing_fill_head(out, sock, fds, control, address);
    if (known == 0) {
        cmsgx_raise_no_conversion(out, sock, address);
    }
    return known <= 0 ? -1 : cmsgx_outgoing_fill_data(out, sock, data, address);
}

#endif
