#include "plain/refusal.h"

#include "plain/platform.h"

#include <errno.h>
#include <sys/socket.h>

/* These errors are not about one message, and so are not listed below:
     EBADF, ENOTSOCK    the socket; or a descriptor to be sent is not open, which is a mistake of
                        the caller: its number may be that of another file at the next try
     EPIPE, ESHUTDOWN   nothing can be sent any more; likewise ECONNRESET, ENOTCONN, ETIMEDOUT,
                        ECONNREFUSED, EHOSTUNREACH, ... on a connection
     EAGAIN, EINTR      are waited out, or end the call
     ENOBUFS, ENOMEM, ETOOMANYREFS
                        memory, the queue of a device, the user's limit of descriptors in flight:
                        they pass, and until then the next message would fail as well
     EFAULT, ENOSYS, EOPNOTSUPP on a connection, and unknown errors
                        are better raised than skipped */

/* On any socket. */
static int
is_of_message(int error)
{
    switch (error) {
    case EMSGSIZE:              /* longer than a packet, the socket's buffer, the path's MTU */
    case EINVAL:                /* invalid control messages, or an invalid address */
    case EPERM:                 /* another's credentials; a packet filter */
    case EACCES:                /* a broadcast without SO_BROADCAST, no permission for a path */
    case EAFNOSUPPORT:          /* an address of another family */
    case EADDRNOTAVAIL:         /* a source address that this machine lacks, port 0 */
    case EISCONN:               /* an address on a connected socket */
        return 1;
    default:
        return 0;
    }
}

/* On a socket that sends each message to its own address. */
static int
is_of_destination(int error)
{
    switch (error) {
    case EDESTADDRREQ:          /* no address and no peer; ENOTCONN on AF_UNIX */
    case ENOTCONN:
    case ECONNREFUSED:          /* nobody listens there */
    case ECONNRESET:
    case ENETUNREACH:           /* no route */
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case CMSGX_ENONET:
    case ENOPROTOOPT:           /* ICMP: the protocol, or the port */
    case EOPNOTSUPP:
    case EPROTO:
    case EPROTOTYPE:            /* the path is a socket of another type, or not a socket */
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENODEV:                /* no such interface */
    case ENXIO:
    case EIO:                   /* a device without segmentation offload, or IPsec */
        return 1;
    default:
        return 0;
    }
}

/* What ICMP or the other end may have left for the next call to report. */
static int
may_be_pending(int error, int family)
{
    if (family == AF_UNIX) {
        return error == ECONNRESET;
    }
    switch (error) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case CMSGX_ENONET:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case EPROTO:
    case EACCES:
    case EMSGSIZE:
        return 1;
    default:
        return 0;
    }
}

cmsgx_refusal
cmsgx_refusal_of(int error, int type, int family)
{
    int is_connectionless = type == SOCK_DGRAM || type == SOCK_RAW;
    if (!is_of_message(error) && !(is_connectionless && is_of_destination(error))) {
        return CMSGX_OF_ALL;
    }
    return is_connectionless && may_be_pending(error, family) ? CMSGX_OF_MESSAGE_OR_BEFORE
                                                              : CMSGX_OF_MESSAGE;
}
