#include "plain/msghdr.h"

#include <errno.h>
#include <fcntl.h>

/* What was received --------------------------------------------------------------------- */

/* Calls `each` with the place of every descriptor number in the control data. */
static void
each_right(const struct msghdr *msg, void (*each)(unsigned char *at))
{
    cmsgx_header header;
    size_t offset = 0;
    unsigned char *control = msg->msg_control;

    while (cmsgx_walk(control, (size_t)msg->msg_controllen, &offset, &header) == CMSGX_MESSAGE) {
        if (header.level == SOL_SOCKET && header.type == SCM_RIGHTS) {
            for (size_t i = 0; i + sizeof(int) <= header.size; i += sizeof(int)) {
                each(control + (header.data - control) + i);
            }
        }
    }
}

static void
set_cloexec(unsigned char *at)
{
    int fd;
    memcpy(&fd, at, sizeof(fd));
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void
disown(unsigned char *at)
{
    memset(at, 0xff, sizeof(int));
}

void
cmsgx_set_cloexec(struct msghdr *msg)
{
    each_right(msg, set_cloexec);
    /* As Linux does. */
    msg->msg_flags |= CMSGX_MSG_CMSG_CLOEXEC;
}

void
cmsgx_disown_peeked(struct msghdr *msg)
{
    each_right(msg, disown);
}

/* A call that failed -------------------------------------------------------------------- */

void
cmsgx_close_after_failed_peek(const void *control, size_t capacity)
{
    int saved = errno;
    cmsgx_close_received(control, capacity);
    errno = saved;
}

/* Whether `flags` have `flag`, and errno is one by which a family refuses an unknown flag. */
static int
is_refusal(int flags, int flag)
{
    return CMSGX_IS_LINUX && (flags & flag) && (errno == EOPNOTSUPP || errno == EINVAL);
}

int
cmsgx_refuses_cloexec(int fd, int flags)
{
    int failed = errno;
    int refuses = is_refusal(flags, CMSGX_MSG_CMSG_CLOEXEC) && cmsgx_family_of(fd) != AF_UNIX;
    errno = failed;
    return refuses;
}

int
cmsgx_refuses_nosignal(int fd, int flags)
{
    int failed = errno;
    int refuses = is_refusal(flags, CMSGX_MSG_NOSIGNAL)
                  && cmsgx_family_refuses_nosignal(cmsgx_family_of(fd));
    errno = failed;
    return refuses;
}
