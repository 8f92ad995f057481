/* What each try of recvmsg(2), or each message of recvmmsg(2), starts from and may leave behind.
   Plain C, no Python.h.

   Inline, all of it, for the reason that stands at cmsgx_call(): no level more behind the system
   call. */

#ifndef CMSGX_MSGHDR_H
#define CMSGX_MSGHDR_H

#include "plain/platform.h"
#include "plain/walk.h"

#include <string.h>
#include <sys/uio.h>

/* Room for all that one message can bring, where it is not known what is switched on: the
   descriptors, and after them labels, credentials, time stamps. */
#define CMSGX_MAX_CONTROL_SIZE (CMSG_SPACE(CMSGX_MAX_FDS * sizeof(int)) + 3072)

/* How much of the control data that the kernel did not write has to read as nothing: see
   cmsgx_msghdr_prepare(). */
#define CMSGX_MAX_ZEROED (CMSGX_MAX_CONTROL_SIZE + CMSGX_EXTRA_CONTROL)

#define CMSGX_PIECE 1024

/* recvmsg(2) -------------------------------------------------------------------------------- */

/* For recvmsg(2) without CMSGX_HAS_CLOEXEC, and for its peeks without CMSGX_PEEK_INSTALLS. */
void cmsgx_set_cloexec(struct msghdr *msg);
void cmsgx_disown_peeked(struct msghdr *msg);

/* recvmsg(2), where `flags` may have CMSGX_MSG_CMSG_CLOEXEC on each system.  What arrives is
   described by `msg` as on Linux, but for the room: see cmsgx_msghdr_prepare(). */
static inline __attribute__((always_inline)) ssize_t
cmsgx_sys_recvmsg(int fd, struct msghdr *msg, int flags)
{
    int known = CMSGX_HAS_CLOEXEC ? flags : flags & ~CMSGX_MSG_CMSG_CLOEXEC;
    __typeof__(msg->msg_controllen) capacity = msg->msg_controllen;
    ssize_t result = cmsgx_plain_recvmsg(fd, msg, known);
    if (!CMSGX_IS_LINUX && msg->msg_controllen > capacity) {
        msg->msg_controllen = capacity;
    }
    /* First of all, as the comment at CMSGX_MSG_CMSG_CLOEXEC says why. */
    if (known != flags && result >= 0) {
        cmsgx_set_cloexec(msg);
    }
    if (!CMSGX_PEEK_INSTALLS && (flags & MSG_PEEK) && result >= 0) {
        cmsgx_disown_peeked(msg);
    }
    return result;
}

/* For a call that failed: whether that may be for CMSGX_MSG_CMSG_CLOEXEC in `flags`, which some
   families refuse as they do each flag that they do not know.  None of them brings descriptors.
   Keeps errno where it answers no. */
int cmsgx_refuses_cloexec(int fd, int flags);

/* The same of a send and MSG_NOSIGNAL.  None of them raises SIGPIPE. */
int cmsgx_refuses_nosignal(int fd, int flags);

/* The kernel (Linux 6.18) installs a pidfd for some peeks that it then answers with EAGAIN: closes
   what it wrote to a buffer that was zeroed before.  Keeps errno. */
void cmsgx_close_after_failed_peek(const void *control, size_t capacity);

/* recvmmsg(2) ------------------------------------------------------------------------------- */

/* What stands in for recvmmsg(2) where the system has none. */
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

/* recvmmsg(2): how many of `count` messages were received, each with its length in msg_len; -1
   with errno where the first fails.  `flags` may have CMSGX_MSG_WAITFORONE and
   CMSGX_MSG_CMSG_CLOEXEC.  An error after the first ends the call.  Linux tells it to the next
   one; a loop cannot, and it is lost, as in FreeBSD's C library.  The caller prepares and finishes
   each message: msghdr.h. */
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

/* What a try starts from, and leaves ---------------------------------------------------------- */

static inline size_t
cmsgx_msghdr_zeroed(size_t capacity)
{
    size_t size = capacity < CMSGX_MAX_ZEROED ? capacity : CMSGX_MAX_ZEROED;
    /* Where gcc knows a bound it makes a memset of this size a slow `rep stos`: it may not know. */
    __asm__("" : "+r"(size));
    return size;
}

/* Lets `msg` receive its data into memory of ours, through *iov; both are borrowed until the call
   has returned.  Where the kernel counts bytes that it never writes, what was in that memory before
   must not show in their place: then it is zeroed. */
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

/* Makes everything but msg_iov ready for the next try.  The kernel shortens the lengths, also in
   a call that fails, so they are restored before every try.

   What the kernel does not write of the control buffer must read as nothing to a walk that goes on
   after the last message: where the length was not shortened, and after a peek that failed.  Such
   a walk ends at the first header of zeros, and what is written before that is one message's; so no
   more than the largest needs is zeroed, however large the buffer is; and nothing where it
   `is_zeroed`, as after a try for which nothing was there.

   `control` and `name` stay the caller's, and are borrowed until the call has returned; both are
   pointers to memory even where their size is 0, which asks the kernel for neither.  Behind the
   `control_size` bytes that are asked for there are CMSGX_EXTRA_CONTROL more. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_prepare(struct msghdr *msg, void *control, size_t control_size, void *name,
                     socklen_t name_size, int is_zeroed)
{
    size_t capacity = control_size + CMSGX_EXTRA_CONTROL;
    if (!is_zeroed) {
        size_t zeroed = cmsgx_msghdr_zeroed(capacity);
        /* In pieces: of 2048 bytes and more glibc makes a `rep stosb`, and of what it knows gcc. */
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

/* Makes what a call returned fit what was asked for, each message at once: where the room was for
   more, the descriptors behind it are closed. */
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

/* For a call that failed. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_failed(const void *control, size_t control_size, int flags)
{
    if (CMSGX_PEEK_INSTALLS && (flags & MSG_PEEK)) {
        cmsgx_close_after_failed_peek(control,
                                      cmsgx_msghdr_zeroed(control_size + CMSGX_EXTRA_CONTROL));
    }
}

/* One try of recvmsg(2).  Its result and errno; whoever asked owns the descriptors in `control`
   once it succeeded, and there are none after a failure. */
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
