/* The floor: each row's work in plain C, with the libc calls and the CMSG_* macros alone.

   A row's function does `rounds` rounds of it and returns 0, or the errno of what failed (EPROTO
   where what came is not what was sent).  To add one: `int floor_NAME(const struct job *job,
   long rounds)`, and a Row that names it, see rows.py. */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdlib.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_FDS 253
#define BATCH 64
#define SEGMENTS 50
#ifndef UDP_SEGMENT
#  define UDP_SEGMENT 103
#  define UDP_GRO 104
#endif
#ifndef F_ADD_SEALS
#  define F_ADD_SEALS 1033
#  define F_GET_SEALS 1034
#  define F_SEAL_SEAL 1
#  define F_SEAL_SHRINK 2
#  define F_SEAL_GROW 4
#  define F_SEAL_WRITE 8
#endif

/* Mirrored by Job in run.py. */
struct job {
    int tx;
    int rx;
    int flags;          /* of both calls: MSG_DONTWAIT where the row has a timeout */
    int fd_count;
    size_t size;        /* bytes of data */
    int fds[MAX_FDS];
};

union control {
    unsigned char bytes[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    struct cmsghdr align;
};

static unsigned char sent_data[1 << 17];
static unsigned char received_data[1 << 16];

/* Numbers that not every version's socket module has. */
int
floor_constant(const char *name)
{
    const struct {
        const char *name;
        int value;
    } constants[] = {
        {"IP_PKTINFO", IP_PKTINFO},
        {"IP_RECVTOS", IP_RECVTOS},
        {"UDP_GRO", UDP_GRO},
        {"SO_TIMESTAMPNS", SO_TIMESTAMPNS},
    };
    for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
        if (strcmp(name, constants[i].name) == 0) {
            return constants[i].value;
        }
    }
    return -1;
}

/* One control message of `size` bytes into `control`; returns its space. */
static size_t
put(union control *control, int type, const void *data, size_t size)
{
    memset(control->bytes, 0, CMSG_SPACE(size));
    control->align.cmsg_level = SOL_SOCKET;
    control->align.cmsg_type = type;
    control->align.cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(&control->align), data, size);
    return CMSG_SPACE(size);
}

static int
send_one(const struct job *job, union control *control, size_t control_size)
{
    struct iovec iov = {sent_data, job->size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (control_size > 0) {
        msg.msg_control = control->bytes;
        msg.msg_controllen = control_size;
    }
    ssize_t sent = sendmsg(job->tx, &msg, job->flags);
    return sent < 0 ? errno : (size_t)sent != job->size ? EPROTO : 0;
}

static int
receive_one(const struct job *job, struct msghdr *msg, union control *control,
            size_t control_size)
{
    struct iovec iov = {received_data, job->size};
    memset(msg, 0, sizeof(*msg));
    msg->msg_iov = &iov;
    msg->msg_iovlen = 1;
    if (control_size > 0) {
        msg->msg_control = control->bytes;
        msg->msg_controllen = control_size;
    }
    ssize_t got = recvmsg(job->rx, msg, job->flags | MSG_CMSG_CLOEXEC);
    if (got < 0) {
        return errno;
    }
    return (size_t)got != job->size || (msg->msg_flags & (MSG_CTRUNC | MSG_TRUNC)) ? EPROTO : 0;
}

int
floor_plain(const struct job *job, long rounds)
{
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        struct msghdr msg;
        error = send_one(job, NULL, 0);
        if (error == 0) {
            error = receive_one(job, &msg, NULL, 0);
        }
    }
    return error;
}

/* A look at an error queue that is empty, or at the other one. */
static int
look(const struct job *job, long rounds, int flags)
{
    for (long i = 0; i < rounds; i++) {
        union control control;
        struct iovec iov = {received_data, job->size};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
        if (recvmsg(job->rx, &msg, flags | MSG_DONTWAIT) >= 0) {
            return EPROTO;
        }
        if (errno != EAGAIN) {
            return errno;
        }
    }
    return 0;
}

int
floor_errors(const struct job *job, long rounds)
{
    return look(job, rounds, MSG_ERRQUEUE);
}

int
floor_nothing(const struct job *job, long rounds)
{
    return look(job, rounds, 0);
}

int
floor_full(const struct job *job, long rounds)
{
    while (rounds > 0 && send(job->tx, sent_data, job->size, MSG_DONTWAIT) < 0 && errno == EAGAIN) {
        rounds--;
    }
    return rounds > 0 ? EPROTO : 0; /* the socket is full: nothing goes */
}

