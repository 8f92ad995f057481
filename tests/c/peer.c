/* A peer in plain C, with the macros of the libc, at the other end of an inherited socket.

   peer send  FD COUNT CREDENTIALS     sends three buffers and COUNT memfds that hold "c-<index>",
                                       with its struct ucred "first", "last" or "none"
   peer receive FD COUNT CREDENTIALS   receives the same, where the files hold "py-<index>"; prints
                                       "<pid> <uid> <gid>" of the sender, or "none"
   peer echo FD                        sends back what it receives, data and descriptors

   Exit status 0 where everything was as it must be; otherwise it says on stderr what was not.

   It sends by syscall(2): musl's sendmsg() takes 1 KiB of control data, and 253 descriptors are
   more. */

#define _GNU_SOURCE

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FDS 253

#define CHECK(condition) \
    ((condition) ? (void)0 \
                 : (fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, strerror(errno)), \
                    exit(1)))

typedef union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(MAX_FDS * sizeof(int))];
} control_buffer;

static char parts[3][8] = {"one ", "two ", "three"};

static void
set_data(struct msghdr *msg, struct iovec iov[3])
{
    for (int i = 0; i < 3; i++) {
        iov[i].iov_base = parts[i];
        iov[i].iov_len = strlen(parts[i]);
    }
    msg->msg_iov = iov;
    msg->msg_iovlen = 3;
}

static struct cmsghdr *
put_ucred(struct msghdr *msg, struct cmsghdr *header)
{
    struct ucred who = {getpid(), getuid(), getgid()};
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_CREDENTIALS;
    header->cmsg_len = CMSG_LEN(sizeof(who));
    memcpy(CMSG_DATA(header), &who, sizeof(who));
    return CMSG_NXTHDR(msg, header);
}

static struct cmsghdr *
put_rights(struct msghdr *msg, struct cmsghdr *header, const int *fds, size_t count)
{
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    return CMSG_NXTHDR(msg, header);
}

static void
send_message(int fd, size_t count, const char *credentials)
{
    static control_buffer control;
    struct iovec iov[3];
    struct msghdr msg = {0};
    int fds[MAX_FDS];

    for (size_t i = 0; i < count; i++) {
        char text[16];
        int length = snprintf(text, sizeof(text), "c-%zu", i);
        CHECK((fds[i] = memfd_create("peer", MFD_CLOEXEC)) >= 0);
        CHECK(pwrite(fds[i], text, (size_t)length, 0) == length);
    }
    set_data(&msg, iov);
    msg.msg_control = control.bytes;
    msg.msg_controllen =
        (strcmp(credentials, "none") != 0 ? CMSG_SPACE(sizeof(struct ucred)) : 0)
        + (count > 0 ? CMSG_SPACE(count * sizeof(int)) : 0);
    if (msg.msg_controllen == 0) {
        msg.msg_control = NULL;
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
    if (strcmp(credentials, "first") == 0) {
        header = put_ucred(&msg, header);
    }
    if (count > 0) {
        header = put_rights(&msg, header, fds, count);
    }
    if (strcmp(credentials, "last") == 0) {
        put_ucred(&msg, header);
    }
    CHECK(syscall(SYS_sendmsg, fd, &msg, 0) == 13);
}

static void
receive_message(int fd, size_t count, const char *credentials)
{
    static control_buffer control;
    static char data[64];
    struct iovec iov[2] = {{data, 5}, {data + 5, sizeof(data) - 5}};
    struct msghdr msg = {0};
    struct ucred who = {0, 0, 0};
    int fds[MAX_FDS];
    size_t received = 0;
    int is_known = 0;

    if (strcmp(credentials, "none") != 0) {
        int on = 1;
        CHECK(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0);
    }
    msg.msg_iov = iov;
    msg.msg_iovlen = 2;
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof(control.bytes);
    CHECK(recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) == 13);
    CHECK(memcmp(data, "one two three", 13) == 0);
    CHECK(!(msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC)));
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h != NULL; h = CMSG_NXTHDR(&msg, h)) {
        CHECK(h->cmsg_level == SOL_SOCKET);
        if (h->cmsg_type == SCM_RIGHTS) {
            received = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            CHECK(received <= MAX_FDS);
            memcpy(fds, CMSG_DATA(h), received * sizeof(int));
        }
        else {
            CHECK(h->cmsg_type == SCM_CREDENTIALS && h->cmsg_len == CMSG_LEN(sizeof(who)));
            memcpy(&who, CMSG_DATA(h), sizeof(who));
            is_known = 1;
        }
    }
    CHECK(received == count);
    for (size_t i = 0; i < count; i++) {
        char text[16], expected[16];
        ssize_t length = pread(fds[i], text, sizeof(text) - 1, 0);
        CHECK(length > 0);
        text[length] = 0;
        snprintf(expected, sizeof(expected), "py-%zu", i);
        CHECK(strcmp(text, expected) == 0);
    }
    if (is_known) {
        printf("%ld %ld %ld\n", (long)who.pid, (long)who.uid, (long)who.gid);
    }
    else {
        printf("none\n");
    }
}

static void
echo(int fd)
{
    static control_buffer control;
    static char data[65536];
    struct iovec iov = {data, sizeof(data)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    ssize_t size = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    CHECK(size >= 0);
    iov.iov_len = (size_t)size;
    msg.msg_flags = 0;
    if (msg.msg_controllen == 0) {
        msg.msg_control = NULL;
    }
    CHECK(syscall(SYS_sendmsg, fd, &msg, 0) == size);
}

int
main(int count, char **arguments)
{
    CHECK(count > 2);
    int fd = atoi(arguments[2]);
    const char *credentials = count > 4 ? arguments[4] : "none";
    size_t fds = count > 3 ? strtoul(arguments[3], NULL, 10) : 0;
    CHECK(fds <= MAX_FDS);
    if (strcmp(arguments[1], "send") == 0) {
        send_message(fd, fds, credentials);
    }
    else if (strcmp(arguments[1], "receive") == 0) {
        receive_message(fd, fds, credentials);
    }
    else {
        CHECK(strcmp(arguments[1], "echo") == 0);
        echo(fd);
    }
    return 0;
}
