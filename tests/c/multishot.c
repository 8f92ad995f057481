/* One multishot recvmsg of io_uring on an inherited socket, by the system calls alone.

   multishot FD NAME_SIZE CONTROL_SIZE BUFFER_SIZE COUNT

   Receives COUNT messages with one request whose msg_namelen and msg_controllen are NAME_SIZE and
   CONTROL_SIZE, each into a provided buffer of BUFFER_SIZE bytes, which are 0xaa before.  Prints a
   line for each: `res` of its completion, and the whole buffer in hex.  Then waits for the end of
   its input, so that the descriptors that came can be looked at.

   Where the kernel has it not, it prints "refused: " with the call and its errno instead. Exit
   status 1 for anything else, with a line on stderr. */

#define _GNU_SOURCE

#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef IORING_RECV_MULTISHOT   /* linux/io_uring.h before 6.0 */
#  define IORING_RECV_MULTISHOT (1U << 1)
#endif

#define ENTRIES 64
#define SECONDS 20
#define GROUP 7

static unsigned char *sq_ring, *cq_ring;
static struct io_uring_sqe *sqes;
static struct io_uring_params params;
static int ring;

static void
refused(const char *call, int number)
{
    printf("refused: %s: errno %d, %s\n", call, number, strerror(number));
    exit(0);
}

static void
fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static uint32_t *
in_ring(unsigned char *from, uint32_t offset)
{
    return (uint32_t *)(void *)(from + offset);
}

static void *
map(size_t size, off_t what)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, what);
    if (memory == MAP_FAILED) {
        fail("mmap");
    }
    return memory;
}

static void
open_ring(void)
{
    ring = (int)syscall(__NR_io_uring_setup, ENTRIES, &params);
    if (ring < 0) {
        refused("io_uring_setup", errno);
    }
    sq_ring = map(params.sq_off.array + params.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
    cq_ring = map(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
                  IORING_OFF_CQ_RING);
    sqes = map(params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
}

static void
submit(const struct io_uring_sqe *sqe)
{
    uint32_t *tail = in_ring(sq_ring, params.sq_off.tail);
    uint32_t index = *tail & *in_ring(sq_ring, params.sq_off.ring_mask);
    sqes[index] = *sqe;
    in_ring(sq_ring, params.sq_off.array)[index] = index;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(__NR_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1) {
        fail("io_uring_enter");
    }
}

/* `res` and `flags` of the next completion; waits for it. */
static int
complete(uint32_t *flags)
{
    uint32_t *head = in_ring(cq_ring, params.cq_off.head);
    while (__atomic_load_n(in_ring(cq_ring, params.cq_off.tail), __ATOMIC_ACQUIRE) == *head) {
        if (syscall(__NR_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0
            && errno != EINTR) {
            fail("io_uring_enter");
        }
    }
    const struct io_uring_cqe *all = (const void *)(cq_ring + params.cq_off.cqes);
    const struct io_uring_cqe *cqe = &all[*head & *in_ring(cq_ring, params.cq_off.ring_mask)];
    int res = cqe->res;
    *flags = cqe->flags;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return res;
}

static unsigned char *
provide(uint32_t size, uint32_t count)
{
    unsigned char *buffers = malloc((size_t)size * count);
    if (buffers == NULL) {
        fail("malloc");
    }
    memset(buffers, 0xaa, (size_t)size * count);
    submit(&(struct io_uring_sqe){
        .opcode = IORING_OP_PROVIDE_BUFFERS,
        .fd = (int)count,
        .addr = (uint64_t)(uintptr_t)buffers,
        .len = size,
        .buf_group = GROUP,
    });
    uint32_t flags;
    int res = complete(&flags);
    if (res < 0) {
        refused("IORING_OP_PROVIDE_BUFFERS", -res);
    }
    return buffers;
}

int
main(int argc, char **argv)
{
    if (argc != 6) {
        errno = EINVAL;
        fail("arguments");
    }
    uint32_t size = (uint32_t)atoi(argv[4]);
    uint32_t count = (uint32_t)atoi(argv[5]);
    struct msghdr msg = {
        .msg_namelen = (socklen_t)atoi(argv[2]),
        .msg_controllen = (size_t)atoi(argv[3]),
    };
    char byte;

    alarm(SECONDS);
    open_ring();
    const unsigned char *buffers = provide(size, count);
    submit(&(struct io_uring_sqe){
        .opcode = IORING_OP_RECVMSG,
        .fd = atoi(argv[1]),
        .addr = (uint64_t)(uintptr_t)&msg,
        .len = 1,
        .ioprio = IORING_RECV_MULTISHOT,
        .msg_flags = MSG_CMSG_CLOEXEC,
        .flags = IOSQE_BUFFER_SELECT,
        .buf_group = GROUP,
    });
    for (uint32_t i = 0; i < count; i++) {
        uint32_t flags;
        int res = complete(&flags);
        if (res == -EINVAL) {
            /* Before 6.0. */
            refused("IORING_OP_RECVMSG with IORING_RECV_MULTISHOT", EINVAL);
        }
        if (res < 0 || !(flags & IORING_CQE_F_BUFFER)) {
            errno = res < 0 ? -res : 0;
            fail("completion");
        }
        printf("%d ", res);
        const unsigned char *buffer = buffers + (flags >> IORING_CQE_BUFFER_SHIFT) * size;
        for (uint32_t at = 0; at < size; at++) {
            printf("%02x", buffer[at]);
        }
        putchar('\n');
    }
    fflush(stdout);
    return read(STDIN_FILENO, &byte, 1) == 0 ? 0 : 1;
}
