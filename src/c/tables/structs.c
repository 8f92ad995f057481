#include "tables/structs.h"

#include "plain/uapi.h"

#include <net/if.h>
#include <stddef.h>
#include <stdint.h>
#ifndef __linux__
#  include <net/if_dl.h>
#endif
#ifdef __FreeBSD__
#  include <netinet/sctp_uio.h>
#  if __has_include(<sys/ktls.h>)
#    include <sys/ktls.h>
#  endif
#endif

/* The layouts of payloads, from the structs of the C library and of uapi.h.  A flat list: a row
   that opens a layout, then a row for each of its members, in the order of the struct. */
typedef struct {
    const char *layout;     /* opens one; or NULL */
    const char *member;
    char format;            /* as in types/field.c */
    Py_ssize_t min_size;    /* bytes of the payload; of a member: its offset */
    Py_ssize_t max_size;    /* -1: no limit;         of a member: its size, 0: the rest */
} row;

/* A value, and a condition that the compiler checks: a _Static_assert inside an expression. */
#define CHECKED(value, condition) \
    ((Py_ssize_t)((value) + 0 * sizeof(struct {_Static_assert(condition, #condition); char c;})))

#define FORMAT_SIZE(format) \
    ((format) == 'b' || (format) == 'B' ? 1 \
     : (format) == 'h' || (format) == 'H' || (format) == 'n' ? 2 \
     : (format) == 'q' || (format) == 'Q' || (format) == 'T' ? 8 \
     : (format) == 'A' ? 16 : 4)

/* `size` and `at` are those of the kernel on this ABI, whatever the headers of the build say. */
#define OPEN(name, min_size, max_size) \
    {name, NULL, 0, (Py_ssize_t)(min_size), (Py_ssize_t)(max_size)}
#define STRUCT(name, type, size) \
    {name, NULL, 0, CHECKED(sizeof(type), sizeof(type) == (size)), (Py_ssize_t)sizeof(type)}
#define SIZE(type, member) sizeof(((type *)0)->member)
#define OFFSET(type, member, at) \
    CHECKED(offsetof(type, member), offsetof(type, member) == (at))
#define NAMED(name, type, member, format, at) \
    {NULL, name, format, OFFSET(type, member, at), \
     CHECKED(SIZE(type, member), SIZE(type, member) == FORMAT_SIZE(format))}
#define MEMBER(type, member, format, at) NAMED(#member, type, member, format, at)
#define RAW(type, member, at) \
    {NULL, #member, 's', OFFSET(type, member, at), (Py_ssize_t)SIZE(type, member)}
/* Something that is not a member of a struct. */
#define ALONE(name, format, offset, size) {NULL, name, format, offset, size}

/* The structs of SCTP: the kernel's on Linux, the C library's on FreeBSD. */
#ifdef __linux__
#  define SCTP(name) struct cmsgx_##name
#  define SCTP_ASSOCIATION 'i'
#else
#  define SCTP(name) struct name
#  define SCTP_ASSOCIATION 'I'
#endif

static const row rows[] = {
    /* Not structs */
    OPEN("none", 0, 0),
    OPEN("bytes", 0, -1), ALONE("value", 't', 0, 0),
    OPEN("int", 4, 4), ALONE("value", 'i', 0, 4),
    OPEN("u8", 1, 1), ALONE("value", 'B', 0, 1),
    OPEN("u16", 2, 2), ALONE("value", 'H', 0, 2),
    OPEN("u32", 4, 4), ALONE("value", 'I', 0, 4),
    OPEN("u64", 8, 8), ALONE("value", 'Q', 0, 8),
    OPEN("i64", 8, 8), ALONE("value", 'q', 0, 8),
    OPEN("ulong", sizeof(long), sizeof(long)),
        ALONE("value", sizeof(long) == 8 ? 'Q' : 'I', 0, sizeof(long)),
    OPEN("be16", 2, 2), ALONE("value", 'n', 0, 2),
    OPEN("be32", 4, 4), ALONE("value", 'N', 0, 4),
    /* The canonical forms of encoding.h */
    OPEN("time", 8, 8), ALONE("value", 'T', 0, 8),
    OPEN("stamping", 24, 24),
        ALONE("software", 'T', 0, 8),
        ALONE("transformed", 'T', 8, 8),
        ALONE("hardware", 'T', 16, 8),

    /* platform.h */
    STRUCT("peer", struct cmsgx_peer, 12),
        MEMBER(struct cmsgx_peer, pid, 'P', 0),
        MEMBER(struct cmsgx_peer, uid, 'I', 4),
        MEMBER(struct cmsgx_peer, gid, 'I', 8),

    /* netinet/in.h */
    STRUCT("in_addr", struct in_addr, 4),
        NAMED("address", struct in_addr, s_addr, 'a', 0),
    STRUCT("in6_addr", struct in6_addr, 16),
        NAMED("address", struct in6_addr, s6_addr, 'A', 0),
    STRUCT("sockaddr_in", struct sockaddr_in, 16), ALONE("sockaddr", 'S', 0, 0),
    STRUCT("sockaddr_in6", struct sockaddr_in6, 28), ALONE("sockaddr", 'S', 0, 0),
#if defined(__NetBSD__) && defined(IP_PKTINFO)
    STRUCT("in_pktinfo", struct in_pktinfo, 8),
        MEMBER(struct in_pktinfo, ipi_addr, 'a', 0),
        MEMBER(struct in_pktinfo, ipi_ifindex, 'I', 4),
#elif defined(__linux__) || defined(__APPLE__)
    STRUCT("in_pktinfo", struct in_pktinfo, 12),
#  ifdef __linux__
        MEMBER(struct in_pktinfo, ipi_ifindex, 'i', 0),
#  else
        MEMBER(struct in_pktinfo, ipi_ifindex, 'I', 0),
#  endif
        MEMBER(struct in_pktinfo, ipi_spec_dst, 'a', 4),
        MEMBER(struct in_pktinfo, ipi_addr, 'a', 8),
#endif
#ifdef IPV6_PKTINFO
    STRUCT("in6_pktinfo", struct in6_pktinfo, 20),
        MEMBER(struct in6_pktinfo, ipi6_addr, 'A', 0),
        MEMBER(struct in6_pktinfo, ipi6_ifindex, 'I', 16),
#endif
#ifdef IPV6_PATHMTU
    STRUCT("ip6_mtuinfo", struct ip6_mtuinfo, 32),
        {NULL, "address", 'S', OFFSET(struct ip6_mtuinfo, ip6m_addr, 0),
         CHECKED(sizeof(struct sockaddr_in6), SIZE(struct ip6_mtuinfo, ip6m_addr) == 28)},
        NAMED("mtu", struct ip6_mtuinfo, ip6m_mtu, 'I', 28),
#endif

#if defined(__linux__) || defined(__FreeBSD__)
    STRUCT("sctp_initmsg", SCTP(sctp_initmsg), 8),
        MEMBER(SCTP(sctp_initmsg), sinit_num_ostreams, 'H', 0),
        MEMBER(SCTP(sctp_initmsg), sinit_max_instreams, 'H', 2),
        MEMBER(SCTP(sctp_initmsg), sinit_max_attempts, 'H', 4),
        MEMBER(SCTP(sctp_initmsg), sinit_max_init_timeo, 'H', 6),
#  ifdef __linux__
    STRUCT("sctp_sndrcvinfo", SCTP(sctp_sndrcvinfo), 32),
#  else
    STRUCT("sctp_sndrcvinfo", SCTP(sctp_sndrcvinfo), 128),
#  endif
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_stream, 'H', 0),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_ssn, 'H', 2),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_flags, 'H', 4),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_ppid, 'I', 8),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_context, 'I', 12),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_timetolive, 'I', 16),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_tsn, 'I', 20),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_cumtsn, 'I', 24),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_assoc_id, SCTP_ASSOCIATION, 28),
#  ifndef __linux__
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_keynumber, 'H', 32),
        MEMBER(SCTP(sctp_sndrcvinfo), sinfo_keynumber_valid, 'H', 34),
    STRUCT("sctp_extrcvinfo", SCTP(sctp_extrcvinfo), 128),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_stream, 'H', 0),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_ssn, 'H', 2),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_flags, 'H', 4),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_ppid, 'I', 8),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_context, 'I', 12),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_timetolive, 'I', 16),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_tsn, 'I', 20),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_cumtsn, 'I', 24),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_assoc_id, SCTP_ASSOCIATION, 28),
        MEMBER(SCTP(sctp_extrcvinfo), serinfo_next_flags, 'H', 32),
        MEMBER(SCTP(sctp_extrcvinfo), serinfo_next_stream, 'H', 34),
        MEMBER(SCTP(sctp_extrcvinfo), serinfo_next_aid, 'I', 36),
        MEMBER(SCTP(sctp_extrcvinfo), serinfo_next_length, 'I', 40),
        MEMBER(SCTP(sctp_extrcvinfo), serinfo_next_ppid, 'I', 44),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_keynumber, 'H', 48),
        MEMBER(SCTP(sctp_extrcvinfo), sinfo_keynumber_valid, 'H', 50),
