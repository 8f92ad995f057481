/* LD_PRELOAD library: a kernel that is never ready at once, and takes and gives little at a time.

   cc -std=c11 -Wall -Wextra -Werror -O1 -shared -fPIC -o reluctant.so reluctant.c -ldl
   LD_PRELOAD=./reluctant.so CMSGX_RELUCTANT=later,little python ...

   The environment or reluctant_mode() gives any of these, with commas between them:

       later[=N]  each send, receive and accept of a descriptor is refused N times, by default once,
                  before the next one is let through: with EAGAIN if it would not wait, else with
                  EINTR.  All that poll(2) says stays true.
       little     a stream takes and gives one byte at a time, with all control data of the call;
                  sendmmsg() takes one message and recvmmsg() gives one, except at an end, which a
                  kernel gives as often as it is asked.  Datagrams keep their boundaries.
       ready[=N]  poll() says N times, before each transfer, that a descriptor is ready, which it
                  may not be
       error[=N]  the same with POLLERR

   Everything else is done as asked.  read() and write() are left alone, so the other side of a
   test can use them. */

#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Descriptors from here on are left alone. */
#define MOST 4096

/* What is refused by itself. */
enum { IN, OUT, ERRORS, WAYS };

static atomic_int later, little, ready, errors, is_paused;
/* For each descriptor: refusals since the last call that was let through, lies since the last
   transfer. */
static atomic_uchar refusals[MOST][WAYS], lies[MOST];

static const char *const counted[] = {"again", "interrupted", "shortened", "alone", "lies"};
enum { AGAIN, INTERRUPTED, SHORTENED, ALONE, LIES, COUNTS };
static atomic_long counts[COUNTS];

/* For the test ----------------------------------------------------------------------------- */

PUBLIC void reluctant_mode(const char *text);
PUBLIC void reluctant_pause(int on);
PUBLIC long reluctant_count(const char *what);

static int
number_of(const char *text, const char *name)
{
    const char *found = strstr(text, name);
    if (found == NULL) {
        return 0;
    }
    found += strlen(name);
    return *found == '=' ? atoi(found + 1) : 1;
}

/* Also forgets and counts from 0 again. */
void
reluctant_mode(const char *text)
{
    later = number_of(text, "later");
    little = number_of(text, "little");
    ready = number_of(text, "ready");
    errors = number_of(text, "error");
    for (size_t fd = 0; fd < MOST; fd++) {
        atomic_store_explicit(&lies[fd], 0, memory_order_relaxed);
        for (size_t way = 0; way < WAYS; way++) {
            atomic_store_explicit(&refusals[fd][way], 0, memory_order_relaxed);
        }
    }
    for (size_t i = 0; i < COUNTS; i++) {
        counts[i] = 0;
    }
}

/* Meanwhile nothing is in the way of any call. */
void
reluctant_pause(int on)
{
    is_paused = on;
}

/* again        calls that failed with EAGAIN
   interrupted  with EINTR
   shortened    calls that had room or data for more than the one byte
   alone        calls for several messages that moved at most one
   lies         answers of poll()
   -1: none of these. */
long
reluctant_count(const char *what)
{
    for (size_t i = 0; i < COUNTS; i++) {
        if (strcmp(counted[i], what) == 0) {
            return counts[i];
        }
    }
    return -1;
}

__attribute__((constructor)) static void
start(void)
{
    const char *text = getenv("CMSGX_RELUCTANT");
    if (text != NULL) {
        reluctant_mode(text);
    }
}

/* What each call asks ---------------------------------------------------------------------- */

static int
is_known(int fd)
{
    return fd >= 0 && fd < MOST;
}

