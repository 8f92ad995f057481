#include "plain/poll.h"

#include "plain/platform.h"

#include <errno.h>

#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

/* A poll(2) that took this long did wait. */
#define SHORTEST_WAIT MILLISECOND
#define LONGEST_NAP (10 * MILLISECOND)
/* How many times in a row an event that was asked for may be gone by the next try, without a
   pause: other threads or processes may wait for the same messages. */
#define FREE_ROUNDS 16
/* From here on each nap is the longest. */
#define MAX_ROUNDS (FREE_ROUNDS + 5)

int64_t
cmsgx_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

static int64_t
nap_after(int rounds)
{
    return rounds <= FREE_ROUNDS  ? 0
         : rounds >= MAX_ROUNDS   ? LONGEST_NAP
                                  : MILLISECOND << (rounds - FREE_ROUNDS - 1);
}

/* poll(2) returned at once; `is_asked_for` is whether with an event that was asked for. */
static void
count_round(int *rounds, int is_asked_for)
{
    if (!is_asked_for && *rounds < FREE_ROUNDS) {
        *rounds = FREE_ROUNDS;
    }
    if (*rounds < MAX_ROUNDS) {
        ++*rounds;
    }
}

cmsgx_waited
cmsgx_wait_for(int fd, short events, int64_t deadline, int *rounds, short *found)
{
    int64_t start = cmsgx_now();
    /* Without a deadline: an hour at a time, which fits a timespec of 32 bits. */
    int64_t left = deadline < 0 ? 3600 * SECOND : deadline - start;
    int64_t nap = nap_after(*rounds);
    struct pollfd ready = {.fd = fd, .events = events};

    *found = 0;
    if (left <= 0) {
        return CMSGX_TIME_IS_UP;
    }
    if (nap > 0) {
        if (cmsgx_poll(NULL, 0, nap < left ? nap : left) < 0) {
            return errno == EINTR ? CMSGX_INTERRUPTED : CMSGX_CANNOT_WAIT;
        }
        left -= cmsgx_now() - start;
        start = cmsgx_now();
    }
    /* Even where the time is up by now: what arrived during the nap must not be missed. */
    int result = cmsgx_poll(&ready, 1, left > 0 ? left : 0);
    if (result < 0) {
        if (errno == EINVAL) {
            /* RLIMIT_NOFILE is 0, as in a sandbox: poll(2) fails, but open sockets still work. */
            count_round(rounds, 0);
            return CMSGX_READY;
        }
        return errno == EINTR ? CMSGX_INTERRUPTED : CMSGX_CANNOT_WAIT;
    }
    *found = ready.revents;
    int64_t waited = cmsgx_now() - start;
    if (waited >= SHORTEST_WAIT || result == 0) {
        *rounds = 0;
    }
    else {
        count_round(rounds, (ready.revents & events) != 0);
    }
    return result > 0 || deadline < 0 || waited < left ? CMSGX_READY : CMSGX_TIME_IS_UP;
}
