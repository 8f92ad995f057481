/* Socket names: struct sockaddr to what the socket module gives for it, and back. */

#ifndef CMSGX_SOCKADDR_H
#define CMSGX_SOCKADDR_H

#include "types/sockaddr_common.h"

/* Whether names of that family cannot be read without their socket.  -1, a family that is not
   known, may be one.  (Those of IP have lower numbers than all of these.) */
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

/* The text of an IPv4 address: its length.  A sprintf() would cost more than all else. */
#define CMSGX_IPV4_ROOM 16
size_t cmsgx_ipv4_text(const unsigned char *bytes, char *text);

/* What the socket module gives: a tuple, str, bytes, int, or None for no name.  A new reference.  A
   family that it does not know becomes (family, bytes), and so does a name that it would refuse. */
PyObject *cmsgx_name_to_object(const struct sockaddr_storage *name, socklen_t size,
                               cmsgx_whence whence);

/* A path or name of AF_UNIX, or an address of AF_INET or AF_INET6 with a numeric host, in the form
   that nearly all have.  1 written; 0 something else; -1 with an exception.  Runs no Python code
   but that of a buffer. */
int cmsgx_name_from_plain(int family, PyObject *object, struct sockaddr_storage *name,
                          socklen_t *size);

/* Whatever the socket module takes for that family, but names of hosts.  1 written; 0 where the
   host is to be resolved, or the family is not known here; -1 with the exception that socket has
   for it. */
int cmsgx_name_from_object(int family, cmsgx_whence whence, PyObject *object,
                           struct sockaddr_storage *name, socklen_t *size);

/* Where that gave 0: the host is looked up, as the socket module does, however long it takes.  The
   same results; 0 where there is no host in it. */
int cmsgx_name_resolve(int family, PyObject *object, struct sockaddr_storage *name,
                       socklen_t *size);

#endif