#  endif
    STRUCT("sctp_sndinfo", SCTP(sctp_sndinfo), 16),
        MEMBER(SCTP(sctp_sndinfo), snd_sid, 'H', 0),
        MEMBER(SCTP(sctp_sndinfo), snd_flags, 'H', 2),
        MEMBER(SCTP(sctp_sndinfo), snd_ppid, 'I', 4),
        MEMBER(SCTP(sctp_sndinfo), snd_context, 'I', 8),
        MEMBER(SCTP(sctp_sndinfo), snd_assoc_id, SCTP_ASSOCIATION, 12),
    STRUCT("sctp_rcvinfo", SCTP(sctp_rcvinfo), 28),
        MEMBER(SCTP(sctp_rcvinfo), rcv_sid, 'H', 0),
        MEMBER(SCTP(sctp_rcvinfo), rcv_ssn, 'H', 2),
        MEMBER(SCTP(sctp_rcvinfo), rcv_flags, 'H', 4),
        MEMBER(SCTP(sctp_rcvinfo), rcv_ppid, 'I', 8),
        MEMBER(SCTP(sctp_rcvinfo), rcv_tsn, 'I', 12),
        MEMBER(SCTP(sctp_rcvinfo), rcv_cumtsn, 'I', 16),
        MEMBER(SCTP(sctp_rcvinfo), rcv_context, 'I', 20),
        MEMBER(SCTP(sctp_rcvinfo), rcv_assoc_id, SCTP_ASSOCIATION, 24),
    STRUCT("sctp_nxtinfo", SCTP(sctp_nxtinfo), 16),
        MEMBER(SCTP(sctp_nxtinfo), nxt_sid, 'H', 0),
        MEMBER(SCTP(sctp_nxtinfo), nxt_flags, 'H', 2),
        MEMBER(SCTP(sctp_nxtinfo), nxt_ppid, 'I', 4),
        MEMBER(SCTP(sctp_nxtinfo), nxt_length, 'I', 8),
        MEMBER(SCTP(sctp_nxtinfo), nxt_assoc_id, SCTP_ASSOCIATION, 12),
    STRUCT("sctp_prinfo", SCTP(sctp_prinfo), 8),
        MEMBER(SCTP(sctp_prinfo), pr_policy, 'H', 0),
        MEMBER(SCTP(sctp_prinfo), pr_value, 'I', 4),
    STRUCT("sctp_authinfo", SCTP(sctp_authinfo), 2),
        MEMBER(SCTP(sctp_authinfo), auth_keynumber, 'H', 0),
