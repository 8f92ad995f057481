/* What src/c/plain/platform.[hc] and msghdr.[hc] make of the system's calls, as text.

   Linux's own calls, and what stands in for them elsewhere:

   cc -std=c11 -I../../src/c -o native platform.c
   cc -std=c11 -I../../src/c -DCMSGX_PORTABLE -o portable platform.c

   Both have to print the same. */

#ifndef _GNU_SOURCE
#  define _GNU_SOURCE 1
#endif

#include "../../src/c/plain/msghdr.c"
#include "../../src/c/plain/platform.c"
#include "../../src/c/plain/walk.c"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, strerror(errno)); \
            exit(1); \
        } \
    } while (0)

#define ROOM 256
#define MAX_COUNT 8

typedef struct {
    struct iovec iov;
    char data[16];
    unsigned char control[ROOM + CMSGX_EXTRA_CONTROL] __attribute__((aligned(16)));
} place;

static int null;            /* what is sent */

static void
set(int fd, int name, int value)
{
    CHECK(setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)) == 0);
}

/* A message of `size` bytes with `count` descriptors, in `where`. */
static void
build_message(struct msghdr *msg, place *where, size_t size, size_t count)
{
    int fds[MAX_COUNT];
    for (size_t i = 0; i < count; i++) {
        fds[i] = null;
    }
    memset(msg, 0, sizeof(*msg));
    memcpy(where->data, "0123456789abcdef", sizeof(where->data));
    where->iov = (struct iovec){where->data, size};
    msg->msg_iov = &where->iov;
    msg->msg_iovlen = 1;
    if (count > 0) {
        msg->msg_control = where->control;
        msg->msg_controllen = (__typeof__(msg->msg_controllen))cmsgx_put(
            where->control, SOL_SOCKET, SCM_RIGHTS, fds, count * sizeof(int));
    }
}

static void
send_message(int fd, size_t size, size_t count)
{
    struct msghdr msg;
    place where;
    build_message(&msg, &where, size, count);
    CHECK(cmsgx_sys_sendmsg(fd, &msg, 0) == (ssize_t)size);
}

/* Each control message with what can be told of its payload; then closes the descriptors. */
static void
print_control(const struct msghdr *msg)
{
    cmsgx_header header;
    cmsgx_step step;
    size_t offset = 0;

    printf(" flags %#x used %zu", (unsigned)msg->msg_flags, (size_t)msg->msg_controllen);
    while ((step = cmsgx_walk(msg->msg_control, (size_t)msg->msg_controllen, &offset, &header))
           != CMSGX_END) {
        printf(" [%d %d: %zu", (int)step, header.type, header.size);
        for (size_t i = 0; header.type != SCM_CREDENTIALS && i < header.size / sizeof(int); i++) {
            printf(" %d", fcntl(number_at(&header, i), F_GETFD));
        }
        printf("]");
    }
    printf("\n");
    cmsgx_close_received(msg->msg_control, (size_t)msg->msg_controllen);
}

static void
receive_message(int fd, int flags, size_t control_size)
{
    struct msghdr msg;
    place where;

    memset(&msg, 0, sizeof(msg));
    where.iov = (struct iovec){where.data, sizeof(where.data)};
    msg.msg_iov = &where.iov;
    msg.msg_iovlen = 1;
    errno = 0;
    ssize_t size = cmsgx_msghdr_receive(fd, &msg, flags, where.control, control_size, NULL, 0, 0);
    printf("control_size %zu: %zd %s", control_size, size, size < 0 ? strerror(errno) : "");
    if (size < 0) {
        printf("\n");
        return;
    }
    print_control(&msg);
}

static void
receive_batch(int fd, unsigned count, int flags, size_t control_size)
{
    struct cmsgx_mmsg msgs[MAX_COUNT];
    static place where[MAX_COUNT];

    memset(msgs, 0, sizeof(msgs));
    for (unsigned i = 0; i < count; i++) {
        where[i].iov = (struct iovec){where[i].data, sizeof(where[i].data)};
        msgs[i].msg_hdr.msg_iov = &where[i].iov;
        msgs[i].msg_hdr.msg_iovlen = 1;
        cmsgx_msghdr_prepare(&msgs[i].msg_hdr, where[i].control, control_size, NULL, 0, 0);
    }
    errno = 0;
    int done = cmsgx_recvmmsg(fd, msgs, count, flags);
    printf("%u messages: %d %s\n", count, done, done < 0 ? strerror(errno) : "");
    for (int i = 0; i < done; i++) {
        cmsgx_msghdr_finish(&msgs[i].msg_hdr, control_size);
        printf("  %u bytes", msgs[i].msg_len);
        print_control(&msgs[i].msg_hdr);
    }
}

static void
truncation(int type, int with_credentials, int with_pidfd)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, type, 0, pair) == 0);
    set(pair[1], SO_PASSCRED, with_credentials);
    if (with_pidfd) {
        set(pair[1], SO_PASSPIDFD, 1);
    }
    for (size_t count = 0; count < 4; count++) {
        for (size_t control_size = 0; control_size < 120; control_size++) {
            printf("%d %d %d %zu descriptors, ", type, with_credentials, with_pidfd, count);
            send_message(pair[0], 4, count);
            receive_message(pair[1], control_size % 3 ? CMSGX_MSG_CMSG_CLOEXEC : 0, control_size);
        }
    }
    close(pair[0]);
    close(pair[1]);
}

