/* Socket addresses: what the C fast path converts, and Address, which converts on demand. */

#ifndef CMSGX_ADDRESS_H
#define CMSGX_ADDRESS_H

#include "state.h"

/* What the socket module would give: str, bytes, tuple, or None for no address.  A new
   reference.  A family that this file does not know becomes (family, bytes). */
PyObject *cmsgx_address_to_object(const struct sockaddr_storage *name, socklen_t size);

/* 1 written; 0 not for C to convert (a host name, another family, anything odd: the socket's
   own method then does it, or refuses it); -1 with an exception. */
int cmsgx_address_from_object(cmsgx_state *state, int family, PyObject *object,
                              struct sockaddr_storage *name, socklen_t *size);

/* A new Address, or None where there is no name. */
PyObject *cmsgx_address_new(cmsgx_state *state, const struct sockaddr_storage *name,
                            socklen_t size);

#endif
