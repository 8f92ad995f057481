#include "plain/closer.h"

#include "plain/platform.h"
#include "plain/process.h"
#include "plain/walk.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define MILLISECOND INT64_C(1000000)
/* A thread with nothing to do lingers for LINGER, during which callers need not wake it, then
   sleeps, and exits after IDLE. */
#define LINGER MILLISECOND
#define IDLE (5000 * MILLISECOND)
/* A close(2) that takes longer counts as blocked. */
#define STUCK (10 * MILLISECOND)

/* Waiting ---------------------------------------------------------------------------------- */

static int
init_conditions(cmsgx_closer *closer)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) {
        return -1;
    }
    cmsgx_set_condition_clock(&attributes);
    int failed = pthread_cond_init(&closer->wake, &attributes) != 0
        || pthread_cond_init(&closer->hurry, &attributes) != 0
        || pthread_cond_init(&closer->changed, &attributes) != 0;
    pthread_condattr_destroy(&attributes);
    return failed ? -1 : 0;
}

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CMSGX_CONDITION_CLOCK, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Returns 1 if woken, 0 on timeout. */
static int
wait_until(cmsgx_closer *closer, pthread_cond_t *condition, int64_t until)
{
    struct timespec time = {
        .tv_sec = (time_t)(until / 1000000000), .tv_nsec = (long)(until % 1000000000),
    };
    return pthread_cond_timedwait(condition, &closer->lock, &time) == 0;
}

/* Threads; the lock is held throughout ------------------------------------------------------- */

static void
make_ready(cmsgx_closer *closer, cmsgx_row *row)
{
    row->next = NULL;
    if (closer->ready_first == NULL) {
        closer->ready_first = row;
    }
    else {
        closer->ready_last->next = row;
    }
    closer->ready_last = row;
}

/* Called when a thread is done with the row: puts it back among the ready rows, or releases it if
   it is empty. */
static void
leave_row(cmsgx_closer *closer, cmsgx_row *row)
{
    if (row->first != NULL) {
        make_ready(closer, row);
    }
    else {
        row->is_engaged = 0;
        cmsgx_row_drop(row);
    }
}

/* After a fork the child has none of the threads.  The descriptors that they were closing are no
   longer in its table: before_fork() waited until each close(2) had removed its own.  The child
   has no waiters either. */
static void
adopt(cmsgx_closer *closer)
{
    if (closer->generation == cmsgx_generation()) {
        return;
    }
    closer->generation = cmsgx_generation();
    if (init_conditions(closer) < 0) {
        abort();
    }
    /* The module or a row still uses the closer; otherwise this small allocation is leaked. */
    cmsgx_subtract(&closer->users, (size_t)closer->threads);
    closer->threads = closer->active = 0;
    closer->sleeping = closer->lingering = closer->watching = closer->coming = closer->woken = 0;
    closer->waiters = 0;
    for (size_t i = 0; i < CMSGX_CLOSER_THREADS; i++) {
        cmsgx_closing *one = &closer->closing[i];
        if (one->place != NULL) {
            cmsgx_row_free_place(one->row, one->place);
            make_ready(closer, one->row);
        }
        *one = (cmsgx_closing){.closer = closer};
    }
}

static void *run(void *);

static cmsgx_closing *
free_closing(cmsgx_closer *closer)
{
    for (size_t i = 0; i < CMSGX_CLOSER_THREADS; i++) {
        if (!closer->closing[i].is_used) {
            return &closer->closing[i];
        }
    }
    return NULL;
}

