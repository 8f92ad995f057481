/* Control buffers in plain C: sizes, walking, descriptors.  No Python.h, so that this
   file can be fuzzed and sanitized without an interpreter.  cmsg(3), RFC 3542 section 20. */

#ifndef CMSGX_WALK_H
#define CMSGX_WALK_H

#include <stddef.h>
#include <sys/socket.h>

/* scm.h: SCM_MAX_FD, for all SCM_RIGHTS of one message together. */
#define CMSGX_MAX_FDS 253

/* One control message in a buffer.  `data` points into the buffer and may not be aligned: copy out
   of it, never cast it. */
typedef struct {
    int level;
    int type;
    const unsigned char *data;
    size_t size;            /* bytes of data in the buffer */
    size_t offset;          /* of the header, from the start of the buffer */
} cmsgx_header;

typedef enum {
    CMSGX_END,
    CMSGX_MESSAGE,
    CMSGX_CUT,              /* cmsg_len reaches past the end; `size` is what the buffer has */
    CMSGX_BROKEN,           /* cmsg_len is less than a header; `size` is the rest of the buffer */
} cmsgx_step;

/* Reads the control message at *offset in the `used` bytes at `control`, and moves *offset to the
   next one.  `used` is what the kernel returned, at most the size of the buffer.  Never reads
   outside of the buffer, and always ends: each step moves by a header or more.  The last message
   may lack its padding, and may be a bare header.  After CMSGX_CUT and CMSGX_BROKEN the rest of
   the buffer cannot be read, and the next step is CMSGX_END. */
cmsgx_step cmsgx_walk(const void *control, size_t used, size_t *offset, cmsgx_header *header);

/* The descriptors of this process that a control buffer carries. */
typedef struct {
    size_t rights;          /* descriptors of SCM_RIGHTS, first in the array */
    size_t pidfds;          /* after them: payloads of SCM_PIDFD, which may be negative errnos */
    int malformed;          /* a wrong cmsg_len: the walk ended there */
} cmsgx_found;

/* Writes each descriptor number that the control buffer carries to `fds`, which has room for
   used / sizeof(int) of them.  From a malformed SCM_RIGHTS this takes whatever can be a descriptor:
   numbers that are open, up to the first that is not.  It never takes 0, 1 or 2: zeros, or the
   control messages that follow, could be mistaken for the standard streams. */
cmsgx_found cmsgx_gather(const void *control, size_t used, int *fds);

/* Closes each descriptor that the control buffer carries, by the same rules, without memory. */
void cmsgx_close_received(const void *control, size_t used);

/* The same for the one message that a step found. */
void cmsgx_close_message(const cmsgx_header *header, cmsgx_step step);

/* Shortens the contents of a buffer to the `control_size` bytes that were asked for, as Linux fills
   a buffer of that size: the descriptors of an SCM_RIGHTS that fit stay, with the cmsg_len for
   them, and those after them are closed.  Returns the bytes in use; *cut is whether more than
   padding was removed. */
size_t cmsgx_shorten(void *control, size_t used, size_t control_size, int *cut);

/* Writes header, data and zeroed padding at `control`, which has CMSG_SPACE(size) bytes.  Where
   `data` is NULL the caller writes the data itself, at CMSG_LEN(0).  Returns the bytes used, with
   the padding. */
size_t cmsgx_put(void *control, int level, int type, const void *data, size_t size);

/* Closes each number that is not negative; consecutive numbers by one close_range(2) where the
   system has it.  Keeps errno.  Never retried: after EINTR the descriptor is closed on Linux, see
   close(2). */
void cmsgx_close_all(const int *fds, size_t count);

#endif
