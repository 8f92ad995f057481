/* Socket names: from struct sockaddr to the form of the socket module, and back. */

#ifndef CMSGX_SOCKADDR_H
#define CMSGX_SOCKADDR_H

#include "types/sockaddr_common.h"

/* Whether a name of that family can only be read with its socket.  An unknown family, -1, may
   be one. (Families of IP have lower numbers than all of these.) */
static inline int
cmsgx_names_need_socket(int family)
{
#if CMSGX_HAS_LINUX_NAMES
    return (unsigned)family >= AF_PACKET;
#else
    (void)family;
    return 0;
#endif
}

/* Writes the text of an IPv4 address; its length.  snprintf() would cost more than the rest of a
   call. */
#define CMSGX_IPV4_TEXT_SIZE 16
size_t cmsgx_ipv4_text(const unsigned char *bytes, char *text);

/* The name in the form of the socket module: a tuple, str, bytes, int, or None for no name.  A new
   reference.  (family, bytes) for a family that it does not know, and for a name that it would
   refuse. */
PyObject *cmsgx_name_to_object(const struct sockaddr_storage *name, socklen_t size,
                               cmsgx_whence whence);

/* Writes a name of AF_UNIX, or an address of AF_INET or AF_INET6 with a numeric host in its usual
   form.  1 if written; 0 if `object` is something else; -1 with an exception.  Runs no Python code
   except that of a buffer. */
int cmsgx_name_from_plain(int family, PyObject *object, struct sockaddr_storage *name,
                          socklen_t *size);

/* Writes whatever the socket module takes for that family, except host names.  1 if written; 0
   if the host has to be resolved, or the family is unknown; -1 with the exception that socket
   raises. */
int cmsgx_name_from_object(int family, cmsgx_whence whence, PyObject *object,
                           struct sockaddr_storage *name, socklen_t *size);

/* If that returned 0: looks up the host, as the socket module does, however long it takes.  The
   same results; 0 if `object` has no host. */
int cmsgx_name_resolve(int family, PyObject *object, struct sockaddr_storage *name,
                       socklen_t *size);

#endif
