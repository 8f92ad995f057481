/* LD_PRELOAD library that counts calls of the allocator and of the libc's system call functions.

   gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o count.so count.c -ldl
   LD_PRELOAD=./count.so python ...

       counts = ctypes.PyDLL(None)              # not CDLL, which gives up the GIL
       counts.count_read.restype = ctypes.c_long
       counts.count_reset(); counts.count_arm(); work(); counts.count_disarm()
       counts.count_read(b"sendmsg")            # -1: no such counter

   It counts while it is armed, in all threads.  What arming and disarming allocate themselves
   (ctypes) cancels out between a run of n rounds and one of 2n.  Python's small objects come from
   its own pool; PYTHONMALLOC=malloc makes each a malloc that is seen here.  "syscall" counts
   syscall(2), but where its number is that of a call counted here by name it is that one;
   "syscall:close_range" is counted as both.  "closed" counts the calls of close and close_range by
   whichever way.  Only calls across libraries are seen: not those that the C library makes within
   itself. */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

#define COUNTERS(DO) \
    DO(malloc) DO(calloc) DO(realloc) DO(free) \
    DO(sendmsg) DO(recvmsg) DO(sendmmsg) DO(recvmmsg) DO(send) DO(recv) DO(sendto) DO(recvfrom) \
    DO(poll) DO(ppoll) DO(getsockopt) DO(setsockopt) DO(fcntl) DO(ioctl) DO(close) \
    DO(close_range) DO(syscall)

enum {
#define ID(name) ID_##name,
    COUNTERS(ID)
#undef ID
    ID_syscall_close_range,
    ID_closed,
    COUNT
};

static const char *const names[COUNT] = {
#define NAME(name) #name,
    COUNTERS(NAME)
#undef NAME
    "syscall:close_range",
    "closed",
};

static atomic_int armed;
static atomic_long counts[COUNT];

/* Inside musl's calloc() and realloc(), which call malloc() and free() by these names. */
static __thread int nested __attribute__((tls_model("initial-exec")));

static void
count(int id)
{
    if (!nested && atomic_load_explicit(&armed, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&counts[id], 1, memory_order_relaxed);
    }
}

PUBLIC void
count_arm(void)
{
    atomic_store(&armed, 1);
}

PUBLIC void
count_disarm(void)
{
    atomic_store(&armed, 0);
}

PUBLIC void
count_reset(void)
{
    for (int i = 0; i < COUNT; i++) {
        atomic_store(&counts[i], 0);
    }
}

PUBLIC long
count_read(const char *name)
{
    for (int i = 0; i < COUNT; i++) {
        if (strcmp(names[i], name) == 0) {
            return atomic_load(&counts[i]);
        }
    }
    return -1;
}

/* The name of the counter at `index`, or NULL behind the last. */
PUBLIC const char *
count_name(int index)
{
    return index >= 0 && index < COUNT ? names[index] : NULL;
}

/* The function that is behind ours, found on first use: each is idempotent to find. */
static void *
next(_Atomic(void *) *slot, const char *name)
{
    void *function = atomic_load_explicit(slot, memory_order_relaxed);
    if (function == NULL) {
        function = dlsym(RTLD_NEXT, name);
        atomic_store_explicit(slot, function, memory_order_relaxed);
    }
    return function;
}

