/* Compares what uapi.h repeats with the headers of the build; compiles to nothing.  A file of its
   own, since some of these headers clash with those of the C library. */

#include "plain/uapi.h"

#if defined(__linux__) && defined(__has_include)
#  if __has_include(<linux/version.h>) && __has_include(<linux/can/j1939.h>) \
      && __has_include(<linux/errqueue.h>) && __has_include(<linux/if_alg.h>) \
      && __has_include(<linux/llc.h>) && __has_include(<linux/rds.h>) \
      && __has_include(<linux/rxrpc.h>) && __has_include(<linux/sctp.h>) \
      && __has_include(<linux/tipc.h>) && __has_include(<linux/tls.h>)
#    include <linux/version.h>
#    define CMSGX_HEADERS LINUX_VERSION_CODE
#  endif
#endif
#ifndef CMSGX_HEADERS
#  define CMSGX_HEADERS 0
#endif

#if CMSGX_HEADERS >= 0x60100
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>

/* sys/socket.h has its own. */
#define iovec cmsgx_linux_iovec

#include <linux/can/j1939.h>
#include <linux/can/raw.h>
#include <linux/errqueue.h>
#include <linux/fcntl.h>
#include <linux/if_alg.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/llc.h>
#include <linux/memfd.h>
#include <linux/net_tstamp.h>
#include <linux/netlink.h>
#include <linux/qrtr.h>
#include <linux/rds.h>
#include <linux/rxrpc.h>
#include <linux/sctp.h>
#include <linux/tcp.h>
#include <linux/tipc.h>
#include <linux/tls.h>
#include <linux/uio.h>
#include <linux/vm_sockets.h>

