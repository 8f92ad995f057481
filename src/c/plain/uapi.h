/* The numbers and structs of the kernel's own headers, uapi/linux and include/net.  A build
   machine may lack a header, or have one that is older than the kernel that the program will run
   on, and some clash with headers of the C library.  The ABI never changes, so they are repeated
   here; uapi.c compares them with the headers of the build.  Plain C, no Python.h. */

#ifndef CMSGX_UAPI_H
#define CMSGX_UAPI_H

#include <stdint.h>

/* Numbers: X(name, value).  These are in the headers of Linux 6.1: */
#define CMSGX_UAPI_6_1(X) \
    /* linux/fcntl.h */ \
    X(F_SEAL_FUTURE_WRITE, 0x0010) \
    /* linux/memfd.h */ \
    X(MFD_HUGE_SHIFT, 26) \
    /* linux/errqueue.h */ \
    X(SO_EE_ORIGIN_NONE, 0) \
    X(SO_EE_ORIGIN_LOCAL, 1) \
    X(SO_EE_ORIGIN_ICMP, 2) \
    X(SO_EE_ORIGIN_ICMP6, 3) \
    X(SO_EE_ORIGIN_TXSTATUS, 4) \
    X(SO_EE_ORIGIN_TIMESTAMPING, 4) \
    X(SO_EE_ORIGIN_ZEROCOPY, 5) \
    X(SO_EE_ORIGIN_TXTIME, 6) \
    X(SO_EE_CODE_ZEROCOPY_COPIED, 1) \
    X(SO_EE_CODE_TXTIME_INVALID_PARAM, 1) \
    X(SO_EE_CODE_TXTIME_MISSED, 2) \
    X(SO_EE_RFC4884_FLAG_INVALID, 1) \
    X(SCM_TSTAMP_SND, 0) \
    X(SCM_TSTAMP_SCHED, 1) \
    X(SCM_TSTAMP_ACK, 2) \
    /* linux/net_tstamp.h */ \
    X(SOF_TIMESTAMPING_TX_HARDWARE, 1 << 0) \
    X(SOF_TIMESTAMPING_TX_SOFTWARE, 1 << 1) \
    X(SOF_TIMESTAMPING_RX_HARDWARE, 1 << 2) \
    X(SOF_TIMESTAMPING_RX_SOFTWARE, 1 << 3) \
    X(SOF_TIMESTAMPING_SOFTWARE, 1 << 4) \
    X(SOF_TIMESTAMPING_SYS_HARDWARE, 1 << 5) \
    X(SOF_TIMESTAMPING_RAW_HARDWARE, 1 << 6) \
    X(SOF_TIMESTAMPING_OPT_ID, 1 << 7) \
    X(SOF_TIMESTAMPING_TX_SCHED, 1 << 8) \
    X(SOF_TIMESTAMPING_TX_ACK, 1 << 9) \
    X(SOF_TIMESTAMPING_OPT_CMSG, 1 << 10) \
    X(SOF_TIMESTAMPING_OPT_TSONLY, 1 << 11) \
    X(SOF_TIMESTAMPING_OPT_STATS, 1 << 12) \
    X(SOF_TIMESTAMPING_OPT_PKTINFO, 1 << 13) \
    X(SOF_TIMESTAMPING_OPT_TX_SWHW, 1 << 14) \
    X(SOF_TIMESTAMPING_BIND_PHC, 1 << 15) \
    X(SOF_TXTIME_DEADLINE_MODE, 1 << 0) \
    X(SOF_TXTIME_REPORT_ERRORS, 1 << 1) \
    /* linux/if_packet.h */ \
    X(PACKET_AUXDATA, 8) \
    X(PACKET_TX_TIMESTAMP, 16) \
    X(TP_STATUS_KERNEL, 0) \
    X(TP_STATUS_USER, 1 << 0) \
    X(TP_STATUS_COPY, 1 << 1) \
    X(TP_STATUS_LOSING, 1 << 2) \
    X(TP_STATUS_CSUMNOTREADY, 1 << 3) \
    X(TP_STATUS_VLAN_VALID, 1 << 4) \
    X(TP_STATUS_BLK_TMO, 1 << 5) \
    X(TP_STATUS_VLAN_TPID_VALID, 1 << 6) \
    X(TP_STATUS_CSUM_VALID, 1 << 7) \
    X(TP_STATUS_TS_SOFTWARE, 1 << 29) \
    X(TP_STATUS_TS_SYS_HARDWARE, 1 << 30) \
    X(TP_STATUS_TS_RAW_HARDWARE, 1U << 31) \
    /* linux/netlink.h */ \
    X(NETLINK_PKTINFO, 3) \
    X(NETLINK_LISTEN_ALL_NSID, 8) \
    /* linux/tls.h */ \
    X(TLS_TX, 1) \
    X(TLS_RX, 2) \
    X(TLS_SET_RECORD_TYPE, 1) \
    X(TLS_GET_RECORD_TYPE, 2) \
    /* linux/if_alg.h */ \
    X(ALG_SET_KEY, 1) \
    X(ALG_SET_IV, 2) \
    X(ALG_SET_OP, 3) \
    X(ALG_SET_AEAD_ASSOCLEN, 4) \
    X(ALG_SET_AEAD_AUTHSIZE, 5) \
    X(ALG_OP_DECRYPT, 0) \
    X(ALG_OP_ENCRYPT, 1) \
    /* linux/sctp.h */ \
    X(SCTP_INIT, 0) \
    X(SCTP_SNDRCV, 1) \
    X(SCTP_SNDINFO, 2) \
    X(SCTP_RCVINFO, 3) \
    X(SCTP_NXTINFO, 4) \
    X(SCTP_PRINFO, 5) \
    X(SCTP_AUTHINFO, 6) \
    X(SCTP_DSTADDRV4, 7) \
    X(SCTP_DSTADDRV6, 8) \
    X(SCTP_EVENTS, 11) \
    X(SCTP_RECVRCVINFO, 32) \
    X(SCTP_RECVNXTINFO, 33) \
    X(SCTP_UNORDERED, 1 << 0) \
    X(SCTP_ADDR_OVER, 1 << 1) \
    X(SCTP_ABORT, 1 << 2) \
    X(SCTP_SACK_IMMEDIATELY, 1 << 3) \
    X(SCTP_SENDALL, 1 << 6) \
    X(SCTP_PR_SCTP_ALL, 1 << 7) \
    X(SCTP_EOF, 0x200) \
    X(SCTP_NOTIFICATION, 0x8000) \
    X(SCTP_PR_SCTP_NONE, 0x00) \
    X(SCTP_PR_SCTP_TTL, 0x10) \
    X(SCTP_PR_SCTP_RTX, 0x20) \
    X(SCTP_PR_SCTP_PRIO, 0x30) \
    /* linux/rds.h */ \
    X(RDS_CMSG_RDMA_ARGS, 1) \
    X(RDS_CMSG_RDMA_DEST, 2) \
    X(RDS_CMSG_RDMA_MAP, 3) \
    X(RDS_CMSG_RDMA_STATUS, 4) \
    X(RDS_CMSG_CONG_UPDATE, 5) \
    X(RDS_CMSG_ATOMIC_FADD, 6) \
    X(RDS_CMSG_ATOMIC_CSWP, 7) \
    X(RDS_CMSG_MASKED_ATOMIC_FADD, 8) \
    X(RDS_CMSG_MASKED_ATOMIC_CSWP, 9) \
    X(RDS_CMSG_RXPATH_LATENCY, 11) \
    X(RDS_CMSG_ZCOPY_COOKIE, 12) \
    X(RDS_CMSG_ZCOPY_COMPLETION, 13) \
    X(RDS_RECVERR, 5) \
    X(RDS_CONG_MONITOR, 6) \
    X(SO_RDS_MSG_RXPATH_LATENCY, 10) \
    X(RDS_RDMA_READWRITE, 0x0001) \
    X(RDS_RDMA_FENCE, 0x0002) \
    X(RDS_RDMA_INVALIDATE, 0x0004) \
    X(RDS_RDMA_USE_ONCE, 0x0008) \
    X(RDS_RDMA_DONTWAIT, 0x0010) \
    X(RDS_RDMA_NOTIFY_ME, 0x0020) \
    X(RDS_RDMA_SILENT, 0x0040) \
    X(RDS_RDMA_SUCCESS, 0) \
    X(RDS_RDMA_REMOTE_ERROR, 1) \
    X(RDS_RDMA_CANCELED, 2) \
    X(RDS_RDMA_DROPPED, 3) \
    X(RDS_RDMA_OTHER_ERROR, 4) \
    X(RDS_MSG_RX_HDR_TO_DGRAM_START, 0) \
    X(RDS_MSG_RX_DGRAM_REASSEMBLE, 1) \
    X(RDS_MSG_RX_DGRAM_DELIVERED, 2) \
    /* linux/rxrpc.h */ \
    X(RXRPC_USER_CALL_ID, 1) \
    X(RXRPC_ABORT, 2) \
    X(RXRPC_ACK, 3) \
    X(RXRPC_NET_ERROR, 5) \
    X(RXRPC_BUSY, 6) \
    X(RXRPC_LOCAL_ERROR, 7) \
    X(RXRPC_NEW_CALL, 8) \
    X(RXRPC_EXCLUSIVE_CALL, 10) \
    X(RXRPC_UPGRADE_SERVICE, 11) \
    X(RXRPC_TX_LENGTH, 12) \
    X(RXRPC_SET_CALL_TIMEOUT, 13) \
    X(RXRPC_CHARGE_ACCEPT, 14) \
    /* linux/can/raw.h, linux/can/j1939.h */ \
    X(SCM_CAN_RAW_ERRQUEUE, 1) \
    X(SCM_J1939_DEST_ADDR, 1) \
    X(SCM_J1939_DEST_NAME, 2) \
    X(SCM_J1939_PRIO, 3) \
    X(SCM_J1939_ERRQUEUE, 4) \
    X(SO_J1939_ERRQUEUE, 4) \
    X(J1939_EE_INFO_NONE, 0) \
    X(J1939_EE_INFO_TX_ABORT, 1) \
    X(J1939_EE_INFO_RX_RTS, 2) \
    X(J1939_EE_INFO_RX_DPO, 3) \
    X(J1939_EE_INFO_RX_ABORT, 4) \
    X(J1939_NLA_PAD, 0) \
    X(J1939_NLA_BYTES_ACKED, 1) \
    X(J1939_NLA_TOTAL_SIZE, 2) \
    X(J1939_NLA_PGN, 3) \
    X(J1939_NLA_SRC_NAME, 4) \
    X(J1939_NLA_DEST_NAME, 5) \
    X(J1939_NLA_SRC_ADDR, 6) \
    X(J1939_NLA_DEST_ADDR, 7) \
    /* linux/tcp.h: attributes of SCM_TIMESTAMPING_OPT_STATS */ \
    X(TCP_NLA_PAD, 0) \
    X(TCP_NLA_BUSY, 1) \
    X(TCP_NLA_RWND_LIMITED, 2) \
    X(TCP_NLA_SNDBUF_LIMITED, 3) \
    X(TCP_NLA_DATA_SEGS_OUT, 4) \
    X(TCP_NLA_TOTAL_RETRANS, 5) \
    X(TCP_NLA_PACING_RATE, 6) \
    X(TCP_NLA_DELIVERY_RATE, 7) \
    X(TCP_NLA_SND_CWND, 8) \
    X(TCP_NLA_REORDERING, 9) \
    X(TCP_NLA_MIN_RTT, 10) \
    X(TCP_NLA_RECUR_RETRANS, 11) \
    X(TCP_NLA_DELIVERY_RATE_APP_LMT, 12) \
    X(TCP_NLA_SNDQ_SIZE, 13) \
    X(TCP_NLA_CA_STATE, 14) \
    X(TCP_NLA_SND_SSTHRESH, 15) \
    X(TCP_NLA_DELIVERED, 16) \
    X(TCP_NLA_DELIVERED_CE, 17) \
    X(TCP_NLA_BYTES_SENT, 18) \
    X(TCP_NLA_BYTES_RETRANS, 19) \
    X(TCP_NLA_DSACK_DUPS, 20) \
    X(TCP_NLA_REORD_SEEN, 21) \
    X(TCP_NLA_SRTT, 22) \
    X(TCP_NLA_TIMEOUT_REHASH, 23) \
    X(TCP_NLA_BYTES_NOTSENT, 24) \
    X(TCP_NLA_EDT, 25) \
    X(TCP_NLA_TTL, 26) \
    /* linux/llc.h */ \
    X(LLC_OPT_PKTINFO, 9) \
    /* linux/tipc.h */ \
    X(TIPC_ERRINFO, 1) \
    X(TIPC_RETDATA, 2) \
    X(TIPC_DESTNAME, 3) \
    X(TIPC_DEST_DROPPABLE, 129) \
    X(TIPC_OK, 0) \
    X(TIPC_ERR_NO_NAME, 1) \
    X(TIPC_ERR_NO_PORT, 2) \
    X(TIPC_ERR_NO_NODE, 3) \
    X(TIPC_ERR_OVERLOAD, 4) \
    X(TIPC_CONN_SHUTDOWN, 5)