static int
would_wait(int fd, int flags)
{
    return !(flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) && !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* Whether the call is refused, with errno.  A peek never is: it may be what asks whether anything
   can still come, and the answer that nothing is there would not become another one later. */
static int
is_refused(int fd, int flags, int way)
{
    way = flags & MSG_ERRQUEUE ? ERRORS : way;
    if (later == 0 || is_paused || !is_known(fd) || (flags & MSG_PEEK)) {
        return 0;
    }
    if (refusals[fd][way] >= later) {
        refusals[fd][way] = 0;
        return 0;
    }
    if (fcntl(fd, F_GETFD) < 0) {
        return 0;   /* the kernel says EBADF */
    }
    refusals[fd][way]++;
    int waits = would_wait(fd, flags);
    counts[waits ? INTERRUPTED : AGAIN]++;
    errno = waits ? EINTR : EAGAIN;
    return 1;
}

static int
is_stream(int fd)
{
    int type, saved = errno;
    socklen_t size = sizeof(type);
    int result = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    errno = saved;
    return result == 0 && type == SOCK_STREAM;
}

static size_t
shortened(int fd, int flags, size_t size)
{
    if (size <= 1 || !little || is_paused || (flags & MSG_ERRQUEUE) || !is_stream(fd)) {
        return size;
    }
    counts[SHORTENED]++;
    return 1;
}

/* The same message with the first byte of its buffers, which is `*byte`. */
static struct msghdr
shortened_message(int fd, int flags, const struct msghdr *msg, struct iovec *byte)
{
    struct msghdr copy = *msg;
    size_t size = 0, first = 0;
    for (size_t i = 0; i < (size_t)msg->msg_iovlen; i++) {
        if (size == 0 && msg->msg_iov[i].iov_len > 0) {
            first = i;
        }
        size += msg->msg_iov[i].iov_len;
    }
    if (shortened(fd, flags, size) < size) {
        byte->iov_base = msg->msg_iov[first].iov_base;
        byte->iov_len = 1;
        copy.msg_iov = byte;
        copy.msg_iovlen = 1;
    }
    return copy;
}

/* What the kernel wrote. */
static void
copy_back(struct msghdr *to, const struct msghdr *from)
{
    to->msg_namelen = from->msg_namelen;
    to->msg_controllen = from->msg_controllen;
    to->msg_flags = from->msg_flags;
}

static long
transferred(int fd, long result)
{
    if (result >= 0 && is_known(fd)) {
        lies[fd] = 0;
    }
    return result;
}

/* One message ------------------------------------------------------------------------------ */

PUBLIC ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (is_refused(fd, flags, OUT)) {
        return -1;
    }
    struct iovec byte;
    struct msghdr copy = shortened_message(fd, flags, msg, &byte);
    return transferred(fd, raw(SYS_sendmsg, fd, (long)&copy, flags, 0, 0, 0));
}

PUBLIC ssize_t
recvmsg(int fd, struct msghdr *msg, int flags)
{
    if (is_refused(fd, flags, IN)) {
        return -1;
    }
    struct iovec byte;
    struct msghdr copy = shortened_message(fd, flags, msg, &byte);
    long result = transferred(fd, raw(SYS_recvmsg, fd, (long)&copy, flags, 0, 0, 0));
    copy_back(msg, &copy);
    return result;
}

PUBLIC ssize_t
sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
       socklen_t length)
{
    if (is_refused(fd, flags, OUT)) {
        return -1;
    }
    size = shortened(fd, flags, size);
    return transferred(
        fd, raw(SYS_sendto, fd, (long)data, (long)size, flags, (long)to, (long)length));
}

PUBLIC ssize_t
send(int fd, const void *data, size_t size, int flags)
{
    return sendto(fd, data, size, flags, NULL, 0);
}

PUBLIC ssize_t
recvfrom(int fd, void *restrict room, size_t size, int flags, struct sockaddr *restrict from,
         socklen_t *restrict length)
{
    if (is_refused(fd, flags, IN)) {
        return -1;
    }
    size = shortened(fd, flags, size);
    return transferred(
        fd, raw(SYS_recvfrom, fd, (long)room, (long)size, flags, (long)from, (long)length));
}

PUBLIC ssize_t
recv(int fd, void *room, size_t size, int flags)
{
    return recvfrom(fd, room, size, flags, NULL, NULL);
}

/* Many messages ---------------------------------------------------------------------------- */

