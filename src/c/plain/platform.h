/* The differences between systems, here and in platform.c, as compat.h has those between Python
   versions: what a system call does elsewhere, and what stands in for one that a system lacks.
   Numbers and layouts are in fallbacks.h, uapi.[ch] and tables/.  Plain C, no Python.h.

   With CMSGX_PORTABLE a build on Linux uses what stands in for Linux's own calls, for tests. */

#ifndef CMSGX_PLATFORM_H
#define CMSGX_PLATFORM_H

#include "plain/fallbacks.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <sys/types.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#ifdef __linux__
#  include <linux/netlink.h>
#  include <sys/syscall.h>
#endif
#ifdef __FreeBSD__
#  include <sys/mman.h>
#endif

#if defined(__linux__) && !defined(CMSGX_PORTABLE)
#  define CMSGX_IS_LINUX 1
#else
#  define CMSGX_IS_LINUX 0
#endif

/* The type of ioctl(2)'s request: int in POSIX and musl, unsigned long elsewhere. */
#if defined(__linux__) && !defined(__GLIBC__)
typedef int cmsgx_ioctl;
#else
typedef unsigned long cmsgx_ioctl;
#endif

/* The alignment of 64 bits in a struct: 4 on i386. */
#define CMSGX_ALIGN64 _Alignof(struct {uint64_t value;})

/* Flags ------------------------------------------------------------------------------------ */

/* Close-on-exec by recvmsg(2) itself.  macOS lacks it: cmsgx_sys_recvmsg() removes this bit, which
   nothing uses there, from the flags and sets close-on-exec right after the call.  A fork and exec
   in another thread in between inherits the descriptors, which cannot be prevented. */
#if defined(MSG_CMSG_CLOEXEC) && !defined(CMSGX_PORTABLE)
#  define CMSGX_HAS_CLOEXEC 1
#  define CMSGX_MSG_CMSG_CLOEXEC MSG_CMSG_CLOEXEC
#else
#  define CMSGX_HAS_CLOEXEC 0
#  define CMSGX_MSG_CMSG_CLOEXEC 0x40000000
#endif

/* recvmmsg(2) waits for the first message only.  On a system without that call: an unused bit. */
#ifdef MSG_WAITFORONE
#  define CMSGX_MSG_WAITFORONE MSG_WAITFORONE
#else
#  define CMSGX_MSG_WAITFORONE 0x20000000
#endif

/* Only Linux has an error queue. */
#ifdef MSG_ERRQUEUE
#  define CMSGX_MSG_ERRQUEUE MSG_ERRQUEUE
#else
#  define CMSGX_MSG_ERRQUEUE 0
#endif

/* Flags with which the kernel may return more bytes than it writes.  On TCP, MSG_TRUNC discards
   the bytes, see tcp(7); MSG_SOCK_DEVMEM leaves them in the memory of a device, see
   https://docs.kernel.org/networking/devmem.html. */
#ifdef __linux__
#  define CMSGX_MSG_NOT_WRITTEN (MSG_TRUNC | MSG_SOCK_DEVMEM)
#else
#  define CMSGX_MSG_NOT_WRITTEN MSG_TRUNC
#endif

/* An SDK of macOS may lack it.  Python ignores SIGPIPE by default. */
#ifdef MSG_NOSIGNAL
#  define CMSGX_MSG_NOSIGNAL MSG_NOSIGNAL
#else
#  define CMSGX_MSG_NOSIGNAL 0
#endif

/* What the systems do with descriptors ------------------------------------------------------ */

/* Linux puts as many descriptors into a control buffer as fit, and drops the others.  Elsewhere a
   buffer that is too short loses all of them (FreeBSD, NetBSD) or the message (OpenBSD), or leaves
   the others open without their numbers (macOS: https://github.com/python/cpython/issues/80931).
   So there each call has this much room more than was asked for, enough for any message
   (UIPC_MAX_CMSG_FD of macOS is 512), and cmsgx_shorten() then does what Linux does. */
#if CMSGX_IS_LINUX
#  define CMSGX_EXTRA_CONTROL 0
#else
#  define CMSGX_EXTRA_CONTROL CMSG_SPACE(512 * sizeof(int))
#endif

/* Whether the numbers that MSG_PEEK shows are descriptors: Linux installs new ones each time.
   macOS shows zeros, and the BSDs their kernel's own data in that place. */
