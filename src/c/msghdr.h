/* What each try of recvmsg(2), or each message of recvmmsg(2), starts from and may leave behind.
   Plain C, no Python.h.

   Inline, all of it, for the reason that stands at cmsgx_call(): no level more behind the system
   call. */

#ifndef CMSGX_MSGHDR_H
#define CMSGX_MSGHDR_H

#include "walk.h"

#include <string.h>

/* Makes everything but msg_iov ready for the next try.  The kernel shortens the lengths, also in
   a call that fails, so they are restored before every try.  All of the control buffer is zeroed,
   as what the kernel does not write must read as nothing.

   `control` and `name` stay the caller's, and are borrowed until the call has returned; both are
   pointers to memory even where their size is 0, which asks the kernel for neither. */
static inline __attribute__((always_inline)) void
cmsgx_msghdr_prepare(struct msghdr *msg, void *control, size_t control_size, void *name,
                     socklen_t name_size)
{
    memset(control, 0, control_size);
    msg->msg_name = name_size > 0 ? name : NULL;
    msg->msg_namelen = name_size;
    msg->msg_control = control_size > 0 ? control : NULL;
    msg->msg_controllen = (__typeof__(msg->msg_controllen))control_size;
    msg->msg_flags = 0;
}

/* One try of recvmsg(2).  Its result and errno; whoever asked owns the descriptors in `control`
   once it succeeded, and there are none after a failure. */
static inline __attribute__((always_inline)) ssize_t
cmsgx_msghdr_receive(int fd, struct msghdr *msg, int flags, void *control, size_t control_size,
                     void *name, socklen_t name_size)
{
    cmsgx_msghdr_prepare(msg, control, control_size, name, name_size);
    ssize_t result = recvmsg(fd, msg, flags);
    if (result < 0 && (flags & MSG_PEEK)) {
        cmsgx_close_after_failed_peek(control, control_size);
    }
    return result;
}

#endif
