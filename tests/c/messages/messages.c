/* What a program in C has in its control messages: the other side of tests/test_catalogue.py.
   Each row of tests/data/control_messages.csv that is Linux's, as the structs of the kernel's
   headers and the CMSG_* macros of the C library have it.  Nothing here is cmsgx's.

     messages                              each row with values in every member, as JSON lines
     messages read LEVEL NAME DIRECTION    the control buffer on stdin, by the struct of that row

   Of a row: "control" is the buffer, "payload" what is in it behind the header, "members" what
   the struct says is there: {name, at (bytes), size, kind, value}.  A kind is "number", "bytes"
   (in hex), "attribute" (a number in a struct nlattr), or "pad", which is zero.

   "source" is the header that the numbers and the struct are from; where no header of this machine
   has them, "stated: " and the file that headers.h has them from. */

#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "headers.h"

#if !HAS_HEADERS
/* The tests say so, and skip. */
int
main(void)
{
    printf("%d.%d", LINUX_VERSION_CODE >> 16, LINUX_VERSION_CODE >> 8 & 0xff);
    return 77;
}
#else

#include "payloads.h"

typedef struct {
    const char *level_name;
    int level;
    const char *name;           /* as the catalogue has it */
    int type;
    const char *direction;      /* as the catalogue has it, or "both" */
    const char *source;
    void (*members)(void);
    const char *family;         /* of the sockets that have it so; "": of any in the row */
} row;