#ifdef __linux__
#  define CMSGX_PEEK_INSTALLS 1
#else
#  define CMSGX_PEEK_INSTALLS 0
#endif

/* Whether sendmsg(2) fails with EINVAL where another control message goes with SCM_RIGHTS. */
#if defined(__APPLE__) || defined(__NetBSD__) || defined(__OpenBSD__)
#  define CMSGX_RIGHTS_ALONE 1
#else
#  define CMSGX_RIGHTS_ALONE 0
#endif

/* sendmsg(2), recvmsg(2) ------------------------------------------------------------------- */

/* On 64 bits musl's sendmsg() copies the control data to about 1 KiB of stack and fails with
   ENOMEM where there is more, as with 253 descriptors and credentials: src/network/sendmsg.c.  The
   kernel accepts musl's structs as they are if the padding, which it reads as the upper half of a
   size_t, is zero: every msghdr here is zeroed before it is filled, and cmsgx_put() zeroes each
   header. */
#if defined(__linux__) && !defined(__GLIBC__) && LONG_MAX > INT_MAX
#  define CMSGX_RAW_SENDMSG 1
#else
#  define CMSGX_RAW_SENDMSG 0
#endif

static inline __attribute__((always_inline)) ssize_t
cmsgx_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
#if CMSGX_RAW_SENDMSG
    if (msg->msg_controllen > 512) {
        return syscall(SYS_sendmsg, fd, msg, flags);
    }
#endif
    return sendmsg(fd, msg, flags);
}

/* In a libc whose time_t is longer than the kernel's long, recvmsg() and recvmmsg() add a second
   time stamp after the kernel's, or set MSG_CTRUNC if that does not fit, although nothing was
   lost: musl, src/network/recvmsg.c.  The system calls do not. */
#define CMSGX_RAW_RECVMSG (sizeof(time_t) > sizeof(long))

static inline __attribute__((always_inline)) ssize_t
cmsgx_plain_recvmsg(int fd, struct msghdr *msg, int flags)
{
#if CMSGX_IS_LINUX && LONG_MAX == INT_MAX
    if (CMSGX_RAW_RECVMSG) {
        return syscall(SYS_recvmsg, fd, msg, flags);
    }
#endif
    return recvmsg(fd, msg, flags);
}

/* sendmmsg(2), recvmmsg(2) ----------------------------------------------------------------- */

/* The system's struct mmsghdr, where the calls are system calls.  Not that of FreeBSD, whose
   length is a ssize_t: there they are loops in the C library, and the loops here do as well. */
struct cmsgx_mmsg {
    struct msghdr msg_hdr;
    unsigned int msg_len;
};

#if CMSGX_IS_LINUX || defined(__NetBSD__) || defined(__OpenBSD__)
#  define CMSGX_HAS_MMSG 1
#else
#  define CMSGX_HAS_MMSG 0
#endif

/* sendmmsg(2).  Returns how many were sent, each with its length in msg_len; -1 with errno where
   the first fails.  An error after the first ends the call, and is reported when that message is
   sent again. */
#if CMSGX_HAS_MMSG

_Static_assert(sizeof(struct cmsgx_mmsg) == sizeof(struct mmsghdr)
                   && offsetof(struct cmsgx_mmsg, msg_hdr) == offsetof(struct mmsghdr, msg_hdr)
                   && offsetof(struct cmsgx_mmsg, msg_len) == offsetof(struct mmsghdr, msg_len),
               "struct mmsghdr");
_Static_assert(sizeof(((struct mmsghdr *)0)->msg_len) == sizeof(unsigned int), "its length");

/* The type of the flags is unsigned on NetBSD and in musl. */
#  if defined(__GLIBC__) || defined(__BIONIC__) || defined(__OpenBSD__)
typedef int cmsgx_mmsg_flags;
#  else
typedef unsigned int cmsgx_mmsg_flags;
#  endif

static inline __attribute__((always_inline)) int
cmsgx_plain_recvmmsg(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags)
{
#  if CMSGX_IS_LINUX && LONG_MAX == INT_MAX
    /* The two differ only in the timeout, which is not used. */
#    ifdef SYS_recvmmsg_time64
    const long number = SYS_recvmmsg_time64;
#    else
    const long number = SYS_recvmmsg;
#    endif
    if (CMSGX_RAW_RECVMSG) {
        return (int)syscall(number, fd, msgs, count, flags, NULL);
    }
#  endif
    return recvmmsg(fd, (struct mmsghdr *)(void *)msgs, count, (cmsgx_mmsg_flags)flags, NULL);
}