#endif

#ifdef __linux__
    STRUCT("ucred", struct ucred, 12),
        MEMBER(struct ucred, pid, 'P', 0),
        MEMBER(struct ucred, uid, 'I', 4),
        MEMBER(struct ucred, gid, 'I', 8),
    OPEN("sock_extended_err", sizeof(struct cmsgx_sock_extended_err),
         sizeof(struct cmsgx_sock_extended_err) + sizeof(struct sockaddr_storage)),
        MEMBER(struct cmsgx_sock_extended_err, ee_errno, 'I', 0),
        MEMBER(struct cmsgx_sock_extended_err, ee_origin, 'B', 4),
        MEMBER(struct cmsgx_sock_extended_err, ee_type, 'B', 5),
        MEMBER(struct cmsgx_sock_extended_err, ee_code, 'B', 6),
        MEMBER(struct cmsgx_sock_extended_err, ee_pad, 'B', 7),
        MEMBER(struct cmsgx_sock_extended_err, ee_info, 'I', 8),
        MEMBER(struct cmsgx_sock_extended_err, ee_data, 'I', 12),
        /* SO_EE_OFFENDER */
        ALONE("offender", 'S', CHECKED(16, sizeof(struct cmsgx_sock_extended_err) == 16), 0),
    /* Not in a control message: the header that io_uring writes before a message. */
    OPEN("io_uring_recvmsg_out", CHECKED(16, sizeof(struct cmsgx_io_uring_recvmsg_out) == 16), -1),
        MEMBER(struct cmsgx_io_uring_recvmsg_out, namelen, 'I', 0),
        MEMBER(struct cmsgx_io_uring_recvmsg_out, controllen, 'I', 4),
        MEMBER(struct cmsgx_io_uring_recvmsg_out, payloadlen, 'I', 8),
        MEMBER(struct cmsgx_io_uring_recvmsg_out, flags, 'I', 12),
        ALONE("name", 'S', 16, 0),
    STRUCT("scm_ts_pktinfo", struct cmsgx_scm_ts_pktinfo, 16),
        MEMBER(struct cmsgx_scm_ts_pktinfo, if_index, 'I', 0),
        MEMBER(struct cmsgx_scm_ts_pktinfo, pkt_length, 'I', 4),
        RAW(struct cmsgx_scm_ts_pktinfo, reserved, 8),
    STRUCT("dmabuf_cmsg", struct cmsgx_dmabuf_cmsg, 24),
        MEMBER(struct cmsgx_dmabuf_cmsg, frag_offset, 'Q', 0),
        MEMBER(struct cmsgx_dmabuf_cmsg, frag_size, 'I', 8),
        MEMBER(struct cmsgx_dmabuf_cmsg, frag_token, 'I', 12),
        MEMBER(struct cmsgx_dmabuf_cmsg, dmabuf_id, 'I', 16),
        MEMBER(struct cmsgx_dmabuf_cmsg, flags, 'I', 20),
    STRUCT("tpacket_auxdata", struct cmsgx_tpacket_auxdata, 20),
        MEMBER(struct cmsgx_tpacket_auxdata, tp_status, 'I', 0),
        MEMBER(struct cmsgx_tpacket_auxdata, tp_len, 'I', 4),
        MEMBER(struct cmsgx_tpacket_auxdata, tp_snaplen, 'I', 8),
        MEMBER(struct cmsgx_tpacket_auxdata, tp_mac, 'H', 12),
        MEMBER(struct cmsgx_tpacket_auxdata, tp_net, 'H', 14),
        MEMBER(struct cmsgx_tpacket_auxdata, tp_vlan_tci, 'H', 16),
        MEMBER(struct cmsgx_tpacket_auxdata, tp_vlan_tpid, 'H', 18),
    STRUCT("nl_pktinfo", struct cmsgx_nl_pktinfo, 4),
        MEMBER(struct cmsgx_nl_pktinfo, group, 'I', 0),
    OPEN("af_alg_iv", sizeof(struct cmsgx_af_alg_iv), -1),
        MEMBER(struct cmsgx_af_alg_iv, ivlen, 'I', 0),
        ALONE("iv", 't', OFFSET(struct cmsgx_af_alg_iv, iv, 4), 0),

    STRUCT("rds_rdma_args", struct cmsgx_rds_rdma_args, 56),
        MEMBER(struct cmsgx_rds_rdma_args, cookie, 'Q', 0),
        MEMBER(struct cmsgx_rds_rdma_args, remote_vec.addr, 'Q', 8),
        MEMBER(struct cmsgx_rds_rdma_args, remote_vec.bytes, 'Q', 16),
        MEMBER(struct cmsgx_rds_rdma_args, local_vec_addr, 'Q', 24),
        MEMBER(struct cmsgx_rds_rdma_args, nr_local, 'Q', 32),
        MEMBER(struct cmsgx_rds_rdma_args, flags, 'Q', 40),
        MEMBER(struct cmsgx_rds_rdma_args, user_token, 'Q', 48),
    STRUCT("rds_get_mr_args", struct cmsgx_rds_get_mr_args, 32),
        MEMBER(struct cmsgx_rds_get_mr_args, vec.addr, 'Q', 0),
        MEMBER(struct cmsgx_rds_get_mr_args, vec.bytes, 'Q', 8),
        MEMBER(struct cmsgx_rds_get_mr_args, cookie_addr, 'Q', 16),
        MEMBER(struct cmsgx_rds_get_mr_args, flags, 'Q', 24),
    STRUCT("rds_rdma_notify", struct cmsgx_rds_rdma_notify, CMSGX_ALIGN64 == 8 ? 16 : 12),
        MEMBER(struct cmsgx_rds_rdma_notify, user_token, 'Q', 0),
        MEMBER(struct cmsgx_rds_rdma_notify, status, 'i', 8),
