/* Where a socket object keeps what is read for each call: found once, in the C type of the socket
   module. */

#ifndef CMSGX_SOCKET_OBJECT_H
#define CMSGX_SOCKET_OBJECT_H

#include "state.h"

/* Takes the timeout of a socket object away, and leaves O_NONBLOCK alone; does nothing where it is
   not known where the object keeps it. */
void cmsgx_sock_clear_timeout(const cmsgx_state *state, PyObject *object);

int cmsgx_add_sock(PyObject *module);

#endif
