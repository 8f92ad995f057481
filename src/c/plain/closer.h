/* The background closer: threads that close descriptors received from untrusted peers.  The peer
   chose the files, and close(2) can block on them.  Plain C, no Python.h.

   The lock is held for a few instructions at a time, never across a close(2), and nothing that
   needs the GIL happens under it: so it may be taken with the GIL or without. */

#ifndef CMSGX_CLOSER_H
#define CMSGX_CLOSER_H

#include "plain/closer_row.h"

#include <stddef.h>
#include <stdint.h>

/* A new closer, or NULL if there is no memory. */
cmsgx_closer *cmsgx_closer_new(void);

/* The module no longer needs it.  Queued descriptors are still closed, but this does not wait. */
void cmsgx_closer_release(cmsgx_closer *closer);

/* Hands over descriptors for which places were reserved: cannot fail, does not wait, and closes
   nothing on this thread. */
void cmsgx_row_submit(cmsgx_row *row, const int *fds, size_t count);

/* Waits at most `nanoseconds` until the row is not over its limit, and returns 0 then; otherwise
   returns how many descriptors were still waiting when the time was up. */
size_t cmsgx_row_wait(cmsgx_row *row, int64_t nanoseconds);

/* Waits at most `nanoseconds` until all descriptors that were handed over are closed.  Returns how
   many are left.  If no thread can be started, closes them itself. */
size_t cmsgx_closer_wait(cmsgx_closer *closer, int64_t nanoseconds);

#endif
