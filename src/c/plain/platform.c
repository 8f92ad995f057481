#include "plain/platform.h"

#include "plain/uapi.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#if defined(__FreeBSD__) || defined(__APPLE__)
#  include <sys/param.h>
#  include <sys/sysctl.h>
#  include <sys/ucred.h>
#endif

/* Many messages ----------------------------------------------------------------------------- */

#if !CMSGX_HAS_MMSG
int
cmsgx_sendmmsg(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags)
{
    unsigned int done = 0;

    while (done < count) {
        ssize_t result = cmsgx_sys_sendmsg(fd, &msgs[done].msg_hdr, flags);
        if (result < 0) {
            break;
        }
        msgs[done++].msg_len = (unsigned int)result;
    }
    return done > 0 || count == 0 ? (int)done : -1;
}

#endif

/* Waiting, and counting ---------------------------------------------------------------------- */

int
cmsgx_poll(struct pollfd *fds, nfds_t count, int64_t nanoseconds)
{
    /* Not NetBSD, which has ppoll(2) only since its release 10. */
#if CMSGX_IS_LINUX || defined(__FreeBSD__) || defined(__OpenBSD__)
    /* A time_t of 32 bits holds 68 years. */
    int64_t seconds = nanoseconds / 1000000000;
    struct timespec time = {.tv_sec = seconds > INT_MAX ? INT_MAX : (time_t)seconds,
                            .tv_nsec = (long)(nanoseconds % 1000000000)};
    int result = ppoll(fds, count, &time, NULL);
    if (result >= 0 || (errno != EPERM && errno != ENOSYS)) {
        return result;
    }
    /* A filter of seccomp(2) may allow poll(2) only. */
#endif
    int64_t milliseconds = (nanoseconds + 999999) / 1000000;
    return poll(fds, count, milliseconds > INT_MAX ? INT_MAX : (int)milliseconds);
}

#if defined(__linux__) || defined(__APPLE__)
/* The count includes "." and "..".  On the BSDs /dev/fd shows only the standard streams, unless
   fdescfs is mounted. */
static size_t
count_entries(void)
{
    size_t count = 0;
    DIR *folder = opendir("/dev/fd");
    if (folder == NULL) {
        return SIZE_MAX;
    }
    while (readdir(folder) != NULL) {
        count++;
    }
    (void)closedir(folder);
    return count;
}
#endif

size_t
cmsgx_count_open(void)
{
#if defined(__linux__)
    struct stat status;
    /* The size is that number since Linux 6.2, commit f1f1f2569901. */
    if (stat("/proc/self/fd", &status) == 0 && status.st_size > 0) {
        return (size_t)status.st_size;
    }
    return count_entries();
#elif defined(__APPLE__)
    return count_entries();
#elif defined(__FreeBSD__)
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_NFDS, 0};
    int count;
    size_t size = sizeof(count);
    return sysctl(name, 4, &count, &size, NULL, 0) == 0 ? (size_t)count : SIZE_MAX;
#elif defined(__NetBSD__)
    int last = fcntl(0, F_MAXFD);
    return last >= 0 ? (size_t)last + 1 : SIZE_MAX;
#elif defined(__OpenBSD__)
    return (size_t)getdtablecount();
#else
    return SIZE_MAX;
#endif
}

size_t
cmsgx_count_free(size_t limit, size_t enough)
{
    const size_t more = 1024;   /* mostly more than are open */
    size_t found = 0;
    for (size_t number = 0; number < limit && number < enough + more && found < enough; number++) {
        found += fcntl((int)number, F_GETFD) < 0 && errno == EBADF;
    }
    return found;
}

/* Processes --------------------------------------------------------------------------------- */

pid_t
cmsgx_pid_of(int pidfd)
{
#if CMSGX_IS_LINUX
    struct cmsgx_pidfd_info info;
    /* An older kernel fills only part of it. */
    memset(&info, 0, sizeof(info));
    if (ioctl(pidfd, (cmsgx_ioctl)CMSGX_PIDFD_GET_INFO, &info) == 0) {
        return (pid_t)info.pid;
    }
    return errno == ESRCH ? 0 : -1;
#else
    (void)pidfd;
    return -1;
#endif
}

/* Sockets ------------------------------------------------------------------------------------ */

