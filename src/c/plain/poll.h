/* Waiting for a descriptor, within one deadline, and never by spinning.  Plain C, no Python.h.

   poll(2) may return at once, again and again, for what a call cannot use: POLLERR while anything
   is on the error queue, POLLOUT for a datagram to another AF_UNIX socket whose queue is full.
   Then the pauses between tries grow from 1 to 10 ms. */

#ifndef CMSGX_POLL_H
#define CMSGX_POLL_H

#include <stdint.h>

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t cmsgx_now(void);

/* Until when something may wait, in terms of cmsgx_now(); -1: for ever. */
static inline int64_t
cmsgx_deadline_after(int64_t timeout)
{
    return timeout < 0 ? -1 : cmsgx_now() + timeout;
}

/* The nanoseconds until a deadline, at most `most`; 0 or less if time is up. */
static inline int64_t
cmsgx_left(int64_t deadline, int64_t most)
{
    int64_t left = deadline < 0 ? most : deadline - cmsgx_now();
    return left < most ? left : most;
}

typedef enum {
    CMSGX_READY,            /* poll(2) says so: try again */
    CMSGX_TIME_IS_UP,
    CMSGX_INTERRUPTED,      /* by a signal */
    CMSGX_CANNOT_WAIT,      /* errno says why */
} cmsgx_waited;

/* Waits for one of `events` after a try that found none.  `*rounds`, 0 at first, counts how many
   times in a row poll(2) returned at once; `*found` is what it reported.  Call it without the
   GIL. */
cmsgx_waited cmsgx_wait_for(int fd, short events, int64_t deadline, int *rounds, short *found);

#endif
