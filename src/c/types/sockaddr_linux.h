/* Names of the families that only Linux has.  Not built on other systems. */

#ifndef CMSGX_SOCKADDR_LINUX_H
#define CMSGX_SOCKADDR_LINUX_H

#include "types/sockaddr_common.h"

/* As cmsgx_name_to_object() gives them, of a name that has all bytes of a struct sockaddr_storage.
   A new reference. */
PyObject *cmsgx_linux_name_to_object(const struct sockaddr_storage *name, socklen_t size,
                                     cmsgx_whence whence);

/* As cmsgx_name_from_object(): 1 if written; 0 if the family is not one of these; -1 with an
   exception. */
int cmsgx_linux_name_from_object(int family, cmsgx_whence whence, PyObject *object,
                                 struct sockaddr_storage *name, socklen_t *size);

#endif
