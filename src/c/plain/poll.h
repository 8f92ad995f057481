/* Waiting for a descriptor, within one deadline, and never by spinning.  Plain C, no Python.h.

   poll(2) may report at once, again and again, what a call cannot use: POLLERR while anything is on
   the error queue, POLLOUT for a datagram to a full queue of another AF_UNIX socket.  Then there is
   nothing to sleep on, and trying again comes at growing distances, of 1 to 10 ms. */

#ifndef CMSGX_POLL_H
#define CMSGX_POLL_H

#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t cmsgx_now(void);

/* What one call keeps while it tries and waits by turns; all zero at first. */
typedef struct {
    int64_t deadline;       /* of cmsgx_now(); -1 for none, 0: not known yet */
    int rounds;             /* how often in a row poll(2) did not wait */
} cmsgx_wait;

typedef enum {
    CMSGX_READY,            /* or so poll(2) says: try again */
    CMSGX_TIME_IS_UP,
    CMSGX_INTERRUPTED,      /* by a signal */
    CMSGX_CANNOT_WAIT,      /* errno says why */
} cmsgx_waited;

/* Waits until one of `events` is there, after a try that failed for want of them.  `*found` are the
   events that poll(2) reported.  To be called without the GIL. */
cmsgx_waited cmsgx_wait_for(int fd, short events, cmsgx_wait *wait, short *found);

#endif
