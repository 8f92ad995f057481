#include "calls/route.h"

#include <errno.h>
#include <netinet/in.h>

/* What a packet to that address is, sent by an AF_INET6 socket. */
static int
family_of_name(const struct sockaddr_in6 *name)
{
    return name->sin6_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&name->sin6_addr) ? AF_INET6
                                                                                    : AF_INET;
}

/* The same for the message; -1 where the socket has no peer.  Asked once. */
static int
packet_family_of(cmsgx_outgoing *out)
{
    struct sockaddr_in6 peer;
    socklen_t size = sizeof(peer);
    if (out->packet_family != AF_UNSPEC) {
        return out->packet_family;
    }
    memset(&peer, 0, sizeof(peer));
    if (out->msg.msg_name != NULL) {
        memcpy(&peer, &out->name, sizeof(peer));
        return out->packet_family = family_of_name(&peer);
    }
    int fd = cmsgx_sock_borrow(out->sock);
    int has_peer = fd >= 0 && getpeername(fd, (struct sockaddr *)&peer, &size) == 0;
    if (fd >= 0) {
        cmsgx_sock_give_back(out->sock);
    }
    return out->packet_family = has_peer ? family_of_name(&peer) : -1;
}

/* Whether a bit mask has that number; what is not known is for the kernel to judge. */
static inline int
mask_has(uint64_t mask, int number)
{
    return mask == 0 || (unsigned)number >= 64 || (mask >> number & 1);
}

static inline int
family_of_sock(cmsgx_sock *sock)
{
    return sock->kind == CMSGX_SOCKET ? cmsgx_sock_value(sock, sock->state->socket_family)
                                      : cmsgx_sock_family(sock);
}

static inline int
type_of_sock(cmsgx_sock *sock)
{
    return sock->kind == CMSGX_SOCKET ? cmsgx_sock_value(sock, sock->state->socket_type)
                                      : cmsgx_sock_type(sock);
}

/* An option of the socket: 1 or 0, -1 with errno where there is none. */
static int
flag_of_sock(cmsgx_sock *sock, int level, int name)
{
    int value = 0;
    socklen_t size = sizeof(value);
    int fd = cmsgx_sock_borrow(sock);
    int result = fd < 0 ? -1 : getsockopt(fd, level, name, &value, &size);
    if (fd >= 0) {
        int failed = errno;
        cmsgx_sock_give_back(sock);
        errno = failed;
    }
    return result < 0 ? -1 : value != 0;
}

/* Whether packets of a raw socket bring their own IP header; -1 where it does not tell. */
static int
has_own_header(cmsgx_sock *sock, int family)
{
    if (type_of_sock(sock) != SOCK_RAW) {
        return 0;
    }
#ifdef IPV6_HDRINCL
    if (family == AF_INET6) {
        return flag_of_sock(sock, IPPROTO_IPV6, IPV6_HDRINCL);
    }
#endif
    return family == AF_INET ? flag_of_sock(sock, IPPROTO_IP, IP_HDRINCL) : -1;
}

/* Whether kTLS reads what is sent; -1 where the socket does not tell. */
static int
has_ktls(cmsgx_sock *sock)
{
#if defined(__linux__) && defined(TCP_ULP)
    char name[16] = "";
    socklen_t size = sizeof(name);
    int fd = cmsgx_sock_borrow(sock);
    int result = fd < 0 ? -1 : getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &size);
    if (fd >= 0) {
        cmsgx_sock_give_back(sock);
    }
    if (result < 0 || strncmp(name, "tls", sizeof(name)) != 0) {
        return result < 0 ? -1 : 0;
    }
    /* TLS_TX of SOL_TLS, whose EBUSY says that no keys were set for what is sent. */
    return flag_of_sock(sock, 282, 1) >= 0 || errno != EBUSY;
#else
    (void)sock;
    return -1;
#endif
}

#ifndef IPPROTO_UDPLITE
#  define IPPROTO_UDPLITE 136
#endif
#ifndef IPPROTO_SCTP
#  define IPPROTO_SCTP 132
#endif

