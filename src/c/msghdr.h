/* What each try of recvmsg(2), or each message of recvmmsg(2), starts from and may leave behind.
   Plain C, no Python.h.

   Inline, all of it, for the reason that stands at cmsgx_call(): no level more behind the system
   call. */

#ifndef CMSGX_MSGHDR_H
#define CMSGX_MSGHDR_H

#include "platform.h"
#include "walk.h"

#include <string.h>

/* Makes everything but msg_iov ready for the next try.  The kernel shortens the lengths, also in
   a call that fails, so they are restored before every try.  All of the control buffer is zeroed,
   as what the kernel does not write must read as nothing.

   `control` and `name` stay the caller's, and are borrowed until the call has returned; both are
   pointers to memory even where their size is 0, which asks the kernel for neither.  Behind the
   `control_size` bytes that are asked for there are CMSGX_MORE_ROOM more. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_prepare(struct msghdr *msg, void *control, size_t control_size, void *name,
                     socklen_t name_size)
{
    size_t capacity = control_size + CMSGX_MORE_ROOM;
    memset(control, 0, capacity);
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
    if (CMSGX_MORE_ROOM > 0 && (size_t)msg->msg_controllen > control_size) {
        int cut;
        size_t used = (size_t)msg->msg_controllen;
        used = used < control_size + CMSGX_MORE_ROOM ? used : control_size + CMSGX_MORE_ROOM;
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
        cmsgx_close_after_failed_peek(control, control_size + CMSGX_MORE_ROOM);
    }
}

/* One try of recvmsg(2).  Its result and errno; whoever asked owns the descriptors in `control`
   once it succeeded, and there are none after a failure. */
static inline __attribute__((always_inline)) ssize_t
cmsgx_msghdr_receive(int fd, struct msghdr *msg, int flags, void *control, size_t control_size,
                     void *name, socklen_t name_size)
{
    cmsgx_msghdr_prepare(msg, control, control_size, name, name_size);
    ssize_t result = cmsgx_sys_recvmsg(fd, msg, flags);
    if (result < 0 && cmsgx_refuses_cloexec(fd, flags)) {
        cmsgx_msghdr_prepare(msg, control, control_size, name, name_size);
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
