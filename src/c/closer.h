/* The background closer: one thread that closes descriptors of peers that are not trusted, as
   the peer chose what they are and close(2) can block on them.  Plain C, no Python.h. */

#ifndef CMSGX_CLOSER_H
#define CMSGX_CLOSER_H

#include <stddef.h>
#include <stdint.h>

typedef struct cmsgx_closer cmsgx_closer;

/* NULL where there is no memory. */
cmsgx_closer *cmsgx_closer_new(void);

/* To be called without the GIL, as before_fork() keeps the lock while Python code runs.
   Hands descriptors over, all or none: 1 when it owns them now; 0 where the queue is full or no
   thread can be had, and then the caller closes them. */
int cmsgx_closer_submit(cmsgx_closer *closer, const int *fds, size_t count);

/* Waits until everything handed over is closed, `nanoseconds` at most.  The descriptors that
   are still to be closed. */
size_t cmsgx_closer_wait(cmsgx_closer *closer, int64_t nanoseconds);

/* Around fork(2), with the GIL: the child gets a thread of its own, which closes the child's
   copies. */
void cmsgx_closer_before_fork(cmsgx_closer *closer);
void cmsgx_closer_after_fork(cmsgx_closer *closer, int in_child);

/* Ends the thread once its queue is empty; does not wait for it. */
void cmsgx_closer_release(cmsgx_closer *closer);

#endif
