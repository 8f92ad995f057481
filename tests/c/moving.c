/* LD_PRELOAD library under which realloc() moves what it shortens, and overwrites what was there.

   gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o moving.so moving.c -ldl

   C allows it; glibc does not do it to long blocks.  Only calls across libraries are seen. */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static size_t moved;

__attribute__((visibility("default"))) size_t
moving_count(void)
{
    return moved;
}

__attribute__((visibility("default"))) void *
realloc(void *old, size_t size)
{
    void *(*real)(void *, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "realloc");
    size_t had = old == NULL ? 0 : malloc_usable_size(old);
    void *new = size == 0 || size >= had ? NULL : malloc(size);
    if (new == NULL) {
        return real(old, size);
    }
    memcpy(new, old, size);
    memset(old, 0xdd, had);
    free(old);
    moved++;
    return new;
}