static void
peeking(void)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    receive_message(pair[1], MSG_PEEK, 64);
    send_message(pair[0], 4, 2);
    receive_message(pair[1], MSG_PEEK | CMSGX_MSG_CMSG_CLOEXEC, 64);
    receive_message(pair[1], MSG_PEEK, CMSG_LEN(sizeof(int)));
    receive_message(pair[1], 0, 64);
    close(pair[0]);
    close(pair[1]);
}

static void
many(int type)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, pair) == 0);
    for (size_t i = 1; i <= 5; i++) {
        send_message(pair[0], i, i % 3);
    }
    receive_batch(pair[1], 0, 0, 64);
    receive_batch(pair[1], 2, CMSGX_MSG_CMSG_CLOEXEC, CMSG_LEN(sizeof(int)));
    receive_batch(pair[1], MAX_COUNT, CMSGX_MSG_CMSG_CLOEXEC, 64);
    receive_batch(pair[1], MAX_COUNT, 0, 64);
    close(pair[0]);
    receive_batch(pair[1], 3, 0, 64);
    close(pair[1]);
}

/* One blocks for the first message, and not for the second. */
static void
waiting_for_one(void)
{
    int pair[2], status;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        usleep(50000);
        send_message(pair[0], 3, 1);
        pause();
        _exit(0);
    }
    receive_batch(pair[1], MAX_COUNT, CMSGX_MSG_WAITFORONE, 64);
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, 0) == child);
    close(pair[0]);
    close(pair[1]);
}

static void
sending(void)
{
    int pair[2];
    struct cmsgx_mmsg msgs[4];
    place where[4];
    CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
    memset(msgs, 0, sizeof(msgs));
    for (size_t i = 0; i < 4; i++) {
        build_message(&msgs[i].msg_hdr, &where[i], i + 1, 1);
    }
    int none = -1;
    memcpy(where[2].control + CMSG_LEN(0), &none, sizeof(none));
    for (unsigned done = 0; done < 3; done++) {
        unsigned at = done < 2 ? done * 2 : 3;
        errno = 0;
        int sent = cmsgx_sendmmsg(pair[0], msgs + at, 4 - at, 0);
        printf("sent from %u: %d %s", at, sent, sent < 0 ? strerror(errno) : "");
        for (int i = 0; i < sent; i++) {
            printf(" %u", msgs[at + (unsigned)i].msg_len);
        }
        printf("\n");
    }
    receive_batch(pair[1], MAX_COUNT, CMSGX_MSG_WAITFORONE, 64);
    close(pair[0]);
    close(pair[1]);
}

static void
sockets(void)
{
    int pair[2], ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && pipe(ends) == 0);
    int four = socket(AF_INET, SOCK_DGRAM, 0), six = socket(AF_INET6, SOCK_STREAM, 0);
    const int all[] = {pair[0], four, six, ends[0], -1};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] == six && six < 0) {
            continue;
        }
        errno = 0;
        int family = cmsgx_family_of(all[i]);
        printf("family %d %s\n", family, family < 0 ? strerror(errno) : "");
    }
    struct cmsgx_peer peer;
    CHECK(cmsgx_peer_of(pair[0], &peer) == 0);
    printf("peer %d %d %d\n", peer.pid == getpid(), peer.uid == geteuid(), peer.gid == getegid());
    printf("hung up %d", cmsgx_has_hung_up(pair[0]) != 0);
    close(pair[1]);
    printf(" %d\n", cmsgx_has_hung_up(pair[0]) != 0);

    struct timespec start, end;
    struct pollfd ready = {.fd = ends[0], .events = POLLIN};
    clock_gettime(CLOCK_MONOTONIC, &start);
    int result = cmsgx_poll(&ready, 1, 20500000);
    clock_gettime(CLOCK_MONOTONIC, &end);
    int64_t took = (end.tv_sec - start.tv_sec) * INT64_C(1000000000) + end.tv_nsec - start.tv_nsec;
    printf("polled %d, not too short %d", result, took >= 20500000);
    CHECK(write(ends[1], "x", 1) == 1);
    printf(", %d\n", cmsgx_poll(&ready, 1, 1));

    size_t before = cmsgx_count_open();
    int run[5];
    for (int i = 0; i < 5; i++) {
        run[i] = fcntl(null, F_DUPFD_CLOEXEC, 0);
    }
    printf("open %zu", cmsgx_count_open() - before);
    cmsgx_close_all(run, 5);
    printf(" %zu\n", cmsgx_count_open() - before);
    close(pair[0]);
    close(ends[0]);
    close(ends[1]);
    close(four);
    if (six >= 0) {
        close(six);
    }
}

int
main(int argc, char **argv)
{
    int has_pidfd = argc > 1 && strcmp(argv[1], "pidfd") == 0;
    const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    CHECK((null = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0);
    size_t before = cmsgx_count_open();
    for (size_t i = 0; i < 3; i++) {
        for (int with = 0; with < (has_pidfd ? 4 : 2); with++) {
            truncation(types[i], with & 1, with >> 1);
        }
    }
    peeking();
    many(SOCK_DGRAM);
    many(SOCK_SEQPACKET);
    many(SOCK_STREAM);
    waiting_for_one();
    sending();
    sockets();
    printf("left open %zu\n", cmsgx_count_open() - before);
    return 0;
}
