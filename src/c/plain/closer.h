/* The background closer: threads that close descriptors of peers that are not trusted, as the peer
   chose what they are and close(2) can block on them.  Plain C, no Python.h.

   Its lock is held for some instructions at a time, never across a close(2), and nothing that needs
   the GIL happens while it is: so it may be taken with the GIL held, or without. */

#ifndef CMSGX_CLOSER_H
#define CMSGX_CLOSER_H

#include "plain/closer_row.h"

#include <stddef.h>
#include <stdint.h>

/* NULL where there is no memory. */
cmsgx_closer *cmsgx_closer_new(void);

/* The module needs it no more: what is queued is closed all the same, and not waited for. */
void cmsgx_closer_release(cmsgx_closer *closer);

/* Hands descriptors over, for each of which a place was reserved: cannot fail, does not wait, and
   closes nothing here. */
void cmsgx_row_submit(cmsgx_row *row, const int *fds, size_t count);

/* cmsgx_row_is_over(), which waits for room, `nanoseconds` at most.  How many wait in the way of
   it, seen when the time was up; 0 where there is room. */
size_t cmsgx_row_wait(cmsgx_row *row, int64_t nanoseconds);

/* Waits until everything that was handed over is closed, `nanoseconds` at most.  The descriptors
   that are still to be closed.  Where no thread can be had this closes them itself. */
size_t cmsgx_closer_wait(cmsgx_closer *closer, int64_t nanoseconds);

#endif
