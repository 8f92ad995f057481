#include "closer.h"

#include "platform.h"
#include "walk.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#define CAPACITY 4096
/* The thread ends when it had nothing to do for so long: nanoseconds. */
#define IDLE INT64_C(5000000000)

struct cmsgx_closer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t users;           /* the module, and the thread while it runs */
    int running;
    int ending;
    size_t busy;            /* being closed now */
    size_t first;
    size_t count;
    int queue[CAPACITY];
};

static int
init_sync(cmsgx_closer *closer)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) {
        return -1;
    }
    cmsgx_set_condition_clock(&attributes);
    /* Recursive: between before_fork() and after_fork() other hooks of the same thread may hand
       descriptors over. */
    pthread_mutexattr_t recursive;
    int result = pthread_mutexattr_init(&recursive);
    if (result == 0) {
        pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
        result = pthread_mutex_init(&closer->lock, &recursive);
        pthread_mutexattr_destroy(&recursive);
    }
    if (result == 0) {
        result = pthread_cond_init(&closer->changed, &attributes);
    }
    pthread_condattr_destroy(&attributes);
    return result;
}

cmsgx_closer *
cmsgx_closer_new(void)
{
    cmsgx_closer *closer = calloc(1, sizeof(*closer));
    if (closer != NULL && init_sync(closer) != 0) {
        free(closer);
        return NULL;
    }
    if (closer != NULL) {
        closer->users = 1;
    }
    return closer;
}

/* With the lock held, which it gives up. */
static void
drop_user(cmsgx_closer *closer)
{
    int last = --closer->users == 0;
    pthread_mutex_unlock(&closer->lock);
    if (last) {
        pthread_cond_destroy(&closer->changed);
        pthread_mutex_destroy(&closer->lock);
        free(closer);
    }
}

/* The time that many nanoseconds from now, on the clock of the condition. */
static struct timespec
after(int64_t nanoseconds)
{
    struct timespec until;
    clock_gettime(CMSGX_CONDITION_CLOCK, &until);
    int64_t nanosecond = until.tv_nsec + nanoseconds % 1000000000;
    until.tv_sec += (time_t)(nanoseconds / 1000000000 + nanosecond / 1000000000);
    until.tv_nsec = (long)(nanosecond % 1000000000);
    return until;
}

static void *
run(void *argument)
{
    cmsgx_closer *closer = argument;
    pthread_mutex_lock(&closer->lock);
    for (;;) {
        int waited = 0;
        struct timespec until = after(IDLE);
        while (closer->count == 0 && !closer->ending && waited == 0) {
            waited = pthread_cond_timedwait(&closer->changed, &closer->lock, &until);
        }
        if (closer->count == 0) {
            break;
        }
        int fd = closer->queue[closer->first];
        closer->first = (closer->first + 1) % CAPACITY;
        closer->count--;
        closer->busy = 1;
        pthread_mutex_unlock(&closer->lock);
        cmsgx_close_all(&fd, 1);
        pthread_mutex_lock(&closer->lock);
        closer->busy = 0;
        pthread_cond_broadcast(&closer->changed);
    }
    closer->running = 0;
    drop_user(closer);
    return NULL;
}

/* With the lock held. */
static int
start(cmsgx_closer *closer)
{
    pthread_t thread;
    sigset_t all, before;

    if (closer->running) {
        return 1;
    }
    /* Signals are for the interpreter's threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    closer->running = pthread_create(&thread, NULL, run, closer) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (closer->running) {
        closer->users++;
        pthread_detach(thread);
    }
    return closer->running;
}

int
cmsgx_closer_submit(cmsgx_closer *closer, const int *fds, size_t count)
{
    pthread_mutex_lock(&closer->lock);
    int accepted = count <= CAPACITY - closer->count && !closer->ending && start(closer);
    if (accepted) {
        for (size_t i = 0; i < count; i++) {
            closer->queue[(closer->first + closer->count) % CAPACITY] = fds[i];
            closer->count++;
        }
        pthread_cond_broadcast(&closer->changed);
    }
    pthread_mutex_unlock(&closer->lock);
    return accepted;
}

size_t
cmsgx_closer_wait(cmsgx_closer *closer, int64_t nanoseconds)
{
    struct timespec until = after(nanoseconds);

    pthread_mutex_lock(&closer->lock);
    while (closer->count + closer->busy > 0) {
        if (pthread_cond_timedwait(&closer->changed, &closer->lock, &until) != 0) {
            break;
        }
    }
    size_t left = closer->count + closer->busy;
    pthread_mutex_unlock(&closer->lock);
    return left;
}

void
cmsgx_closer_before_fork(cmsgx_closer *closer)
{
    pthread_mutex_lock(&closer->lock);
}

void
cmsgx_closer_after_fork(cmsgx_closer *closer, int in_child)
{
    if (!in_child) {
        pthread_mutex_unlock(&closer->lock);
        return;
    }
    /* The thread did not come along.  What it is closing is mostly no longer in the table: close(2)
       takes the number out before it can block.  What it had taken from the queue, and had not
       called close(2) for yet, stays open in the child: whether the number still stands for that,
       nobody can tell here. */
    if (init_sync(closer) != 0) {
        abort();
    }
    closer->users = 1;
    closer->running = 0;
    closer->busy = 0;
    if (closer->count > 0) {
        pthread_mutex_lock(&closer->lock);
        (void)start(closer);
        pthread_mutex_unlock(&closer->lock);
    }
}

void
cmsgx_closer_release(cmsgx_closer *closer)
{
    if (closer != NULL) {
        pthread_mutex_lock(&closer->lock);
        closer->ending = 1;
        pthread_cond_broadcast(&closer->changed);
        drop_user(closer);
    }
}
