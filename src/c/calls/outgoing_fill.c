#include "calls/outgoing_fill.h"

#include "arguments.h"
#include "calls/outgoing_control.h"
#include "errors.h"
#include "types/address.h"

#include <errno.h>
#include <netinet/in.h>

/* The address ------------------------------------------------------------------------------ */

/* Converts an address in any form that the socket module accepts.  1: done; 0: it is a host name
   and no socket object was given, or its family is unknown here; -1 with an exception. */
static int
convert_as_socket(cmsgx_outgoing *out, cmsgx_sock *sock, int family, PyObject *address,
                  socklen_t *size)
{
    cmsgx_whence whence = CMSGX_NOWHERE;
    if (cmsgx_names_need_socket(family)) {
        whence.proto = cmsgx_sock_proto(sock);
        whence.fd = cmsgx_sock_borrow(sock);
    }
    int known = cmsgx_name_from_object(family, whence, address, &out->name, size);
    if (whence.fd >= 0) {
        cmsgx_sock_give_back(sock);
    }
    return known == 0 && sock->kind == CMSGX_SOCKET && !out->never_waits
        ? cmsgx_name_resolve(family, address, &out->name, size) : known;
}

int
cmsgx_outgoing_convert_address(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *address)
{
    socklen_t size;
    int family = cmsgx_sock_family(sock);
    int error = errno;
    int known = cmsgx_address_from_object(out->state, family, address, &out->name, &size);
    if (known == 0 && family >= 0 && (out->is_typed || sock->kind != CMSGX_SOCKET)) {
        known = convert_as_socket(out, sock, family, address, &size);
    }
    if (known == 0 && family < 0) {
        /* It is closed, or not a socket. */
        cmsgx_raise_of_sock(error, cmsgx_sock_number(sock));
        return -1;
    }
    if (known > 0) {
        out->msg.msg_name = &out->name;
        out->msg.msg_namelen = size;
    }
    return known;
}

/* Whether it is a numeric address of the other IP family. */
static int
is_of_other_ip(int family, PyObject *address)
{
    struct sockaddr_storage name;
    socklen_t size;
    int other = family == AF_INET ? AF_INET6 : family == AF_INET6 ? AF_INET : -1;
    int known = other < 0 ? 0
                          : cmsgx_name_from_object(other, CMSGX_NOWHERE, address, &name, &size);
    if (known < 0) {
        PyErr_Clear();
    }
    return known > 0;
}

void
cmsgx_raise_no_conversion(const cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *address)
{
    int family = cmsgx_sock_family(sock);
    if (is_of_other_ip(family, address)) {
        PyErr_Format(PyExc_ValueError, "address: %R is of %s, but the socket is of %s", address,
                     family == AF_INET ? "AF_INET6" : "AF_INET",
                     family == AF_INET ? "AF_INET" : "AF_INET6");
        return;
    }
    PyErr_Format(PyExc_ValueError,
                 out->never_waits
                     ? "address: %R is a host name, or of a family that C does not know; a try "
                       "never waits for a name server, so resolve it first: socket.getaddrinfo()"
                 : sock->kind == CMSGX_SOCKET
                     ? "address: only the socket's own sendmsg() can convert %R, and that takes "
                       "neither fds= nor timeout="
                     : "address: %R is a host name to resolve, or of a family that needs a socket "
                       "object; pass the socket object instead of its number",
                 address);
}

/* The message ------------------------------------------------------------------------------ */

/* On an AF_UNIX or TCP stream the kernel sends nothing for a message without data, and drops its
   control messages: unix(7), and unix_stream_sendmsg() in net/unix/af_unix.c, Linux 6.18.  One of
   another level may be the message itself: the type of an empty TLS record, the end of an SCTP
   association. */
int
cmsgx_outgoing_check_dropped(const cmsgx_outgoing *out, cmsgx_sock *sock)
{
    cmsgx_header header;
    size_t offset = 0;
    if (out->control_used == 0 || cmsgx_sock_type(sock) != SOCK_STREAM) {
        return 0;
    }
    int family = cmsgx_sock_family(sock);
    int is_dropped = family == AF_UNIX || family == AF_INET || family == AF_INET6;
    while (is_dropped && family != AF_UNIX
           && cmsgx_walk(out->control, out->control_used, &offset, &header) == CMSGX_MESSAGE) {
        is_dropped = header.level == SOL_SOCKET || header.level == IPPROTO_IP
                     || header.level == IPPROTO_IPV6 || header.level == IPPROTO_TCP;
    }
    if (is_dropped) {
        PyErr_Format(PyExc_ValueError,
                     "%s: %s need at least one byte on a stream; with none the kernel drops them "
                     "without an error",
                     out->is_typed ? "data" : "buffers",
                     out->fd_count > 0 ? "descriptors" : "control messages");
    }
    return is_dropped ? -1 : 0;
}

/* Refuses descriptors that the kernel would silently drop. */
static int
check_fds(const cmsgx_outgoing *out, cmsgx_sock *sock)
{
    int family = cmsgx_sock_family(sock);
    if (family < 0) {
        cmsgx_raise_of_sock(errno, cmsgx_sock_number(sock));
        return -1;
    }
    if (family != AF_UNIX) {
        cmsgx_raise_not_supported(out->state->NotSupportedError, EOPNOTSUPP,
                                  "fds: descriptors travel over AF_UNIX sockets only; over another "
                                  "family the kernel drops them without an error");
        return -1;
    }
    if (CMSGX_RIGHTS_ALONE && out->control_used > CMSG_SPACE(out->fd_count * sizeof(int))) {
        cmsgx_raise_not_supported(out->state->NotSupportedError, EOPNOTSUPP,
                                  "control: this system accepts no other control message along "
                                  "with descriptors; send it in a message of its own");
        return -1;
    }
    return 0;
}

int
cmsgx_outgoing_fill_head(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *fds, PyObject *control,
                         PyObject *address)
{
    /* The address first: control messages are encoded differently for an IPv4 destination. */
    int known = cmsgx_outgoing_set_address(out, sock, address);
    if (known < 0 || (fds != NULL && cmsgx_outgoing_add_fds(out, fds, 1) < 0)
        || (control != NULL && cmsgx_outgoing_add_control(out, control) < 0)
        || (out->fd_count > 0 && cmsgx_outgoing_add_rights(out, 0) < 0)) {
        return -1;
    }
    return known;
}

int
cmsgx_outgoing_fill_data(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *data, PyObject *address)
{
    if (cmsgx_audit("socket.sendmsg", "OO", sock->object, address) < 0) {
        return -1;
    }
    int added = PyBytes_CheckExact(data) || PyObject_CheckBuffer(data)
        ? cmsgx_outgoing_add_buffer(out, data, 1)
        : cmsgx_outgoing_add_buffers(out, data, "data",
                                     "a bytes-like object, or an iterable of them,");
    return added < 0 || (out->fd_count > 0 && check_fds(out, sock) < 0)
        || (out->data_size == 0 && cmsgx_outgoing_check_dropped(out, sock) < 0) ? -1 : 0;
}
