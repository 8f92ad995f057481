/* Fuzzes src/c/plain/walk.c, which it includes, with close() and its like stubbed.

   With libFuzzer (tools/fuzz):
       clang -I../../src/c -DLIBFUZZER -fsanitize=fuzzer,address,undefined -o fuzz_walk fuzz_walk.c
       ./fuzz_walk -runs=1000000000
   Without (tests/test_walk.py):
       cc -I../../src/c -fsanitize=address,undefined -o fuzz_walk fuzz_walk.c
       ./fuzz_walk COUNT [SEED]

   What has to hold for any bytes, at any alignment, for any length that a kernel may return: no
   byte outside of the buffer is touched, the walk ends within used / header steps, what it finds
   lies in the buffer, in order and without overlap, and sums up to no more than was used; of what
   is well formed all is found; gather and close agree; a number of a malformed message is taken
   only where it is open, and never 0, 1 or 2. */

#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Stubs ------------------------------------------------------------------------------------ */

#define MAX_CLOSED 65536

static int closed[MAX_CLOSED];
static size_t closed_count;

static void
note_closed(long number)
{
    if (closed_count < MAX_CLOSED) {
        closed[closed_count++] = (int)number;
    }
}

static int
stub_close(int fd)
{
    note_closed(fd);
    errno = fd % 3 == 0 ? EINTR : EIO;      /* not to be retried, and not to be seen */
    return -1;
}

static long
stub_syscall(long number, ...)
{
    va_list list;
    va_start(list, number);
    unsigned first = va_arg(list, unsigned), last = va_arg(list, unsigned);
    va_end(list);
    if (last < first || first > INT32_MAX || last > INT32_MAX) {
        abort();
    }
    if (first % 5 == 0) {
        errno = ENOSYS;                     /* the loop behind takes over */
        return -1;
    }
    for (unsigned fd = first; fd <= last; fd++) {
        note_closed(fd);
    }
    return 0;
}

static int
is_open(int fd)
{
    return fd >= 0 && fd % 7 != 0;
}

static int
stub_fcntl(int fd, int command, ...)
{
    (void)command;
    if (!is_open(fd)) {
        errno = EBADF;
        return -1;
    }
    return 1;
}

#define close stub_close
#define syscall stub_syscall
#define fcntl stub_fcntl
#include "../../src/c/plain/walk.c"
#undef close
#undef syscall
#undef fcntl

/* A buffer in static memory is faster than one from malloc(), and watched as well. */
#if defined(__SANITIZE_ADDRESS__)
#  define WATCHED 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define WATCHED 1
#  endif
#endif
#ifdef WATCHED
#  include <sanitizer/asan_interface.h>
#else
#  define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#  define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

/* Invariants ------------------------------------------------------------------------------- */

#define CHECK(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "line %d: %s\n", __LINE__, #condition), abort()))

#define MAX_SIZE 4096

static uint64_t steps_seen[4];

static int
carries_fds(const cmsgx_header *header)
{
    return header->level == SOL_SOCKET
           && (header->type == SCM_RIGHTS || header->type == SCM_PIDFD);
}

/* The numbers of one message, by another way than walk.c's. */
static size_t
expected_numbers(const cmsgx_header *header, cmsgx_step step, int *out)
{
    size_t count = 0;
    for (size_t at = 0; header->size - at >= sizeof(int); at += sizeof(int)) {
        int number;
        memcpy(&number, header->data + at, sizeof(number));
        if (step != CMSGX_MESSAGE && (number < 3 || !is_open(number))) {
            break;
        }
        out[count++] = number;
    }
    return count;
}

