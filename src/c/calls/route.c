#include "calls/route.h"

#include <errno.h>
#include <netinet/in.h>

/* The family of a packet that an AF_INET6 socket sends to that address. */
static int
family_of_name(const struct sockaddr_in6 *name)
{
    return name->sin6_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&name->sin6_addr) ? AF_INET6
                                                                                    : AF_INET;
}

/* The family of the packet that this message becomes; -1 if it has no address, and the socket no
   peer.  Looked up once. */
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

/* Whether bit `number` is set in the mask.  An empty mask, or a number that it has no bit for, says
   nothing: then the kernel decides. */
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

/* As getsockopt(2): 0, or -1 with errno. */
static int
get_option(const cmsgx_sock *sock, int level, int name, void *value, socklen_t size)
{
    int fd = cmsgx_sock_borrow(sock);
    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    int result = getsockopt(fd, level, name, value, &size);
    int failed = errno;
    cmsgx_sock_give_back(sock);
    errno = failed;
    return result;
}

/* An option that is on (1) or off (0); -1 with errno if the socket does not have it. */
static int
flag_of_sock(const cmsgx_sock *sock, int level, int name)
{
    int value = 0;
    return get_option(sock, level, name, &value, sizeof(value)) < 0 ? -1 : value != 0;
}

/* Whether the data of a raw socket begins with an IP header; -1 if unknown. */
static int
has_own_header(cmsgx_sock *sock, int family)
{
    if (type_of_sock(sock) != SOCK_RAW) {
        return 0;
    }
    if (family == AF_INET6) {
        return flag_of_sock(sock, IPPROTO_IPV6, CMSGX_IPV6_HDRINCL);
    }
    return family == AF_INET ? flag_of_sock(sock, IPPROTO_IP, IP_HDRINCL) : -1;
}

/* Whether kernel TLS reads what is sent; -1 if unknown. */
static int
has_ktls(cmsgx_sock *sock)
{
    char name[16] = "";
    if (get_option(sock, IPPROTO_TCP, CMSGX_TCP_ULP, name, sizeof(name)) < 0) {
        return -1;
    }
    if (strncmp(name, "tls", sizeof(name)) != 0) {
        return 0;
    }
    /* TLS_TX of SOL_TLS: EBUSY says that no keys were set for sending. */
    return flag_of_sock(sock, 282, 1) >= 0 || errno != EBUSY;
}

/* Whether that reader handles what the socket sends.  1 if the socket does not tell: then the
   kernel decides. */
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
        return proto <= 0 || proto == IPPROTO_UDP || proto == CMSGX_IPPROTO_UDPLITE;
    case CMSGX_BY_TCP:
        proto = type == SOCK_STREAM ? cmsgx_sock_proto(sock) : -1;
        return type != SOCK_SEQPACKET
               && (proto < 0
                   || ((proto == 0 || proto == IPPROTO_TCP) && has_ktls(sock) <= 0));
    case CMSGX_BY_KTLS:
        return has_ktls(sock) != 0;
    case CMSGX_BY_SCTP:
        proto = cmsgx_sock_proto(sock);
        return proto < 0 || proto == CMSGX_IPPROTO_SCTP || (proto == 0 && type == SOCK_SEQPACKET);
    case CMSGX_BY_NO_HEADER:
        return has_own_header(sock, family) <= 0;
    case CMSGX_BY_HEADER:
        return has_own_header(sock, family) != 0;
    default:
        return 1;
    }
}

/* Whether a control message in that format can be sent with this message. */
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
        /* For a buffer that is not sent by a call of ours: as it would be received. */
        format = format == NULL && codec->format_count > 0 ? &codec->formats[0] : format;
    }
    if (format == NULL) {
        PyErr_Format(PyExc_ValueError,
                     "control: the kernel does not accept %.200s, it only delivers it",
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