#define NUMBER(name, value) _Static_assert((name) == (value), #name);
#define STRUCT(name) \
    _Static_assert(sizeof(struct name) == sizeof(struct cmsgx_##name), #name)
#define MEMBER(name, member) \
    _Static_assert(offsetof(struct name, member) == offsetof(struct cmsgx_##name, member) \
                   && sizeof(((struct name *)0)->member) \
                      == sizeof(((struct cmsgx_##name *)0)->member), #name "." #member)

CMSGX_UAPI_6_1(NUMBER)

STRUCT(sock_extended_err);
MEMBER(sock_extended_err, ee_errno);
MEMBER(sock_extended_err, ee_origin);
MEMBER(sock_extended_err, ee_type);
MEMBER(sock_extended_err, ee_code);
MEMBER(sock_extended_err, ee_pad);
MEMBER(sock_extended_err, ee_info);
MEMBER(sock_extended_err, ee_data);
STRUCT(scm_ts_pktinfo);
MEMBER(scm_ts_pktinfo, if_index);
MEMBER(scm_ts_pktinfo, pkt_length);
MEMBER(scm_ts_pktinfo, reserved);
STRUCT(tpacket_auxdata);
MEMBER(tpacket_auxdata, tp_status);
MEMBER(tpacket_auxdata, tp_len);
MEMBER(tpacket_auxdata, tp_snaplen);
MEMBER(tpacket_auxdata, tp_mac);
MEMBER(tpacket_auxdata, tp_net);
MEMBER(tpacket_auxdata, tp_vlan_tci);
MEMBER(tpacket_auxdata, tp_vlan_tpid);
STRUCT(nl_pktinfo);
MEMBER(nl_pktinfo, group);
STRUCT(af_alg_iv);
MEMBER(af_alg_iv, ivlen);
_Static_assert(offsetof(struct af_alg_iv, iv) == offsetof(struct cmsgx_af_alg_iv, iv), "iv");

STRUCT(sctp_initmsg);
MEMBER(sctp_initmsg, sinit_num_ostreams);
MEMBER(sctp_initmsg, sinit_max_instreams);
MEMBER(sctp_initmsg, sinit_max_attempts);
MEMBER(sctp_initmsg, sinit_max_init_timeo);
STRUCT(sctp_sndrcvinfo);
MEMBER(sctp_sndrcvinfo, sinfo_stream);
MEMBER(sctp_sndrcvinfo, sinfo_ssn);
MEMBER(sctp_sndrcvinfo, sinfo_flags);
MEMBER(sctp_sndrcvinfo, sinfo_ppid);
MEMBER(sctp_sndrcvinfo, sinfo_context);
MEMBER(sctp_sndrcvinfo, sinfo_timetolive);
MEMBER(sctp_sndrcvinfo, sinfo_tsn);
MEMBER(sctp_sndrcvinfo, sinfo_cumtsn);
MEMBER(sctp_sndrcvinfo, sinfo_assoc_id);
STRUCT(sctp_sndinfo);
MEMBER(sctp_sndinfo, snd_sid);
MEMBER(sctp_sndinfo, snd_flags);
MEMBER(sctp_sndinfo, snd_ppid);
MEMBER(sctp_sndinfo, snd_context);
MEMBER(sctp_sndinfo, snd_assoc_id);
STRUCT(sctp_rcvinfo);
MEMBER(sctp_rcvinfo, rcv_sid);
MEMBER(sctp_rcvinfo, rcv_ssn);
MEMBER(sctp_rcvinfo, rcv_flags);
MEMBER(sctp_rcvinfo, rcv_ppid);
MEMBER(sctp_rcvinfo, rcv_tsn);
MEMBER(sctp_rcvinfo, rcv_cumtsn);
MEMBER(sctp_rcvinfo, rcv_context);
MEMBER(sctp_rcvinfo, rcv_assoc_id);
STRUCT(sctp_nxtinfo);
MEMBER(sctp_nxtinfo, nxt_sid);
MEMBER(sctp_nxtinfo, nxt_flags);
MEMBER(sctp_nxtinfo, nxt_ppid);
MEMBER(sctp_nxtinfo, nxt_length);
MEMBER(sctp_nxtinfo, nxt_assoc_id);
STRUCT(sctp_prinfo);
MEMBER(sctp_prinfo, pr_policy);
MEMBER(sctp_prinfo, pr_value);
STRUCT(sctp_authinfo);
MEMBER(sctp_authinfo, auth_keynumber);

STRUCT(rds_rdma_args);
MEMBER(rds_rdma_args, cookie);
MEMBER(rds_rdma_args, remote_vec.addr);
MEMBER(rds_rdma_args, remote_vec.bytes);
MEMBER(rds_rdma_args, local_vec_addr);
MEMBER(rds_rdma_args, nr_local);
MEMBER(rds_rdma_args, flags);
MEMBER(rds_rdma_args, user_token);
STRUCT(rds_get_mr_args);
MEMBER(rds_get_mr_args, vec.addr);
MEMBER(rds_get_mr_args, vec.bytes);
MEMBER(rds_get_mr_args, cookie_addr);
MEMBER(rds_get_mr_args, flags);
STRUCT(rds_rdma_notify);
MEMBER(rds_rdma_notify, user_token);
MEMBER(rds_rdma_notify, status);
STRUCT(rds_atomic_args);
MEMBER(rds_atomic_args, cookie);
MEMBER(rds_atomic_args, local_addr);
MEMBER(rds_atomic_args, remote_addr);
MEMBER(rds_atomic_args, cswp.compare);
MEMBER(rds_atomic_args, cswp.swap);
MEMBER(rds_atomic_args, fadd.add);
MEMBER(rds_atomic_args, m_cswp.compare);
MEMBER(rds_atomic_args, m_cswp.swap);
MEMBER(rds_atomic_args, m_cswp.compare_mask);
MEMBER(rds_atomic_args, m_cswp.swap_mask);
MEMBER(rds_atomic_args, m_fadd.add);
MEMBER(rds_atomic_args, m_fadd.nocarry_mask);
MEMBER(rds_atomic_args, flags);
MEMBER(rds_atomic_args, user_token);
STRUCT(rds_cmsg_rx_trace);
MEMBER(rds_cmsg_rx_trace, rx_traces);
MEMBER(rds_cmsg_rx_trace, rx_trace_pos);
MEMBER(rds_cmsg_rx_trace, rx_trace);
STRUCT(rds_zcopy_cookies);
MEMBER(rds_zcopy_cookies, num);
MEMBER(rds_zcopy_cookies, cookies);
STRUCT(io_uring_recvmsg_out);
MEMBER(io_uring_recvmsg_out, namelen);
MEMBER(io_uring_recvmsg_out, controllen);
MEMBER(io_uring_recvmsg_out, payloadlen);
MEMBER(io_uring_recvmsg_out, flags);
STRUCT(llc_pktinfo);
MEMBER(llc_pktinfo, lpi_ifindex);
MEMBER(llc_pktinfo, lpi_sap);
MEMBER(llc_pktinfo, lpi_mac);

STRUCT(sockaddr_ll);
MEMBER(sockaddr_ll, sll_protocol);
MEMBER(sockaddr_ll, sll_ifindex);
MEMBER(sockaddr_ll, sll_hatype);
MEMBER(sockaddr_ll, sll_pkttype);
MEMBER(sockaddr_ll, sll_halen);
MEMBER(sockaddr_ll, sll_addr);
STRUCT(sockaddr_can);
MEMBER(sockaddr_can, can_ifindex);
MEMBER(sockaddr_can, can_addr.tp.rx_id);
MEMBER(sockaddr_can, can_addr.tp.tx_id);
MEMBER(sockaddr_can, can_addr.j1939.name);
MEMBER(sockaddr_can, can_addr.j1939.pgn);
MEMBER(sockaddr_can, can_addr.j1939.addr);
NUMBER(CAN_RAW, CMSGX_CAN_RAW)
NUMBER(CAN_BCM, CMSGX_CAN_BCM)
NUMBER(CAN_ISOTP, CMSGX_CAN_ISOTP)
NUMBER(CAN_J1939, CMSGX_CAN_J1939)
STRUCT(sockaddr_tipc);
MEMBER(sockaddr_tipc, addrtype);
MEMBER(sockaddr_tipc, scope);
_Static_assert(offsetof(struct sockaddr_tipc, addr)
                   == offsetof(struct cmsgx_sockaddr_tipc, addr)
               && offsetof(struct tipc_socket_addr, ref) == 0
               && offsetof(struct tipc_socket_addr, node) == 4,
               "sockaddr_tipc.addr");
NUMBER(TIPC_ADDR_NAMESEQ, CMSGX_TIPC_ADDR_NAMESEQ)
NUMBER(TIPC_ADDR_NAME, CMSGX_TIPC_ADDR_NAME)
NUMBER(TIPC_ADDR_ID, CMSGX_TIPC_ADDR_ID)
NUMBER(TIPC_CLUSTER_SCOPE, CMSGX_TIPC_CLUSTER_SCOPE)
STRUCT(sockaddr_vm);
MEMBER(sockaddr_vm, svm_port);
MEMBER(sockaddr_vm, svm_cid);
STRUCT(sockaddr_alg);
MEMBER(sockaddr_alg, salg_type);
MEMBER(sockaddr_alg, salg_feat);
MEMBER(sockaddr_alg, salg_mask);
MEMBER(sockaddr_alg, salg_name);
STRUCT(sockaddr_qrtr);
MEMBER(sockaddr_qrtr, sq_node);
MEMBER(sockaddr_qrtr, sq_port);
#endif

#if CMSGX_HEADERS >= 0x60d00
#include <linux/pidfd.h>

MEMBER(pidfd_info, mask);
MEMBER(pidfd_info, cgroupid);
MEMBER(pidfd_info, pid);
MEMBER(pidfd_info, tgid);
MEMBER(pidfd_info, ppid);
MEMBER(pidfd_info, ruid);
MEMBER(pidfd_info, fsgid);
MEMBER(pidfd_info, exit_code);
_Static_assert(_IOC_NR(PIDFD_GET_INFO) == _IOC_NR(CMSGX_PIDFD_GET_INFO)
                   && _IOC_TYPE(PIDFD_GET_INFO) == _IOC_TYPE(CMSGX_PIDFD_GET_INFO),
               "PIDFD_GET_INFO");
#endif

#if CMSGX_HEADERS >= 0x70200
CMSGX_UAPI_7_2(NUMBER)

STRUCT(dmabuf_cmsg);
MEMBER(dmabuf_cmsg, frag_offset);
MEMBER(dmabuf_cmsg, frag_size);
MEMBER(dmabuf_cmsg, frag_token);
MEMBER(dmabuf_cmsg, dmabuf_id);
MEMBER(dmabuf_cmsg, flags);
MEMBER(rxrpc_challenge, service_id);
MEMBER(rxrpc_challenge, security_index);
MEMBER(rxrpc_challenge, pad);
_Static_assert(offsetof(struct rxgk_challenge, enctype)
                   == offsetof(struct cmsgx_rxrpc_challenge, enctype)
               && sizeof(struct rxgk_challenge) == sizeof(struct cmsgx_rxrpc_challenge),
               "rxgk_challenge");
#endif