static int
compare(const void *a, const void *b)
{
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

static void
check_control(const unsigned char *control, size_t used)
{
    static int expected[MAX_SIZE], pidfds[MAX_SIZE], all[2 * MAX_SIZE];
    cmsgx_header header;
    cmsgx_step step, last = CMSGX_MESSAGE;
    size_t offset = 0, count = 0, sum = 0, end = 0;
    size_t rights = 0, pidfd_count = 0;

    while ((step = cmsgx_walk(control, used, &offset, &header)) != CMSGX_END) {
        steps_seen[step]++;
        CHECK(last == CMSGX_MESSAGE);               /* nothing behind what is malformed */
        CHECK(++count <= used / CMSG_LEN(0));
        CHECK(header.offset >= end);
        CHECK(header.offset + CMSG_LEN(0) + header.size <= used);
        CHECK(header.data == control + header.offset + CMSG_LEN(0));
        CHECK(offset >= header.offset + CMSG_LEN(0) + header.size);
        CHECK(offset % (CMSG_SPACE(1) - CMSG_SPACE(0)) == 0 || offset >= used);
        if (step == CMSGX_MESSAGE) {
            size_t length = 0;
            memcpy(&length, control + header.offset, sizeof(((struct cmsghdr *)0)->cmsg_len));
            CHECK(length == CMSG_LEN(header.size));
        }
        else {
            CHECK(header.offset + CMSG_LEN(0) + header.size == used);
        }
        for (size_t i = 0; i < header.size; i++) {   /* each byte can be read */
            sum += header.data[i] & 1;
        }
        if (carries_fds(&header)) {
            if (header.type == SCM_RIGHTS) {
                rights += expected_numbers(&header, step, expected + rights);
            }
            else {
                pidfd_count += expected_numbers(&header, step, pidfds + pidfd_count);
            }
        }
        end = offset;
        last = step;
    }
    CHECK(sum <= used);
    CHECK(cmsgx_walk(control, used, &offset, &header) == CMSGX_END);

    /* Room for `used / sizeof(int)` numbers, as the callers have: ASan watches the end. */
    static int fds[MAX_SIZE / sizeof(int) + 8];
    ASAN_POISON_MEMORY_REGION(fds + used / sizeof(int), 32);
    cmsgx_found found = cmsgx_gather(control, used, fds);
    ASAN_UNPOISON_MEMORY_REGION(fds + used / sizeof(int), 32);
    CHECK(found.malformed == (last != CMSGX_MESSAGE));
    CHECK(found.rights == rights && found.pidfds == pidfd_count);
    CHECK(rights + pidfd_count <= used / sizeof(int));
    CHECK(memcmp(fds, expected, rights * sizeof(int)) == 0);
    CHECK(memcmp(fds + rights, pidfds, pidfd_count * sizeof(int)) == 0);

    /* Each that is not negative is closed once, and errno is kept. */
    size_t open = 0;
    for (size_t i = 0; i < rights + pidfd_count; i++) {
        int number = i < rights ? expected[i] : pidfds[i - rights];
        if (number >= 0) {
            all[open++] = number;
        }
    }
    closed_count = 0;
    errno = EDOM;
    cmsgx_close_received(control, used);
    CHECK(errno == EDOM || open == 0 || last != CMSGX_MESSAGE);
    CHECK(closed_count == open);
    qsort(all, open, sizeof(int), compare);
    qsort(closed, closed_count, sizeof(int), compare);
    CHECK(memcmp(all, closed, open * sizeof(int)) == 0);

    memcpy(all, expected, rights * sizeof(int));
    closed_count = 0;
    errno = EDOM;
    cmsgx_close_all(all, rights);
    CHECK(errno == EDOM);
    size_t at = 0;
    for (size_t i = 0; i < rights; i++) {
        if (all[i] >= 0) {
            CHECK(at < closed_count && closed[at++] == all[i]);
        }
    }
    CHECK(at == closed_count);
}

/* What was put is what a walk finds, and no byte more is written. */
static void
check_put(const unsigned char *data, size_t size)
{
    unsigned char memory[CMSG_SPACE(256) + 32], at = 0;
    size_t shift = size > 0 ? data[0] % 16 : 0;
    size_t payload = size > 0 ? size - 1 : 0;
    payload = payload < 256 ? payload : 256;
    const unsigned char *bytes = payload > 0 ? data + 1 : NULL;

    memset(memory, 0xAA, sizeof(memory));
    size_t space = cmsgx_put(memory + shift, 7, -9, bytes, payload);
    CHECK(space == CMSG_SPACE(payload));
    for (at = 0; at < shift; at++) {
        CHECK(memory[at] == 0xAA);
    }
    for (size_t i = shift + space; i < sizeof(memory); i++) {
        CHECK(memory[i] == 0xAA);
    }
    for (size_t i = CMSG_LEN(payload); i < space; i++) {
        CHECK(memory[shift + i] == 0);
    }
    cmsgx_header header;
    size_t offset = 0;
    CHECK(cmsgx_walk(memory + shift, space, &offset, &header) == CMSGX_MESSAGE);
    CHECK(header.level == 7 && header.type == -9 && header.size == payload);
    CHECK(payload == 0 || memcmp(header.data, bytes, payload) == 0);
    CHECK(offset == space);
    offset = 0;
    CHECK(cmsgx_walk(memory + shift, CMSG_LEN(payload), &offset, &header) == CMSGX_MESSAGE);
    CHECK(header.size == payload);
}

/* One input: the first byte is the misalignment, the rest the control buffer. */
static void
check(const uint8_t *data, size_t size)
{
    if (size == 0 || size > MAX_SIZE) {
        return;
    }
    static _Alignas(16) unsigned char memory[16 + MAX_SIZE + 128];
    size_t shift = data[0] % 16, used = size - 1;
    unsigned char *control = memory + 32 + shift;
    memcpy(control, data + 1, used);
    ASAN_POISON_MEMORY_REGION(memory, 32);
    ASAN_POISON_MEMORY_REGION(control + used, 64);
    check_control(control, used);
    ASAN_UNPOISON_MEMORY_REGION(control + used, 64);
    ASAN_UNPOISON_MEMORY_REGION(memory, 32);
    check_put(data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(data, size);
    return 0;
}

/* Random input --------------------------------------------------------------------------- */

static uint64_t state;

static uint32_t
below(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % limit;
}

static size_t
put_random(unsigned char *to, size_t capacity)
{
    static const int types[] = {SCM_RIGHTS, SCM_RIGHTS, SCM_PIDFD, SCM_CREDENTIALS, 29, 99};
    unsigned char payload[128];
    size_t size = below(4) == 0 ? below(sizeof(payload)) : 4 * below(sizeof(payload) / 4);
    if (CMSG_SPACE(size) > capacity) {
        return 0;
    }
    for (size_t i = 0; i + sizeof(int) <= size; i += sizeof(int)) {
        int number = below(8) == 0 ? (int)below(UINT32_MAX) : (int)below(40) - 2;
        if (i >= sizeof(int) && below(2) == 0) {
            memcpy(&number, payload + i - sizeof(int), sizeof(number));
            number = number < INT32_MAX ? number + 1 : number;
        }
        memcpy(payload + i, &number, sizeof(number));
    }
    return cmsgx_put(to, below(8) ? SOL_SOCKET : (int)below(300), types[below(6)], payload, size);
}

static size_t
random_length(size_t used)
{
    switch (below(8)) {
    case 0: return below(CMSG_LEN(0) + 1);
    case 1: return SIZE_MAX - below(64);
    case 2: return (size_t)INT32_MAX - below(64);
    case 3: return (size_t)1 << below(8 * sizeof(size_t));
    case 4: return used - below(24);
    default: return below((uint32_t)used + 64);
    }
}

static size_t
random_input(unsigned char *data, size_t capacity)
{
    size_t used = 1;
    data[0] = (unsigned char)below(256);
    if (below(8) == 0) {
        used += below(300);
        for (size_t i = 1; i < used; i++) {
            data[i] = (unsigned char)below(256);
        }
        return used;
    }
    for (uint32_t n = below(7); n > 0; n--) {
        used += put_random(data + used, capacity - used);
    }
    if (used > CMSG_LEN(0) && below(2) == 0) {      /* a length lies */
        size_t at = 1 + below((uint32_t)(used - CMSG_LEN(0))) / 8 * 8;
        size_t length = random_length(used);
        memcpy(data + at, &length, sizeof(length));
    }
    if (used > 1 && below(4) == 0) {                /* some byte does */
        data[1 + below((uint32_t)used - 1)] = (unsigned char)below(256);
    }
    if (below(4) == 0) {                            /* cut short, or not shortened */
        size_t other = below((uint32_t)used + 40);
        if (other > used) {
            memset(data + used, 0, other - used);
        }
        used = other > 0 ? other : 1;
    }
    return used;
}

#ifndef LIBFUZZER
int
main(int count, char **arguments)
{
    unsigned char data[MAX_SIZE];
    uint64_t runs = count > 1 ? strtoull(arguments[1], NULL, 0) : 1000000;
    state = (count > 2 ? strtoull(arguments[2], NULL, 0) : 1) * UINT64_C(0x9E3779B97F4A7C15) | 1;
    for (uint64_t i = 0; i < runs; i++) {
        check(data, random_input(data, sizeof(data) - 64));
    }
    printf("%llu inputs; messages %llu, cut %llu, broken %llu\n", (unsigned long long)runs,
           (unsigned long long)steps_seen[CMSGX_MESSAGE],
           (unsigned long long)steps_seen[CMSGX_CUT],
           (unsigned long long)steps_seen[CMSGX_BROKEN]);
    return 0;
}
#else
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* Now and then a new structured input. */
size_t
LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    state = (seed * UINT64_C(0x9E3779B97F4A7C15)) | 1;
    if (seed % 4 == 0 && max_size >= MAX_SIZE / 2) {
        return random_input(data, max_size - 64);
    }
    return LLVMFuzzerMutate(data, size, max_size);
}
#endif
