/* IP: the base of IPAddress.  It equals the same address of the module ipaddress and has its hash,
   without importing that module. */

#ifndef CMSGX_IP_H
#define CMSGX_IP_H

#include "state.h"

/* A new IPAddress of 4 or 16 bytes in network order: a new reference. */
PyObject *cmsgx_ip_new(cmsgx_state *state, const unsigned char *data, size_t size);

/* Adds its type to the module.  0, or -1 with an exception. */
int cmsgx_add_ip(PyObject *module);

#endif
