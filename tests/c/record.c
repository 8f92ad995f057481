/* LD_PRELOAD library: a witness of every control message that the kernel gives or takes.

   cc -std=c11 -Wall -Wextra -Werror -O1 -shared -fPIC -o record.so record.c -ldl
   CMSGX_RECORD=FILE LD_PRELOAD=./record.so python ...

   Appends a line to FILE for each that a successful call has, of one sort once in a process:

       recv FAMILY LEVEL TYPE FLAGS ORIGIN EXTENDED     FLAGS: of the message, MSG_ERRQUEUE alone
       send FAMILY LEVEL TYPE 0 0 0

   all numbers decimal.  ORIGIN is ee_origin of what came on the error queue, EXTENDED whether it
   has the extension of RFC 4884, or 2 where SCM_WIFI_STATUS came with it.  What was sent was
   accepted; whether the kernel also obeyed is up to the tests. */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define SLOTS 4096
#define WIFI_STATUS 41

static _Atomic uint64_t seen[SLOTS];

/* Whether it was not there yet.  A full table takes nothing more. */
static int
is_new(uint64_t key)
{
    size_t at = (size_t)((key * 0x9e3779b97f4a7c15u) >> 52) % SLOTS;
    for (size_t i = 0; i < SLOTS; i++, at = (at + 1) % SLOTS) {
        uint64_t found = 0;
        if (atomic_compare_exchange_strong(&seen[at], &found, key)) {
            return 1;
        }
        if (found == key) {
            return 0;
        }
    }
    return 0;
}

static void
line(const char *call, int family, int level, int type, int flags, unsigned origin, unsigned extra)
{
    uint64_t key = (uint64_t)(unsigned)level << 32 ^ (uint64_t)(unsigned)type << 16
        ^ (unsigned)family << 8 ^ origin << 4 ^ extra << 2 ^ (flags != 0) << 1 ^ (*call == 's');
    const char *path = getenv("CMSGX_RECORD");
    if (path == NULL || !is_new(key + 1)) {
        return;
    }
    char text[128];
    int size = snprintf(text, sizeof(text), "%s %d %d %d %d %u %u\n", call, family, level, type,
                        flags, origin, extra);
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file >= 0) {
        if (write(file, text, (size_t)size) != size) {
            abort();
        }
        close(file);
    }
}

static void
record(const char *call, int sock, const struct msghdr *given, int flags)
{
    if (given->msg_control == NULL || given->msg_controllen == 0) {
        return;
    }
    int error = errno;
    int family = -1;
    socklen_t size = sizeof(family);
    struct msghdr *msg = (struct msghdr *)(uintptr_t)given;    /* CMSG_NXTHDR takes no const */
    unsigned wifi = 0;
    (void)getsockopt(sock, SOL_SOCKET, SO_DOMAIN, &family, &size);
    for (struct cmsghdr *one = CMSG_FIRSTHDR(msg); one != NULL; one = CMSG_NXTHDR(msg, one)) {
        wifi |= one->cmsg_level == SOL_SOCKET && one->cmsg_type == WIFI_STATUS;
    }
    for (struct cmsghdr *one = CMSG_FIRSTHDR(msg); one != NULL; one = CMSG_NXTHDR(msg, one)) {
        unsigned origin = 0, extra = 0;
        /* struct sock_extended_err: ee_errno, four bytes that begin with ee_origin, ee_info,
           ee_data, which begins with the length of RFC 4884 */
        if (flags && one->cmsg_level != SOL_SOCKET && one->cmsg_len >= CMSG_LEN(16)) {
            unsigned char *data = CMSG_DATA(one);
            uint16_t length;
            origin = data[4];
            memcpy(&length, data + 12, sizeof(length));
            extra = wifi ? 2 : (origin == 2 || origin == 3) && length != 0;
        }
        line(call, family, one->cmsg_level, one->cmsg_type, flags, origin, extra);
    }
    errno = error;
}

/* The C library's own, looked up once. */
#define REAL(name, type) \
    static type *real; \
    if (real == NULL) { \
        *(void **)&real = dlsym(RTLD_NEXT, name); \
        if (real == NULL) { \
            abort(); \
        } \
    }

typedef ssize_t receive_function(int, struct msghdr *, int);
typedef ssize_t send_function(int, const struct msghdr *, int);
typedef int receive_many_function(int, struct mmsghdr *, unsigned, int, void *);
typedef int send_many_function(int, struct mmsghdr *, unsigned, int);

/* With a time_t of 64 bits on 32, programs call them by the second name. */
#define DEFINE(receive_name, send_name, receive_many_name, send_many_name, suffix) \
    PUBLIC ssize_t receive_##suffix(int sock, struct msghdr *msg, int flags) \
        __asm__(receive_name); \
    PUBLIC ssize_t send_##suffix(int sock, const struct msghdr *msg, int flags) \
        __asm__(send_name); \
    PUBLIC int receive_many_##suffix(int sock, struct mmsghdr *msgs, unsigned count, int flags, \
                                     void *timeout) __asm__(receive_many_name); \
    PUBLIC int send_many_##suffix(int sock, struct mmsghdr *msgs, unsigned count, int flags) \
        __asm__(send_many_name); \
    ssize_t receive_##suffix(int sock, struct msghdr *msg, int flags) \
    { \
        REAL(receive_name, receive_function) \
        ssize_t result = real(sock, msg, flags); \
        if (result >= 0) { \
            record("recv", sock, msg, msg->msg_flags & MSG_ERRQUEUE); \
        } \
        return result; \
    } \
    ssize_t send_##suffix(int sock, const struct msghdr *msg, int flags) \
    { \
        REAL(send_name, send_function) \
        ssize_t result = real(sock, msg, flags); \
        if (result >= 0) { \
            record("send", sock, msg, 0); \
        } \
        return result; \
    } \
    int receive_many_##suffix(int sock, struct mmsghdr *msgs, unsigned count, int flags, \
                              void *timeout) \
    { \
        REAL(receive_many_name, receive_many_function) \
        int result = real(sock, msgs, count, flags, timeout); \
        for (int i = 0; i < result; i++) { \
            record("recv", sock, &msgs[i].msg_hdr, msgs[i].msg_hdr.msg_flags & MSG_ERRQUEUE); \
        } \
        return result; \
    } \
    int send_many_##suffix(int sock, struct mmsghdr *msgs, unsigned count, int flags) \
    { \
        REAL(send_many_name, send_many_function) \
        int result = real(sock, msgs, count, flags); \
        for (int i = 0; i < result; i++) { \
            record("send", sock, &msgs[i].msg_hdr, 0); \
        } \
        return result; \
    }

DEFINE("recvmsg", "sendmsg", "recvmmsg", "sendmmsg", plain)
#if defined(__GLIBC__) && __SIZEOF_LONG__ == 4
DEFINE("__recvmsg64", "__sendmsg64", "__recvmmsg64", "__sendmmsg64", time64)
#endif