/* These came later, all of them in the headers of Linux 7.2: */
#define CMSGX_UAPI_7_2(X) \
    X(F_SEAL_EXEC, 0x0020) \
    X(SCM_TSTAMP_COMPLETION, 3) \
    X(SOF_TIMESTAMPING_OPT_ID_TCP, 1 << 16) \
    X(SOF_TIMESTAMPING_OPT_RX_FILTER, 1 << 17) \
    X(SOF_TIMESTAMPING_TX_COMPLETION, 1 << 18) \
    X(TP_STATUS_GSO_TCP, 1 << 8) \
    X(TCP_NLA_REHASH, 27) \
    X(RXRPC_MANAGE_RESPONSE, 7) \
    X(RXRPC_OOB_ID, 15) \
    X(RXRPC_CHALLENGED, 16) \
    X(RXRPC_RESPOND, 17) \
    X(RXRPC_RESPONDED, 18) \
    X(RXRPC_RESP_RXGK_APPDATA, 19) \
    X(VSOCK_RECVERR, 1)

/* These are in no header that is installed, in one that goes away (DCCP left in 6.16), or in one
   that clashes with a header of the C library: */
#define CMSGX_UAPI_NONE(X) \
    /* linux/errno.h, of the kernel alone: what older releases return for SO_ZEROCOPY */ \
    X(ENOTSUPP, 524) \
    /* linux/time.h */ \
    X(MAX_CLOCKS, 16) \
    /* linux/udp.h, since Linux 6.12; it was half of this */ \
    X(UDP_MAX_SEGMENTS, 128) \
    /* net/tls_prot.h */ \
    X(TLS_RECORD_TYPE_CHANGE_CIPHER_SPEC, 20) \
    X(TLS_RECORD_TYPE_ALERT, 21) \
    X(TLS_RECORD_TYPE_HANDSHAKE, 22) \
    X(TLS_RECORD_TYPE_DATA, 23) \
    X(TLS_RECORD_TYPE_HEARTBEAT, 24) \
    X(TLS_RECORD_TYPE_TLS12_CID, 25) \
    X(TLS_RECORD_TYPE_ACK, 26) \
    /* net/bluetooth/bluetooth.h, net/bluetooth/hci_sock.h */ \
    X(BT_PKT_STATUS, 16) \
    X(BT_PKT_SEQNUM, 22) \
    X(BT_SCM_PKT_STATUS, 3) \
    X(BT_SCM_ERROR, 4) \
    X(BT_SCM_PKT_SEQNUM, 5) \
    X(HCI_DATA_DIR, 1) \
    X(HCI_TIME_STAMP, 3) \
    X(HCI_CMSG_DIR, 1) \
    X(HCI_CMSG_TSTAMP, 2) \
    /* net/iucv/af_iucv.h */ \
    X(SCM_IUCV_TRGCLS, 1) \
    /* net/af_ieee802154.h */ \
    X(WPAN_WANTLQI, 3) \
    /* linux/mISDNif.h */ \
    X(MISDN_TIME_STAMP, 1) \
    /* linux/dccp.h */ \
    X(DCCP_SCM_PRIORITY, 1) \
    X(DCCP_SOCKOPT_QPOLICY_ID, 16) \
    X(DCCPQ_POLICY_SIMPLE, 0) \
    X(DCCPQ_POLICY_PRIO, 1)

