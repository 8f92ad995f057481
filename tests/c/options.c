/* A library to preload, whose getsockopt(2) and setsockopt(2) answer for one option as another
   kernel does. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static struct {
    int level, name;
    int get_error, set_error;   /* an errno, or 0 */
    socklen_t size;             /* of the value that is kept here; 0: the kernel's own */
    char value[16];
} fake = {-1, -1, 0, 0, 0, {0}};

void
fake_option(int level, int name, int get_error, int set_error, const void *value, int size)
{
    fake.level = level;
    fake.name = name;
    fake.get_error = get_error;
    fake.set_error = set_error;
    fake.size = (socklen_t)size;
    memcpy(fake.value, value, fake.size);
}

int
fake_value(void *value)
{
    memcpy(value, fake.value, fake.size);
    return (int)fake.size;
}

int
getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    int (*real)(int, int, int, void *, socklen_t *);
    *(void **)&real = dlsym(RTLD_NEXT, "getsockopt");
    if (level == fake.level && name == fake.name) {
        if (fake.get_error != 0) {
            errno = fake.get_error;
            return -1;
        }
        if (fake.size > 0) {
            *size = *size < fake.size ? *size : fake.size;
            memcpy(value, fake.value, *size);
            return 0;
        }
    }
    return real(fd, level, name, value, size);
}

int
setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    int (*real)(int, int, int, const void *, socklen_t);
    *(void **)&real = dlsym(RTLD_NEXT, "setsockopt");
    if (level == fake.level && name == fake.name) {
        if (fake.set_error != 0) {
            errno = fake.set_error;
            return -1;
        }
        if (fake.size > 0) {
            fake.size = size;
            memcpy(fake.value, value, size);
            return 0;
        }
    }
    return real(fd, level, name, value, size);
}
