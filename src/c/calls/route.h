/* Which control messages can be sent with a message, and in which wire format: the kernel silently
   drops those that the protocol of the packet does not read. */

#ifndef CMSGX_ROUTE_H
#define CMSGX_ROUTE_H

#include "types/codec.h"
#include "calls/outgoing.h"

#include <netinet/in.h>

/* The slow path of cmsgx_route_format(). */
const cmsgx_wire_format *cmsgx_route_search(cmsgx_outgoing *out, const cmsgx_codec *codec,
                                            PyObject *record);

/* Whether that reader handles what a common datagram socket sends; 0 if it needs a closer look. */
static inline int
cmsgx_route_is_read_by(const cmsgx_sock *sock, cmsgx_reader reader)
{
    if (reader == CMSGX_BY_UDP) {
        int proto = cmsgx_sock_value(sock, sock->state->socket_proto);
        return proto == 0 || proto == IPPROTO_UDP;
    }
    return reader == CMSGX_BY_NO_HEADER || reader == CMSGX_BY_TCP;
}

/* The wire format in which a record of that codec is sent with `out`, whose address is set.  NULL
   with an exception if it cannot be: NotSupportedError, or ValueError for what the kernel only
   delivers.  Without a socket: the first format that is sent, or the first of all. */
static inline const cmsgx_wire_format *
cmsgx_route_format(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *record)
{
    const cmsgx_wire_format *format = codec->sent;
    const cmsgx_sock *sock = out->sock;
    if (format != NULL && sock != NULL && sock->kind == CMSGX_SOCKET) {
        /* The common case: a socket object, which knows its family and type, and the first format
           that is sent. */
        unsigned family = (unsigned)cmsgx_sock_value(sock, sock->state->socket_family);
        if (family < 64 && (format->sent_over >> family & 1)
            && (family != AF_INET6 || !(format->directions & CMSGX_SENT_BY_PEER))) {
            unsigned type = format->sent_by == 0 && format->reader == CMSGX_BY_ANY
                ? 0 : (unsigned)cmsgx_sock_value(sock, sock->state->socket_type);
            if ((format->sent_by == 0 || (type < 32 && (format->sent_by >> type & 1)))
                && (format->reader == CMSGX_BY_ANY
                    || (type == SOCK_DGRAM && cmsgx_route_is_read_by(sock, format->reader)))) {
                return format;
            }
        }
    }
    return cmsgx_route_search(out, codec, record);
}

/* The same for a control message that packs itself, as `level` and `type`: 0, or -1 with an
   exception.  If no format of its codec has that level and type, it is sent as it is. */
int cmsgx_route_check_packed(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *record,
                             int level, int type);

#endif
