/* The headers of messages.c: the kernel's, sys/socket.h of the C library (whose netinet/in.h
   clashes with linux/in.h), and copies of what the kernel does not install.

   What no header of this machine has stands here, written out from the file that is named: its
   rows in messages.c are marked as STATED. */

#ifndef HEADERS_H
#define HEADERS_H

#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#if __has_include(<linux/version.h>)
#  include <linux/version.h>
#endif
#ifndef LINUX_VERSION_CODE
#  define LINUX_VERSION_CODE 0
#endif

/* What messages.c takes for granted. */
#define HAS_HEADERS (LINUX_VERSION_CODE >= 0x60100)
#if HAS_HEADERS

/* musl has other names and texts of some. */
#ifndef SO_TIMESTAMP_OLD
#  undef SCM_TIMESTAMP
#  undef SCM_TIMESTAMPING
#  undef SCM_TIMESTAMPNS
#  undef SO_RCVTIMEO
#  undef SO_SNDTIMEO
#  undef SO_TIMESTAMP
#  undef SO_TIMESTAMPING
#  undef SO_TIMESTAMPNS
#  include <asm/socket.h>
#endif

/* linux/uio.h has its own. */
#define iovec linux_iovec
#include <linux/can/j1939.h>
#include <linux/can/raw.h>
#include <linux/errqueue.h>
#include <linux/if_alg.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ipv6.h>
#include <linux/llc.h>
#include <linux/net_tstamp.h>
#include <linux/netlink.h>
#include <linux/rds.h>
#include <linux/rxrpc.h>
#include <linux/sctp.h>
#include <linux/tcp.h>
#include <linux/time_types.h>
#include <linux/tipc.h>
#include <linux/tls.h>
#include <linux/udp.h>
#include <linux/uio.h>
#include <linux/vm_sockets.h>
#undef iovec

#define STATED "stated: "
#define SINCE(major, minor) (LINUX_VERSION_CODE >= ((major) << 16 | (minor) << 8))

/* What came after Linux 6.1, is gone again, or never was installed.  The numbers of SOL_SOCKET are
   those of asm-generic/socket.h. */

#ifdef SCM_SECURITY
#  define SECURITY "sys/socket.h"
#else
#  define SECURITY STATED "include/linux/socket.h"
#  define SCM_SECURITY 3
#endif
#ifdef SCM_PIDFD
#  define PIDFD "sys/socket.h"
#else
#  define PIDFD STATED "include/linux/socket.h"
#  define SCM_PIDFD 4
#endif
#ifdef SCM_TS_OPT_ID
#  define TS_OPT_ID "asm/socket.h"
#else
#  define TS_OPT_ID STATED "asm/socket.h"
#  define SCM_TS_OPT_ID 81
#endif
#ifdef SCM_INQ
#  define INQ "asm/socket.h"
#else
#  define INQ STATED "asm/socket.h"
#  define SCM_INQ 84
#endif
#ifdef IP_PROTOCOL
#  define PROTOCOL "linux/in.h"
#else
#  define PROTOCOL STATED "linux/in.h"
#  define IP_PROTOCOL 52
#endif
#ifndef SCM_DEVMEM_LINEAR
#  define SCM_DEVMEM_LINEAR 78
#  define SCM_DEVMEM_DMABUF 79
#endif

#if SINCE(6, 12)
#  define UIO "linux/uio.h"
#else
#  define UIO STATED "linux/uio.h"
struct dmabuf_cmsg {
    __u64 frag_offset;
    __u32 frag_size;
    __u32 frag_token;
    __u32 dmabuf_id;
    __u32 flags;
};
#endif

#if SINCE(6, 16)
#  define RXRPC_LATER "linux/rxrpc.h"
#else
#  define RXRPC_LATER STATED "linux/rxrpc.h"
enum {
    RXRPC_OOB_ID = 15,
    RXRPC_CHALLENGED,
    RXRPC_RESPOND,
    RXRPC_RESPONDED,
    RXRPC_RESP_RXGK_APPDATA,
};
struct rxrpc_challenge {
    __u16 service_id;
    __u8 security_index;
    __u8 pad;
};
struct rxgk_challenge {
    struct rxrpc_challenge base;
    __u32 enctype;
};
#endif

#if !SINCE(7, 2)
#  define TCP_NLA_REHASH 27
#endif

#if __has_include(<linux/dccp.h>)
#  include <linux/dccp.h>
#  define DCCP "linux/dccp.h"
#else
#  define DCCP STATED "linux/dccp.h"
#  define DCCP_SCM_PRIORITY 1
#endif

/* What BlueZ has copies of, whose headers clash with linux/in.h. */
#define BLUETOOTH STATED "include/net/bluetooth/bluetooth.h"
#define BT_SCM_PKT_STATUS 3
#define BT_SCM_ERROR 4
#define BT_SCM_PKT_SEQNUM 5
#define HCI STATED "include/net/bluetooth/hci_sock.h"
#define HCI_CMSG_DIR 1
#define HCI_CMSG_TSTAMP 2

#if __has_include(<netiucv/iucv.h>)
#  include <netiucv/iucv.h>
#  define IUCV "netiucv/iucv.h"
#else
#  define IUCV STATED "include/net/iucv/af_iucv.h"
#  define SCM_IUCV_TRGCLS 1
#endif

#define IEEE802154 STATED "include/net/af_ieee802154.h"
#define WPAN_WANTLQI 3

#define MISDN STATED "include/linux/mISDNif.h"
#define MISDN_TIME_STAMP 1

/* Levels: include/linux/socket.h, where the C library lacks one.  The first three are in no header:
   the kernel compares with 0. */
#define SOL_HCI 0
#define SOL_IEEE802154 0
#define SOL_MISDN 0
#ifndef SOL_IP
#  define SOL_IP 0
#endif
#ifndef SOL_TCP
#  define SOL_TCP 6
#endif
#ifndef SOL_UDP
#  define SOL_UDP 17
#endif
#ifndef SOL_IPV6
#  define SOL_IPV6 41
#endif
#ifndef SOL_CAN_J1939
#  define SOL_CAN_J1939 (SOL_CAN_BASE + CAN_J1939)
#endif
#ifndef SOL_PACKET
#  define SOL_PACKET 263
#endif
#ifndef SOL_LLC
#  define SOL_LLC 268
#endif
#ifndef SOL_DCCP
#  define SOL_DCCP 269
#endif
#ifndef SOL_NETLINK
#  define SOL_NETLINK 270
#endif
#ifndef SOL_TIPC
#  define SOL_TIPC 271
#endif
#ifndef SOL_RXRPC
#  define SOL_RXRPC 272
#endif
#ifndef SOL_BLUETOOTH
#  define SOL_BLUETOOTH 274
#endif
#ifndef SOL_RDS
#  define SOL_RDS 276
#endif
#ifndef SOL_IUCV
#  define SOL_IUCV 277
#endif
#ifndef SOL_ALG
#  define SOL_ALG 279
#endif
#ifndef SOL_TLS
#  define SOL_TLS 282
#endif
#ifndef SOL_VSOCK
#  define SOL_VSOCK 287
#endif

#endif  /* HAS_HEADERS */
#endif
