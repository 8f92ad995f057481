/* AddressTuple: a socket address as it is shown, a tuple that goes back to the kernel without its
   text being read. */

#ifndef CMSGX_ADDRESS_TUPLE_H
#define CMSGX_ADDRESS_TUPLE_H

#include "types/sockaddr.h"

/* What is behind the items of a tuple, where tuple itself does not look: it was allocated for more
   of them than it says that it has. */
typedef struct {
    uint32_t size;
    unsigned char name[];
} cmsgx_hidden_name;

static inline cmsgx_hidden_name *
cmsgx_hidden_of(PyObject *tuple)
{
    return (cmsgx_hidden_name *)(void *)(((PyTupleObject *)tuple)->ob_item + Py_SIZE(tuple));
}

/* What the socket module gives: str, bytes, int, None for no name; and where that is a tuple, one
   with the name hidden behind its items.  A new reference. */
PyObject *cmsgx_address_shown(cmsgx_state *state, const struct sockaddr_storage *name,
                              socklen_t size, cmsgx_whence whence);

/* Lets go of the addresses that are kept, and keeps none from then on. */
void cmsgx_address_free_all(cmsgx_state *state);

/* Adds its type to the module, below Address.  0, or -1 with an exception. */
int cmsgx_add_address_tuple(PyObject *module);

#endif
