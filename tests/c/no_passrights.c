/* A kernel without SO_PASSRIGHTS, which came with Linux 6.16: preloaded. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

#define PASSRIGHTS 83

int
setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    int (*real)(int, int, int, const void *, socklen_t);
    if (level == SOL_SOCKET && name == PASSRIGHTS) {
        errno = ENOPROTOOPT;
        return -1;
    }
    *(void **)&real = dlsym(RTLD_NEXT, "setsockopt");
    return real(fd, level, name, value, size);
}