static int
close_each(struct msghdr *msg, int expected)
{
    int error = 0;
    int count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(msg); header != NULL;
         header = CMSG_NXTHDR(msg, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t size = header->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= size; at += sizeof(int), count++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + at, sizeof(fd));
            if (close(fd) < 0) {
                error = errno;
            }
        }
    }
    return error != 0 ? error : count != expected ? EPROTO : 0;
}

int
floor_rights(const struct job *job, long rounds)
{
    union control control;
    size_t size = sizeof(int) * (size_t)job->fd_count;
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        struct msghdr msg;
        error = send_one(job, &control, put(&control, SCM_RIGHTS, job->fds, size));
        if (error == 0) {
            error = receive_one(job, &msg, &control, CMSG_SPACE(size));
        }
        if (error == 0) {
            error = close_each(&msg, job->fd_count);
        }
    }
    return error;
}

int
floor_credentials(const struct job *job, long rounds)
{
    const struct ucred own = {getpid(), getuid(), getgid()};
    union control control;
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        struct msghdr msg;
        struct ucred theirs = {0, 0, 0};
        error = send_one(job, &control, put(&control, SCM_CREDENTIALS, &own, sizeof(own)));
        if (error == 0) {
            error = receive_one(job, &msg, &control, CMSG_SPACE(sizeof(own)));
        }
        if (error != 0) {
            break;
        }
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&msg); header != NULL;
             header = CMSG_NXTHDR(&msg, header)) {
            if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS
                && header->cmsg_len == CMSG_LEN(sizeof(theirs))) {
                memcpy(&theirs, CMSG_DATA(header), sizeof(theirs));
            }
        }
        error = theirs.pid == own.pid ? 0 : EPROTO;
    }
    return error;
}

/* A datagram whose time stamp and packet info are read. */
int
floor_datagram(const struct job *job, long rounds)
{
    const size_t room = CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct in_pktinfo));
    union control control;
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        struct msghdr msg;
        struct timespec stamp = {0, 0};
        struct in_pktinfo info = {0};
        error = send_one(job, NULL, 0);
        if (error == 0) {
            error = receive_one(job, &msg, &control, room);
        }
        if (error != 0) {
            break;
        }
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&msg); header != NULL;
             header = CMSG_NXTHDR(&msg, header)) {
            if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMPNS
                && header->cmsg_len == CMSG_LEN(sizeof(stamp))) {
                memcpy(&stamp, CMSG_DATA(header), sizeof(stamp));
            }
            else if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO
                     && header->cmsg_len == CMSG_LEN(sizeof(info))) {
                memcpy(&info, CMSG_DATA(header), sizeof(info));
            }
        }
        error = stamp.tv_sec != 0 && info.ipi_ifindex != 0 ? 0 : EPROTO;
    }
    return error;
}

/* Many messages for one system call: BATCH of them are a round -------------------------------- */

struct batch {
    struct mmsghdr headers[BATCH];
    struct iovec iov[BATCH];
    struct sockaddr_in names[BATCH];
    union {
        unsigned char bytes[256];
        struct cmsghdr align;
    } control[BATCH];
};

static struct batch outgoing, incoming;
static unsigned char batch_data[BATCH][1 << 11];

static int
receive_batch(int fd, const struct job *job, size_t control_size, int with_names)
{
    for (int i = 0; i < BATCH; i++) {
        struct msghdr *msg = &incoming.headers[i].msg_hdr;
        incoming.iov[i] = (struct iovec){batch_data[i], job->size};
        *msg = (struct msghdr){.msg_iov = &incoming.iov[i], .msg_iovlen = 1};
        if (control_size > 0) {
            msg->msg_control = incoming.control[i].bytes;
            msg->msg_controllen = control_size;
        }
        if (with_names) {
            msg->msg_name = &incoming.names[i];
            msg->msg_namelen = sizeof(incoming.names[i]);
        }
    }
    int got = recvmmsg(fd, incoming.headers, BATCH, MSG_WAITFORONE | MSG_CMSG_CLOEXEC, NULL);
    return got < 0 ? errno : got != BATCH ? EPROTO : 0;
}