/* The members before and after a union, for each of its four views. */
#define ATOMIC(name) \
    STRUCT(name, struct cmsgx_rds_atomic_args, 72), \
        MEMBER(struct cmsgx_rds_atomic_args, cookie, 'Q', 0), \
        MEMBER(struct cmsgx_rds_atomic_args, local_addr, 'Q', 8), \
        MEMBER(struct cmsgx_rds_atomic_args, remote_addr, 'Q', 16)
#define ATOMIC_END \
        MEMBER(struct cmsgx_rds_atomic_args, flags, 'Q', 56), \
        MEMBER(struct cmsgx_rds_atomic_args, user_token, 'Q', 64)
    ATOMIC("rds_atomic_cswp"),
        MEMBER(struct cmsgx_rds_atomic_args, cswp.compare, 'Q', 24),
        MEMBER(struct cmsgx_rds_atomic_args, cswp.swap, 'Q', 32),
        ATOMIC_END,
    ATOMIC("rds_atomic_fadd"),
        MEMBER(struct cmsgx_rds_atomic_args, fadd.add, 'Q', 24),
        ATOMIC_END,
    ATOMIC("rds_atomic_m_cswp"),
        MEMBER(struct cmsgx_rds_atomic_args, m_cswp.compare, 'Q', 24),
        MEMBER(struct cmsgx_rds_atomic_args, m_cswp.swap, 'Q', 32),
        MEMBER(struct cmsgx_rds_atomic_args, m_cswp.compare_mask, 'Q', 40),
        MEMBER(struct cmsgx_rds_atomic_args, m_cswp.swap_mask, 'Q', 48),
        ATOMIC_END,
    ATOMIC("rds_atomic_m_fadd"),
        MEMBER(struct cmsgx_rds_atomic_args, m_fadd.add, 'Q', 24),
        MEMBER(struct cmsgx_rds_atomic_args, m_fadd.nocarry_mask, 'Q', 32),
        ATOMIC_END,
    STRUCT("rds_cmsg_rx_trace", struct cmsgx_rds_cmsg_rx_trace, CMSGX_ALIGN64 == 8 ? 32 : 28),
        MEMBER(struct cmsgx_rds_cmsg_rx_trace, rx_traces, 'B', 0),
        RAW(struct cmsgx_rds_cmsg_rx_trace, rx_trace_pos, 1),
        RAW(struct cmsgx_rds_cmsg_rx_trace, rx_trace, CMSGX_ALIGN64),
    STRUCT("rds_zcopy_cookies", struct cmsgx_rds_zcopy_cookies, 36),
        MEMBER(struct cmsgx_rds_zcopy_cookies, num, 'I', 0),
        RAW(struct cmsgx_rds_zcopy_cookies, cookies, 4),

    OPEN("rxrpc_challenge", offsetof(struct cmsgx_rxrpc_challenge, enctype),
         sizeof(struct cmsgx_rxrpc_challenge)),
        MEMBER(struct cmsgx_rxrpc_challenge, service_id, 'H', 0),
        MEMBER(struct cmsgx_rxrpc_challenge, security_index, 'B', 2),
        MEMBER(struct cmsgx_rxrpc_challenge, enctype, 'I', 4),
    OPEN("rxrpc_call_timeouts", offsetof(struct cmsgx_rxrpc_call_timeouts, idle),
         sizeof(struct cmsgx_rxrpc_call_timeouts)),
        MEMBER(struct cmsgx_rxrpc_call_timeouts, hard, 'I', 0),
        MEMBER(struct cmsgx_rxrpc_call_timeouts, idle, 'I', 4),
        MEMBER(struct cmsgx_rxrpc_call_timeouts, normal, 'I', 8),
    STRUCT("llc_pktinfo", struct cmsgx_llc_pktinfo, 12),
        MEMBER(struct cmsgx_llc_pktinfo, lpi_ifindex, 'i', 0),
        MEMBER(struct cmsgx_llc_pktinfo, lpi_sap, 'B', 4),
        RAW(struct cmsgx_llc_pktinfo, lpi_mac, 5),
    STRUCT("tipc_errinfo", struct cmsgx_tipc_errinfo, 8),
        MEMBER(struct cmsgx_tipc_errinfo, errcode, 'I', 0),
        MEMBER(struct cmsgx_tipc_errinfo, datalen, 'I', 4),
    STRUCT("tipc_destname", struct cmsgx_tipc_destname, 12),
        MEMBER(struct cmsgx_tipc_destname, type, 'I', 0),
        MEMBER(struct cmsgx_tipc_destname, lower, 'I', 4),
        MEMBER(struct cmsgx_tipc_destname, upper, 'I', 8),
