/* Preloaded: recvmsg() brings one byte from the socket address that any_name_set() was given, and
   sendmsg() keeps the one that it is to go to, so that names of families that this kernel lacks can
   be read and made by the socket module as well.  Each socket is of the family and of the protocol
   that any_name_family() was given. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>

static char name[256];
static socklen_t size;
static int is_on;
static int family, proto;

void
any_name_set(const void *bytes, long length)
{
    is_on = 1;
    size = (socklen_t)length;
    memset(name, 0, sizeof(name));
    memcpy(name, bytes, size);
}

void
any_name_family(int number, int protocol)
{
    family = number;
    proto = protocol;
}

int
getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
    if (is_on && level == SOL_SOCKET && (option == SO_DOMAIN || option == SO_PROTOCOL)) {
        memcpy(value, option == SO_DOMAIN ? &family : &proto, sizeof(int));
        return 0;
    }
    int (*next)(int, int, int, void *, socklen_t *);
    *(void **)&next = dlsym(RTLD_NEXT, "getsockopt");
    return next(fd, level, option, value, length);
}

long
any_name_get(void *bytes)
{
    long length = (long)size;
    memcpy(bytes, name, size);
    size = 0;
    return length;
}

ssize_t
recvmsg(int fd, struct msghdr *msg, int flags)
{
    if (!is_on) {
        ssize_t (*next)(int, struct msghdr *, int);
        *(void **)&next = dlsym(RTLD_NEXT, "recvmsg");
        return next(fd, msg, flags);
    }
    if (msg->msg_name != NULL) {
        memcpy(msg->msg_name, name, size < msg->msg_namelen ? size : msg->msg_namelen);
    }
    msg->msg_namelen = size;
    msg->msg_controllen = 0;
    msg->msg_flags = 0;
    memcpy(msg->msg_iov[0].iov_base, "x", 1);
    return 1;
}

ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (!is_on) {
        ssize_t (*next)(int, const struct msghdr *, int);
        *(void **)&next = dlsym(RTLD_NEXT, "sendmsg");
        return next(fd, msg, flags);
    }
    size = msg->msg_namelen;
    memset(name, 0, sizeof(name));
    memcpy(name, msg->msg_name, size);
    return 1;
}
