/* What a preloaded library needs that stands in for functions of the C library. */

#ifndef CMSGX_TESTS_PRELOAD_H
#define CMSGX_TESTS_PRELOAD_H

#define _GNU_SOURCE

#include <dlfcn.h>
#include <stdint.h>
#include <sys/socket.h>

#define PUBLIC __attribute__((visibility("default")))

/* musl and glibc differ in the type of the flags of sendmmsg and recvmmsg. */
#ifdef __GLIBC__
#  define FLAGS int
#else
#  define FLAGS unsigned
#endif

static inline void *
real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static inline long
raw(long number, long a, long b, long c, long d, long e, long f)
{
    return ((long (*)(long, long, long, long, long, long, long))real("syscall"))(number, a, b, c,
                                                                                 d, e, f);
}

#endif