/* A type by its macro; one that the catalogue has another name for. */
#define ROW(level, type, direction, source, members) \
    {#level, level, #type, type, direction, source, members, ""}
#define NAMED(level, type, name, direction, source, members) \
    {#level, level, name, type, direction, source, members, ""}

static const row rows[] = {
    ROW(SOL_SOCKET, SCM_RIGHTS, "both", "sys/socket.h", rights),
    ROW(SOL_SOCKET, SCM_CREDENTIALS, "both", "sys/socket.h", ucred),
    ROW(SOL_SOCKET, SCM_SECURITY, "recv", SECURITY, a_label),
    ROW(SOL_SOCKET, SCM_PIDFD, "recv", PIDFD, a_positive_int),
    ROW(SOL_SOCKET, SCM_INQ, "recv", INQ, an_int),
    NAMED(SOL_SOCKET, SO_TIMESTAMP_OLD, "SO_TIMESTAMP_OLD (SCM_TIMESTAMP)", "recv",
          "linux/time_types.h", old_timeval),
    NAMED(SOL_SOCKET, SO_TIMESTAMPNS_OLD, "SO_TIMESTAMPNS_OLD (SCM_TIMESTAMPNS)", "recv",
          "linux/time_types.h", old_timespec),
    ROW(SOL_SOCKET, SO_TIMESTAMP_NEW, "recv", "linux/time_types.h", sock_timeval),
    ROW(SOL_SOCKET, SO_TIMESTAMPNS_NEW, "recv", "linux/time_types.h", kernel_timespec),
    NAMED(SOL_SOCKET, SO_TIMESTAMPING_OLD, "SO_TIMESTAMPING_OLD (SCM_TIMESTAMPING)", "recv",
          "linux/time_types.h", timestamping),
    ROW(SOL_SOCKET, SO_TIMESTAMPING_NEW, "recv", "linux/errqueue.h", timestamping64),
    NAMED(SOL_SOCKET, SO_TIMESTAMPING_OLD, "SO_TIMESTAMPING_OLD/NEW on MSG_ERRQUEUE", "recv",
          "linux/time_types.h", timestamping),
    {"SOL_SOCKET", SOL_SOCKET, "SCM_TIMESTAMPING_OPT_STATS", SCM_TIMESTAMPING_OPT_STATS, "recv",
     "linux/tcp.h", tcp_stats, "AF_INET"},
    {"SOL_SOCKET", SOL_SOCKET, "SCM_TIMESTAMPING_OPT_STATS", SCM_TIMESTAMPING_OPT_STATS, "recv",
     "linux/tcp.h", tcp_stats, "AF_INET6"},
    {"SOL_SOCKET", SOL_SOCKET, "SCM_TIMESTAMPING_OPT_STATS", SCM_TIMESTAMPING_OPT_STATS, "recv",
     "linux/can/j1939.h", j1939_stats, "AF_CAN"},
    ROW(SOL_SOCKET, SCM_TIMESTAMPING_PKTINFO, "recv", "linux/net_tstamp.h", ts_pktinfo),
    ROW(SOL_SOCKET, SO_RXQ_OVFL, "recv", "asm/socket.h", a_u32),
    ROW(SOL_SOCKET, SCM_WIFI_STATUS, "recv", "asm/socket.h", a_true),
    ROW(SOL_SOCKET, SO_MARK, "both", "asm/socket.h", a_u32),
    ROW(SOL_SOCKET, SO_PRIORITY, "both", "asm/socket.h", a_u32),
    ROW(SOL_SOCKET, SCM_DEVMEM_LINEAR, "recv", UIO, dmabuf),
    ROW(SOL_SOCKET, SCM_DEVMEM_DMABUF, "recv", UIO, dmabuf),
    ROW(SOL_SOCKET, SO_TIMESTAMPING_OLD, "send", "asm/socket.h", a_u32),
    ROW(SOL_SOCKET, SO_TIMESTAMPING_NEW, "send", "asm/socket.h", a_u32),
    ROW(SOL_SOCKET, SCM_TXTIME, "send", "asm/socket.h", a_u64),
    ROW(SOL_SOCKET, SCM_TS_OPT_ID, "send", TS_OPT_ID, a_u32),
    ROW(SOL_SOCKET, SCM_DEVMEM_DMABUF, "send", UIO, a_u32),

    ROW(SOL_IP, IP_PKTINFO, "both", "linux/in.h", in_pktinfo),
    ROW(SOL_IP, IP_TTL, "both", "linux/in.h", an_int),
    ROW(SOL_IP, IP_TOS, "recv", "linux/in.h", a_u8),
    ROW(SOL_IP, IP_TOS, "send", "linux/in.h", an_int),
    ROW(SOL_IP, IP_RECVOPTS, "recv", "linux/in.h", twelve_bytes),
    ROW(SOL_IP, IP_RETOPTS, "both", "linux/in.h", twelve_bytes),
    ROW(SOL_IP, SCM_SECURITY, "recv", SECURITY, a_label),
    ROW(SOL_IP, IP_ORIGDSTADDR, "recv", "linux/in.h", sockaddr_in),
    ROW(SOL_IP, IP_CHECKSUM, "recv", "linux/in.h", a_u32),
    ROW(SOL_IP, IP_RECVFRAGSIZE, "recv", "linux/in.h", an_int),
    ROW(SOL_IP, IP_PROTOCOL, "send", PROTOCOL, an_int),
#define IP_ERROR(what, source, members) \
    NAMED(SOL_IP, IP_RECVERR, "IP_RECVERR " what, "recv", source, members)
    IP_ERROR("[ee_origin=2 ICMP]", "linux/errqueue.h", error_icmp),
    IP_ERROR("[ee_origin=1 LOCAL]", "linux/errqueue.h", error_local),
    IP_ERROR("[ee_origin=2 + RFC4884]", "linux/errqueue.h", error_rfc4884),
    IP_ERROR("[ee_origin=4 TIMESTAMPING]", "linux/errqueue.h", error_stamp),
    IP_ERROR("[ee_origin=4 TXSTATUS]", "linux/errqueue.h", error_status),
    IP_ERROR("[ee_origin=5 ZEROCOPY]", "linux/errqueue.h", error_zerocopy),
    IP_ERROR("[ee_origin=6 TXTIME]", "linux/errqueue.h", error_txtime),
    IP_ERROR("(rds, no sockaddr)", "linux/errqueue.h", bare_zerocopy),

    ROW(SOL_IPV6, IPV6_PKTINFO, "both", "linux/ipv6.h", in6_pktinfo),
    ROW(SOL_IPV6, IPV6_2292PKTINFO, "both", "linux/ipv6.h", in6_pktinfo),
    ROW(SOL_IPV6, IPV6_HOPLIMIT, "both", "linux/in6.h", an_int),
    ROW(SOL_IPV6, IPV6_2292HOPLIMIT, "both", "linux/in6.h", an_int),
    ROW(SOL_IPV6, IPV6_TCLASS, "both", "linux/in6.h", an_int),
    ROW(SOL_IPV6, IPV6_FLOWINFO, "both", "linux/in6.h", a_be32),
    ROW(SOL_IPV6, IPV6_HOPOPTS, "both", "linux/ipv6.h", extension),
    ROW(SOL_IPV6, IPV6_DSTOPTS, "both", "linux/ipv6.h", extension),
    ROW(SOL_IPV6, IPV6_RTHDR, "both", "linux/ipv6.h", extension),
    ROW(SOL_IPV6, IPV6_2292HOPOPTS, "both", "linux/ipv6.h", extension),
    ROW(SOL_IPV6, IPV6_2292DSTOPTS, "both", "linux/ipv6.h", extension),
    ROW(SOL_IPV6, IPV6_2292RTHDR, "both", "linux/ipv6.h", extension),
    ROW(SOL_IPV6, IPV6_RTHDRDSTOPTS, "send", "linux/ipv6.h", extension),
    ROW(SOL_IPV6, IPV6_DONTFRAG, "send", "linux/in6.h", a_true),
    ROW(SOL_IPV6, IPV6_ORIGDSTADDR, "recv", "linux/in6.h", sockaddr_in6),
    ROW(SOL_IPV6, IPV6_RECVFRAGSIZE, "recv", "linux/in6.h", an_int),
    ROW(SOL_IPV6, IPV6_PATHMTU, "recv", "linux/ipv6.h", mtuinfo),
#define IPV6_ERROR(what, members) \
    NAMED(SOL_IPV6, IPV6_RECVERR, "IPV6_RECVERR " what, "recv", "linux/errqueue.h", members)
    IPV6_ERROR("[ee_origin=3 ICMP6]", error6_icmp6),
    IPV6_ERROR("[ee_origin=2 ICMP (v4-mapped)]", error6_icmp),
    IPV6_ERROR("[ee_origin=1 LOCAL]", error6_local),
    IPV6_ERROR("[ee_origin=3 + RFC4884]", error6_rfc4884),
    IPV6_ERROR("[ee_origin=4 TIMESTAMPING]", error6_stamp),
    IPV6_ERROR("[ee_origin=5 ZEROCOPY]", error6_zerocopy),
    IPV6_ERROR("[ee_origin=6 TXTIME]", error6_txtime),

    ROW(SOL_UDP, UDP_SEGMENT, "send", "linux/udp.h", a_u16),
    ROW(SOL_UDP, UDP_GRO, "recv", "linux/udp.h", an_int),
    ROW(SOL_TCP, TCP_CM_INQ, "recv", "linux/tcp.h", an_int),
    ROW(SOL_TLS, TLS_SET_RECORD_TYPE, "send", "linux/tls.h", a_record_type),
    ROW(SOL_TLS, TLS_GET_RECORD_TYPE, "recv", "linux/tls.h", a_record_type),
    ROW(SOL_ALG, ALG_SET_IV, "send", "linux/if_alg.h", alg_iv),
    ROW(SOL_ALG, ALG_SET_OP, "send", "linux/if_alg.h", alg_op),
    ROW(SOL_ALG, ALG_SET_AEAD_ASSOCLEN, "send", "linux/if_alg.h", a_u32),
    ROW(SOL_PACKET, PACKET_AUXDATA, "recv", "linux/if_packet.h", auxdata),
    ROW(SOL_PACKET, PACKET_TX_TIMESTAMP, "recv", "linux/if_packet.h", bare_stamp),
    ROW(SOL_NETLINK, NETLINK_PKTINFO, "recv", "linux/netlink.h", nl_pktinfo),
    ROW(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, "recv", "linux/netlink.h", an_int),
    ROW(SOL_BLUETOOTH, BT_SCM_PKT_STATUS, "recv", BLUETOOTH, a_u8),
    ROW(SOL_BLUETOOTH, BT_SCM_ERROR, "recv", BLUETOOTH, bare_stamp),
    ROW(SOL_BLUETOOTH, BT_SCM_PKT_SEQNUM, "recv", BLUETOOTH, a_u16),
    ROW(SOL_HCI, HCI_CMSG_DIR, "recv", HCI, a_true),
    ROW(SOL_HCI, HCI_CMSG_TSTAMP, "recv", HCI, old_timeval),

#define SCTP_ROW(type, direction, members) \
    {"IPPROTO_SCTP", IPPROTO_SCTP, #type, type, direction, "linux/sctp.h", members, ""}
    SCTP_ROW(SCTP_INIT, "send", initmsg),
    SCTP_ROW(SCTP_SNDRCV, "both", sndrcvinfo),
    SCTP_ROW(SCTP_SNDINFO, "send", sndinfo),
    SCTP_ROW(SCTP_RCVINFO, "recv", rcvinfo),
    SCTP_ROW(SCTP_NXTINFO, "recv", nxtinfo),
    SCTP_ROW(SCTP_PRINFO, "send", prinfo),
    SCTP_ROW(SCTP_AUTHINFO, "send", authinfo),
    SCTP_ROW(SCTP_DSTADDRV4, "send", in_address),
    SCTP_ROW(SCTP_DSTADDRV6, "send", in6_address),

    ROW(SOL_RDS, RDS_CMSG_RDMA_ARGS, "send", "linux/rds.h", rdma_args),
    ROW(SOL_RDS, RDS_CMSG_RDMA_DEST, "both", "linux/rds.h", a_u64),
    ROW(SOL_RDS, RDS_CMSG_RDMA_MAP, "send", "linux/rds.h", mr_args),
    ROW(SOL_RDS, RDS_CMSG_RDMA_STATUS, "recv", "linux/rds.h", rdma_notify),
    ROW(SOL_RDS, RDS_CMSG_CONG_UPDATE, "recv", "linux/rds.h", a_u64),
    ROW(SOL_RDS, RDS_CMSG_ATOMIC_FADD, "send", "linux/rds.h", fadd),
    ROW(SOL_RDS, RDS_CMSG_ATOMIC_CSWP, "send", "linux/rds.h", cswp),
    ROW(SOL_RDS, RDS_CMSG_MASKED_ATOMIC_FADD, "send", "linux/rds.h", masked_fadd),
    ROW(SOL_RDS, RDS_CMSG_MASKED_ATOMIC_CSWP, "send", "linux/rds.h", masked_cswp),
    ROW(SOL_RDS, RDS_CMSG_RXPATH_LATENCY, "recv", "linux/rds.h", rx_trace),
    ROW(SOL_RDS, RDS_CMSG_ZCOPY_COOKIE, "send", "linux/rds.h", a_u32),
    ROW(SOL_RDS, RDS_CMSG_ZCOPY_COMPLETION, "recv", "linux/rds.h", zcopy_cookies),

    ROW(SOL_RXRPC, RXRPC_USER_CALL_ID, "both", "linux/rxrpc.h", a_long),
    ROW(SOL_RXRPC, RXRPC_ABORT, "both", "linux/rxrpc.h", a_u32),
    ROW(SOL_RXRPC, RXRPC_ACK, "recv", "linux/rxrpc.h", none),
    ROW(SOL_RXRPC, RXRPC_NET_ERROR, "recv", "linux/rxrpc.h", a_u32),
    ROW(SOL_RXRPC, RXRPC_BUSY, "recv", "linux/rxrpc.h", none),
    ROW(SOL_RXRPC, RXRPC_LOCAL_ERROR, "recv", "linux/rxrpc.h", a_u32),
    ROW(SOL_RXRPC, RXRPC_NEW_CALL, "recv", "linux/rxrpc.h", none),
    ROW(SOL_RXRPC, RXRPC_EXCLUSIVE_CALL, "send", "linux/rxrpc.h", none),
    ROW(SOL_RXRPC, RXRPC_UPGRADE_SERVICE, "send", "linux/rxrpc.h", none),
    ROW(SOL_RXRPC, RXRPC_TX_LENGTH, "send", "linux/rxrpc.h", a_positive_s64),
    ROW(SOL_RXRPC, RXRPC_SET_CALL_TIMEOUT, "send", "linux/rxrpc.h", timeouts),
    ROW(SOL_RXRPC, RXRPC_CHARGE_ACCEPT, "send", "linux/rxrpc.h", none),
    ROW(SOL_RXRPC, RXRPC_OOB_ID, "both", RXRPC_LATER, a_u64),
    ROW(SOL_RXRPC, RXRPC_CHALLENGED, "recv", RXRPC_LATER, challenge),
    ROW(SOL_RXRPC, RXRPC_CHALLENGED, "recv", RXRPC_LATER, rxgk),
    ROW(SOL_RXRPC, RXRPC_RESPOND, "send", RXRPC_LATER, none),
    ROW(SOL_RXRPC, RXRPC_RESPONDED, "recv", RXRPC_LATER, some_bytes),
    ROW(SOL_RXRPC, RXRPC_RESP_RXGK_APPDATA, "send", RXRPC_LATER, some_bytes),

    ROW(SOL_IUCV, SCM_IUCV_TRGCLS, "both", IUCV, a_u32),
    ROW(SOL_CAN_RAW, SCM_CAN_RAW_ERRQUEUE, "recv", "linux/can/raw.h", bare_stamp),
    ROW(SOL_CAN_J1939, SCM_J1939_DEST_ADDR, "recv", "linux/can/j1939.h", a_u8),
    ROW(SOL_CAN_J1939, SCM_J1939_DEST_NAME, "recv", "linux/can/j1939.h", a_u64),
    ROW(SOL_CAN_J1939, SCM_J1939_PRIO, "recv", "linux/can/j1939.h", a_u8),
    ROW(SOL_CAN_J1939, SCM_J1939_ERRQUEUE, "recv", "linux/can/j1939.h", bare_local),
    ROW(SOL_LLC, LLC_OPT_PKTINFO, "recv", "linux/llc.h", llc),
    ROW(SOL_TIPC, TIPC_ERRINFO, "recv", "linux/tipc.h", errinfo),
    ROW(SOL_TIPC, TIPC_RETDATA, "recv", "linux/tipc.h", some_bytes),
    ROW(SOL_TIPC, TIPC_DESTNAME, "recv", "linux/tipc.h", destname),
    ROW(SOL_DCCP, DCCP_SCM_PRIORITY, "send", DCCP, a_u32),
    ROW(SOL_IEEE802154, WPAN_WANTLQI, "recv", IEEE802154, a_u8),
    ROW(SOL_MISDN, MISDN_TIME_STAMP, "recv", MISDN, old_timeval),
    ROW(SOL_VSOCK, VSOCK_RECVERR, "recv", "linux/vm_sockets.h", bare_zerocopy),
};

static _Alignas(struct cmsghdr) unsigned char control[4096];

static void
print_row(const row *now, const char *direction)
{
    printf("{\"level_name\": \"%s\", \"level\": %d, \"name\": \"%s\", \"type\": %d, "
           "\"direction\": \"%s\", \"family\": \"%s\", \"source\": \"%s\", \"members\": [",
           now->level_name, now->level, now->name, now->type, direction, now->family, now->source);
    counter = 0;
    comma = "";
    now->members();
    printf("], \"payload\": ");
    print_hex(payload, size);
}

/* By the macros, as a program would. */
static void
print_control(const row *now)
{
    struct msghdr msg = {.msg_control = control, .msg_controllen = CMSG_SPACE(size)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
    header->cmsg_level = now->level;
    header->cmsg_type = now->type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), payload, size);
    printf(", \"control\": ");
    print_hex(control, msg.msg_controllen);
    printf("}\n");
}

static void
make(const row *now, const char *direction)
{
    memset(payload, 0, sizeof(control));
    memset(control, 0, sizeof(control));
    print_row(now, direction);
    print_control(now);
}

/* The only message of a buffer, by the row that it has to be. */
static int
read_control(const row *now, const char *direction)
{
    struct msghdr msg = {.msg_control = control};
    msg.msg_controllen = fread(control, 1, sizeof(control), stdin);
    struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
    if (header == NULL || header->cmsg_level != now->level || header->cmsg_type != now->type
        || CMSG_NXTHDR(&msg, header) != NULL) {
        fprintf(stderr, "this is not one (%d, %d)\n", now->level, now->type);
        return 1;
    }
    size_t given = (size_t)header->cmsg_len - CMSG_LEN(0);
    memcpy(payload, CMSG_DATA(header), given);
    size = given;
    print_row(now, direction);
    printf("}\n");
    if (size != given) {
        fprintf(stderr, "%zu bytes; the struct has %zu\n", given, size);
        return 1;
    }
    return 0;
}

int
main(int count, char **arguments)
{
    payload = calloc(1, sizeof(control));
    reads = count > 1;
    if (payload == NULL || (reads && (count != 5 || strcmp(arguments[1], "read") != 0))) {
        return 2;
    }
    if (!reads) {
        printf("{\"headers\": %d, \"long\": %zu, \"pointer\": %zu, \"align64\": %zu}\n",
               LINUX_VERSION_CODE, sizeof(long), sizeof(void *),
               _Alignof(struct {uint64_t value;}));
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const row *now = &rows[i];
        int is_both = strcmp(now->direction, "both") == 0;
        if (!reads) {
            make(now, is_both ? "recv" : now->direction);
            if (is_both) {
                make(now, "send");
            }
        }
        else if (strcmp(now->level_name, arguments[2]) == 0 && strcmp(now->name, arguments[3]) == 0
                 && (is_both || strcmp(now->direction, arguments[4]) == 0)) {
            return read_control(now, arguments[4]);
        }
    }
    return reads ? 2 : 0;
}

#endif