/* Structs, member for member ------------------------------------------------------------- */

/* linux/errqueue.h; ee_data may be struct sock_ee_data_rfc4884. */
struct cmsgx_sock_extended_err {
    uint32_t ee_errno;
    uint8_t ee_origin;
    uint8_t ee_type;
    uint8_t ee_code;
    uint8_t ee_pad;
    uint32_t ee_info;
    uint32_t ee_data;
};

/* linux/net_tstamp.h */
struct cmsgx_scm_ts_pktinfo {
    uint32_t if_index;
    uint32_t pkt_length;
    uint32_t reserved[2];
};

/* linux/uio.h, 6.12 */
struct cmsgx_dmabuf_cmsg {
    uint64_t frag_offset;
    uint32_t frag_size;
    uint32_t frag_token;
    uint32_t dmabuf_id;
    uint32_t flags;
};

/* linux/if_packet.h; tp_vlan_tpid was padding before 3.14. */
struct cmsgx_tpacket_auxdata {
    uint32_t tp_status;
    uint32_t tp_len;
    uint32_t tp_snaplen;
    uint16_t tp_mac;
    uint16_t tp_net;
    uint16_t tp_vlan_tci;
    uint16_t tp_vlan_tpid;
};

/* linux/netlink.h */
struct cmsgx_nl_pktinfo {
    uint32_t group;
};

