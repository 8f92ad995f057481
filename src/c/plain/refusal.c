#include "plain/refusal.h"

#include "plain/platform.h"

#include <errno.h>
#include <sys/socket.h>

/* Not about one message, and so not in here:
     EBADF, ENOTSOCK    the socket; or a descriptor that is to go is not open, which is a mistake of
                        the caller's, whose number may be another file's at the next try
     EPIPE, ESHUTDOWN   nothing goes any more; and on a connection ECONNRESET, ENOTCONN, ETIMEDOUT,
                        ECONNREFUSED, EHOSTUNREACH, ...
     EAGAIN, EINTR      are waited out, or end the call
     ENOBUFS, ENOMEM, ETOOMANYREFS
                        memory, the queue of a device, the user's limit of descriptors in flight:
                        they pass, and until then the next message would meet them as well
     EFAULT, ENOSYS, EOPNOTSUPP on a connection, and whatever is not known
                        are better heard than skipped */

/* Of any socket. */
static int
is_of_message(int error)
{
    switch (error) {
    case EMSGSIZE:              /* longer than a packet, the socket's buffer, the path's MTU */
    case EINVAL:                /* control messages, or an address, that do not fit */
    case EPERM:                 /* another's credentials; a packet filter */
    case EACCES:                /* a broadcast without SO_BROADCAST, no right to write to a path */
    case EAFNOSUPPORT:          /* an address of another family */
    case EADDRNOTAVAIL:         /* a source that this machine has not, port 0 */
    case EISCONN:               /* an address, where there is a peer */
        return 1;
    default:
        return 0;
    }
}

/* Of one that sends each message to where its address says. */
static int
is_of_destination(int error)
{
    switch (error) {
    case EDESTADDRREQ:          /* no address, and no peer: of AF_UNIX it is ENOTCONN */
    case ENOTCONN:
    case ECONNREFUSED:          /* nobody is there */
    case ECONNRESET:
    case ENETUNREACH:           /* no way to there */
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case CMSGX_ENONET:
    case ENOPROTOOPT:           /* ICMP: the protocol, or the port */
    case EOPNOTSUPP:
    case EPROTO:
    case EPROTOTYPE:            /* a path of another type of socket, or of none */
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case ENODEV:                /* an interface that is not there */
    case ENXIO:
    case EIO:                   /* a device, or IPsec, that does not take segments */
        return 1;
    default:
        return 0;
    }
}

/* What ICMP, or the other end, may have left for the next call to tell. */
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