/* sendmmsg() or recvmmsg(), by its number. */
static int
move_many(long number, int fd, struct mmsghdr *messages, unsigned count, int flags,
          const void *timeout)
{
    int way = number == SYS_sendmmsg ? OUT : IN;
    if (count > 0 && is_refused(fd, flags, way)) {
        return -1;
    }
    if (!little || is_paused || count == 0) {
        return (int)transferred(
            fd, raw(number, fd, (long)messages, (long)count, flags, (long)timeout, 0));
    }
    counts[ALONE] += count > 1;
    struct iovec byte;
    struct mmsghdr copy = {
        .msg_hdr = shortened_message(fd, flags, &messages[0].msg_hdr, &byte),
    };
    int result = (int)transferred(fd, raw(number, fd, (long)&copy, 1, flags, (long)timeout, 0));
    if (way == IN) {
        copy_back(&messages[0].msg_hdr, &copy.msg_hdr);
    }
    if (result <= 0) {
        return result;
    }
    messages[0].msg_len = copy.msg_len;
    if (way == OUT || copy.msg_len > 0 || count == 1) {
        return result;
    }
    int more = (int)raw(number, fd, (long)(messages + 1), (long)count - 1, flags | MSG_DONTWAIT,
                        (long)timeout, 0);
    return more > 0 ? 1 + more : result;
}

PUBLIC int
sendmmsg(int fd, struct mmsghdr *messages, unsigned count, FLAGS flags)
{
    return move_many(SYS_sendmmsg, fd, messages, count, (int)flags, NULL);
}

PUBLIC int
recvmmsg(int fd, struct mmsghdr *messages, unsigned count, FLAGS flags, struct timespec *timeout)
{
    return move_many(SYS_recvmmsg, fd, messages, count, (int)flags, timeout);
}

/* Connections ------------------------------------------------------------------------------ */

PUBLIC int
accept4(int fd, struct sockaddr *restrict from, socklen_t *restrict length, int flags)
{
    if (is_refused(fd, 0, IN)) {
        return -1;
    }
    return (int)raw(SYS_accept4, fd, (long)from, (long)length, flags, 0, 0);
}

PUBLIC int
accept(int fd, struct sockaddr *restrict from, socklen_t *restrict length)
{
    return accept4(fd, from, length, 0);
}

/* Waiting ---------------------------------------------------------------------------------- */

/* Whether poll() lies about this, and how.  Never where it is asked whether the peer has hung up,
   as a kernel has only one answer to that. */
static int
is_lied_about(struct pollfd *asked, nfds_t count)
{
    const short transfers = asked != NULL ? asked->events & (POLLIN | POLLOUT) : 0;
    if (count != 1 || is_paused || !is_known(asked->fd) || lies[asked->fd] >= ready + errors
        || (transfers == 0 && (ready > 0 || asked->events != 0))) {
        return 0;
    }
    asked->revents = lies[asked->fd] < ready ? transfers : POLLERR;
    lies[asked->fd]++;
    counts[LIES]++;
    return 1;
}

PUBLIC int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
    if (is_lied_about(fds, count)) {
        return 1;
    }
    return ((int (*)(struct pollfd *, nfds_t, int))real("poll"))(fds, count, timeout);
}

PUBLIC int
ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    if (is_lied_about(fds, count)) {
        return 1;
    }
    return ((int (*)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))real(
        "ppoll"))(fds, count, timeout, mask);
}

/* Raw system calls ------------------------------------------------------------------------- */

/* The calls for messages come this way where a libc's own are no good. */
PUBLIC long
syscall(long number, ...)
{
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    switch (number) {
    case SYS_sendmsg: return sendmsg((int)a[0], (const struct msghdr *)a[1], (int)a[2]);
    case SYS_recvmsg: return recvmsg((int)a[0], (struct msghdr *)a[1], (int)a[2]);
    case SYS_sendmmsg:
#ifdef SYS_recvmmsg_time64
    case SYS_recvmmsg_time64:
#endif
    case SYS_recvmmsg:
        return move_many(number, (int)a[0], (struct mmsghdr *)a[1], (unsigned)a[2], (int)a[3],
                         number == SYS_sendmmsg ? NULL : (const void *)a[4]);
    }
    return raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
