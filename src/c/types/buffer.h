/* The memory that one recvmsg(2) fills: data, control data, name, descriptor numbers.

   It counts its users: the receiver, the message, each view and slice.  A receiver fills it again
   only as the sole user, so received bytes never change.  The block of a large message can become
   the bytes of its `data`, without a copy.  It is never filled again: the receiver makes another
   one. */

#ifndef CMSGX_BUFFER_H
#define CMSGX_BUFFER_H

#include "state.h"

#include <sys/uio.h>

/* Buffers of the caller (`into=`).  This is a Python object because they may refer to the message
   that is received into them, which the garbage collector has to see. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t count;
    struct iovec *iov;
    struct iovec *cut;      /* as many, for a call that fills only some of them.  Used only by the
                               receiver, while it is marked as in use */
    Py_buffer *views;       /* owned exports */
    size_t size;            /* bytes in total */
} cmsgx_into;

/* The facts about one received message, apart from its bytes. */
typedef struct {
    char truncated;
    char eof;               /* 0, 1, or 2: unknown */
    char malformed;
    char is_table_full;
    int flags;              /* msg_flags, without the flags that we added */
    size_t nbytes;
    size_t fds;             /* kept: buffer->fds[0 .. fds) */
    size_t pidfds;          /* buffer->fds[fds .. fds + pidfds): 0 or 1 */
    Py_ssize_t closed_fds;  /* -1: the kernel dropped an unknown number */
} cmsgx_received;

typedef struct cmsgx_buffer {
    cmsgx_count users;
    cmsgx_received received;      /* of the message that fills it now */
    unsigned char *control;
    size_t control_size;    /* as requested; CMSGX_EXTRA_CONTROL more bytes follow */
    size_t control_used;    /* bytes that the kernel wrote */
    int is_zeroed;          /* the part that cmsgx_msghdr_prepare() zeroes is still zero; only for
                               Receivers */
    int *fds;               /* owned by the message or its batch; -1 once moved out */
    unsigned char *data;
    unsigned char *block;   /* owned: memory of `data`; NULL: that follows in this block */
    size_t block_size;      /* bytes of data for which it has space */
    int is_taken;           /* the block is a bytes object, and owned is a reference to it */
    cmsgx_state *keeper;    /* borrowed: may keep the memory for reuse; or NULL */
    size_t capacity;        /* bytes that a call may fill, or could have filled, here or in
                               `into` */
    cmsgx_into *into;       /* the data is there, or NULL.  Borrowed: each object that uses the
                               buffer holds a reference, and visits it */
    /* The socket that it was received from, if cmsgx_names_need_socket(); -1: unknown. */
    int name_fd;
    int name_proto;
    socklen_t name_size;
    struct sockaddr_storage name;
} cmsgx_buffer;

/* A new buffer, whose only user is the caller.  NULL with MemoryError. */
cmsgx_buffer *cmsgx_buffer_new(size_t data_size, size_t control_size, cmsgx_into *into);

/* The same for a single call, with the maximum space for control data; its memory is kept for the
   next one. */
cmsgx_buffer *cmsgx_buffer_once(cmsgx_state *state, size_t data_size);

/* For a sole user: a new block in place of one that was taken.  0, or -1 with MemoryError; it can
   then be tried again. */
int cmsgx_buffer_renew(cmsgx_buffer *buffer);

/* The first `size` bytes of the data, at most once for each message: a new reference.  Takes the
   block if it is large and at least half of it is used; otherwise copies.  `may_move` says that
   nobody has an address in the data.  NULL with MemoryError, and then nothing has changed. */
PyObject *cmsgx_buffer_bytes(cmsgx_buffer *buffer, size_t size, int may_move);

/* Frees, or keeps for reuse, a buffer without users. */
void cmsgx_buffer_free(cmsgx_buffer *buffer);

/* Frees the memory that is kept for the next one. */
void cmsgx_buffer_free_all(cmsgx_state *state);

/* Inlined: every view and message calls it. */
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

/* The first `size` bytes of the buffers, for a call that fills at most that many: the first *count
   of into->cut. */
struct iovec *cmsgx_into_cut(cmsgx_into *into, size_t size, size_t *count);

/* Made from one writable buffer or a sequence of them: a new reference, or NULL with an
   exception. */
cmsgx_into *cmsgx_into_new(cmsgx_state *state, PyObject *buffers);

/* Adds its types to the module.  0, or -1 with an exception. */
int cmsgx_add_buffer(PyObject *module);

#endif
