/* Constants that the headers of the build machine may lack, all in this place: those of headers
   that the C library has too.  uapi.h has those of the kernel's own headers.  Numbers only. */

#ifndef CMSGX_FALLBACKS_H
#define CMSGX_FALLBACKS_H

/* macOS has the IPv6 control messages of RFC 3542, or those of RFC 2292, or none. */
#if defined(__APPLE__) && !defined(__APPLE_USE_RFC_3542)
#  define __APPLE_USE_RFC_3542
#endif

#include <errno.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#ifdef __linux__
/* asm-generic/socket.h, and the two processors that have other numbers.  alpha, mips and powerpc
   have other numbers too, but only for names that every header has: SO_PASSCRED, SO_PEERCRED,
   SO_PEERSEC, SO_PASSSEC. */
#  if defined(__sparc__)
#    define CMSGX_FALLBACK(generic, sparc, hppa) (sparc)
#  elif defined(__hppa__)
#    define CMSGX_FALLBACK(generic, sparc, hppa) (hppa)
#  else
#    define CMSGX_FALLBACK(generic, sparc, hppa) (generic)
#  endif

/* sys/socket.h: levels and families. */
#  ifndef SOL_IP
#    define SOL_IP 0
#  endif
#  ifndef SOL_TCP
#    define SOL_TCP 6
#  endif
#  ifndef SOL_UDP
#    define SOL_UDP 17
#  endif
#  ifndef SOL_IPV6
#    define SOL_IPV6 41
#  endif
#  ifndef SOL_SCTP
#    define SOL_SCTP 132
#  endif
#  ifndef SOL_CAN_RAW
#    define SOL_CAN_RAW 101
#  endif
#  ifndef SOL_CAN_J1939
#    define SOL_CAN_J1939 107
#  endif
#  ifndef SOL_PACKET
#    define SOL_PACKET 263
#  endif
#  ifndef SOL_LLC
#    define SOL_LLC 268
#  endif
#  ifndef SOL_DCCP
#    define SOL_DCCP 269
#  endif
#  ifndef SOL_NETLINK
#    define SOL_NETLINK 270
#  endif
#  ifndef SOL_TIPC
#    define SOL_TIPC 271
#  endif
#  ifndef SOL_RXRPC
#    define SOL_RXRPC 272
#  endif
#  ifndef SOL_BLUETOOTH
#    define SOL_BLUETOOTH 274
#  endif
#  ifndef SOL_RDS
#    define SOL_RDS 276
#  endif
#  ifndef SOL_IUCV
#    define SOL_IUCV 277
#  endif
#  ifndef SOL_ALG
#    define SOL_ALG 279
#  endif
#  ifndef SOL_TLS
#    define SOL_TLS 282
#  endif
#  ifndef SOL_VSOCK
#    define SOL_VSOCK 287
#  endif

/* Not in any header: the kernel uses 0, which is also SOL_IP. */
#  ifndef SOL_HCI
#    define SOL_HCI 0
#  endif
#  ifndef SOL_IEEE802154
#    define SOL_IEEE802154 0
#  endif
#  ifndef SOL_MISDN
#    define SOL_MISDN 0
#  endif

#  ifndef AF_RDS
#    define AF_RDS 21
#  endif
#  ifndef AF_LLC
#    define AF_LLC 26
#  endif
#  ifndef AF_CAN
#    define AF_CAN 29
#  endif
#  ifndef AF_TIPC
#    define AF_TIPC 30
#  endif
#  ifndef AF_BLUETOOTH
#    define AF_BLUETOOTH 31
#  endif
#  ifndef AF_IUCV
#    define AF_IUCV 32
#  endif
#  ifndef AF_RXRPC
#    define AF_RXRPC 33
#  endif
#  ifndef AF_ISDN
#    define AF_ISDN 34
#  endif
#  ifndef AF_IEEE802154
#    define AF_IEEE802154 36
#  endif
#  ifndef AF_ALG
#    define AF_ALG 38
#  endif
#  ifndef AF_NFC
#    define AF_NFC 39
#  endif
#  ifndef AF_VSOCK
#    define AF_VSOCK 40
#  endif
#  ifndef AF_QRTR
#    define AF_QRTR 42
#  endif
#  ifndef AF_SMC
#    define AF_SMC 43
#  endif
#  ifndef AF_XDP
#    define AF_XDP 44
#  endif
#  ifndef AF_MCTP
#    define AF_MCTP 45
#  endif

