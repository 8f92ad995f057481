/* The half of the shim that receives: it forges control data, and remembers what came. */

#include "shim.h"

#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SCM_PIDFD
#  define SCM_PIDFD 4
#endif

#define MANY 1024

static char mode[64];
static uint64_t seed;
static atomic_long dirty, receives;
static int only_at = -1;
static int hangs_up = -1;

/* What the last recvmsg() or recvmmsg() delivered. */
static int delivered[MANY];
static int is_expected[MANY];
static size_t delivered_count;

/* Set where a length lies and yet fits: nobody can tell what it covers then. */
static int is_deceptive;

__attribute__((constructor)) static void
start(void)
{
    const char *value = getenv("CMSGX_SHIM_MODE");
    if (value != NULL) {
        strncpy(mode, value, sizeof(mode) - 1);
    }
}

/* For the test ----------------------------------------------------------------------------- */

void
shim_mode(const char *value)
{
    strncpy(mode, value, sizeof(mode) - 1);
}

void
shim_seed(uint64_t value)
{
    seed = value * UINT64_C(0x9E3779B97F4A7C15) + 1;
}

/* -1: all of them. */
void
shim_at(int index)
{
    only_at = index;
}

/* A socket that is shut down, once, right behind a recvmmsg() that received something. */
void
shim_hang_up(int fd)
{
    hangs_up = fd;
}

/* Bytes of control buffers that were not zero when recvmsg() got them. */
long
shim_dirty(void)
{
    return dirty;
}

long
shim_receives(void)
{
    return receives;
}

long
shim_delivered(void)
{
    return (long)delivered_count;
}

int
shim_is_delivered(int fd)
{
    for (size_t i = 0; i < delivered_count; i++) {
        if (delivered[i] == fd) {
            return 1;
        }
    }
    return 0;
}

/* How many of those that a careful reader finds are still open. */
long
shim_leaked(void)
{
    long leaked = 0;
    for (size_t i = 0; i < delivered_count; i++) {
        leaked += is_expected[i] && fcntl(delivered[i], F_GETFD) >= 0;
    }
    return leaked;
}

/* Closes what nobody could have found, and forgets the rest. */
void
shim_forget(void)
{
    for (size_t i = 0; i < delivered_count; i++) {
        if (!is_expected[i]) {
            syscall(SYS_close, delivered[i]);
        }
    }
    delivered_count = 0;
}

/* For the other half ----------------------------------------------------------------------- */

int
shim_is_deceptive(void)
{
    return is_deceptive;
}

void
shim_reset_received(void)
{
    dirty = 0;
    receives = 0;
}

/* Receiving -------------------------------------------------------------------------------- */

typedef struct {
    unsigned char *start;
    size_t used;
    size_t capacity;
    int is_cut;
} control_data;

static uint32_t
random_below(uint32_t limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % limit;
}

/* 1 where it was put; 0 where there is no space, as put_cmsg() of the kernel. */
static int
put(control_data *control, int level, int type, const void *data, size_t size)
{
    struct cmsghdr header;
    size_t left = control->capacity - control->used;
    if (left < CMSG_LEN(size)) {
        control->is_cut = 1;
        return 0;
    }
    memset(&header, 0, sizeof(header));
    header.cmsg_len = CMSG_LEN(size);
    header.cmsg_level = level;
    header.cmsg_type = type;
    memcpy(control->start + control->used, &header, sizeof(header));
    if (size > 0) {
        memcpy(control->start + control->used + CMSG_LEN(0), data, size);
    }
    control->used += CMSG_SPACE(size) < left ? CMSG_SPACE(size) : left;
    return 1;
}

/* SCM_RIGHTS, or SCM_PIDFD, with as many as fit; the others are closed.  How many were put. */
static size_t
put_numbers(control_data *control, int type, const int *fds, size_t count, size_t odd)
{
    unsigned char payload[MANY * sizeof(int)];
    size_t left = control->capacity - control->used;
    size_t fit = left > CMSG_LEN(0) ? (left - CMSG_LEN(0)) / sizeof(int) : 0;
    fit = fit < count ? fit : count;
    if (fit < count || CMSG_LEN(fit * sizeof(int) + odd) > left) {
        odd = 0;
    }
    memset(payload, 0, sizeof(payload));
    memcpy(payload, fds, fit * sizeof(int));
    if (fit > 0 && put(control, SOL_SOCKET, type, payload, fit * sizeof(int) + odd)) {
        for (size_t i = 0; i < fit; i++) {
            delivered[delivered_count] = fds[i];
            is_expected[delivered_count++] = 1;
        }
    }
    else {
        fit = 0;
    }
    for (size_t i = fit; i < count; i++) {
        control->is_cut = 1;
        syscall(SYS_close, fds[i]);
    }
    return fit;
}

