/* AddressTuple: a socket address as it is shown, a tuple that goes back to the kernel without its
   text being read. */

#ifndef CMSGX_ADDRESS_TUPLE_H
#define CMSGX_ADDRESS_TUPLE_H

#include "types/sockaddr.h"

/* The struct sockaddr after the items of the tuple, where tuple itself does not look: the object is
   allocated for more items than its size says. */
typedef struct {
    uint32_t size;
    unsigned char name[];
} cmsgx_hidden_name;

static inline cmsgx_hidden_name *
cmsgx_hidden_of(PyObject *tuple)
{
    return (cmsgx_hidden_name *)(void *)(((PyTupleObject *)tuple)->ob_item + Py_SIZE(tuple));
}

/* The address as the socket module gives it: str, bytes, int, None for no name, or an AddressTuple.
   A new reference. */
PyObject *cmsgx_address_shown(cmsgx_state *state, const struct sockaddr_storage *name,
                              socklen_t size, cmsgx_whence whence);

/* Releases the tuples that are kept, and keeps none from then on. */
void cmsgx_address_free_all(cmsgx_state *state);

/* Adds its type to the module, below Address.  0, or -1 with an exception. */
int cmsgx_add_address_tuple(PyObject *module);

#endif
