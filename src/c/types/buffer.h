/* The memory that one recvmsg(2) fills: data, control data, name, descriptor numbers.

   It counts its users: the receiver that lends it, the message, each view and slice.  A
   receiver fills one again only while it is the sole user, so bytes never change under a
   reader. */

#ifndef CMSGX_BUFFER_H
#define CMSGX_BUFFER_H

#include "state.h"

#include <sys/uio.h>

/* Buffers that the caller brought (`into=`).  An object, as they may refer to what is received into
   them, and the garbage collector has to see that. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t count;
    struct iovec *iov;
    struct iovec *cut;      /* as many: where one call fills less than all.  Of the receiver, which
                               marks itself as in use */
    Py_buffer *views;       /* owned exports */
    size_t size;            /* bytes of all together */
} cmsgx_into;

/* What one message is, besides its bytes. */
typedef struct {
    char truncated;
    char eof;               /* 0, 1, or 2: cannot be told */
    char malformed;
    char is_table_full;
    int flags;              /* msg_flags, without what we added */
    size_t nbytes;
    size_t fds;             /* kept: buffer->fds[0 .. fds) */
    size_t pidfds;          /* buffer->fds[fds .. fds + pidfds): 0 or 1 */
    Py_ssize_t closed_fds;  /* -1: the kernel dropped some, uncounted */
} cmsgx_received;

typedef struct cmsgx_buffer {
    cmsgx_count users;
    cmsgx_received received;      /* of the message that fills it now */
    unsigned char *control;
    size_t control_size;    /* that was asked for; behind it is CMSGX_EXTRA_CONTROL */
    size_t control_used;    /* what the kernel wrote */
    int is_zeroed;          /* what cmsgx_msghdr_prepare() zeroes is so still: of Receivers only */
    int *fds;               /* owned by the message, or by the batch it is in: -1 once moved out */
    unsigned char *data;
    unsigned char *block;   /* owned: where that is, or NULL: behind all this */
    cmsgx_state *keeper;    /* borrowed: may keep the memory for the next one; or NULL */
    size_t capacity;        /* bytes that a call may fill, here or in `into`; of one that filled it,
                               what that was given */
    cmsgx_into *into;       /* where the data is, or NULL.  Borrowed: each object that uses the
                               buffer holds a reference, and visits it */
    /* The socket that it came from, where cmsgx_names_need_socket(); -1 where not known. */
    int name_fd;
    int name_proto;
    socklen_t name_size;
    struct sockaddr_storage name;
} cmsgx_buffer;

/* One user, the caller.  NULL with MemoryError. */
cmsgx_buffer *cmsgx_buffer_new(size_t data_size, size_t control_size, cmsgx_into *into);

/* The same for one call, with the largest room for control data, whose memory is kept. */
cmsgx_buffer *cmsgx_buffer_once(cmsgx_state *state, size_t data_size);

/* Of one that nobody uses. */
void cmsgx_buffer_free(cmsgx_buffer *buffer);

/* Gives back the memory that is kept for the next one. */
void cmsgx_buffer_free_all(cmsgx_state *state);

/* Inlined, as each view and message ends with it. */
static inline void
cmsgx_buffer_release(cmsgx_buffer *buffer)
{
    if (buffer != NULL && cmsgx_count_down(&buffer->users)) {
        cmsgx_buffer_free(buffer);
    }
}

static inline cmsgx_buffer *
cmsgx_buffer_share(cmsgx_buffer *buffer)
{
    cmsgx_count_up(&buffer->users);
    return buffer;
}

/* The first `size` bytes of all that is in it, as what one call fills, which is no more than that:
   into->cut, of which *count is used. */
struct iovec *cmsgx_into_cut(cmsgx_into *into, size_t size, size_t *count);

/* From one writable buffer or a sequence of them: a new reference, or NULL with an exception. */
cmsgx_into *cmsgx_into_new(cmsgx_state *state, PyObject *buffers);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_buffer(PyObject *module);

#endif
