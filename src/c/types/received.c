#include "types/received.h"

void
cmsgx_close_numbers(cmsgx_row *row, int *fds, size_t count)
{
    size_t open = 0;
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            fds[open++] = fds[i];
        }
    }
    if (open == 0) {
        return;
    }
    if (row != NULL) {
        /* With the GIL held, so a fork in Python finds each number either here or in the closer,
           and never in between. */
        cmsgx_row_submit(row, fds, open);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        cmsgx_close_all(fds, open);
        Py_END_ALLOW_THREADS
    }
    for (size_t i = 0; i < count; i++) {
        /* An errno that came in place of a descriptor stays. */
        fds[i] = fds[i] < 0 ? fds[i] : -1;
    }
}

/* Gives back the reserved places that a message did not need. */
static void
settle(cmsgx_row *row, int *fds, size_t count)
{
    size_t open = 0;
    for (size_t i = 0; i < count; i++) {
        open += fds[i] >= 0;
    }
    if (open <= CMSGX_MAX_PLACES) {
        cmsgx_row_unreserve(row, CMSGX_MAX_PLACES - open);
    }
    else if (cmsgx_row_reserve(row, open - CMSGX_MAX_PLACES) < 0) {
        /* These are more than a kernel delivers (an emulator might), and there is no memory for
           their places. */
        for (size_t i = count; open > CMSGX_MAX_PLACES; i--) {
            if (fds[i - 1] >= 0) {
                cmsgx_close_all(&fds[i - 1], 1);
                fds[i - 1] = -1;
                open--;
            }
        }
    }
}

/* Whether, judging by its credentials, nobody sent this: the pid is 0, and there is no pidfd.  The
   same is true of a sender in a pid namespace that is not visible here, which then stays
   unknown. */
static int
is_invented(const cmsgx_buffer *buffer)
{
    cmsgx_header header;
    size_t offset = 0;
    int has_pidfd = buffer->received.pidfds > 0 && buffer->fds[buffer->received.fds] >= 0;
    while (!has_pidfd
           && cmsgx_walk(buffer->control, buffer->control_used, &offset, &header)
                  == CMSGX_MESSAGE) {
        int32_t pid;
        if (header.level == SOL_SOCKET && header.type == CMSGX_SCM_CREDENTIALS
            && header.size >= sizeof(pid)) {
            memcpy(&pid, header.data, sizeof(pid));
            return pid == 0;
        }
    }
    return 0;
}

void
cmsgx_received_set_eof(cmsgx_buffer *buffer, const cmsgx_receive_config *config, int type)
{
    cmsgx_received *received = &buffer->received;
    if (type == SOCK_SEQPACKET) {
        /* At the end there is neither. */
        received->eof = buffer->control_used > 0 || buffer->name_size > 0 ? 0 : 2;
    }
    else if (type == SOCK_STREAM) {
        received->eof = buffer->capacity > 0 ? 1 : 2;
        if (received->fds == 0 && (received->eof == 1 || is_invented(buffer))) {
            /* At the end the kernel makes up credentials: those of root, even for a peer that is
               not root, as unix_stream_read_generic() passes on a zeroed scm_cookie
               (net/unix/af_unix.c, Linux 6.18).  It does not matter if they were truncated. */
            cmsgx_close_numbers(config->row, buffer->fds, received->pidfds);
            received->pidfds = 0;
            buffer->control_used = 0;
            received->truncated = 0;
            received->closed_fds = 0;
        }
    }
}

size_t
cmsgx_take_received(cmsgx_buffer *buffer, const cmsgx_receive_config *config,
                    const struct msghdr *msg, size_t nbytes, int asked_flags)
{
    cmsgx_received *received = &buffer->received;
    size_t used = (size_t)msg->msg_controllen;

    buffer->control_used = used <= buffer->control_size ? used : buffer->control_size;
    buffer->name_size = msg->msg_namelen;
    if (buffer->name_size > sizeof(buffer->name)) {
        buffer->name_size = sizeof(buffer->name);
    }
    received->nbytes = nbytes;
    received->eof = received->is_table_full = 0;
    received->flags = msg->msg_flags;
    if (!(asked_flags & CMSGX_MSG_CMSG_CLOEXEC)) {
        received->flags &= ~CMSGX_MSG_CMSG_CLOEXEC;
    }

    cmsgx_found found = cmsgx_gather(buffer->control, buffer->control_used, buffer->fds);
    int *fds = buffer->fds;
    if (config->row != NULL) {
        settle(config->row, fds, found.rights + found.pidfds);
    }
    received->malformed = (char)found.malformed;
    received->truncated = (msg->msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;

    size_t keep = found.rights < config->fds ? found.rights : config->fds;
    size_t surplus = found.rights - keep;
    size_t keep_pidfds = config->takes_pidfd && found.pidfds > 0 ? 1 : 0;
    received->fds = keep;
    received->pidfds = keep_pidfds;
    received->closed_fds = (Py_ssize_t)surplus;
    if (surplus > 0) {
        received->truncated = 1;
    }
    if (msg->msg_flags & MSG_CTRUNC) {
        received->closed_fds = -1;
    }
    /* The descriptors that are kept come first. */
    if (keep_pidfds) {
        int pidfd = fds[found.rights];
        fds[found.rights] = fds[keep];
        fds[keep] = pidfd;
    }
    return found.rights + found.pidfds - keep - keep_pidfds;
}

/* Whether the control buffer had space for one more descriptor than the kernel delivered, so
   something else kept it back. */
int
cmsgx_received_had_space(const cmsgx_buffer *buffer)
{
    cmsgx_header header;
    size_t offset = 0;
    size_t at = buffer->control_used;

    while (cmsgx_walk(buffer->control, buffer->control_used, &offset, &header)
           == CMSGX_MESSAGE) {
        if (header.level == SOL_SOCKET && header.type == SCM_RIGHTS) {
            at = header.offset;
        }
    }
    return at + CMSG_LEN((buffer->received.fds + 1) * sizeof(int)) <= buffer->control_size;
}

void
cmsgx_received_close(cmsgx_buffer *buffer, const cmsgx_receive_config *config)
{
    cmsgx_close_numbers(config->row, buffer->fds, buffer->received.fds + buffer->received.pidfds);
    buffer->received.fds = buffer->received.pidfds = 0;
}
