/* Address: a socket address that goes back to the kernel without text.  Its two forms: the raw one,
   a struct sockaddr, and a tuple (address_tuple.h). */

#ifndef CMSGX_ADDRESS_H
#define CMSGX_ADDRESS_H

#include "types/address_tuple.h"

/* The raw form, or None if there is no name: a new reference. */
PyObject *cmsgx_address_raw(cmsgx_state *state, const struct sockaddr_storage *name,
                            socklen_t size, cmsgx_whence whence);

/* Writes the name of an Address of either form, or of what cmsgx_name_from_plain() takes.  1 if
   written; 0 if `object` is something else; -1 with an exception. */
int cmsgx_address_from_object(cmsgx_state *state, int family, PyObject *object,
                              struct sockaddr_storage *name, socklen_t *size);

/* raw_address(name, /): the raw form of a struct sockaddr in bytes; None for no address. */
PyObject *cmsgx_raw_address(PyObject *module, PyObject *name);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_address(PyObject *module);

#endif