static int
new_pidfd(void)
{
    return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

static void
read_header(const unsigned char *control, size_t offset, struct cmsghdr *header)
{
    memcpy(header, control + offset, sizeof(*header));
}

static void
set_length(unsigned char *control, size_t offset, size_t length)
{
    memcpy(control + offset + offsetof(struct cmsghdr, cmsg_len), &length, sizeof(length));
}

/* Offsets of well-formed messages: how many. */
static size_t
offsets_of(const unsigned char *control, size_t used, size_t *offsets)
{
    size_t count = 0, offset = 0;
    while (offset + CMSG_LEN(0) <= used && count < MANY) {
        struct cmsghdr header;
        read_header(control, offset, &header);
        size_t length = header.cmsg_len;
        if (length < CMSG_LEN(0) || length > used - offset) {
            break;
        }
        offsets[count++] = offset;
        offset += CMSG_SPACE(length - CMSG_LEN(0));
    }
    return count;
}

static int
is_rights(const struct cmsghdr *header)
{
    return header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS;
}

static int
is_pidfd(const struct cmsghdr *header)
{
    return header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_PIDFD;
}

static size_t
length_of(const char *text, size_t used)
{
    return strcmp(text, "max") == 0    ? SIZE_MAX
           : strcmp(text, "huge") == 0 ? INT_MAX
           : strcmp(text, "past") == 0 ? used + 8
                                       : strtoull(text, NULL, 0);
}

static size_t
length_of_used(const char *text, size_t capacity)
{
    return strcmp(text, "max") == 0    ? SIZE_MAX
           : strcmp(text, "more") == 0 ? capacity + 64
                                       : capacity;
}

static size_t
random_length(size_t used)
{
    switch (random_below(8)) {
    case 0: return random_below(16);
    case 1: return SIZE_MAX - random_below(32);
    case 2: return INT_MAX - random_below(4);
    case 3: return (size_t)(UINT64_C(1) << (31 + random_below(32)));
    case 4: return used + random_below(64);
    default: return random_below((uint32_t)used + 32);
    }
}

static void
random_messages(control_data *control, const int *fds, size_t count)
{
    size_t from = 0;
    for (uint32_t n = 1 + random_below(6); n > 0; n--) {
        static const unsigned char noise[64] = {1, 2, 3};
        int pidfd;
        switch (random_below(4)) {
        case 0:
        case 1: {
            size_t some = random_below((uint32_t)(count - from) + 1);
            put_numbers(control, SCM_RIGHTS, fds + from, some, random_below(4) ? 0 : 3);
            from += some;
            break;
        }
        case 2:
            if ((pidfd = new_pidfd()) >= 0) {
                put_numbers(control, SCM_PIDFD, &pidfd, 1, 0);
            }
            break;
        default:
            put(control, SOL_SOCKET, 200, noise, random_below(sizeof(noise)));
        }
    }
    put_numbers(control, SCM_RIGHTS, fds + from, count - from, 0);
}

/* The same that a careful reader does, written another way: everything up to the first length
   that does not fit, and of that one's message what begins it and can be a descriptor. */
static void
expect_by_hand(const unsigned char *control, size_t used, size_t from)
{
    unsigned char seen[MANY * sizeof(int) * 4];
    size_t seen_count = 0, offset = 0;
    while (used >= CMSG_LEN(0) && offset <= used - CMSG_LEN(0)) {
        struct cmsghdr header;
        read_header(control, offset, &header);
        size_t left = used - offset;
        int fits = header.cmsg_len >= CMSG_LEN(0) && header.cmsg_len <= left;
        size_t length = fits ? header.cmsg_len : left;
        if (is_rights(&header) || is_pidfd(&header)) {
            size_t size = (length - CMSG_LEN(0)) / sizeof(int) * sizeof(int);
            if (seen_count + size > sizeof(seen)) {
                abort();
            }
            for (size_t k = 0; k < size; k += sizeof(int)) {
                int number;
                memcpy(&number, control + offset + CMSG_LEN(0) + k, sizeof(number));
                if (!fits && (number <= STDERR_FILENO || fcntl(number, F_GETFD) < 0)) {
                    break;
                }
                memcpy(seen + seen_count, &number, sizeof(number));
                seen_count += sizeof(number);
            }
        }
        if (!fits) {
            break;
        }
        offset += CMSG_SPACE(length - CMSG_LEN(0));
    }
    for (size_t i = from; i < delivered_count; i++) {
        is_expected[i] = 0;
        for (size_t k = 0; k < seen_count && !is_expected[i]; k += sizeof(int)) {
            int number;
            memcpy(&number, seen + k, sizeof(number));
            is_expected[i] = number == delivered[i];
        }
    }
}

static void
forge(struct msghdr *msg, control_data *control, const int *fds, size_t count, int *pidfds,
      size_t pidfd_count, const control_data *others)
{
    size_t offsets[MANY], lie = SIZE_MAX, from = delivered_count;
    const char *value = strchr(mode, '=');
    value = value == NULL ? "" : value + 1;

    if (strcmp(mode, "random") == 0) {
        random_messages(control, fds, count);
    }
    else if (strcmp(mode, "withheld") == 0) {
        control->is_cut = count > 0;
        for (size_t i = 0; i < count; i++) {
            syscall(SYS_close, fds[i]);
        }
    }
    else if (strcmp(mode, "split") == 0 || strcmp(mode, "pairs") == 0) {
        for (size_t i = 0; i < count; i++) {
            put_numbers(control, SCM_RIGHTS, fds + i, 1, 0);
            int pidfd = mode[0] == 'p' ? new_pidfd() : -1;
            if (pidfd >= 0) {
                put_numbers(control, SCM_PIDFD, &pidfd, 1, 0);
            }
        }
    }
    else {
        put_numbers(control, SCM_RIGHTS, fds, count, strcmp(mode, "odd") == 0 ? 3 : 0);
    }
    if (strcmp(mode, "twins") == 0) {
        int both[2] = {new_pidfd(), new_pidfd()};
        put_numbers(control, SCM_PIDFD, both, 2, 0);
    }
    if (pidfd_count > 0) {
        put_numbers(control, SCM_PIDFD, pidfds, pidfd_count, 0);
    }
    if (others->used > 0 && others->used <= control->capacity - control->used) {
        memcpy(control->start + control->used, others->start, others->used);
        control->used += others->used;
    }
    if (strcmp(mode, "bare") == 0) {
        put(control, SOL_SOCKET, 99, NULL, 0);
    }
    if (strncmp(mode, "short-pidfd=", 12) == 0) {
        put(control, SOL_SOCKET, SCM_PIDFD, "\1\1\1", strtoul(value, NULL, 0));
    }

    size_t n = offsets_of(control->start, control->used, offsets);
    if (strncmp(mode, "rights-len=", 11) == 0 || strncmp(mode, "pidfd-len=", 10) == 0) {
        for (size_t i = 0; i < n; i++) {
            struct cmsghdr header;
            read_header(control->start, offsets[i], &header);
            if (mode[0] == 'r' ? is_rights(&header) : is_pidfd(&header)) {
                set_length(control->start, offsets[i], length_of(value, control->used));
                break;
            }
        }
    }
    msg->msg_controllen = control->used;
    if (strncmp(mode, "used=", 5) == 0) {
        msg->msg_controllen = length_of_used(value, control->capacity);
    }
    if (strcmp(mode, "random") == 0) {
        if (n > 0 && random_below(4) > 0) {
            size_t at = offsets[random_below((uint32_t)n)];
            size_t length = random_length(control->used);
            set_length(control->start, at, length);
            lie = at;
        }
        if (random_below(4) == 0) {
            msg->msg_controllen = random_length(control->used);
        }
    }
    if (control->is_cut) {
        msg->msg_flags |= MSG_CTRUNC;
    }
    size_t used = msg->msg_controllen;
    used = used <= control->capacity ? used : control->capacity;
    if (lie < used && used - lie >= CMSG_LEN(0)) {
        struct cmsghdr header;
        read_header(control->start, lie, &header);
        is_deceptive |= header.cmsg_len >= CMSG_LEN(0) && header.cmsg_len <= used - lie;
    }
    expect_by_hand(control->start, used, from);
}

/* What came as it is, beside a forged message. */
static void
note_delivered(const unsigned char *control, size_t used)
{
    size_t offsets[MANY];
    size_t n = offsets_of(control, used, offsets);
    for (size_t i = 0; i < n; i++) {
        struct cmsghdr header;
        read_header(control, offsets[i], &header);
        size_t count = is_rights(&header) || is_pidfd(&header)
            ? (header.cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
        for (size_t k = 0; k < count; k++) {
            memcpy(&delivered[delivered_count], control + offsets[i] + CMSG_LEN(k * sizeof(int)),
                   sizeof(int));
            is_expected[delivered_count++] = 1;
        }
    }
}

/* One message; `is_forged`: in whatever way the mode says, if it says one. */
static ssize_t
receive(int fd, struct msghdr *msg, int flags, int is_forged)
{
    static _Alignas(16) unsigned char enlarged[8192], rest[8192];
    int fds[MANY], pidfds[MANY];
    size_t fd_count = 0, pidfd_count = 0, offsets[MANY];
    size_t capacity = msg->msg_control == NULL ? 0 : msg->msg_controllen;
    unsigned char *control = msg->msg_control;

    receives++;
    for (size_t i = 0; i < capacity; i++) {
        dirty += control[i] != 0;
    }
    if (!is_forged || mode[0] == 0 || capacity == 0) {
        ssize_t result = raw(SYS_recvmsg, fd, (long)msg, flags, 0, 0, 0);
        if (result >= 0 && !is_forged) {
            note_delivered(control, msg->msg_controllen);
        }
        return result;
    }
    msg->msg_control = enlarged;
    msg->msg_controllen = sizeof(enlarged);
    ssize_t result = raw(SYS_recvmsg, fd, (long)msg, flags, 0, 0, 0);
    size_t used = msg->msg_controllen;
    msg->msg_control = control;
    msg->msg_controllen = capacity;
    if (result < 0) {
        return result;
    }
    control_data others = {rest, 0, sizeof(rest), 0};
    size_t n = offsets_of(enlarged, used, offsets);
    for (size_t i = 0; i < n; i++) {
        struct cmsghdr header;
        read_header(enlarged, offsets[i], &header);
        const unsigned char *data = enlarged + offsets[i] + CMSG_LEN(0);
        size_t size = header.cmsg_len - CMSG_LEN(0);
        if (is_rights(&header)) {
            memcpy(fds + fd_count, data, size);
            fd_count += size / sizeof(int);
        }
        else if (is_pidfd(&header)) {
            memcpy(pidfds + pidfd_count, data, sizeof(int));
            pidfd_count++;
        }
        else {
            put(&others, header.cmsg_level, header.cmsg_type, data, size);
        }
    }
    control_data forged = {control, 0, capacity, 0};
    forge(msg, &forged, fds, fd_count, pidfds, pidfd_count, &others);
    return result;
}

PUBLIC ssize_t
recvmsg(int fd, struct msghdr *msg, int flags)
{
    delivered_count = 0;
    is_deceptive = 0;
    return receive(fd, msg, flags, 1);
}

PUBLIC int
recvmmsg(int fd, struct mmsghdr *messages, unsigned count, FLAGS flags, struct timespec *timeout)
{
    unsigned done = 0;
    (void)timeout;
    delivered_count = 0;
    is_deceptive = 0;
    for (; done < count; done++) {
        int more = (int)(flags & ~MSG_WAITFORONE);
        if (done > 0 && (flags & MSG_WAITFORONE)) {
            more |= MSG_DONTWAIT;
        }
        ssize_t result = receive(fd, &messages[done].msg_hdr, more,
                                 only_at < 0 || only_at == (int)done);
        if (result < 0) {
            break;
        }
        messages[done].msg_len = (unsigned)result;
    }
    if (done > 0 && hangs_up >= 0) {
        shutdown(hangs_up, SHUT_RDWR);
        hangs_up = -1;
    }
    return done > 0 || count == 0 ? (int)done : -1;
}
