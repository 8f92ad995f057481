/* What a PreparedSend is: an outgoing message on the heap, which owns all that it needs to be tried
   again.  prepared_send.h has the type. */

#ifndef CMSGX_PREPARED_H
#define CMSGX_PREPARED_H

#include "calls/outgoing.h"

typedef struct {
    PyObject_VAR_HEAD           /* its size: bytes of `arrays` */
    cmsgx_busy busy;
    PyObject *sock;             /* owned */
    cmsgx_outgoing out;         /* owned; `msg` is what is left of it */
    int *duplicates;            /* owned: of plain numbers, as many as out.fds; -1 for none */
    size_t size;                /* bytes in total */
    size_t sent;
    int flags;
    char is_empty;              /* all of `out` was let go */
    cmsgx_flag is_done;
    cmsgx_flag is_closed;
    /* The arrays of `out` that were on the stack, and `duplicates`. */
    unsigned char arrays[] __attribute__((aligned(8)));
} cmsgx_prepared;

/* Other threads may ask at any time. */
static inline size_t
cmsgx_prepared_sent(const cmsgx_prepared *self)
{
    return __atomic_load_n(&self->sent, __ATOMIC_RELAXED);
}

/* Whether it was neither done nor closed. */
static inline int
cmsgx_prepared_is_left(const cmsgx_prepared *self)
{
    return !cmsgx_flag_get(&self->is_done) && !cmsgx_flag_get(&self->is_closed);
}

/* A new one that has all of `out`, which has nothing left; `data` is the argument.  NULL with an
   exception, and then `out` is as before. */
cmsgx_prepared *cmsgx_prepared_new(cmsgx_outgoing *out, const cmsgx_sock *sock, PyObject *data,
                                   int flags);

/* These are to be called while it is marked as in use, or by the garbage collector, as they run the
   code of others. */

/* Lets go of all that it sends. */
void cmsgx_prepared_let_go(cmsgx_prepared *self);

/* After a call that took `sent` bytes. */
void cmsgx_prepared_count(cmsgx_prepared *self, size_t sent);

/* One call, which waits as `sock` allows: as cmsgx_outgoing_send(). */
ssize_t cmsgx_prepared_send(cmsgx_prepared *self, cmsgx_sock *sock, int flags, int *error);

/* After a try that took nothing: `error` is EAGAIN, without an exception, or there is one.  Makes
   the duplicates of plain numbers.  0, or -1 if there is an exception now. */
int cmsgx_prepared_keep_numbers(cmsgx_prepared *self, int error);

#endif