int
cmsgx_family_of(int fd)
{
#if defined(SO_DOMAIN) && !defined(CMSGX_PORTABLE)
    int family;
    socklen_t size = sizeof(family);
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 ? family : -1;
#else
    struct sockaddr_storage name;
    socklen_t size = sizeof(name);
    /* Some systems write nothing for an unnamed socket. */
    memset(&name, 0, sizeof(name));
    return getsockname(fd, (struct sockaddr *)&name, &size) == 0 ? name.ss_family : -1;
#endif
}

int
cmsgx_type_of(int fd)
{
    int type;
    socklen_t size = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 ? type : -1;
}

int
cmsgx_proto_of(int fd)
{
#ifdef SO_PROTOCOL
    int proto;
    socklen_t size = sizeof(proto);
    return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &proto, &size) == 0 ? proto : -1;
#else
    (void)fd;
    return -1;
#endif
}

/* Whether something is queued, as far as can be seen: bytes in any message, descriptors in the next
   one. */
static int
has_more(int fd)
{
    int bytes = 0;
    if (ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0) {
        return 1;
    }
    /* Without any room: no descriptor is installed, and whatever there is counts as truncated. */
    struct msghdr msg;
    memset(&msg, 0, sizeof(msg));
    return recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT) >= 0
           && (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

/* Whether the peer will send nothing more, without poll(2), which fails where RLIMIT_NOFILE is 0.
   A peek past everything that is queued finds the end, or nothing. */
static int
is_shut_down(int fd)
{
#ifdef SO_PEEK_OFF
    int before, beyond = INT_MAX;
    socklen_t size = sizeof(before);
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, &size) < 0
        || setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &beyond, sizeof(beyond)) < 0) {
        return -1;
    }
    ssize_t result = recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
    int is_empty = result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    (void)setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &before, sizeof(before));
    return result == 0 ? 1 : is_empty ? 0 : -1;
#else
    (void)fd;
    return -1;
#endif
}

/* What cmsgx_has_hung_up() returns once the peer has. */
static int
what_is_left(int fd)
{
    return !has_more(fd) ? 1 : cmsgx_type_of(fd) == SOCK_STREAM ? CMSGX_BYTES_LEFT : 0;
}

int
cmsgx_has_hung_up(int fd)
{
#ifdef POLLRDHUP
    const short asked = POLLRDHUP;
#else
    const short asked = 0;
#endif
    struct pollfd ready = {.fd = fd, .events = asked};
    int result = cmsgx_poll(&ready, 1, 0);
    if (result < 0) {
        int failed = errno;
        result = is_shut_down(fd);
        errno = failed;
        return result > 0 ? what_is_left(fd) : result;
    }
    if (ready.revents & POLLNVAL) {
        errno = EBADF;
        return -1;
    }
    return result > 0 && (ready.revents & (asked | POLLHUP)) ? what_is_left(fd) : 0;
}

int
cmsgx_peer_of(int fd, struct cmsgx_peer *peer)
{
#if defined(__linux__) || defined(__OpenBSD__)
#  ifdef __linux__
    struct ucred found;
#  else
    struct sockpeercred found;
#  endif
    socklen_t size = sizeof(found);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &found, &size) < 0) {
        return -1;
    }
    peer->pid = found.pid;
    peer->uid = found.uid;
    peer->gid = found.gid;
    return 0;
#elif defined(__NetBSD__)
    struct unpcbid found;
    socklen_t size = sizeof(found);
    if (getsockopt(fd, SOL_LOCAL, LOCAL_PEEREID, &found, &size) < 0) {
        return -1;
    }
    peer->pid = found.unp_pid;
    peer->uid = found.unp_euid;
    peer->gid = found.unp_egid;
    return 0;
#elif defined(__FreeBSD__) || defined(__APPLE__)
    struct xucred found;
    socklen_t size = sizeof(found);
    memset(&found, 0, sizeof(found));
    if (getsockopt(fd, SOL_LOCAL, LOCAL_PEERCRED, &found, &size) < 0) {
        return -1;
    }
    if (found.cr_version != XUCRED_VERSION || found.cr_ngroups < 1) {
        errno = EINVAL;
        return -1;
    }
    peer->uid = found.cr_uid;
    peer->gid = found.cr_groups[0];     /* the effective one is the first */
#  ifdef __APPLE__
    pid_t pid;
    size = sizeof(pid);
    peer->pid = getsockopt(fd, SOL_LOCAL, LOCAL_PEERPID, &pid, &size) == 0 ? pid : 0;
#  else
    peer->pid = found.cr_pid;           /* since FreeBSD 13; 0 before */
#  endif
    return 0;
#else
    (void)fd, (void)peer;
    errno = ENOPROTOOPT;
    return -1;
#endif
}
