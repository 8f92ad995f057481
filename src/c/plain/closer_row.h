/* The data structures of the closer: rows of descriptors that wait to be closed, their places,
   their limits, and their users. closer.h has the threads that close them.  Plain C, no
   Python.h. */

#ifndef CMSGX_CLOSER_ROW_H
#define CMSGX_CLOSER_ROW_H

#include "plain/process.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* The maximum number of threads, and the number of rows for descriptors without a receiver. */
#define CMSGX_CLOSER_THREADS 8
#define CMSGX_CLOSER_ROWS 64

/* Up to this backlog the limit is not checked, and no lingering thread is woken early. */
#define CMSGX_CLOSER_FEW 64

/* Plain numbers, and counts of users. */
#define cmsgx_get(number) atomic_load_explicit((number), memory_order_relaxed)
#define cmsgx_add(number, n) atomic_fetch_add_explicit((number), (n), memory_order_relaxed)
#define cmsgx_subtract(number, n) atomic_fetch_sub_explicit((number), (n), memory_order_relaxed)
#define cmsgx_up(users) ((void)atomic_fetch_add_explicit((users), 1, memory_order_relaxed))
#define cmsgx_is_last(users) \
    (atomic_fetch_sub_explicit((users), 1, memory_order_acq_rel) == 1)

typedef struct cmsgx_closer cmsgx_closer;
typedef struct cmsgx_row cmsgx_row;

/* The place of a descriptor in its row. */
typedef struct cmsgx_place {
    struct cmsgx_place *next;
    int fd;
} cmsgx_place;

typedef struct cmsgx_places {
    struct cmsgx_places *next;
    cmsgx_place places[];
} cmsgx_places;

/* The descriptors of one receiver, in the order in which they are closed.  One thread at a time
   works on a row, so a close(2) that blocks holds up no other row. */
struct cmsgx_row {
    cmsgx_closer *closer;   /* a use, while the row has users */
    atomic_size_t users;
    atomic_size_t waiting;  /* queued or being closed */
    cmsgx_place *first;
    cmsgx_place *last;
    cmsgx_row *next;        /* in the list of ready rows */
    char is_engaged;        /* in that list, or with a thread: this counts as a user */
    char is_own;            /* allocated by itself, not one of the closer's `rows` */
};

typedef struct {
    cmsgx_closer *closer;
    cmsgx_row *row;         /* the row it works on, and the place of the descriptor it closes */
    cmsgx_place *place;
    char is_used;
    char is_stuck;          /* in one close(2) for so long that other threads continue */
} cmsgx_closing;

struct cmsgx_closer {
    /* Used without the lock: */
    atomic_size_t users;    /* the module, each thread, each row that has users */
    atomic_size_t backlog;  /* queued or being closed */
    atomic_size_t reserved; /* places reserved or in use: never more than `places` */
    atomic_size_t places;
    atomic_size_t few;      /* backlog up to which the limit is not checked */
    cmsgx_fork_hook hook;

    /* Used with the lock: */
    pthread_mutex_t lock;
    pthread_cond_t wake;    /* for threads that sleep */
    pthread_cond_t hurry;   /* for threads that would look again soon anyway */
    pthread_cond_t changed; /* for callers that wait: something was closed */
    uint32_t generation;    /* of the process that has the threads */
    int is_ending;
    int is_forking;         /* no close(2) may begin */
    size_t waiters;
    size_t progress;        /* rises at the beginning and at the end of each close(2) */
    int threads;
    int active;             /* in close(2), and not stuck: 0 or 1 */
    int sleeping;
    int lingering;
    int watching;
    int coming;             /* started or woken, and not running yet */
    int woken;              /* of those, woken */
    cmsgx_row *ready_first;
    cmsgx_row *ready_last;
    cmsgx_place *free;
    cmsgx_places *memory;   /* all of them */
    cmsgx_closing closing[CMSGX_CLOSER_THREADS];
    cmsgx_row rows[CMSGX_CLOSER_ROWS];
};

/* Releases one use of the closer; the last release frees it.  Call it without the lock. */
void cmsgx_closer_drop(cmsgx_closer *closer);

/* How many descriptors may currently wait before receivers accept no more. */
size_t cmsgx_closer_limit(cmsgx_closer *closer);

/* A new row, one use; NULL if there is no memory. */
cmsgx_row *cmsgx_row_new(cmsgx_closer *closer);

/* The row for descriptors without a row of their own, chosen by a number that distinguishes peers:
   one use. */
cmsgx_row *cmsgx_row_shared(cmsgx_closer *closer, int number);

cmsgx_row *cmsgx_row_hold(cmsgx_row *row);
void cmsgx_row_drop(cmsgx_row *row);

/* Reserves places for descriptors to come: 0, or -1 if there is no memory.  Each place is used by
   cmsgx_row_submit() or given back by cmsgx_row_unreserve(). */
int cmsgx_row_reserve(cmsgx_row *row, size_t count);
void cmsgx_row_unreserve(cmsgx_row *row, size_t count);

/* Whether a receiver with that row may accept more: the first check, and usually the only one. */
static inline int
cmsgx_row_has_room(const cmsgx_row *row)
{
    return cmsgx_get(&row->closer->backlog) <= cmsgx_get(&row->closer->few);
}

/* The second check, against the limits. */
int cmsgx_row_is_over(cmsgx_row *row);

/* How many descriptors a receiver may accept at once, beyond those of one message. */
size_t cmsgx_row_max(const cmsgx_row *row);

/* Frees the place of a descriptor that was closed.  Call it with the lock held. */
void cmsgx_row_free_place(cmsgx_row *row, cmsgx_place *place);

#endif
