/* The payloads of the rows: for each struct a function that goes through its members.  For
   messages.c alone. */

#ifndef PAYLOADS_H
#define PAYLOADS_H

#include "headers.h"
#include "members.h"

#include <errno.h>

#define PAYLOAD(function, ...) \
    typedef __VA_ARGS__ function##_type; \
    static void function##_members(function##_type *); \
    static void \
    function(void) \
    { \
        size = sizeof(function##_type); \
        function##_members(payload); \
    } \
    static void \
    function##_members(function##_type *s)

#define SCALAR(function, type, member) \
    PAYLOAD(function, struct {type value;}) \
    { \
        member; \
    }

static void
none(void)
{
    size = 0;
}

SCALAR(an_int, int, NUMBER(value))
SCALAR(a_positive_int, int, POSITIVE(value))
SCALAR(a_true, int, VALUE(value, 1))
SCALAR(a_u8, __u8, NUMBER(value))
SCALAR(a_u16, __u16, NUMBER(value))
SCALAR(a_u32, __u32, NUMBER(value))
SCALAR(a_u64, __u64, NUMBER(value))
SCALAR(a_positive_s64, __s64, POSITIVE(value))
SCALAR(a_long, unsigned long, NUMBER(value))
SCALAR(a_be32, __be32, BIG(value))

#define OPEN(function, length) \
    static void \
    function(void) \
    { \
        if (!reads) { \
            size = (length); \
        } \
        bytes_member("value", payload, size); \
    }
OPEN(twelve_bytes, 12)
OPEN(some_bytes, 37)

/* A label with the NUL that some security modules append. */
static void
a_label(void)
{
    size = sizeof("system_u:object_r:t:s0");
    memcpy(payload, "system_u:object_r:t:s0", size);
    open_member("context", payload, size - 1, "bytes");
    print_hex(payload, size - 1);
    printf("}");
    pad_member("NUL", (char *)payload + size - 1, 1);
}

PAYLOAD(rights, struct {int fd[3];})
{
    POSITIVE(fd[0]);
    POSITIVE(fd[1]);
    POSITIVE(fd[2]);
}

PAYLOAD(ucred, struct ucred)
{
    POSITIVE(pid);
    NUMBER(uid);
    NUMBER(gid);
}

/* Time: what the kernel has for a program with a 32-bit time_t, and for any other. */
#define SECONDS (1700000000 + (int)++counter)
#define MICROSECONDS (654321 + (int)++counter)
#define NANOSECONDS (987654321 + (int)++counter)

PAYLOAD(old_timeval, struct __kernel_old_timeval)
{
    VALUE(tv_sec, SECONDS);
    VALUE(tv_usec, MICROSECONDS);
}

PAYLOAD(old_timespec, struct __kernel_old_timespec)
{
    VALUE(tv_sec, SECONDS);
    VALUE(tv_nsec, NANOSECONDS);
}

PAYLOAD(sock_timeval, struct __kernel_sock_timeval)
{
    VALUE(tv_sec, SECONDS + (INT64_C(1) << 32));
    VALUE(tv_usec, MICROSECONDS);
}

PAYLOAD(kernel_timespec, struct __kernel_timespec)
{
    VALUE(tv_sec, SECONDS + (INT64_C(1) << 32));
    VALUE(tv_nsec, NANOSECONDS);
}

/* struct scm_timestamping has the C library's timespec, which need not be the kernel's. */
struct old_timestamping {
    struct __kernel_old_timespec ts[3];
};

PAYLOAD(timestamping, struct old_timestamping)
{
    VALUE(ts[0].tv_sec, SECONDS);
    VALUE(ts[0].tv_nsec, NANOSECONDS);
    VALUE(ts[1].tv_sec, SECONDS);
    VALUE(ts[1].tv_nsec, NANOSECONDS);
    VALUE(ts[2].tv_sec, SECONDS);
    VALUE(ts[2].tv_nsec, NANOSECONDS);
}

PAYLOAD(timestamping64, struct scm_timestamping64)
{
    VALUE(ts[0].tv_sec, SECONDS + (INT64_C(1) << 32));
    VALUE(ts[0].tv_nsec, NANOSECONDS);
    VALUE(ts[1].tv_sec, SECONDS + (INT64_C(1) << 32));
    VALUE(ts[1].tv_nsec, NANOSECONDS);
    VALUE(ts[2].tv_sec, SECONDS + (INT64_C(1) << 32));
    VALUE(ts[2].tv_nsec, NANOSECONDS);
}

/* A struct nlattr, and a number in it, behind those that are there. */
static void
attribute(const char *name, int type, size_t bytes)
{
    struct nlattr header = {(__u16)(NLA_HDRLEN + bytes), (__u16)type};
    uint64_t value = distinct(bytes);
    char *at = (char *)payload + size;
    union {uint8_t B; uint16_t H; uint32_t I; uint64_t Q;} number;
    switch (bytes) {
    case 1: number.B = (uint8_t)value; break;
    case 2: number.H = (uint16_t)value; break;
    case 4: number.I = (uint32_t)value; break;
    default: number.Q = value;
    }
    memcpy(at, &header, sizeof(header));
    memcpy(at + NLA_HDRLEN, &number, bytes);
    open_member(name, at + NLA_HDRLEN, bytes, "attribute");
    printf("%llu}", (unsigned long long)value);
    size += NLA_ALIGN(header.nla_len);
}

/* Before 64 bits, where the processor wants them aligned. */
static void
padding_attribute(int type)
{
    struct nlattr header = {NLA_HDRLEN, (__u16)type};
    memcpy((char *)payload + size, &header, sizeof(header));
    size += NLA_HDRLEN;
}

#define ATTRIBUTE(name, type) attribute(#name, name, sizeof(type))

static void
tcp_stats(void)
{
    size = 0;
    padding_attribute(TCP_NLA_PAD);
    ATTRIBUTE(TCP_NLA_BUSY, __u64);
    ATTRIBUTE(TCP_NLA_RWND_LIMITED, __u64);
    ATTRIBUTE(TCP_NLA_SND_CWND, __u32);
    ATTRIBUTE(TCP_NLA_RECUR_RETRANS, __u8);
    ATTRIBUTE(TCP_NLA_DELIVERY_RATE_APP_LMT, __u8);
    ATTRIBUTE(TCP_NLA_SRTT, __u32);
    ATTRIBUTE(TCP_NLA_TIMEOUT_REHASH, __u16);
    padding_attribute(TCP_NLA_PAD);
    ATTRIBUTE(TCP_NLA_EDT, __u64);
    ATTRIBUTE(TCP_NLA_TTL, __u8);
    ATTRIBUTE(TCP_NLA_REHASH, __u32);
}

static void
j1939_stats(void)
{
    size = 0;
    ATTRIBUTE(J1939_NLA_BYTES_ACKED, __u32);
    ATTRIBUTE(J1939_NLA_TOTAL_SIZE, __u32);
    ATTRIBUTE(J1939_NLA_PGN, __u32);
    padding_attribute(J1939_NLA_PAD);
    ATTRIBUTE(J1939_NLA_SRC_NAME, __u64);
    padding_attribute(J1939_NLA_PAD);
    ATTRIBUTE(J1939_NLA_DEST_NAME, __u64);
    ATTRIBUTE(J1939_NLA_SRC_ADDR, __u8);
    ATTRIBUTE(J1939_NLA_DEST_ADDR, __u8);
}

PAYLOAD(ts_pktinfo, struct scm_ts_pktinfo)
{
    POSITIVE(if_index);
    NUMBER(pkt_length);
    PAD(reserved);
}

PAYLOAD(dmabuf, struct dmabuf_cmsg)
{
    NUMBER(frag_offset);
    NUMBER(frag_size);
    NUMBER(frag_token);
    NUMBER(dmabuf_id);
    NUMBER(flags);
}

/* IP */

PAYLOAD(in_pktinfo, struct in_pktinfo)
{
    POSITIVE(ipi_ifindex);
    BYTES(ipi_spec_dst);
    BYTES(ipi_addr);
}

PAYLOAD(in6_pktinfo, struct in6_pktinfo)
{
    BYTES(ipi6_addr);
    POSITIVE(ipi6_ifindex);
}

PAYLOAD(in_address, struct in_addr)
{
    BYTES(s_addr);
}

PAYLOAD(in6_address, struct in6_addr)
{
    BYTES(s6_addr);
}

PAYLOAD(sockaddr_in, struct sockaddr_in)
{
    VALUE(sin_family, AF_INET);
    BIG(sin_port);
    BYTES(sin_addr);
    PAD(sin_zero);
}

PAYLOAD(sockaddr_in6, struct sockaddr_in6)
{
    VALUE(sin6_family, AF_INET6);
    BIG(sin6_port);
    /* 20 bits of it are the flow label, which is all that the socket module takes. */
    VALUE(sin6_flowinfo, 0);
    BYTES(sin6_addr);
    NUMBER(sin6_scope_id);
}

PAYLOAD(mtuinfo, struct ip6_mtuinfo)
{
    sockaddr_in6_members(&s->ip6m_addr);
    NUMBER(ip6m_mtu);
}

/* An extension header of IPv6 with one unit of 8 bytes more than its first. */
static void
extension(void)
{
    struct ipv6_opt_hdr *s = payload;
    if (!reads) {
        size = 16;
    }
    NUMBER(nexthdr);
    VALUE(hdrlen, 1);
    bytes_member("data", (char *)payload + sizeof(*s), size - sizeof(*s));
}

static void
error_members(struct sock_extended_err *s, int origin, int error, __u32 data)
{
    VALUE(ee_errno, error);
    VALUE(ee_origin, origin);
    NUMBER(ee_type);
    NUMBER(ee_code);
    PAD(ee_pad);
    NUMBER(ee_info);
    VALUE(ee_data, data);
}

/* What ee_data is with IP_RECVERR_RFC4884: where the extension of the ICMP message starts. */
static __u32
rfc4884(void)
{
    struct sock_extended_err error = {
        .ee_rfc4884 = {.len = 0x1234, .flags = SO_EE_RFC4884_FLAG_INVALID},
    };
    return error.ee_data;
}

/* As net/ipv4/ip_sockglue.c and net/ipv6/datagram.c have it.  Who sent an ICMP error follows;
   zeros for any other. */
#define ERROR(function, sockaddr, origin, error, data, has_offender) \
    PAYLOAD(function, struct {struct sock_extended_err ee; struct sockaddr offender;}) \
    { \
        error_members(&s->ee, origin, error, (__u32)(data)); \
        if (has_offender) { \
            sockaddr##_members(&s->offender); \
        } \
        else { \
            PAD(offender); \
        } \
    }
ERROR(error_icmp, sockaddr_in, SO_EE_ORIGIN_ICMP, ECONNREFUSED, distinct(4), 1)
ERROR(error_local, sockaddr_in, SO_EE_ORIGIN_LOCAL, EMSGSIZE, distinct(4), 0)
ERROR(error_rfc4884, sockaddr_in, SO_EE_ORIGIN_ICMP, EHOSTUNREACH, rfc4884(), 1)
ERROR(error_stamp, sockaddr_in, SO_EE_ORIGIN_TIMESTAMPING, ENOMSG, distinct(4), 0)
ERROR(error_status, sockaddr_in, SO_EE_ORIGIN_TXSTATUS, ENOMSG, distinct(4), 0)
ERROR(error_zerocopy, sockaddr_in, SO_EE_ORIGIN_ZEROCOPY, 0, distinct(4), 0)
ERROR(error_txtime, sockaddr_in, SO_EE_ORIGIN_TXTIME, ECANCELED, distinct(4), 0)
ERROR(error6_icmp6, sockaddr_in6, SO_EE_ORIGIN_ICMP6, ECONNREFUSED, distinct(4), 1)
ERROR(error6_icmp, sockaddr_in6, SO_EE_ORIGIN_ICMP, ECONNREFUSED, distinct(4), 1)
ERROR(error6_local, sockaddr_in6, SO_EE_ORIGIN_LOCAL, EMSGSIZE, distinct(4), 0)
ERROR(error6_rfc4884, sockaddr_in6, SO_EE_ORIGIN_ICMP6, EHOSTUNREACH, rfc4884(), 1)
ERROR(error6_stamp, sockaddr_in6, SO_EE_ORIGIN_TIMESTAMPING, ENOMSG, distinct(4), 0)
ERROR(error6_zerocopy, sockaddr_in6, SO_EE_ORIGIN_ZEROCOPY, 0, distinct(4), 0)
ERROR(error6_txtime, sockaddr_in6, SO_EE_ORIGIN_TXTIME, ECANCELED, distinct(4), 0)

/* sock_recv_errqueue() gives it alone. */
PAYLOAD(bare_stamp, struct sock_extended_err)
{
    error_members(s, SO_EE_ORIGIN_TIMESTAMPING, ENOMSG, (__u32)distinct(4));
}

PAYLOAD(bare_zerocopy, struct sock_extended_err)
{
    error_members(s, SO_EE_ORIGIN_ZEROCOPY, 0, (__u32)distinct(4));
}

PAYLOAD(bare_local, struct sock_extended_err)
{
    error_members(s, SO_EE_ORIGIN_LOCAL, ECANCELED, (__u32)distinct(4));
}

/* What hangs on a family -------------------------------------------------------------------- */

SCALAR(a_record_type, __u8, VALUE(value, 22))    /* handshake, RFC 8446 */

static void
alg_iv(void)
{
    struct af_alg_iv *s = payload;
    if (!reads) {
        size = sizeof(*s) + 16;
    }
    VALUE(ivlen, 16);
    bytes_member("iv", s->iv, size - sizeof(*s));
}

SCALAR(alg_op, __u32, VALUE(value, ALG_OP_ENCRYPT))

PAYLOAD(auxdata, struct tpacket_auxdata)
{
    NUMBER(tp_status);
    NUMBER(tp_len);
    NUMBER(tp_snaplen);
    NUMBER(tp_mac);
    NUMBER(tp_net);
    NUMBER(tp_vlan_tci);
    NUMBER(tp_vlan_tpid);
}

PAYLOAD(nl_pktinfo, struct nl_pktinfo)
{
    NUMBER(group);
}

PAYLOAD(initmsg, struct sctp_initmsg)
{
    NUMBER(sinit_num_ostreams);
    NUMBER(sinit_max_instreams);
    NUMBER(sinit_max_attempts);
    NUMBER(sinit_max_init_timeo);
}

PAYLOAD(sndrcvinfo, struct sctp_sndrcvinfo)
{
    NUMBER(sinfo_stream);
    NUMBER(sinfo_ssn);
    NUMBER(sinfo_flags);
    NUMBER(sinfo_ppid);
    NUMBER(sinfo_context);
    NUMBER(sinfo_timetolive);
    NUMBER(sinfo_tsn);
    NUMBER(sinfo_cumtsn);
    NUMBER(sinfo_assoc_id);
}

PAYLOAD(sndinfo, struct sctp_sndinfo)
{
    NUMBER(snd_sid);
    NUMBER(snd_flags);
    NUMBER(snd_ppid);
    NUMBER(snd_context);
    NUMBER(snd_assoc_id);
}

PAYLOAD(rcvinfo, struct sctp_rcvinfo)
{
    NUMBER(rcv_sid);
    NUMBER(rcv_ssn);
    NUMBER(rcv_flags);
    NUMBER(rcv_ppid);
    NUMBER(rcv_tsn);
    NUMBER(rcv_cumtsn);
    NUMBER(rcv_context);
    NUMBER(rcv_assoc_id);
}

PAYLOAD(nxtinfo, struct sctp_nxtinfo)
{
    NUMBER(nxt_sid);
    NUMBER(nxt_flags);
    NUMBER(nxt_ppid);
    NUMBER(nxt_length);
    NUMBER(nxt_assoc_id);
}

PAYLOAD(prinfo, struct sctp_prinfo)
{
    VALUE(pr_policy, SCTP_PR_SCTP_RTX);
    NUMBER(pr_value);
}

PAYLOAD(authinfo, struct sctp_authinfo)
{
    NUMBER(auth_keynumber);
}

PAYLOAD(rdma_args, struct rds_rdma_args)
{
    NUMBER(cookie);
    NUMBER(remote_vec.addr);
    NUMBER(remote_vec.bytes);
    NUMBER(local_vec_addr);
    NUMBER(nr_local);
    NUMBER(flags);
    NUMBER(user_token);
}

PAYLOAD(mr_args, struct rds_get_mr_args)
{
    NUMBER(vec.addr);
    NUMBER(vec.bytes);
    NUMBER(cookie_addr);
    NUMBER(flags);
}

PAYLOAD(rdma_notify, struct rds_rdma_notify)
{
    NUMBER(user_token);
    NUMBER(status);
}

/* One struct, four views of the union in it. */
#define ATOMIC(function, ...) \
    PAYLOAD(function, struct rds_atomic_args) \
    { \
        NUMBER(cookie); \
        NUMBER(local_addr); \
        NUMBER(remote_addr); \
        __VA_ARGS__; \
        NUMBER(flags); \
        NUMBER(user_token); \
    }
ATOMIC(fadd, NUMBER(fadd.add))
ATOMIC(cswp, NUMBER(cswp.compare); NUMBER(cswp.swap))
ATOMIC(masked_fadd, NUMBER(m_fadd.add); NUMBER(m_fadd.nocarry_mask))
ATOMIC(masked_cswp, NUMBER(m_cswp.compare); NUMBER(m_cswp.swap); NUMBER(m_cswp.compare_mask);
       NUMBER(m_cswp.swap_mask))

PAYLOAD(rx_trace, struct rds_cmsg_rx_trace)
{
    VALUE(rx_traces, RDS_MSG_RX_DGRAM_TRACE_MAX);
    VALUE(rx_trace_pos[0], RDS_MSG_RX_DGRAM_REASSEMBLE);
    VALUE(rx_trace_pos[1], RDS_MSG_RX_DGRAM_DELIVERED);
    VALUE(rx_trace_pos[2], RDS_MSG_RX_HDR_TO_DGRAM_START);
    NUMBER(rx_trace[0]);
    NUMBER(rx_trace[1]);
    NUMBER(rx_trace[2]);
}

PAYLOAD(zcopy_cookies, struct rds_zcopy_cookies)
{
    VALUE(num, RDS_MAX_ZCOOKIES);
    NUMBER(cookies[0]);
    NUMBER(cookies[1]);
    NUMBER(cookies[2]);
    NUMBER(cookies[3]);
    NUMBER(cookies[4]);
    NUMBER(cookies[5]);
    NUMBER(cookies[6]);
    NUMBER(cookies[7]);
}

PAYLOAD(timeouts, struct {__u32 hard, idle, normal;})    /* net/rxrpc/sendmsg.c: u32[3] */
{
    NUMBER(hard);
    NUMBER(idle);
    NUMBER(normal);
}

PAYLOAD(challenge, struct rxrpc_challenge)
{
    NUMBER(service_id);
    NUMBER(security_index);
    PAD(pad);
}

PAYLOAD(rxgk, struct rxgk_challenge)
{
    NUMBER(base.service_id);
    NUMBER(base.security_index);
    PAD(base.pad);
    NUMBER(enctype);
}

PAYLOAD(llc, struct llc_pktinfo)
{
    POSITIVE(lpi_ifindex);
    NUMBER(lpi_sap);
    BYTES(lpi_mac);
}

PAYLOAD(errinfo, struct {__u32 errcode, datalen;})       /* net/tipc/socket.c: u32[2] */
{
    NUMBER(errcode);
    NUMBER(datalen);
}

PAYLOAD(destname, struct {__u32 type, lower, upper;})    /* net/tipc/socket.c: u32[3] */
{
    NUMBER(type);
    NUMBER(lower);
    NUMBER(upper);
}

#endif