#endif

#ifndef __linux__
    OPEN("sockaddr_dl", CHECKED(offsetof(struct sockaddr_dl, sdl_data),
                                offsetof(struct sockaddr_dl, sdl_data) == 8), -1),
        MEMBER(struct sockaddr_dl, sdl_index, 'H', 2),
        MEMBER(struct sockaddr_dl, sdl_type, 'B', 4),
        MEMBER(struct sockaddr_dl, sdl_nlen, 'B', 5),
        MEMBER(struct sockaddr_dl, sdl_alen, 'B', 6),
        ALONE("sdl_data", 't', 8, 0),
#endif
#ifdef __APPLE__
    /* socket_private.h */
    OPEN("so_mpkl_send_info", 17, 17),
        ALONE("mpkl_uuid", 's', 0, 16),
        ALONE("mpkl_proto", 'B', 16, 1),
    OPEN("so_mpkl_recv_info", 8, 8),
        ALONE("mpkl_seq", 'I', 0, 4),
        ALONE("mpkl_proto", 'B', 4, 1),
#endif
#ifdef __FreeBSD__
    OPEN("sctp_event_subscribe", sizeof(struct sctp_event_subscribe),
         sizeof(struct sctp_event_subscribe)),
        MEMBER(struct sctp_event_subscribe, sctp_data_io_event, 'B', 0),
    STRUCT("cmsgcred", struct cmsgcred, 84),
        MEMBER(struct cmsgcred, cmcred_pid, 'i', 0),
        MEMBER(struct cmsgcred, cmcred_uid, 'I', 4),
        MEMBER(struct cmsgcred, cmcred_euid, 'I', 8),
        MEMBER(struct cmsgcred, cmcred_gid, 'I', 12),
        MEMBER(struct cmsgcred, cmcred_ngroups, 'h', 16),
        RAW(struct cmsgcred, cmcred_groups, 20),
    OPEN("sockcred", offsetof(struct sockcred, sc_groups), -1),
        MEMBER(struct sockcred, sc_uid, 'I', 0),
        MEMBER(struct sockcred, sc_euid, 'I', 4),
        MEMBER(struct sockcred, sc_gid, 'I', 8),
        MEMBER(struct sockcred, sc_egid, 'I', 12),
        MEMBER(struct sockcred, sc_ngroups, 'i', 16),
        ALONE("sc_groups", 't', OFFSET(struct sockcred, sc_groups, 20), 0),
