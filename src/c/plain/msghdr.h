/* One try of recvmsg(2) or recvmmsg(2): the preparation, the call, the work after it, and
   substitutes for features that a system lacks.  Plain C, no Python.h.

   The code that every try runs is inline, for the reason given at cmsgx_call(): no further level of
   calls around the system call. */

#ifndef CMSGX_MSGHDR_H
#define CMSGX_MSGHDR_H

#include "plain/platform.h"
#include "plain/walk.h"

#include <string.h>
#include <sys/uio.h>

/* A control buffer size that is enough for all control data of one message, whatever options are
   enabled: descriptors, security labels, credentials, timestamps. */
#define CMSGX_MAX_CONTROL_SIZE (CMSG_SPACE(CMSGX_MAX_FDS * sizeof(int)) + 3072)

/* The maximum number of bytes of a control buffer that are zeroed: see cmsgx_msghdr_prepare(). */
#define CMSGX_MAX_ZEROED (CMSGX_MAX_CONTROL_SIZE + CMSGX_EXTRA_CONTROL)

#define CMSGX_PIECE 1024

/* recvmsg(2) -------------------------------------------------------------------------------- */

/* Sets close-on-exec on each received descriptor, on systems without CMSGX_HAS_CLOEXEC. */
void cmsgx_set_cloexec(struct msghdr *msg);

/* Replaces each number that a peek returned with -1, on systems without CMSGX_PEEK_INSTALLS, where
   they are not descriptors of this process. */
void cmsgx_disown_peeked(struct msghdr *msg);

/* recvmsg(2) that accepts CMSGX_MSG_CMSG_CLOEXEC in `flags` on every system.  Fills `msg` as on
   Linux, except for the larger control buffer: see cmsgx_msghdr_finish(). */
static inline __attribute__((always_inline)) ssize_t
cmsgx_sys_recvmsg(int fd, struct msghdr *msg, int flags)
{
    int known = CMSGX_HAS_CLOEXEC ? flags : flags & ~CMSGX_MSG_CMSG_CLOEXEC;
    __typeof__(msg->msg_controllen) capacity = msg->msg_controllen;
    ssize_t result = cmsgx_plain_recvmsg(fd, msg, known);
    if (!CMSGX_IS_LINUX && msg->msg_controllen > capacity) {
        msg->msg_controllen = capacity;
    }
    /* Before anything else: see CMSGX_MSG_CMSG_CLOEXEC. */
    if (known != flags && result >= 0) {
        cmsgx_set_cloexec(msg);
    }
    if (!CMSGX_PEEK_INSTALLS && (flags & MSG_PEEK) && result >= 0) {
        cmsgx_disown_peeked(msg);
    }
    return result;
}

/* After a call that failed: whether CMSGX_MSG_CMSG_CLOEXEC in `flags` may be the reason.  Some
   families refuse every flag that they do not know; none of them delivers descriptors.  Keeps
   errno. */
int cmsgx_refuses_cloexec(int fd, int flags);

/* The same for a send with MSG_NOSIGNAL.  None of these families raises SIGPIPE. */
int cmsgx_refuses_nosignal(int fd, int flags);

/* Linux 6.18 was seen to install a pidfd for some peeks that then fail with EAGAIN:
   unix_stream_read_generic() in net/unix/af_unix.c calls scm_recv_unix() after an error too.
   Closes the descriptors that the kernel wrote to a control buffer, which was zeroed before the
   call.  Keeps errno. */
void cmsgx_close_after_failed_peek(const void *control, size_t capacity);

/* recvmmsg(2) ------------------------------------------------------------------------------- */

/* recvmmsg(2) by a loop of recvmsg(2): see cmsgx_recvmmsg(). */
static inline int
cmsgx_recvmmsg_by_one(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags)
{
    int now = flags & ~CMSGX_MSG_WAITFORONE;
    unsigned int done = 0;

    while (done < count) {
        ssize_t result = cmsgx_sys_recvmsg(fd, &msgs[done].msg_hdr, now);
        if (result < 0) {
            break;
        }
        msgs[done++].msg_len = (unsigned int)result;
        if (flags & CMSGX_MSG_WAITFORONE) {
            now |= MSG_DONTWAIT;
        }
    }
    return done > 0 || count == 0 ? (int)done : -1;
}

/* recvmmsg(2).  Returns how many of `count` messages were received, each with its length in
   msg_len; -1 with errno if the first fails.  `flags` may have CMSGX_MSG_WAITFORONE and
   CMSGX_MSG_CMSG_CLOEXEC.  An error after the first message ends the call.  Linux reports it at the
   next call, see recvmmsg(2); the loop loses it, as FreeBSD's lib/libc/gen/recvmmsg.c does.  The
   caller runs cmsgx_msghdr_prepare() and cmsgx_msghdr_finish() on each message. */
static inline __attribute__((always_inline)) int
cmsgx_recvmmsg(int fd, struct cmsgx_mmsg *msgs, unsigned int count, int flags)
{
    if (!CMSGX_HAS_MMSG) {
        return cmsgx_recvmmsg_by_one(fd, msgs, count, flags);
    }
    int done = cmsgx_plain_recvmmsg(fd, msgs, count, flags);
    for (int i = 0; !CMSGX_PEEK_INSTALLS && (flags & MSG_PEEK) && i < done; i++) {
        cmsgx_disown_peeked(&msgs[i].msg_hdr);
    }
    return done;
}

