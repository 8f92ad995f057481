/* What the closer is made of: rows of descriptors that wait to be closed, their places, how many
   may wait, and who uses them.  closer.h has the threads that close them.  Plain C, no Python.h. */

#ifndef CMSGX_CLOSER_ROW_H
#define CMSGX_CLOSER_ROW_H

#include "plain/process.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Threads at most, and rows for what came by no receiver. */
#define CMSGX_CLOSER_THREADS 8
#define CMSGX_CLOSER_ROWS 64

/* With a backlog of so many nobody asks for the limit, and no thread that lingers is hurried. */
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

/* Where a descriptor stands while it waits. */
typedef struct cmsgx_place {
    struct cmsgx_place *next;
    int fd;
} cmsgx_place;

typedef struct cmsgx_places {
    struct cmsgx_places *next;
    cmsgx_place places[];
} cmsgx_places;

/* The descriptors of one receiver, in the order in which they are closed.  One thread at a time is
   at a row, so that what blocks there holds up nothing else. */
struct cmsgx_row {
    cmsgx_closer *closer;   /* a use, while the row has users */
    atomic_size_t users;
    atomic_size_t waiting;  /* queued or being closed */
    cmsgx_place *first;
    cmsgx_place *last;
    cmsgx_row *next;        /* of those that are ready */
    char is_engaged;        /* among the ready ones, or with a thread: this is a use */
    char is_own;            /* memory of its own */
};

typedef struct {
    cmsgx_closer *closer;
    cmsgx_row *row;         /* what it is at, and the place of what it closes */
    cmsgx_place *place;
    char is_used;
    char is_stuck;          /* in one close(2) for so long that others go on */
} cmsgx_closing;

struct cmsgx_closer {
    /* Without the lock. */
    atomic_size_t users;    /* the module, each thread, each row that has users */
    atomic_size_t backlog;  /* queued or being closed */
    atomic_size_t reserved; /* places that were promised or are taken: never more than there are */
    atomic_size_t places;
    atomic_size_t few;      /* backlog with which nobody asks for the limit */
    cmsgx_fork_hook hook;

    /* With the lock. */
    pthread_mutex_t lock;
    pthread_cond_t wake;    /* for threads that sleep */
    pthread_cond_t hurry;   /* for those that look again soon anyway */
    pthread_cond_t changed; /* for who waits: something was closed */
    uint32_t generation;    /* of the process that the threads are in */
    int is_ending;
    int is_forking;         /* no close(2) begins */
    size_t waiters;
    size_t progress;        /* counts beginnings and ends of close(2) */
    int threads;
    int active;             /* in close(2), and not stuck: 0 or 1 */
    int sleeping;
    int lingering;
    int watching;
    int coming;             /* started or woken, and not there yet */
    int woken;              /* of those, woken */
    cmsgx_row *ready_first;
    cmsgx_row *ready_last;
    cmsgx_place *free;
    cmsgx_places *memory;   /* all of them */
    cmsgx_closing closing[CMSGX_CLOSER_THREADS];
    cmsgx_row rows[CMSGX_CLOSER_ROWS];
};

/* One use of the closer less: after the last it is gone.  Without its lock. */
void cmsgx_closer_drop(cmsgx_closer *closer);

/* How many may wait while receivers take more, now. */
size_t cmsgx_closer_limit(cmsgx_closer *closer);

/* A new row, one use; NULL where there is no memory. */
cmsgx_row *cmsgx_row_new(cmsgx_closer *closer);

/* The row for what has none of its own, by a number that tells peers apart: one use. */
cmsgx_row *cmsgx_row_shared(cmsgx_closer *closer, int number);

cmsgx_row *cmsgx_row_hold(cmsgx_row *row);
void cmsgx_row_drop(cmsgx_row *row);

/* Promises places, to be asked for before there are descriptors: 0, or -1 where there is no memory.
   Each is used up by cmsgx_row_submit(), or given back. */
int cmsgx_row_reserve(cmsgx_row *row, size_t count);
void cmsgx_row_unreserve(cmsgx_row *row, size_t count);

/* Whether a receiver with that row may take more; the first look, mostly the only one. */
static inline int
cmsgx_row_has_room(const cmsgx_row *row)
{
    return cmsgx_get(&row->closer->backlog) <= cmsgx_get(&row->closer->few);
}

/* The second look, by the limits. */
int cmsgx_row_is_over(cmsgx_row *row);

/* How many descriptors a receiver may take at once, beyond those of one message. */
size_t cmsgx_row_max(const cmsgx_row *row);

/* Takes a place back whose descriptor is closed.  With the lock held. */
void cmsgx_row_free_place(cmsgx_row *row, cmsgx_place *place);

#endif
