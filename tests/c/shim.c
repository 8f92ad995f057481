/* LD_PRELOAD library: a kernel that lies, and a witness of what is asked of it.

   cc -std=c11 -Wall -Wextra -Werror -O1 -shared -fPIC -o shim.so shim.c shim_receiving.c -ldl
   LD_PRELOAD=./shim.so CMSGX_SHIM_MODE=rights-len=0 python ...

   recvmsg() really receives, and then forges the control data by the mode, which the environment
   gives or shim_mode() (tests/support.py: Shim):

       rights-len=X pidfd-len=X   cmsg_len of the first such message is X: 0, 8, 12, 15, a number,
                                  "past" (behind the end), "huge" (2^31 - 1), "max" (SIZE_MAX)
       used=X                     msg_controllen: "full" (not shortened), "more" (beyond the
                                  capacity), "max" (SIZE_MAX)
       split                      an SCM_RIGHTS for each descriptor
       pairs                      SCM_RIGHTS, SCM_PIDFD, SCM_RIGHTS, SCM_PIDFD, ...
       twins                      one SCM_RIGHTS, one SCM_PIDFD that holds two
       bare                       a header without data behind the rest
       odd                        three bytes more in SCM_RIGHTS than its descriptors
       short-pidfd=X              an SCM_PIDFD of X bytes, 0 to 3, behind the rest
       withheld                   no descriptors, MSG_CTRUNC, though there was space
       random                     several messages of all sorts, then some length or other forged,
                                  by shim_seed()

   recvmmsg() is as many of these as there are messages, of which shim_at(n) forges only the one at
   that index.

   It remembers which descriptors the last call delivered, and which of those a careful reader can
   find.
   close() is counted by number.  While guarded, the close of a number that was not delivered is
   counted as a stranger's and left out.  shim_interrupt() makes calls of close() fail with EINTR
   once the descriptor is closed, as Linux does.

   Calls of poll() and ppoll() are counted.

   shim_send_max(n) has sendmmsg() end after n messages, as a signal does.
   shim_fail_send(n, error) has the sending of the message behind the next n fail, once;
   shim_fail_sends(n, error, times) as often.
   shim_option_length(n) has the next getsockopt() tell that length, whatever it wrote.
   shim_refuse_segments(error) refuses what has a UDP_SEGMENT, shim_refuse_segments_after(n, error)
   that behind the next n. */

#include "shim.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#  define UDP_SEGMENT 103
#endif

#define MOST 65536

static atomic_int is_guarded, interrupts, send_delay, is_sending;
static atomic_long strangers, closes[MOST], polls;
static unsigned char captured[8192];
static size_t captured_size;
static unsigned send_max;
static long fail_after, segments_after, refusals;
static int fail_error, fail_times, segment_error;

/* For the test ----------------------------------------------------------------------------- */

void
shim_guard(int on)
{
    is_guarded = on;
}

void
shim_interrupt(int count)
{
    interrupts = count;
}

void
shim_delay_send(int milliseconds)
{
    send_delay = milliseconds;
}

/* Whether a sendmsg() or sendmmsg() is being delayed now. */
int
shim_is_sending(void)
{
    return is_sending;
}

/* 0: without a bound. */
void
shim_send_max(unsigned count)
{
    send_max = count;
}

void
shim_fail_sends(long after, int error, int times)
{
    fail_after = after;
    fail_error = error;
    fail_times = times;
}

void
shim_fail_send(long after, int error)
{
    shim_fail_sends(after, error, 1);
}

void
shim_refuse_segments_after(long after, int error)
{
    segments_after = after;
    segment_error = error;
    refusals = 0;
}

/* 0: lets them through. */
void
shim_refuse_segments(int error)
{
    shim_refuse_segments_after(0, error);
}

/* How many messages with segments were refused. */
long
shim_refusals(void)
{
    return refusals;
}

static int forges_length, forged_length;

void
shim_option_length(int length)
{
    forged_length = length;
    forges_length = 1;
}

PUBLIC int
getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size)
{
    int result = (int)syscall(SYS_getsockopt, fd, level, name, value, size);
    if (result == 0 && forges_length) {
        *size = (socklen_t)forged_length;
        forges_length = 0;
    }
    return result;
}

long
shim_closes(int fd)
{
    return fd >= 0 && fd < MOST ? closes[fd] : -1;
}

long
shim_strangers(void)
{
    return strangers;
}

long
shim_polls(void)
{
    return polls;
}