static inline __attribute__((always_inline)) int
cmsgx_sendmmsg(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags)
{
#  if CMSGX_RAW_SENDMSG
    /* musl's sendmmsg() is a loop of its sendmsg(). */
    return (int)syscall(SYS_sendmmsg, fd, msgs, count, flags);
#  else
    return sendmmsg(fd, (struct mmsghdr *)(void *)msgs, count, (cmsgx_mmsg_flags)flags);
#  endif
}

#else
/* Never called: cmsgx_recvmmsg() in msghdr.h has a loop for a system without recvmmsg(2). */
static inline int
cmsgx_plain_recvmmsg(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags)
{
    (void)fd, (void)msgs, (void)count, (void)flags;
    errno = ENOSYS;
    return -1;
}

int cmsgx_sendmmsg(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags);
#endif

/* Other calls ------------------------------------------------------------------------------ */

/* close_range(2), Linux 5.9; headers may be older than the kernel.  The same number on all
   processors but two. */
#if defined(__linux__) && !defined(SYS_close_range) && !defined(__alpha__) && !defined(__mips__)
#  define SYS_close_range 436
#endif

/* Closes a range of descriptors by one call: 0, or -1 where the system lacks it or refuses. */
static inline int
cmsgx_close_range(unsigned int first, unsigned int last)
{
#if CMSGX_IS_LINUX && defined(SYS_close_range)
    return (int)syscall(SYS_close_range, first, last, 0u);
#elif defined(__FreeBSD__)
    return close_range(first, last, 0);
#else
    (void)first, (void)last;
    return -1;
#endif
}

/* memfd_create(2): the descriptor, or -1 with errno.  Not every C library of Linux has the
   function. */
static inline int
cmsgx_sys_memfd_create(const char *name, unsigned int flags)
{
#if defined(__linux__) && defined(__NR_memfd_create)
    return (int)syscall(__NR_memfd_create, name, flags);
#elif defined(__FreeBSD__) && __FreeBSD__ >= 13
    return memfd_create(name, flags);
#else
    (void)name, (void)flags;
    errno = ENOSYS;
    return -1;
#endif
}

/* poll(2) with a timeout in nanoseconds, which may be rounded up to a millisecond. */
int cmsgx_poll(struct pollfd *fds, nfds_t count, int64_t nanoseconds);

/* The clock of condition variables.  macOS has no pthread_condattr_setclock(). */
#ifdef __APPLE__
#  define CMSGX_CONDITION_CLOCK CLOCK_REALTIME
#else
#  define CMSGX_CONDITION_CLOCK CLOCK_MONOTONIC
#endif

static inline void
cmsgx_set_condition_clock(pthread_condattr_t *attributes)
{
#ifdef __APPLE__
    (void)attributes;
#else
    pthread_condattr_setclock(attributes, CMSGX_CONDITION_CLOCK);
#endif
}

/* How many descriptors this process has open, or an upper bound; SIZE_MAX where it is unknown. */
size_t cmsgx_count_open(void);

/* How many more descriptors could be opened below `limit`, at most `enough`; looks at no more than
   `enough` + 1024 numbers.  Needs neither /proc nor a descriptor. */
size_t cmsgx_count_free(size_t limit, size_t enough);

/* Processes -------------------------------------------------------------------------------- */

/* The pid, in this pid namespace, of a pidfd: PIDFD_GET_INFO, Linux 6.13.  0 where the process was
   reaped or is not visible here; -1 where this kernel lacks the call, or it is not a pidfd. */
pid_t cmsgx_pid_of(int pidfd);

/* Sockets ---------------------------------------------------------------------------------- */

/* Whether a family refuses MSG_NOSIGNAL, as every flag that it does not know.  These never raise
   SIGPIPE. */
static inline int
cmsgx_family_refuses_nosignal(int family)
{
#if CMSGX_IS_LINUX
    return family == AF_RDS || family == AF_X25 || family == AF_QRTR;
#else
    (void)family;
    return 0;
#endif
}

/* AF_* of a socket: by SO_DOMAIN, or by its name.  -1 with errno. */
int cmsgx_family_of(int fd);

/* Its SOCK_*: SO_TYPE.  -1 with errno. */
int cmsgx_type_of(int fd);