static void
start(cmsgx_closer *closer)
{
    cmsgx_closing *self = free_closing(closer);
    pthread_t thread;
    sigset_t all, before;

    if (self == NULL) {
        return;
    }
    /* Signals are handled by the threads of the interpreter. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed) {
        pthread_detach(thread);
        cmsgx_up(&closer->users);
        self->is_used = 1;
        closer->threads++;
        closer->coming++;
    }
}

/* Ensures that a thread will process ready rows: at once, or after STUCK if another thread is
   closing.  If no thread can be started now, the next caller tries again. */
static void
attend(cmsgx_closer *closer)
{
    if (closer->ready_first == NULL || closer->lingering + closer->coming > 0) {
        return;
    }
    if (closer->watching > 0) {
        if (closer->active == 0) {
            pthread_cond_broadcast(&closer->hurry);
        }
    }
    else if (closer->sleeping > 0) {
        closer->sleeping--;
        closer->coming++;
        closer->woken++;
        pthread_cond_signal(&closer->wake);
    }
    else {
        start(closer);
    }
}

/* Closes the next descriptor of the first ready row; releases the lock during close(2). */
static void
close_next(cmsgx_closing *self)
{
    cmsgx_closer *closer = self->closer;
    cmsgx_row *row = closer->ready_first;
    cmsgx_place *place = row->first;

    closer->ready_first = row->next;
    if (place == NULL) {
        leave_row(closer, row);     /* adopt() may leave one empty in the child of a fork */
        return;
    }
    row->first = place->next;
    self->row = row;
    self->place = place;
    closer->active++;
    closer->progress++;
    attend(closer);
    pthread_mutex_unlock(&closer->lock);

    cmsgx_close_all(&place->fd, 1);

    pthread_mutex_lock(&closer->lock);
    closer->active -= !self->is_stuck;
    closer->progress++;
    self->place = NULL;
    self->is_stuck = 0;
    cmsgx_row_free_place(row, place);
    leave_row(closer, row);
    if (closer->waiters > 0) {
        pthread_cond_broadcast(&closer->changed);
    }
}

static void
mark_stuck(cmsgx_closer *closer)
{
    for (size_t i = 0; i < CMSGX_CLOSER_THREADS; i++) {
        closer->closing[i].is_stuck = closer->closing[i].place != NULL;
    }
    closer->active = 0;
}

/* Waits until the thread that is closing makes progress, or marks it as stuck after STUCK. */
static void
watch_for_progress(cmsgx_closer *closer)
{
    size_t seen = closer->progress;
    int64_t until = now() + STUCK;
    int is_late = 0;
    closer->watching++;
    while (!is_late && seen == closer->progress && closer->active > 0 && !closer->is_forking) {
        is_late = !wait_until(closer, &closer->hurry, until);
    }
    closer->watching--;
    if (is_late && seen == closer->progress) {
        mark_stuck(closer);
    }
}

/* Returns 0 if it slept for IDLE, so the thread may exit. */
static int
sleep_on(cmsgx_closer *closer)
{
    closer->sleeping++;
    int is_woken = wait_until(closer, &closer->wake, now() + IDLE);
    if (closer->woken > 0) {
        closer->woken--;
        closer->coming--;
        return 1;
    }
    closer->sleeping--;
    return is_woken;
}

static void *
run(void *argument)
{
    cmsgx_closing *self = argument;
    cmsgx_closer *closer = self->closer;
    int has_lingered = 0;

    pthread_mutex_lock(&closer->lock);
    closer->coming--;
    for (;;) {
        int is_over = closer->is_ending && closer->ready_first == NULL;
        if (closer->is_forking) {
            pthread_cond_wait(&closer->hurry, &closer->lock);
        }
        else if (closer->ready_first != NULL && closer->active == 0) {
            close_next(self);
            has_lingered = 0;
        }
        else if (closer->ready_first != NULL && closer->watching == 0) {
            watch_for_progress(closer);
        }
        else if (!has_lingered && !is_over) {
            closer->lingering++;
            (void)wait_until(closer, &closer->hurry, now() + LINGER);
            closer->lingering--;
            has_lingered = 1;
        }
        else if (is_over || (!sleep_on(closer) && closer->ready_first == NULL)) {
            break;
        }
    }
    self->is_used = 0;
    closer->threads--;
    pthread_mutex_unlock(&closer->lock);
    cmsgx_closer_drop(closer);
    return NULL;
}

/* For callers that wait: closes one descriptor in the calling thread if there is no other thread.
   Returns whether it closed one. */
static int
help(cmsgx_closer *closer)
{
    attend(closer);
    int may_close = closer->threads == 0 && closer->ready_first != NULL && !closer->is_forking;
    cmsgx_closing *self = may_close ? free_closing(closer) : NULL;
    if (self == NULL) {
        return 0;
    }
    self->is_used = 1;
    close_next(self);
    self->is_used = 0;
    return 1;
}

/* Handing over ----------------------------------------------------------------------------- */

void
cmsgx_row_submit(cmsgx_row *row, const int *fds, size_t count)
{
    cmsgx_closer *closer = row->closer;

    pthread_mutex_lock(&closer->lock);
    adopt(closer);
    for (size_t i = 0; i < count; i++) {
        cmsgx_place *place = closer->free;
        assert(place != NULL);
        closer->free = place->next;
        *place = (cmsgx_place){.next = NULL, .fd = fds[i]};
        if (row->first == NULL) {
            row->first = place;
        }
        else {
            row->last->next = place;
        }
        row->last = place;
    }
    cmsgx_add(&row->waiting, count);
    cmsgx_add(&closer->backlog, count);
    if (!row->is_engaged) {
        row->is_engaged = 1;
        (void)cmsgx_row_hold(row);
        make_ready(closer, row);
    }
    attend(closer);
    if (closer->lingering > 0 && cmsgx_get(&closer->backlog) >= CMSGX_CLOSER_FEW) {
        pthread_cond_signal(&closer->hurry);
    }
    pthread_mutex_unlock(&closer->lock);
}

size_t
cmsgx_row_wait(cmsgx_row *row, int64_t nanoseconds)
{
    cmsgx_closer *closer = row->closer;
    int64_t until = now() + nanoseconds;

    pthread_mutex_lock(&closer->lock);
    adopt(closer);
    int is_full;
    while ((is_full = cmsgx_row_is_over(row))) {
        if (help(closer)) {
            continue;
        }
        closer->waiters++;
        pthread_cond_broadcast(&closer->hurry);
        int is_woken = nanoseconds > 0 && wait_until(closer, &closer->changed, until);
        closer->waiters--;
        if (!is_woken) {
            is_full = cmsgx_row_is_over(row);
            break;
        }
    }
    /* The backlog does not shrink while the lock is held. */
    size_t waiting = is_full ? cmsgx_get(&closer->backlog) : 0;
    pthread_mutex_unlock(&closer->lock);
    return waiting;
}

size_t
cmsgx_closer_wait(cmsgx_closer *closer, int64_t nanoseconds)
{
    int64_t until = now() + nanoseconds;

    pthread_mutex_lock(&closer->lock);
    adopt(closer);
    while (cmsgx_get(&closer->backlog) > 0) {
        if (help(closer)) {
            if (now() >= until) {
                break;
            }
            continue;
        }
        closer->waiters++;
        pthread_cond_broadcast(&closer->hurry);
        int is_woken = wait_until(closer, &closer->changed, until);
        closer->waiters--;
        if (!is_woken) {
            break;
        }
    }
    size_t left = cmsgx_get(&closer->backlog);
    pthread_mutex_unlock(&closer->lock);
    return left;
}

/* fork(2) ---------------------------------------------------------------------------------- */

static cmsgx_closer *
closer_of(cmsgx_fork_hook *hook)
{
    return (cmsgx_closer *)(void *)((char *)hook - offsetof(cmsgx_closer, hook));
}

static void
before_fork(cmsgx_fork_hook *hook)
{
    cmsgx_closer *closer = closer_of(hook);
    int64_t until = now() + STUCK;

    pthread_mutex_lock(&closer->lock);
    adopt(closer);
    /* A close(2) that has just begun may not have removed the number from the table yet, and the
       child could not tell.  After this wait it has returned, or it blocks and has removed it. */
    closer->is_forking = 1;
    closer->waiters++;
    while (closer->active > 0 && wait_until(closer, &closer->changed, until)) {
    }
    closer->waiters--;
    mark_stuck(closer);
}

static void
after_fork_in_parent(cmsgx_fork_hook *hook)
{
    cmsgx_closer *closer = closer_of(hook);

    closer->is_forking = 0;
    pthread_cond_broadcast(&closer->hurry);
    pthread_cond_broadcast(&closer->changed);
    attend(closer);
    pthread_mutex_unlock(&closer->lock);
}

/* Does only what is safe in a pthread_atfork(3) handler; adopt() does the rest in the next call. */
static void
after_fork_in_child(cmsgx_fork_hook *hook)
{
    cmsgx_closer *closer = closer_of(hook);

    closer->is_forking = 0;
    pthread_mutex_unlock(&closer->lock);
}

static void
resume(cmsgx_fork_hook *hook)
{
    cmsgx_closer *closer = closer_of(hook);

    pthread_mutex_lock(&closer->lock);
    adopt(closer);
    attend(closer);
    pthread_mutex_unlock(&closer->lock);
}

/* Creation and release --------------------------------------------------------------------- */

cmsgx_closer *
cmsgx_closer_new(void)
{
    cmsgx_closer *closer = calloc(1, sizeof(*closer));
    if (closer == NULL) {
        return NULL;
    }
    if (pthread_mutex_init(&closer->lock, NULL) != 0) {
        free(closer);
        return NULL;
    }
    if (init_conditions(closer) < 0) {
        pthread_mutex_destroy(&closer->lock);
        free(closer);
        return NULL;
    }
    for (size_t i = 0; i < CMSGX_CLOSER_ROWS; i++) {
        closer->rows[i].closer = closer;
    }
    for (size_t i = 0; i < CMSGX_CLOSER_THREADS; i++) {
        closer->closing[i].closer = closer;
    }
    closer->users = 1;
    closer->generation = cmsgx_generation();
    (void)cmsgx_closer_limit(closer);
    closer->hook = (cmsgx_fork_hook){
        .before = before_fork, .after_in_parent = after_fork_in_parent,
        .after_in_child = after_fork_in_child, .resume = resume,
    };
    cmsgx_process_add(&closer->hook);
    return closer;
}

void
cmsgx_closer_release(cmsgx_closer *closer)
{
    if (closer != NULL) {
        pthread_mutex_lock(&closer->lock);
        adopt(closer);
        closer->is_ending = 1;
        while (help(closer)) {
        }
        pthread_cond_broadcast(&closer->wake);
        pthread_cond_broadcast(&closer->hurry);
        pthread_mutex_unlock(&closer->lock);
        cmsgx_closer_drop(closer);
    }
}