/* Before and after a try ---------------------------------------------------------------------- */

/* How many bytes of a control buffer of that size are zeroed. */
static inline size_t
cmsgx_msghdr_zeroed(size_t capacity)
{
    size_t size = capacity < CMSGX_MAX_ZEROED ? capacity : CMSGX_MAX_ZEROED;
    /* Hides the bound from gcc, which would turn the memset into a slow `rep stos`. */
    __asm__("" : "+r"(size));
    return size;
}

/* Makes `msg` receive its data into `data`, through *iov; both are borrowed until the call has
   returned.  With flags for which the kernel counts bytes that it never writes, the memory is
   zeroed, so that no older data appears in their place. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_set_data(struct msghdr *msg, struct iovec *iov, void *data, size_t size, int flags)
{
    if (flags & CMSGX_MSG_NOT_WRITTEN) {
        memset(data, 0, size);
    }
    iov->iov_base = data;
    iov->iov_len = size;
    msg->msg_iov = iov;
    msg->msg_iovlen = 1;
}

/* Prepares everything but msg_iov for the next try.  The kernel shortens the lengths even in a
   call that fails, so they are restored before every try.

   The control buffer is zeroed, because a walk may go on into the part that the kernel did not
   write: if the kernel did not shorten the length, and after a peek that failed.  A walk ends at
   the first header of zeros, and the control data of one message is all that comes before it, so no
   more is zeroed than the largest message needs, however large the buffer is.  Nothing is zeroed if
   `is_zeroed`: then the buffer still has the zeros of a try for which nothing had arrived.

   `control` and `name` stay the caller's, and are borrowed until the call has returned.  Both must
   point to memory even if their size is 0, for which the kernel returns neither.  The buffer must
   have CMSGX_EXTRA_CONTROL more bytes after the requested `control_size`. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_prepare(struct msghdr *msg, void *control, size_t control_size, void *name,
                     socklen_t name_size, int is_zeroed)
{
    size_t capacity = control_size + CMSGX_EXTRA_CONTROL;
    if (!is_zeroed) {
        size_t zeroed = cmsgx_msghdr_zeroed(capacity);
        /* In pieces, because glibc uses a slow `rep stosb` from 2048 bytes on, and gcc a `rep stos`
           if it knows the size. */
        while (zeroed > CMSGX_PIECE) {
            size_t piece = CMSGX_PIECE;
            __asm__("" : "+r"(piece));
            zeroed -= piece;
            memset((unsigned char *)control + zeroed, 0, piece);
        }
        __asm__("" : "+r"(zeroed));
        memset(control, 0, zeroed);
    }
    msg->msg_name = name_size > 0 ? name : NULL;
    msg->msg_namelen = name_size;
    msg->msg_control = capacity > 0 ? control : NULL;
    msg->msg_controllen = (__typeof__(msg->msg_controllen))capacity;
    msg->msg_flags = 0;
}

/* To be called for each message right after a call that succeeded.  If the buffer was larger than
   requested, shortens the control data to the requested size, and closes the descriptors past
   it. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_finish(struct msghdr *msg, size_t control_size)
{
    if (CMSGX_EXTRA_CONTROL > 0 && (size_t)msg->msg_controllen > control_size) {
        int cut;
        size_t used = (size_t)msg->msg_controllen;
        used =
            used < control_size + CMSGX_EXTRA_CONTROL ? used : control_size + CMSGX_EXTRA_CONTROL;
        used = cmsgx_shorten(msg->msg_control, used, control_size, &cut);
        msg->msg_controllen = (__typeof__(msg->msg_controllen))used;
        msg->msg_flags |= cut ? MSG_CTRUNC : 0;
    }
}

/* To be called after a call that failed. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_failed(const void *control, size_t control_size, int flags)
{
    if (CMSGX_PEEK_INSTALLS && (flags & MSG_PEEK)) {
        cmsgx_close_after_failed_peek(control,
                                      cmsgx_msghdr_zeroed(control_size + CMSGX_EXTRA_CONTROL));
    }
}

/* One try of recvmsg(2), with its result and errno.  After success the caller owns the descriptors
   in `control`; after a failure there are none. */
static inline __attribute__((always_inline)) ssize_t
cmsgx_msghdr_receive(int fd, struct msghdr *msg, int flags, void *control, size_t control_size,
                     void *name, socklen_t name_size, int is_zeroed)
{
    cmsgx_msghdr_prepare(msg, control, control_size, name, name_size, is_zeroed);
    ssize_t result = cmsgx_sys_recvmsg(fd, msg, flags);
    if (result < 0 && cmsgx_refuses_cloexec(fd, flags)) {
        cmsgx_msghdr_prepare(msg, control, control_size, name, name_size, 0);
        result = cmsgx_sys_recvmsg(fd, msg, flags & ~CMSGX_MSG_CMSG_CLOEXEC);
    }
    if (result >= 0) {
        cmsgx_msghdr_finish(msg, control_size);
    }
    else {
        cmsgx_msghdr_failed(control, control_size, flags);
    }
    return result;
}

#endif
