/* Control buffers in plain C: sizes, walking, descriptors.  No Python.h, so that this
   file can be fuzzed and sanitized without an interpreter.  cmsg(3), RFC 3542 section 20. */

#ifndef CMSGX_WALK_H
#define CMSGX_WALK_H

#include <stddef.h>
#include <sys/socket.h>

/* scm.h: SCM_MAX_FD, for all SCM_RIGHTS of one message together. */
#define CMSGX_MAX_FDS 253

/* One control message as it lies in a buffer.  `data` is borrowed from the buffer and has
   whatever alignment the buffer gives it: copy out of it, never cast it. */
typedef struct {
    int level;
    int type;
    const unsigned char *data;
    size_t size;            /* bytes of data that are there */
    size_t offset;          /* of the header, from the start of the buffer */
} cmsgx_header;

typedef enum {
    CMSGX_END,
    CMSGX_MESSAGE,
    CMSGX_CUT,              /* its length reaches beyond the end; `size` is what is there */
    CMSGX_BROKEN,           /* its length is below a header's; `size` is what follows */
} cmsgx_step;

/* Reads the control message at *offset of the `used` bytes at `control`, and moves *offset to
   where the next one begins.  `used` is what the kernel returned, bounded by the capacity.
   Never reads outside of the buffer, and always ends: each step moves by a header or more.
   The last message may lack its padding, and may be a bare header.  After CMSGX_CUT and
   CMSGX_BROKEN nothing more can be told, and the next step is CMSGX_END. */
cmsgx_step cmsgx_walk(const void *control, size_t used, size_t *offset, cmsgx_header *header);

/* What arrived in a control buffer that is a descriptor of this process. */
typedef struct {
    size_t rights;          /* descriptors of SCM_RIGHTS, first in the array */
    size_t pidfds;          /* behind them: payloads of SCM_PIDFD (may be negative errnos) */
    int malformed;          /* a length field lied: the walk ended there */
} cmsgx_found;

/* Writes each descriptor number that the control buffer carries to `fds`, which has room for
   `used / sizeof(int)` of them.  Of a malformed SCM_RIGHTS everything that can be a descriptor
   is taken: what is open, up to the first that is not, and never one of the standard streams,
   which zeros and other control messages after it could be mistaken for. */
cmsgx_found cmsgx_gather(const void *control, size_t used, int *fds);

/* Closes each descriptor that the control buffer carries, by the same rules, without memory. */
void cmsgx_close_received(const void *control, size_t used);

/* The same for the one message that a step found. */
void cmsgx_close_message(const cmsgx_header *header, cmsgx_step step);

/* Cuts a buffer that had more room than was asked for down to `room` bytes, as Linux would have
   filled those: of SCM_RIGHTS what fits stays, with a length that says so, and each descriptor
   behind it is closed.  Returns the bytes in use then; *cut is whether anything but padding was
   taken off. */
size_t cmsgx_shorten(void *control, size_t used, size_t room, int *cut);

/* Writes header and data at `control` (which has CMSG_SPACE(size) bytes), padding zeroed; with
   NULL for the data, which the caller then writes behind the header, at CMSG_LEN(0).  Returns
   the bytes used, padding included. */
size_t cmsgx_put(void *control, int level, int type, const void *data, size_t size);

/* Closes each non-negative number, contiguous runs by one close_range(2) where there is one.
   Keeps errno, is never retried: on Linux the descriptor is gone after EINTR.  close(2) */
void cmsgx_close_all(const int *fds, size_t count);

#endif