/* linux/if_alg.h */
struct cmsgx_af_alg_iv {
    uint32_t ivlen;
    uint8_t iv[];
};

/* linux/sctp.h */
struct cmsgx_sctp_initmsg {
    uint16_t sinit_num_ostreams;
    uint16_t sinit_max_instreams;
    uint16_t sinit_max_attempts;
    uint16_t sinit_max_init_timeo;
};
struct cmsgx_sctp_sndrcvinfo {
    uint16_t sinfo_stream;
    uint16_t sinfo_ssn;
    uint16_t sinfo_flags;
    uint32_t sinfo_ppid;
    uint32_t sinfo_context;
    uint32_t sinfo_timetolive;
    uint32_t sinfo_tsn;
    uint32_t sinfo_cumtsn;
    int32_t sinfo_assoc_id;
};
struct cmsgx_sctp_sndinfo {
    uint16_t snd_sid;
    uint16_t snd_flags;
    uint32_t snd_ppid;
    uint32_t snd_context;
    int32_t snd_assoc_id;
};
struct cmsgx_sctp_rcvinfo {
    uint16_t rcv_sid;
    uint16_t rcv_ssn;
    uint16_t rcv_flags;
    uint32_t rcv_ppid;
    uint32_t rcv_tsn;
    uint32_t rcv_cumtsn;
    uint32_t rcv_context;
    int32_t rcv_assoc_id;
};
struct cmsgx_sctp_nxtinfo {
    uint16_t nxt_sid;
    uint16_t nxt_flags;
    uint32_t nxt_ppid;
    uint32_t nxt_length;
    int32_t nxt_assoc_id;
};
struct cmsgx_sctp_prinfo {
    uint16_t pr_policy;
    uint32_t pr_value;
};
struct cmsgx_sctp_authinfo {
    uint16_t auth_keynumber;
};