/* Whether that is what reads it; what a socket does not tell is for the kernel to judge. */
static int
is_read_by(cmsgx_outgoing *out, cmsgx_reader reader, int family)
{
    cmsgx_sock *sock = out->sock;
    int type = type_of_sock(sock);
    int proto;
    if (reader == CMSGX_BY_ANY || (family != AF_INET && family != AF_INET6)) {
        return 1;
    }
    switch (reader) {
    case CMSGX_BY_UDP:
        proto = cmsgx_sock_proto(sock);
        return proto <= 0 || proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE;
    case CMSGX_BY_TCP:
        proto = type == SOCK_STREAM ? cmsgx_sock_proto(sock) : -1;
        return type != SOCK_SEQPACKET
               && (proto < 0
                   || ((proto == 0 || proto == IPPROTO_TCP) && has_ktls(sock) <= 0));
    case CMSGX_BY_KTLS:
        return has_ktls(sock) != 0;
    case CMSGX_BY_SCTP:
        proto = cmsgx_sock_proto(sock);
        return proto < 0 || proto == IPPROTO_SCTP || (proto == 0 && type == SOCK_SEQPACKET);
    case CMSGX_BY_NO_HEADER:
        return has_own_header(sock, family) <= 0;
    case CMSGX_BY_HEADER:
        return has_own_header(sock, family) != 0;
    default:
        return 1;
    }
}

static inline int
is_carried(cmsgx_outgoing *out, const cmsgx_wire_format *format, int family)
{
    if (!(format->directions & CMSGX_SENT)) {
        return 0;
    }
    int over = family == AF_INET6 && (format->directions & CMSGX_SENT_BY_PEER)
        ? packet_family_of(out) : family;
    return mask_has(format->sent_over, over)
           && (format->sent_by == 0 || mask_has(format->sent_by, type_of_sock(out->sock)))
           && is_read_by(out, format->reader, family);
}

static void
raise_refused(cmsgx_outgoing *out, PyObject *record, int family)
{
    int peer = family == AF_INET6 ? packet_family_of(out) : family;
    int readers = 0;
    for (int i = 0; i < CMSGX_READERS; i++) {
        readers |= is_read_by(out, (cmsgx_reader)i, family) << i;
    }
    PyObject *error =
        PyObject_CallFunction(out->state->refusal, "Oiiiii", (PyObject *)Py_TYPE(record), family,
                              peer, cmsgx_sock_type(out->sock), cmsgx_sock_proto(out->sock),
                              readers);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

const cmsgx_wire_format *
cmsgx_route_search(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *record)
{
    const cmsgx_wire_format *format = codec->sent;
    if (out->sock == NULL) {
        /* For a buffer that is no call's own: as it would arrive. */
        format = format == NULL && codec->format_count > 0 ? &codec->formats[0] : format;
    }
    if (format == NULL) {
        PyErr_Format(PyExc_ValueError, "control: the kernel takes no %.200s, it only delivers it",
                     Py_TYPE(record)->tp_name);
    }
    if (format == NULL || out->sock == NULL) {
        return format;
    }
    int family = family_of_sock(out->sock);
    for (const cmsgx_wire_format *end = codec->formats + codec->format_count; format < end;
         format++) {
        if (is_carried(out, format, family)) {
            return format;
        }
    }
    raise_refused(out, record, family);
    return NULL;
}

int
cmsgx_route_check_packed(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *record,
                         int level, int type)
{
    int is_known = 0;
    if (out->sock == NULL) {
        return 0;
    }
    int family = family_of_sock(out->sock);
    for (Py_ssize_t i = 0; i < codec->format_count; i++) {
        const cmsgx_wire_format *format = &codec->formats[i];
        if (format->level == level && format->type == type && (format->directions & CMSGX_SENT)) {
            if (is_carried(out, format, family)) {
                return 0;
            }
            is_known = 1;
        }
    }
    if (is_known) {
        raise_refused(out, record, family);
    }
    return is_known ? -1 : 0;
}
