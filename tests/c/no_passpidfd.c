/* Preloaded: a kernel before Linux 6.5, which has no SO_PASSPIDFD. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

enum { PASSPIDFD = 76 };

static int
is_missing(int level, int name)
{
    return level == SOL_SOCKET && name == PASSPIDFD;
}

int
getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size)
{
    if (is_missing(level, name)) {
        errno = ENOPROTOOPT;
        return -1;
    }
    int (*next)(int, int, int, void *, socklen_t *);
    *(void **)&next = dlsym(RTLD_NEXT, "getsockopt");
    return next(fd, level, name, value, size);
}

int
setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    if (is_missing(level, name)) {
        errno = ENOPROTOOPT;
        return -1;
    }
    int (*next)(int, int, int, const void *, socklen_t);
    *(void **)&next = dlsym(RTLD_NEXT, "setsockopt");
    return next(fd, level, name, value, size);
}