/* sys/socket.h: SOL_SOCKET, and flags. */
#  ifndef SCM_SECURITY
#    define SCM_SECURITY 3
#  endif
#  ifndef SCM_PIDFD
#    define SCM_PIDFD 4
#  endif
#  ifndef SO_RXQ_OVFL
#    define SO_RXQ_OVFL CMSGX_FALLBACK(40, 0x0024, 0x4021)
#  endif
#  ifndef SO_WIFI_STATUS
#    define SO_WIFI_STATUS CMSGX_FALLBACK(41, 0x0025, 0x4022)
#  endif
#  ifndef SO_SELECT_ERR_QUEUE
#    define SO_SELECT_ERR_QUEUE CMSGX_FALLBACK(45, 0x0029, 0x4026)
#  endif
#  ifndef SCM_TIMESTAMPING_OPT_STATS
#    define SCM_TIMESTAMPING_OPT_STATS CMSGX_FALLBACK(54, 0x0038, 0x402F)
#  endif
#  ifndef SCM_TIMESTAMPING_PKTINFO
#    define SCM_TIMESTAMPING_PKTINFO CMSGX_FALLBACK(58, 0x003c, 0x4033)
#  endif
#  ifndef SO_PEERGROUPS
#    define SO_PEERGROUPS CMSGX_FALLBACK(59, 0x003d, 0x4034)
#  endif
#  ifndef SO_ZEROCOPY
#    define SO_ZEROCOPY CMSGX_FALLBACK(60, 0x003e, 0x4035)
#  endif
#  ifndef SO_TXTIME
#    define SO_TXTIME CMSGX_FALLBACK(61, 0x003f, 0x4036)
#  endif
#  ifndef SO_TIMESTAMP_OLD
#    define SO_TIMESTAMP_OLD CMSGX_FALLBACK(29, 0x001d, 0x4012)
#  endif
#  ifndef SO_TIMESTAMPNS_OLD
#    define SO_TIMESTAMPNS_OLD CMSGX_FALLBACK(35, 0x0021, 0x4013)
#  endif
#  ifndef SO_TIMESTAMPING_OLD
#    define SO_TIMESTAMPING_OLD CMSGX_FALLBACK(37, 0x0023, 0x4020)
#  endif
#  ifndef SO_TIMESTAMP_NEW
#    define SO_TIMESTAMP_NEW CMSGX_FALLBACK(63, 0x0046, 0x4038)
#  endif
#  ifndef SO_TIMESTAMPNS_NEW
#    define SO_TIMESTAMPNS_NEW CMSGX_FALLBACK(64, 0x0042, 0x4039)
#  endif
#  ifndef SO_TIMESTAMPING_NEW
#    define SO_TIMESTAMPING_NEW CMSGX_FALLBACK(65, 0x0043, 0x403A)
#  endif
#  ifndef SO_RCVMARK
#    define SO_RCVMARK CMSGX_FALLBACK(75, 0x0054, 0x4049)
#  endif
#  ifndef SO_PASSPIDFD
#    define SO_PASSPIDFD CMSGX_FALLBACK(76, 0x0055, 0x404A)
#  endif
#  ifndef SO_PEERPIDFD
#    define SO_PEERPIDFD CMSGX_FALLBACK(77, 0x0056, 0x404B)
#  endif
#  ifndef SO_DEVMEM_LINEAR
#    define SO_DEVMEM_LINEAR CMSGX_FALLBACK(78, 0x0057, 0x404E)
#  endif
#  ifndef SO_DEVMEM_DMABUF
#    define SO_DEVMEM_DMABUF CMSGX_FALLBACK(79, 0x0058, 0x404F)
#  endif
#  ifndef SO_DEVMEM_DONTNEED
#    define SO_DEVMEM_DONTNEED CMSGX_FALLBACK(80, 0x0059, 0x4050)
#  endif
#  ifndef SCM_TS_OPT_ID
#    define SCM_TS_OPT_ID CMSGX_FALLBACK(81, 0x005a, 0x404C)
#  endif
#  ifndef SO_RCVPRIORITY
#    define SO_RCVPRIORITY CMSGX_FALLBACK(82, 0x005b, 0x404D)
#  endif
#  ifndef SO_PASSRIGHTS
#    define SO_PASSRIGHTS CMSGX_FALLBACK(83, 0x005c, 0x4053)
#  endif
#  ifndef SO_INQ
#    define SO_INQ CMSGX_FALLBACK(84, 0x005d, 0x4054)
#  endif
#  ifndef SCM_WIFI_STATUS
#    define SCM_WIFI_STATUS SO_WIFI_STATUS
#  endif
#  ifndef SCM_TXTIME
#    define SCM_TXTIME SO_TXTIME
#  endif
#  ifndef SCM_INQ
#    define SCM_INQ SO_INQ
#  endif
#  ifndef SCM_DEVMEM_LINEAR
#    define SCM_DEVMEM_LINEAR SO_DEVMEM_LINEAR
#  endif
#  ifndef SCM_DEVMEM_DMABUF
#    define SCM_DEVMEM_DMABUF SO_DEVMEM_DMABUF
#  endif
#  ifndef MSG_SOCK_DEVMEM
#    define MSG_SOCK_DEVMEM 0x2000000
#  endif
#  ifndef MSG_ZEROCOPY
#    define MSG_ZEROCOPY 0x4000000
#  endif