void
shim_reset(void)
{
    for (size_t i = 0; i < MOST; i++) {
        closes[i] = 0;
    }
    strangers = 0;
    polls = 0;
    captured_size = 0;
    shim_reset_received();
}

/* The control data of the last sendmsg(). */
long
shim_captured(unsigned char *out, size_t size)
{
    memcpy(out, captured, captured_size < size ? captured_size : size);
    return (long)captured_size;
}

/* Closing ---------------------------------------------------------------------------------- */

/* Whether the call is to be made. */
static int
note_close(int fd)
{
    if (fd >= 0 && fd < MOST) {
        closes[fd]++;
    }
    if (is_guarded && fd >= 0 && !shim_is_delivered(fd)) {
        strangers += !shim_is_deceptive();
        return 0;
    }
    return 1;
}

PUBLIC int
close(int fd)
{
    if (!note_close(fd)) {
        return 0;
    }
    int result = (int)syscall(SYS_close, fd);
    if (result == 0 && interrupts > 0) {
        interrupts--;
        errno = EINTR;
        return -1;
    }
    return result;
}

/* Sending ---------------------------------------------------------------------------------- */

static int
is_refused(const struct msghdr *msg)
{
    struct msghdr copy = *msg;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&copy); segment_error != 0 && header != NULL;
         header = CMSG_NXTHDR(&copy, header)) {
        if (header->cmsg_level == IPPROTO_UDP && header->cmsg_type == UDP_SEGMENT
            && segments_after-- <= 0) {
            refusals++;
            errno = segment_error;
            return 1;
        }
    }
    return 0;
}

static void
delay_sending(void)
{
    if (send_delay > 0) {
        struct timespec time = {.tv_sec = 0, .tv_nsec = send_delay * 1000000L};
        is_sending = 1;
        nanosleep(&time, NULL);
        is_sending = 0;
    }
}

PUBLIC int
sendmmsg(int fd, struct mmsghdr *messages, unsigned count, FLAGS flags)
{
    unsigned max_count = send_max > 0 && send_max < count ? send_max : count;
    if (fail_error != 0 && fail_after < (long)max_count) {
        if (fail_after == 0) {
            errno = fail_error;
            fail_error = --fail_times > 0 ? fail_error : 0;
            return -1;
        }
        max_count = (unsigned)fail_after;
    }
    delay_sending();
    /* Not musl's, which is a loop around its sendmsg(). */
    int result = (int)raw(SYS_sendmmsg, fd, (long)messages, (long)max_count, (long)flags, 0, 0);
    fail_after -= fail_error != 0 && result > 0 ? result : 0;
    return result;
}

PUBLIC ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (is_refused(msg)) {
        return -1;
    }
    captured_size = 0;
    if (msg->msg_control != NULL && msg->msg_controllen <= sizeof(captured)) {
        captured_size = msg->msg_controllen;
        memcpy(captured, msg->msg_control, captured_size);
    }
    delay_sending();
    return raw(SYS_sendmsg, fd, (long)msg, flags, 0, 0, 0);
}

/* Waiting ---------------------------------------------------------------------------------- */

PUBLIC int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
    polls++;
    return ((int (*)(struct pollfd *, nfds_t, int))real("poll"))(fds, count, timeout);
}

PUBLIC int
ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    polls++;
    return ((int (*)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))real(
        "ppoll"))(fds, count, timeout, mask);
}

/* Raw system calls ------------------------------------------------------------------------- */

/* close_range(2) comes this way; the calls for messages do where a libc's own are no good. */
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
        return sendmmsg((int)a[0], (struct mmsghdr *)a[1], (unsigned)a[2], (FLAGS)a[3]);
#ifdef SYS_recvmmsg_time64
    case SYS_recvmmsg_time64:
#endif
    case SYS_recvmmsg:
        return recvmmsg((int)a[0], (struct mmsghdr *)a[1], (unsigned)a[2], (FLAGS)a[3], NULL);
    }
#ifdef SYS_close_range
    if (number == SYS_close_range && (unsigned)a[1] < MOST) {
        int all = 1;
        for (unsigned fd = (unsigned)a[0]; fd <= (unsigned)a[1]; fd++) {
            all &= note_close((int)fd);
        }
        for (unsigned fd = (unsigned)a[0]; !all && fd <= (unsigned)a[1]; fd++) {
            if (shim_is_delivered((int)fd)) {
                (void)((int (*)(int))real("close"))((int)fd);
            }
        }
        if (!all) {
            return 0;
        }
    }
#endif
    return raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