static int
send_batch(int fd, const struct job *job)
{
    for (int i = 0; i < BATCH; i++) {
        outgoing.iov[i] = (struct iovec){sent_data, job->size};
        outgoing.headers[i].msg_hdr =
            (struct msghdr){.msg_iov = &outgoing.iov[i], .msg_iovlen = 1};
    }
    int sent = sendmmsg(fd, outgoing.headers, BATCH, 0);
    return sent < 0 ? errno : sent != BATCH ? EPROTO : 0;
}

/* Reads time stamp and packet info of each, and what traffic class it has. */
static int
read_batch(void)
{
    volatile int traffic_class = 0;
    for (int i = 0; i < BATCH; i++) {
        struct msghdr *msg = &incoming.headers[i].msg_hdr;
        struct timespec stamp = {0, 0};
        struct in_pktinfo info = {0};
        for (struct cmsghdr *header = CMSG_FIRSTHDR(msg); header != NULL;
             header = CMSG_NXTHDR(msg, header)) {
            if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_TIMESTAMPNS
                && header->cmsg_len == CMSG_LEN(sizeof(stamp))) {
                memcpy(&stamp, CMSG_DATA(header), sizeof(stamp));
            }
            else if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO
                     && header->cmsg_len == CMSG_LEN(sizeof(info))) {
                memcpy(&info, CMSG_DATA(header), sizeof(info));
            }
            else if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_TOS) {
                traffic_class = *CMSG_DATA(header);
            }
        }
        (void)traffic_class;
        if (stamp.tv_sec == 0 || info.ipi_ifindex == 0) {
            return EPROTO;
        }
    }
    return 0;
}

/* The same, of which nothing is read. */
int
floor_batch_view(const struct job *job, long rounds)
{
    const size_t room = CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct in_pktinfo));
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        error = send_batch(job->tx, job);
        if (error == 0) {
            error = receive_batch(job->rx, job, room, 1);
        }
    }
    return error;
}

int
floor_batch_datagram(const struct job *job, long rounds)
{
    const size_t room = CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct in_pktinfo));
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        error = send_batch(job->tx, job);
        if (error == 0) {
            error = receive_batch(job->rx, job, room, 1);
        }
        if (error == 0) {
            error = read_batch();
        }
    }
    return error;
}

/* BATCH datagrams, one call for each. */
int
floor_each_datagram(const struct job *job, long rounds)
{
    return floor_datagram(job, rounds * BATCH);
}

/* BATCH messages with a descriptor each, one call for each. */
int
floor_each_rights(const struct job *job, long rounds)
{
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        error = floor_rights(job, BATCH);
    }
    return error;
}

/* SEGMENTS datagrams of job->size bytes by one call each way; each is touched. */
int
floor_segments(const struct job *job, long rounds)
{
    static unsigned char joined[1 << 16];
    const uint16_t size = (uint16_t)job->size;
    volatile unsigned char touched = 0;
    union control control;
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        struct iovec iov = {sent_data, job->size * SEGMENTS};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        memset(control.bytes, 0, CMSG_SPACE(sizeof(size)));
        control.align.cmsg_level = IPPROTO_UDP;
        control.align.cmsg_type = UDP_SEGMENT;
        control.align.cmsg_len = CMSG_LEN(sizeof(size));
        memcpy(CMSG_DATA(&control.align), &size, sizeof(size));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(size));
        if (sendmsg(job->tx, &msg, job->flags) < 0) {
            return errno;
        }
        iov = (struct iovec){joined, sizeof(joined)};
        msg = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(sizeof(int))};
        ssize_t got = recvmsg(job->rx, &msg, job->flags);
        if (got < 0) {
            return errno;
        }
        int each = 0;
        struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
        if (header != NULL && header->cmsg_level == IPPROTO_UDP && header->cmsg_type == UDP_GRO) {
            memcpy(&each, CMSG_DATA(header), sizeof(each));
        }
        if (each != size || (size_t)got != job->size * SEGMENTS) {
            return EPROTO;
        }
        for (ssize_t at = 0; at < got; at += each) {
            touched = joined[at];
        }
    }
    (void)touched;
    return error;
}

/* A server that answers BATCH datagrams to where they came from, from the address that they were
   sent to; and its client. */