/* linux/rds.h */
struct cmsgx_rds_iovec {
    uint64_t addr;
    uint64_t bytes;
};
struct cmsgx_rds_rdma_args {
    uint64_t cookie;
    struct cmsgx_rds_iovec remote_vec;
    uint64_t local_vec_addr;
    uint64_t nr_local;
    uint64_t flags;
    uint64_t user_token;
};
struct cmsgx_rds_get_mr_args {
    struct cmsgx_rds_iovec vec;
    uint64_t cookie_addr;
    uint64_t flags;
};
struct cmsgx_rds_rdma_notify {
    uint64_t user_token;
    int32_t status;
};
struct cmsgx_rds_atomic_args {
    uint64_t cookie;
    uint64_t local_addr;
    uint64_t remote_addr;
    union {
        struct {
            uint64_t compare;
            uint64_t swap;
        } cswp;
        struct {
            uint64_t add;
        } fadd;
        struct {
            uint64_t compare;
            uint64_t swap;
            uint64_t compare_mask;
            uint64_t swap_mask;
        } m_cswp;
        struct {
            uint64_t add;
            uint64_t nocarry_mask;
        } m_fadd;
    };
    uint64_t flags;
    uint64_t user_token;
};
struct cmsgx_rds_cmsg_rx_trace {
    uint8_t rx_traces;
    uint8_t rx_trace_pos[3];
    uint64_t rx_trace[3];
};
struct cmsgx_rds_zcopy_cookies {
    uint32_t num;
    uint32_t cookies[8];
};

/* linux/rxrpc.h, 6.16; enctype is of struct rxgk_challenge, which continues after it. */
struct cmsgx_rxrpc_challenge {
    uint16_t service_id;
    uint8_t security_index;
    uint8_t pad;
    uint32_t enctype;
};
/* An array in the kernel, whose last items may be absent. */
struct cmsgx_rxrpc_call_timeouts {
    uint32_t hard;
    uint32_t idle;
    uint32_t normal;
};

/* linux/io_uring.h, 6.0 */
struct cmsgx_io_uring_recvmsg_out {
    uint32_t namelen;
    uint32_t controllen;
    uint32_t payloadlen;
    uint32_t flags;
};