#  ifdef SCM_CREDS2
    OPEN("sockcred2", offsetof(struct sockcred2, sc_groups), -1),
        MEMBER(struct sockcred2, sc_version, 'i', 0),
        MEMBER(struct sockcred2, sc_pid, 'i', 4),
        MEMBER(struct sockcred2, sc_uid, 'I', 8),
        MEMBER(struct sockcred2, sc_euid, 'I', 12),
        MEMBER(struct sockcred2, sc_gid, 'I', 16),
        MEMBER(struct sockcred2, sc_egid, 'I', 20),
        MEMBER(struct sockcred2, sc_ngroups, 'i', 24),
        ALONE("sc_groups", 't', OFFSET(struct sockcred2, sc_groups, 28), 0),
#  endif
#  ifdef SCM_TIME_INFO
    STRUCT("sock_timestamp_info", struct sock_timestamp_info, 64),
        MEMBER(struct sock_timestamp_info, st_info_flags, 'I', 0),
        RAW(struct sock_timestamp_info, st_info_rsv, 8),
#  endif
#  ifdef TLS_GET_RECORD
    STRUCT("tls_get_record", struct tls_get_record, 6),
        MEMBER(struct tls_get_record, tls_type, 'B', 0),
        MEMBER(struct tls_get_record, tls_vmajor, 'B', 1),
        MEMBER(struct tls_get_record, tls_vminor, 'B', 2),
        MEMBER(struct tls_get_record, tls_length, 'n', 4),