int
floor_answer(const struct job *job, long rounds)
{
    const size_t room = CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(struct in_pktinfo))
                        + CMSG_SPACE(sizeof(int));
    int error = 0;
    for (long i = 0; i < rounds && error == 0; i++) {
        error = send_batch(job->tx, job);
        if (error == 0) {
            error = receive_batch(job->rx, job, room, 1);
        }
        if (error == 0) {
            error = read_batch();
        }
        if (error != 0) {
            break;
        }
        for (int k = 0; k < BATCH; k++) {
            struct msghdr *msg = &outgoing.headers[k].msg_hdr;
            struct msghdr *came = &incoming.headers[k].msg_hdr;
            outgoing.iov[k] = (struct iovec){batch_data[k], incoming.headers[k].msg_len};
            *msg = (struct msghdr){.msg_iov = &outgoing.iov[k], .msg_iovlen = 1,
                                   .msg_name = came->msg_name, .msg_namelen = came->msg_namelen};
            for (struct cmsghdr *header = CMSG_FIRSTHDR(came); header != NULL;
                 header = CMSG_NXTHDR(came, header)) {
                if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO) {
                    size_t space = CMSG_SPACE(sizeof(struct in_pktinfo));
                    memset(outgoing.control[k].bytes, 0, space);
                    memcpy(outgoing.control[k].bytes, header, header->cmsg_len);
                    msg->msg_control = outgoing.control[k].bytes;
                    msg->msg_controllen = space;
                }
            }
        }
        if (sendmmsg(job->rx, outgoing.headers, BATCH, 0) != BATCH) {
            return errno != 0 ? errno : EPROTO;
        }
        error = receive_batch(job->tx, job, 0, 0);
    }
    return error;
}

/* Without a copy, on the side that sends ----------------------------------------------------- */

/* How many sends the completions on the error queue are about; -1 with errno. */
static long
completions(int fd)
{
    union control control;
    struct msghdr msg = {.msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
        return -1;
    }
    long count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&msg); header != NULL;
         header = CMSG_NXTHDR(&msg, header)) {
        struct sock_extended_err error;
        if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_RECVERR) {
            memcpy(&error, CMSG_DATA(header), sizeof(error));
            if (error.ee_origin == SO_EE_ORIGIN_ZEROCOPY) {
                count += error.ee_data - error.ee_info + 1;
            }
        }
    }
    return count;
}

/* Sends job->size bytes, receives them, and waits until the kernel needs them no more. */
int
floor_zerocopy(const struct job *job, long rounds)
{
    static unsigned char into[1 << 17];
    for (long i = 0; i < rounds; i++) {
        long in_flight = 0;
        for (size_t sent = 0; sent < job->size; in_flight++) {
            ssize_t more = send(job->tx, sent_data + sent, job->size - sent, MSG_ZEROCOPY);
            if (more < 0) {
                return errno;
            }
            sent += (size_t)more;
        }
        for (size_t got = 0; got < job->size;) {
            ssize_t more = recv(job->rx, into, sizeof(into), 0);
            if (more <= 0) {
                return more == 0 ? EPROTO : errno;
            }
            got += (size_t)more;
        }
        while (in_flight > 0) {
            long done = completions(job->tx);
            if (done < 0 && errno != EAGAIN) {
                return errno;
            }
            if (done < 0) {
                struct pollfd ready = {.fd = job->tx};
                (void)poll(&ready, 1, -1);
                continue;
            }
            in_flight -= done;
        }
    }
    return 0;
}

/* A sealed memfd with job->size bytes: made, sent, received, checked, mapped, touched, unmapped. */
int
floor_memfd(const struct job *job, long rounds)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
    static unsigned char data[1 << 20];
    union control control;
    const struct job one = {.tx = job->tx, .rx = job->rx, .flags = job->flags, .size = 1};
    for (long i = 0; i < rounds; i++) {
        int fd = memfd_create("floor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || write(fd, data, job->size) != (ssize_t)job->size
            || fcntl(fd, F_ADD_SEALS, seals) < 0) {
            return errno;
        }
        int error = send_one(&one, &control, put(&control, SCM_RIGHTS, &fd, sizeof(fd)));
        struct msghdr msg;
        close(fd);
        if (error == 0) {
            error = receive_one(&one, &msg, &control, CMSG_SPACE(sizeof(fd)));
        }
        if (error != 0) {
            return error;
        }
        struct stat status;
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
        if (fstat(fd, &status) < 0 || !(fcntl(fd, F_GET_SEALS) & F_SEAL_SHRINK)
            || (size_t)status.st_size != job->size) {
            return EPROTO;
        }
        volatile const unsigned char *map = mmap(NULL, job->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            return errno;
        }
        close(fd);
        for (size_t at = 0; at < job->size; at += 4096) {
            (void)map[at];
        }
        munmap((void *)(uintptr_t)map, job->size);
    }
    return 0;
}