/* linux/pidfd.h, 6.13: the first 64 bytes, a size that every kernel with PIDFD_GET_INFO accepts.
   Its number is _IOWR(0xff, 11, struct pidfd_info), in terms of sys/ioctl.h. */
struct cmsgx_pidfd_info {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t pid;
    uint32_t tgid;
    uint32_t ppid;
    uint32_t ruid;
    uint32_t rgid;
    uint32_t euid;
    uint32_t egid;
    uint32_t suid;
    uint32_t sgid;
    uint32_t fsuid;
    uint32_t fsgid;
    int32_t exit_code;
};
#define CMSGX_PIDFD_GET_INFO _IOWR(0xff, 11, struct cmsgx_pidfd_info)

/* linux/llc.h */
struct cmsgx_llc_pktinfo {
    int lpi_ifindex;
    unsigned char lpi_sap;
    unsigned char lpi_mac[6];
};

/* Arrays in the kernel, net/tipc/socket.c. */
struct cmsgx_tipc_errinfo {
    uint32_t errcode;
    uint32_t datalen;
};
struct cmsgx_tipc_destname {
    uint32_t type;
    uint32_t lower;
    uint32_t upper;
};

/* Names of sockets.  linux/if_packet.h: the kernel writes as much of sll_addr as sll_halen says,
   which may be more than fits. */
struct cmsgx_sockaddr_ll {
    uint16_t sll_family;
    uint16_t sll_protocol;
    int32_t sll_ifindex;
    uint16_t sll_hatype;
    uint8_t sll_pkttype;
    uint8_t sll_halen;
    uint8_t sll_addr[8];
};
/* linux/can.h, 5.4 */
struct cmsgx_sockaddr_can {
    uint16_t can_family;
    int32_t can_ifindex;
    union {
        struct {
            uint32_t rx_id;
            uint32_t tx_id;
        } tp;
        struct {
            uint64_t name;
            uint32_t pgn;
            uint8_t addr;
        } j1939;
    } can_addr;
};
#define CMSGX_CAN_RAW 1
#define CMSGX_CAN_BCM 2
#define CMSGX_CAN_ISOTP 6
#define CMSGX_CAN_J1939 7
/* linux/tipc.h: the three numbers are type, lower, upper; type, instance, domain; or ref, node. */
struct cmsgx_sockaddr_tipc {
    uint16_t family;
    uint8_t addrtype;
    int8_t scope;
    uint32_t addr[3];
};
#define CMSGX_TIPC_ADDR_NAMESEQ 1
#define CMSGX_TIPC_ADDR_NAME 2
#define CMSGX_TIPC_ADDR_ID 3
#define CMSGX_TIPC_CLUSTER_SCOPE 2
/* linux/vm_sockets.h */
struct cmsgx_sockaddr_vm {
    uint16_t svm_family;
    uint16_t svm_reserved1;
    uint32_t svm_port;
    uint32_t svm_cid;
    uint8_t svm_zero[4];
};
/* linux/if_alg.h */
struct cmsgx_sockaddr_alg {
    uint16_t salg_family;
    uint8_t salg_type[14];
    uint32_t salg_feat;
    uint32_t salg_mask;
    uint8_t salg_name[64];
};
/* linux/qrtr.h */
struct cmsgx_sockaddr_qrtr {
    uint16_t sq_family;
    uint32_t sq_node;
    uint32_t sq_port;
};
/* net/bluetooth: l2cap.h, rfcomm.h, hci_sock.h, sco.h.  The last byte of an address comes first. */
struct cmsgx_sockaddr_l2 {
    uint16_t l2_family;
    uint16_t l2_psm;
    uint8_t l2_bdaddr[6];
    uint16_t l2_cid;
    uint8_t l2_bdaddr_type;
};
struct cmsgx_sockaddr_rc {
    uint16_t rc_family;
    uint8_t rc_bdaddr[6];
    uint8_t rc_channel;
};
struct cmsgx_sockaddr_hci {
    uint16_t hci_family;
    uint16_t hci_dev;
    uint16_t hci_channel;
};
struct cmsgx_sockaddr_sco {
    uint16_t sco_family;
    uint8_t sco_bdaddr[6];
};
#define CMSGX_BTPROTO_L2CAP 0
#define CMSGX_BTPROTO_HCI 1
#define CMSGX_BTPROTO_SCO 2
#define CMSGX_BTPROTO_RFCOMM 3

#endif