#  endif
#endif
#ifdef __NetBSD__
    OPEN("sockcred", offsetof(struct sockcred, sc_groups), -1),
        MEMBER(struct sockcred, sc_pid, 'i', 0),
        MEMBER(struct sockcred, sc_uid, 'I', 4),
        MEMBER(struct sockcred, sc_euid, 'I', 8),
        MEMBER(struct sockcred, sc_gid, 'I', 12),
        MEMBER(struct sockcred, sc_egid, 'I', 16),
        MEMBER(struct sockcred, sc_ngroups, 'i', 20),
        ALONE("sc_groups", 't', OFFSET(struct sockcred, sc_groups, 24), 0),
#endif
};

int
cmsgx_add_structs(PyObject *module)
{
    int result = -1;
    PyObject *members = NULL;   /* borrowed from `layouts` */
    PyObject *layouts = PyDict_New();
    if (layouts == NULL) {
        return -1;
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const row *now = &rows[i];
        PyObject *to = layouts;
        PyObject *value;
        if (now->layout != NULL) {
            members = PyDict_New();
            if (members == NULL) {
                goto done;
            }
            value = Py_BuildValue("(nnN)", now->min_size, now->max_size, members);
        }
        else {
            to = members;
            value = Py_BuildValue("(nCn)", now->min_size, now->format, now->max_size);
        }
        if (value == NULL) {
            goto done;
        }
        int failed = PyDict_SetItemString(to, now->layout ? now->layout : now->member, value);
        Py_DECREF(value);
        if (failed) {
            goto done;
        }
    }
    result = PyModule_AddObjectRef(module, "LAYOUTS", layouts);
done:
    Py_DECREF(layouts);
    return result;
}
