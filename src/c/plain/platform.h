/* The differences between the systems stand here and in platform.c, as those between Python
   versions stand in compat.h: what a system call does elsewhere, and what stands in for one that is
   not there.  Numbers and layouts are in fallbacks.h, uapi.[hc] and tables/.  Plain C, no
   Python.h.

   With CMSGX_PORTABLE a build for Linux takes what stands in for Linux's own, for the tests. */

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

/* Of 64 bits in a struct: i386 aligns them to 4. */
#define CMSGX_ALIGN64 _Alignof(struct {uint64_t value;})

/* Flags ------------------------------------------------------------------------------------ */

/* Close-on-exec by recvmsg(2) itself.  macOS lacks it: cmsgx_sys_recvmsg() sets it right after
   the call, and takes this bit, which is nobody's there, out of the flags before.  Another thread
   that forks and executes in between takes the descriptors along: nothing here can prevent that. */
#if defined(MSG_CMSG_CLOEXEC) && !defined(CMSGX_PORTABLE)
#  define CMSGX_HAS_CLOEXEC 1
#  define CMSGX_MSG_CMSG_CLOEXEC MSG_CMSG_CLOEXEC
#else
#  define CMSGX_HAS_CLOEXEC 0
#  define CMSGX_MSG_CMSG_CLOEXEC 0x40000000
#endif

/* recvmmsg(2) waits for the first message only.  Without that call: a bit that is nobody's. */
#ifdef MSG_WAITFORONE
#  define CMSGX_MSG_WAITFORONE MSG_WAITFORONE
#else
#  define CMSGX_MSG_WAITFORONE 0x20000000
#endif

/* Linux alone has an error queue. */
#ifdef MSG_ERRQUEUE
#  define CMSGX_MSG_ERRQUEUE MSG_ERRQUEUE
#else
#  define CMSGX_MSG_ERRQUEUE 0
#endif

/* With these the kernel may return more bytes than it writes.  On TCP, MSG_TRUNC throws the bytes
   away; MSG_SOCK_DEVMEM, which C libraries lack, leaves them in the memory of a device. */
#ifdef __linux__
#  define CMSGX_MSG_NOT_WRITTEN (MSG_TRUNC | 0x2000000)
#else
#  define CMSGX_MSG_NOT_WRITTEN MSG_TRUNC
#endif

/* An SDK of macOS may lack it.  Python ignores SIGPIPE unless it is told otherwise. */
#ifdef MSG_NOSIGNAL
#  define CMSGX_MSG_NOSIGNAL MSG_NOSIGNAL
#else
#  define CMSGX_MSG_NOSIGNAL 0
#endif

/* What the systems do with descriptors ------------------------------------------------------ */

/* Linux puts as many into a control buffer as fit, and drops the others.  Elsewhere a buffer that
   is too short costs them all (FreeBSD, NetBSD), or the message (OpenBSD), or the others stay open
   and nobody knows their numbers (macOS).  So there each call has this much room beside what was
   asked for, which is more than one message carries (UIPC_MAX_CMSG_FD of macOS is 512), and
   cmsgx_shorten() does what Linux does. */
#if CMSGX_IS_LINUX
#  define CMSGX_EXTRA_CONTROL 0
#else
#  define CMSGX_EXTRA_CONTROL CMSG_SPACE(512 * sizeof(int))
#endif

/* The numbers that MSG_PEEK shows are descriptors: Linux makes new ones each time.  macOS shows
   zeros, the BSDs what the kernel itself has in their place. */
#ifdef __linux__
#  define CMSGX_PEEK_INSTALLS 1
#else
#  define CMSGX_PEEK_INSTALLS 0
#endif

/* SCM_RIGHTS travels alone: with another control message beside it sendmsg(2) fails, EINVAL. */
#if defined(__APPLE__) || defined(__NetBSD__) || defined(__OpenBSD__)
#  define CMSGX_RIGHTS_ALONE 1
#else
#  define CMSGX_RIGHTS_ALONE 0
#endif

/* sendmsg(2), recvmsg(2) ------------------------------------------------------------------- */

/* musl's sendmsg() for 64 bits copies the control data to 1 KiB of stack, and says ENOMEM where
   there is more, as with 253 descriptors.  The kernel takes its structs as they are where the
   padding, which stands for the upper half of a size_t, is zero: here all of a msghdr is zeroed
   before it is filled, and cmsgx_put() zeroes each header. */
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

/* Of a libc whose time_t is longer than the kernel's long, recvmsg() and recvmmsg() put a second
   time stamp behind the kernel's, or set MSG_CTRUNC where it has no room, though nothing is lost.
   The calls themselves do not. */
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

/* The system's struct mmsghdr where it has the system calls.  Not FreeBSD's, whose length is a
   ssize_t: there these calls are loops of its C library, which ours do as well. */
struct cmsgx_mmsg {
    struct msghdr msg_hdr;
    unsigned int msg_len;
};

#if CMSGX_IS_LINUX || defined(__NetBSD__) || defined(__OpenBSD__)
#  define CMSGX_HAS_MMSG 1
#else
#  define CMSGX_HAS_MMSG 0
#endif