/* A function pointer from dlsym without the cast that ISO C forbids. */
#define NEXT(result, name, ...) \
    static _Atomic(void *) slot_##name; \
    result (*real)(__VA_ARGS__); \
    *(void **)(void *)&real = next(&slot_##name, #name)

/* The allocator -------------------------------------------------------------------------------

   dlsym() itself allocates while ours are being found: that comes from a small arena, which is
   never freed. */

static _Alignas(16) unsigned char arena[1 << 14];
static atomic_size_t arena_used;
static __thread int finding __attribute__((tls_model("initial-exec")));

static void *
from_arena(size_t size)
{
    size_t space = (size + 31) & ~(size_t)15;
    size_t at = atomic_fetch_add(&arena_used, space);
    if (size > sizeof(arena) || at > sizeof(arena) - space) {
        return NULL;
    }
    memcpy(arena + at, &size, sizeof(size));
    return arena + at + 16;
}

static int
is_from_arena(const void *memory)
{
    return (uintptr_t)memory - (uintptr_t)arena < sizeof(arena);
}

#define NEXT_ALLOCATOR(result, name, ...) \
    static _Atomic(void *) slot_##name; \
    result (*real)(__VA_ARGS__); \
    finding++; \
    *(void **)(void *)&real = next(&slot_##name, #name); \
    finding--

PUBLIC void *
malloc(size_t size)
{
    if (finding) {
        return from_arena(size);
    }
    NEXT_ALLOCATOR(void *, malloc, size_t);
    count(ID_malloc);
    return real(size);
}

PUBLIC void *
calloc(size_t items, size_t size)
{
    if (finding) {
        return from_arena(items * size); /* static memory: zero */
    }
    NEXT_ALLOCATOR(void *, calloc, size_t, size_t);
    count(ID_calloc);
    nested++;
    void *memory = real(items, size);
    nested--;
    return memory;
}

PUBLIC void
free(void *memory)
{
    if (memory == NULL || is_from_arena(memory)) {
        return;
    }
    NEXT_ALLOCATOR(void, free, void *);
    count(ID_free);
    real(memory);
}

PUBLIC void *
realloc(void *memory, size_t size)
{
    if (finding || is_from_arena(memory)) {
        void *larger = finding ? from_arena(size) : malloc(size);
        if (larger != NULL && memory != NULL) {
            size_t before;
            memcpy(&before, (unsigned char *)memory - 16, sizeof(before));
            memcpy(larger, memory, before < size ? before : size);
        }
        return larger;
    }
    NEXT_ALLOCATOR(void *, realloc, void *, size_t);
    count(ID_realloc);
    nested++;
    void *larger = real(memory, size);
    nested--;
    return larger;
}

/* Messages ------------------------------------------------------------------------------------ */

PUBLIC ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
    NEXT(ssize_t, sendmsg, int, const struct msghdr *, int);
    count(ID_sendmsg);
    return real(fd, msg, flags);
}

PUBLIC ssize_t
recvmsg(int fd, struct msghdr *msg, int flags)
{
    NEXT(ssize_t, recvmsg, int, struct msghdr *, int);
    count(ID_recvmsg);
    return real(fd, msg, flags);
}

/* musl and glibc differ in the type of the last argument of recvmmsg and of the flags. */
#ifdef __GLIBC__
#  define FLAGS int
#else
#  define FLAGS unsigned
#endif

PUBLIC int
sendmmsg(int fd, struct mmsghdr *messages, unsigned length, FLAGS flags)
{
    NEXT(int, sendmmsg, int, struct mmsghdr *, unsigned, FLAGS);
    count(ID_sendmmsg);
    return real(fd, messages, length, flags);
}

PUBLIC int
recvmmsg(int fd, struct mmsghdr *messages, unsigned length, FLAGS flags, struct timespec *timeout)
{
    NEXT(int, recvmmsg, int, struct mmsghdr *, unsigned, FLAGS, struct timespec *);
    count(ID_recvmmsg);
    return real(fd, messages, length, flags, timeout);
}

PUBLIC ssize_t
send(int fd, const void *data, size_t size, int flags)
{
    NEXT(ssize_t, send, int, const void *, size_t, int);
    count(ID_send);
    return real(fd, data, size, flags);
}

PUBLIC ssize_t
recv(int fd, void *data, size_t size, int flags)
{
    NEXT(ssize_t, recv, int, void *, size_t, int);
    count(ID_recv);
    return real(fd, data, size, flags);
}

PUBLIC ssize_t
sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to,
       socklen_t to_size)
{
    NEXT(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    count(ID_sendto);
    return real(fd, data, size, flags, to, to_size);
}

PUBLIC ssize_t
recvfrom(int fd, void *restrict data, size_t size, int flags, struct sockaddr *restrict from,
         socklen_t *restrict from_size)
{
    NEXT(ssize_t, recvfrom, int, void *, size_t, int, struct sockaddr *, socklen_t *);
    count(ID_recvfrom);
    return real(fd, data, size, flags, from, from_size);
}

/* Waiting and options ------------------------------------------------------------------------- */

PUBLIC int
poll(struct pollfd *fds, nfds_t length, int timeout)
{
    NEXT(int, poll, struct pollfd *, nfds_t, int);
    count(ID_poll);
    return real(fds, length, timeout);
}

PUBLIC int
ppoll(struct pollfd *fds, nfds_t length, const struct timespec *timeout, const sigset_t *mask)
{
    NEXT(int, ppoll, struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
    count(ID_ppoll);
    return real(fds, length, timeout, mask);
}

PUBLIC int
getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict size)
{
    NEXT(int, getsockopt, int, int, int, void *, socklen_t *);
    count(ID_getsockopt);
    return real(fd, level, name, value, size);
}

PUBLIC int
setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    NEXT(int, setsockopt, int, int, int, const void *, socklen_t);
    count(ID_setsockopt);
    return real(fd, level, name, value, size);
}