/* Its protocol: SO_PROTOCOL.  -1 where it is unknown. */
int cmsgx_proto_of(int fd);

/* Whether the peer will send nothing more and all that it sent was read: for a socket whose empty
   messages look like that.  1, 0, or -1 with errno where it cannot be determined; CMSGX_BYTES_LEFT
   for a stream that has bytes left, which only a read of 0 bytes asks about: it is not at its end,
   but a loop of such reads would never come further. */
#define CMSGX_BYTES_LEFT 2
int cmsgx_has_hung_up(int fd);

/* The process that connected to an AF_UNIX socket, or listened on it. */
struct cmsgx_peer {
    int32_t pid;            /* 0 where it is not visible here, or where the system lacks it */
    uint32_t uid;           /* both are the effective ones */
    uint32_t gid;
};

/* 0, or -1 with errno. */
int cmsgx_peer_of(int fd, struct cmsgx_peer *peer);

/* Addresses -------------------------------------------------------------------------------- */

/* The shortest socket address: one that has its family. */
#define CMSGX_MIN_ADDRESS offsetof(struct sockaddr, sa_data)

/* AF_UNIX names that begin with a NUL: unix(7). */
#ifdef __linux__
#  define CMSGX_HAS_ABSTRACT_NAMES 1
#else
#  define CMSGX_HAS_ABSTRACT_NAMES 0
#endif

/* AF_NETLINK names: netlink(7), and netlink(4) of FreeBSD, with the same two numbers at the same
   places. */
#if defined(__linux__) || (defined(__FreeBSD__) && defined(AF_NETLINK))
#  define CMSGX_HAS_NETLINK_NAMES 1
#else
#  define CMSGX_HAS_NETLINK_NAMES 0
#endif

/* Names of the families that only Linux has: AF_PACKET, AF_CAN, AF_VSOCK, ... */
#ifdef __linux__
#  define CMSGX_HAS_LINUX_NAMES 1
#else
#  define CMSGX_HAS_LINUX_NAMES 0
#endif

/* On the BSDs and macOS an address has its length in it.  The kernel sets it in the address of a
   call, but not in one that is the payload of a control message. */
static inline void
cmsgx_set_address_length(struct sockaddr_storage *name, socklen_t size)
{
#ifdef __linux__
    (void)name, (void)size;
#else
    name->ss_len = (unsigned char)size;
#endif
}

/* Payloads --------------------------------------------------------------------------------- */

/* struct timeval and struct timespec in a control message: two longs on Linux, whatever the time_t
   of the C library. */
#ifdef __linux__
typedef struct {
    long seconds;
    long fraction;
} cmsgx_timeval, cmsgx_timespec;
#else
typedef struct {
    time_t seconds;
    suseconds_t fraction;
} cmsgx_timeval;
typedef struct {
    time_t seconds;
    long fraction;
} cmsgx_timespec;
_Static_assert(sizeof(cmsgx_timeval) == sizeof(struct timeval)
                   && offsetof(cmsgx_timeval, fraction) == offsetof(struct timeval, tv_usec),
               "struct timeval");
_Static_assert(sizeof(cmsgx_timespec) == sizeof(struct timespec)
                   && offsetof(cmsgx_timespec, fraction) == offsetof(struct timespec, tv_nsec),
               "struct timespec");
#endif

/* struct bintime of FreeBSD; elsewhere as on its 64-bit systems. */
typedef struct {
#ifdef __FreeBSD__
    time_t seconds;
#else
    int64_t seconds;
#endif
    uint64_t fraction;
} cmsgx_bintime;
#ifdef __FreeBSD__
_Static_assert(sizeof(cmsgx_bintime) == sizeof(struct bintime)
                   && offsetof(cmsgx_bintime, fraction) == offsetof(struct bintime, frac),
               "struct bintime");
#endif

/* struct in_pktinfo, and its member for the source address of a packet to send.  NetBSD's has only
   one address. */
#if defined(__linux__) || defined(__APPLE__)
#  define CMSGX_HAS_PKTINFO 1
#  define CMSGX_PKTINFO_SOURCE ipi_spec_dst
#elif defined(__NetBSD__)
#  define CMSGX_HAS_PKTINFO 1
#  define CMSGX_PKTINFO_SOURCE ipi_addr
#else
#  define CMSGX_HAS_PKTINFO 0
#endif

#endif