/* sendmmsg(2): how many were sent, each with its length in msg_len; -1 with errno where the first
   fails.  An error after the first ends the call: sending that message again tells it. */
#if CMSGX_HAS_MMSG

_Static_assert(sizeof(struct cmsgx_mmsg) == sizeof(struct mmsghdr)
                   && offsetof(struct cmsgx_mmsg, msg_hdr) == offsetof(struct mmsghdr, msg_hdr)
                   && offsetof(struct cmsgx_mmsg, msg_len) == offsetof(struct mmsghdr, msg_len),
               "struct mmsghdr");
_Static_assert(sizeof(((struct mmsghdr *)0)->msg_len) == sizeof(unsigned int), "its length");

/* Their argument for the flags is unsigned with NetBSD and musl. */
#  if defined(__GLIBC__) || defined(__BIONIC__) || defined(__OpenBSD__)
typedef int cmsgx_mmsg_flags;
#  else
typedef unsigned int cmsgx_mmsg_flags;
#  endif

static inline __attribute__((always_inline)) int
cmsgx_plain_recvmmsg(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags)
{
#  if CMSGX_IS_LINUX && LONG_MAX == INT_MAX
    /* The two differ in the timeout, and there is none. */
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
    /* musl's is a loop around its sendmsg(). */
    return (int)syscall(SYS_sendmmsg, fd, msgs, count, flags);
#  else
    return sendmmsg(fd, (struct mmsghdr *)(void *)msgs, count, (cmsgx_mmsg_flags)flags);
#  endif
}

#else
/* This system has none: msghdr.h has a loop in its place. */
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

/* Linux 5.9; headers may be older than the kernel.  One number for all but two processors. */
#if defined(__linux__) && !defined(SYS_close_range) && !defined(__alpha__) && !defined(__mips__)
#  define SYS_close_range 436
#endif

/* Closes a run of descriptors by one call: 0, or -1 where the system has none, or refuses. */
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

/* memfd_create(2): the number, or -1 with errno.  Not every C library of Linux has the function. */
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

/* poll(2) that waits so many nanoseconds, or up to a millisecond more. */
int cmsgx_poll(struct pollfd *fds, nfds_t count, int64_t nanoseconds);

/* The clock that a condition waits by.  macOS has no pthread_condattr_setclock(). */
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

/* How many descriptors this process has open, or a bound of it; SIZE_MAX where that cannot be
   told. */
size_t cmsgx_count_open(void);

/* How many more could be opened, below a limit of the table: `enough` at most, and no more than are
   found by looking at that many numbers and some.  Needs neither /proc nor a descriptor. */
size_t cmsgx_count_free(size_t limit, size_t enough);

/* Processes -------------------------------------------------------------------------------- */

/* The pid here of what a pidfd names: PIDFD_GET_INFO, Linux 6.13.  0 where it was reaped, or is not
   visible here; -1 where this kernel does not tell, or it is not a pidfd. */
pid_t cmsgx_pid_of(int pidfd);

/* Sockets ---------------------------------------------------------------------------------- */

/* Whether a family refuses MSG_NOSIGNAL as it does each flag that it does not know.  None of these
   raises SIGPIPE. */
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

/* AF_* of a socket: SO_DOMAIN, or by its name.  -1 with errno. */
int cmsgx_family_of(int fd);

/* Its protocol: SO_PROTOCOL.  -1 where it is not told. */
int cmsgx_proto_of(int fd);

/* Whether the peer sends nothing more, and nothing is left of what it sent: for a socket whose
   empty messages look the same.  1, 0, or -1 with errno where that cannot be told. */
int cmsgx_has_hung_up(int fd);

/* Who connected to an AF_UNIX socket, or listened. */
struct cmsgx_peer {
    int32_t pid;            /* 0 where it is not visible here, or where the system does not tell */
    uint32_t uid;           /* the effective ones */
    uint32_t gid;
};

/* 0, or -1 with errno. */
int cmsgx_peer_of(int fd, struct cmsgx_peer *peer);

/* Addresses -------------------------------------------------------------------------------- */

/* A socket address without a family says nothing. */
#define CMSGX_MIN_ADDRESS offsetof(struct sockaddr, sa_data)

/* AF_UNIX names that begin with a NUL, unix(7). */
#ifdef __linux__
#  define CMSGX_HAS_ABSTRACT_NAMES 1
#else
#  define CMSGX_HAS_ABSTRACT_NAMES 0
#endif

/* AF_NETLINK names, netlink(7) and netlink(4): the same two numbers at the same places. */
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

/* The BSDs and macOS have the length in the address too.  The kernel puts it into that of a call by
   itself, but not into one that is the payload of a control message. */
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

/* struct timeval and struct timespec as a control message has them.  Linux has two longs, whatever
   the time_t of the C library. */
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

/* struct bintime of FreeBSD, elsewhere as it is there for 64 bits. */
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

/* struct in_pktinfo, and the address in it that a packet is sent from.  NetBSD's has but one. */
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