/* Variadic ones: one word more is read than may have been passed, as the C libraries do. */

PUBLIC int
fcntl(int fd, int command, ...)
{
    NEXT(int, fcntl, int, int, ...);
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    count(ID_fcntl);
    return real(fd, command, argument);
}

#ifdef __GLIBC__
PUBLIC int
fcntl64(int fd, int command, ...)
{
    NEXT(int, fcntl64, int, int, ...);
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    count(ID_fcntl);
    return real(fd, command, argument);
}

/* What _FORTIFY_SOURCE makes of the calls. */

PUBLIC int
__poll_chk(struct pollfd *fds, nfds_t length, int timeout, size_t capacity)
{
    NEXT(int, __poll_chk, struct pollfd *, nfds_t, int, size_t);
    count(ID_poll);
    return real(fds, length, timeout, capacity);
}

PUBLIC int
__ppoll_chk(struct pollfd *fds, nfds_t length, const struct timespec *timeout,
            const sigset_t *mask, size_t capacity)
{
    NEXT(int, __ppoll_chk, struct pollfd *, nfds_t, const struct timespec *, const sigset_t *,
         size_t);
    count(ID_ppoll);
    return real(fds, length, timeout, mask, capacity);
}

PUBLIC ssize_t
__recv_chk(int fd, void *data, size_t size, size_t capacity, int flags)
{
    NEXT(ssize_t, __recv_chk, int, void *, size_t, size_t, int);
    count(ID_recv);
    return real(fd, data, size, capacity, flags);
}

PUBLIC ssize_t
__recvfrom_chk(int fd, void *restrict data, size_t size, size_t capacity, int flags,
               struct sockaddr *restrict from, socklen_t *restrict from_size)
{
    NEXT(ssize_t, __recvfrom_chk, int, void *, size_t, size_t, int, struct sockaddr *,
         socklen_t *);
    count(ID_recvfrom);
    return real(fd, data, size, capacity, flags, from, from_size);
}
#endif

#ifdef __GLIBC__
#  define REQUEST unsigned long
#else
#  define REQUEST int
#endif

PUBLIC int
ioctl(int fd, REQUEST request, ...)
{
    NEXT(int, ioctl, int, REQUEST, ...);
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    count(ID_ioctl);
    return real(fd, request, argument);
}

/* Closing ------------------------------------------------------------------------------------- */

PUBLIC int
close(int fd)
{
    NEXT(int, close, int);
    count(ID_close);
    count(ID_closed);
    return real(fd);
}

#ifdef SYS_close_range
PUBLIC int
close_range(unsigned first, unsigned last, int flags)
{
    count(ID_close_range);
    count(ID_closed);
    /* Not through the library behind, which may have none. */
    long (*real)(long, ...);
    static _Atomic(void *) slot;
    *(void **)(void *)&real = next(&slot, "syscall");
    return (int)real(SYS_close_range, (long)first, (long)last, (long)flags);
}
#endif

PUBLIC long
syscall(long number, ...)
{
    NEXT(long, syscall, long, ...);
    long arguments[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) {
        arguments[i] = va_arg(list, long);
    }
    va_end(list);
    switch (number) {
    case SYS_sendmsg: count(ID_sendmsg); break;
    case SYS_recvmsg: count(ID_recvmsg); break;
    case SYS_sendmmsg: count(ID_sendmmsg); break;
    case SYS_recvmmsg: count(ID_recvmmsg); break;
#ifdef SYS_recvmmsg_time64
    case SYS_recvmmsg_time64: count(ID_recvmmsg); break;
#endif
#ifdef SYS_close_range
    case SYS_close_range:
        count(ID_syscall_close_range);
        count(ID_closed);
        count(ID_syscall);
        break;
#endif
    default: count(ID_syscall);
    }
    return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                arguments[5]);
}
