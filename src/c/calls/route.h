/* Which way a message goes, and what of its control data goes that way: a kernel drops without an
   error what the protocol of the packet does not read. */

#ifndef CMSGX_ROUTE_H
#define CMSGX_ROUTE_H

#include "types/codec.h"
#include "calls/outgoing.h"

#include <netinet/in.h>

/* For the function below. */
const cmsgx_wire_format *cmsgx_route_search(cmsgx_outgoing *out, const cmsgx_codec *codec,
                                            PyObject *record);

/* Whether that is what reads what a datagram socket sends, mostly. */
static inline int
cmsgx_route_is_read_by(const cmsgx_sock *sock, cmsgx_reader reader)
{
    if (reader == CMSGX_BY_UDP) {
        int proto = cmsgx_sock_value(sock, sock->state->socket_proto);
        return proto == 0 || proto == IPPROTO_UDP;
    }
    return reader == CMSGX_BY_NO_HEADER || reader == CMSGX_BY_TCP;
}

/* The form in which a record of that codec goes where `out` goes.  NULL with an exception where it
   goes there in none: NotSupportedError, or ValueError for what a kernel only delivers.  After the
   address.  Where `out` has no socket, the first that is sent, or is there at all. */
static inline const cmsgx_wire_format *
cmsgx_route_format(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *record)
{
    const cmsgx_wire_format *format = codec->sent;
    const cmsgx_sock *sock = out->sock;
    if (format != NULL && sock != NULL && sock->kind == CMSGX_SOCKET) {
        /* Mostly the first that is sent is right, for a socket object, which knows what it is. */
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

/* The same for one that packs itself: 0, or -1 with an exception.  What no form of its codec has
   goes as it is. */
int cmsgx_route_check_packed(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *record,
                             int level, int type);

#endif