/* netinet/in.h, netinet/tcp.h, netinet/udp.h: older ones lack even some numbers that are old in
   Linux. */
#  ifndef IP_PASSSEC
#    define IP_PASSSEC 18
#  endif
#  ifndef IP_ORIGDSTADDR
#    define IP_ORIGDSTADDR 20
#  endif
#  ifndef IP_RECVORIGDSTADDR
#    define IP_RECVORIGDSTADDR 20
#  endif
#  ifndef IP_CHECKSUM
#    define IP_CHECKSUM 23
#  endif
#  ifndef IP_RECVFRAGSIZE
#    define IP_RECVFRAGSIZE 25
#  endif
#  ifndef IP_RECVERR_RFC4884
#    define IP_RECVERR_RFC4884 26
#  endif
#  ifndef IP_PROTOCOL
#    define IP_PROTOCOL 52
#  endif
#  ifndef IPV6_2292PKTINFO
#    define IPV6_2292PKTINFO 2
#  endif
#  ifndef IPV6_2292HOPOPTS
#    define IPV6_2292HOPOPTS 3
#  endif
#  ifndef IPV6_2292DSTOPTS
#    define IPV6_2292DSTOPTS 4
#  endif
#  ifndef IPV6_2292RTHDR
#    define IPV6_2292RTHDR 5
#  endif
#  ifndef IPV6_2292HOPLIMIT
#    define IPV6_2292HOPLIMIT 8
#  endif
#  ifndef IPV6_FLOWINFO
#    define IPV6_FLOWINFO 11
#  endif
#  ifndef IPV6_RECVERR_RFC4884
#    define IPV6_RECVERR_RFC4884 31
#  endif
#  ifndef IPV6_RECVPATHMTU
#    define IPV6_RECVPATHMTU 60
#  endif
#  ifndef IPV6_PATHMTU
#    define IPV6_PATHMTU 61
#  endif
#  ifndef IPV6_DONTFRAG
#    define IPV6_DONTFRAG 62
#  endif
#  ifndef IPV6_ORIGDSTADDR
#    define IPV6_ORIGDSTADDR 74
#  endif
#  ifndef IPV6_RECVORIGDSTADDR
#    define IPV6_RECVORIGDSTADDR 74
#  endif
#  ifndef IPV6_RECVFRAGSIZE
#    define IPV6_RECVFRAGSIZE 77
#  endif
#  ifndef TCP_ULP
#    define TCP_ULP 31
#  endif
#  ifndef TCP_INQ
#    define TCP_INQ 36
#  endif
#  ifndef TCP_CM_INQ
#    define TCP_CM_INQ TCP_INQ
#  endif
#  ifndef UDP_SEGMENT
#    define UDP_SEGMENT 103
#  endif
#  ifndef UDP_GRO
#    define UDP_GRO 104
#  endif
#endif

/* Numbers that the code asks about on every system.  -1 stands for one that a system lacks: no
   control message, option or error has it. */
#ifdef SCM_CREDENTIALS
#  define CMSGX_SCM_CREDENTIALS SCM_CREDENTIALS
#else
#  define CMSGX_SCM_CREDENTIALS (-1)
#endif
#ifdef SCM_PIDFD
#  define CMSGX_SCM_PIDFD SCM_PIDFD
#else
#  define CMSGX_SCM_PIDFD (-1)
#endif
#ifdef UDP_GRO
#  define CMSGX_UDP_GRO UDP_GRO
#else
#  define CMSGX_UDP_GRO (-1)
#endif
#ifdef IPV6_HDRINCL
#  define CMSGX_IPV6_HDRINCL IPV6_HDRINCL
#else
#  define CMSGX_IPV6_HDRINCL (-1)
#endif
#ifdef __linux__
#  define CMSGX_TCP_ULP TCP_ULP
#else
#  define CMSGX_TCP_ULP (-1)
#endif
#ifdef ENONET
#  define CMSGX_ENONET ENONET
#else
#  define CMSGX_ENONET (-1)
#endif
#ifdef EBADFD
#  define CMSGX_EBADFD EBADFD
#else
#  define CMSGX_EBADFD (-1)
#endif

/* Bits of the type of a socket; 0 where a system has none. */
#ifdef SOCK_NONBLOCK
#  define CMSGX_SOCK_NONBLOCK SOCK_NONBLOCK
#else
#  define CMSGX_SOCK_NONBLOCK 0
#endif

/* Protocols: IANA's numbers, whether or not the headers have them. */
#define CMSGX_IPPROTO_SCTP 132
#define CMSGX_IPPROTO_UDPLITE 136

#endif
