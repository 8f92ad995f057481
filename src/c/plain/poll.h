/* Waiting for a descriptor, within one deadline, and never by spinning.  Plain C, no Python.h.

   poll(2) may return at once, again and again, for what a call cannot use: POLLERR while anything
   is on the error queue, POLLOUT for a datagram to another AF_UNIX socket whose queue is full.
   Then the pauses between tries grow from 1 to 10 ms. */

#ifndef CMSGX_POLL_H
#define CMSGX_POLL_H

#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t cmsgx_now(void);

/* What one call keeps while it tries and waits in turn; zeroed at first. */
typedef struct {
    int64_t deadline;       /* in terms of cmsgx_now(); -1: none, 0: not known yet */
    int rounds;             /* how many times in a row poll(2) returned at once */
} cmsgx_wait;

typedef enum {
    CMSGX_READY,            /* poll(2) says so: try again */
    CMSGX_TIME_IS_UP,
    CMSGX_INTERRUPTED,      /* by a signal */
    CMSGX_CANNOT_WAIT,      /* errno says why */
} cmsgx_waited;

/* Waits for one of `events` after a try that found none.  `*found` is what poll(2) reported.  Call
   it without the GIL. */
cmsgx_waited cmsgx_wait_for(int fd, short events, cmsgx_wait *wait, short *found);

#endif
