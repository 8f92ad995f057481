#include "plain/process.h"

cmsgx_process_record cmsgx_process = {
    .generation = 1,
    .watched = PTHREAD_ONCE_INIT,
    .lock = PTHREAD_MUTEX_INITIALIZER,
};

static void
before(void)
{
    pthread_mutex_lock(&cmsgx_process.lock);
    for (cmsgx_fork_hook *one = cmsgx_process.hooks; one != NULL; one = one->next) {
        one->before(one);
    }
}

static void
in_parent(void)
{
    for (cmsgx_fork_hook *one = cmsgx_process.hooks; one != NULL; one = one->next) {
        one->after_in_parent(one);
    }
    pthread_mutex_unlock(&cmsgx_process.lock);
}

static uint64_t
thread_of(uint64_t stamp)
{
    return stamp >> CMSGX_GENERATION_BITS;
}

static void
in_child(void)
{
    uint32_t before = cmsgx_generation();
    uint64_t me = thread_of(cmsgx_stamp());
    uint32_t next = before + 1;

    if (cmsgx_process.survivor != me) {
        cmsgx_process.survivor = me;
        cmsgx_process.since = before;
    }
    atomic_store_explicit(&cmsgx_process.generation, next != 0 ? next : 1, memory_order_relaxed);
    for (cmsgx_fork_hook *one = cmsgx_process.hooks; one != NULL; one = one->next) {
        one->after_in_child(one);
    }
    pthread_mutex_unlock(&cmsgx_process.lock);
}

int
cmsgx_stamp_is_ours(uint64_t stamp)
{
    uint32_t now = cmsgx_generation();
    uint32_t age = (now - (uint32_t)stamp) & CMSGX_GENERATION_MASK;
    return age == 0
           || (thread_of(stamp) == cmsgx_process.survivor
               && age <= ((now - cmsgx_process.since) & CMSGX_GENERATION_MASK));
}

static void
register_handlers(void)
{
    cmsgx_process.watch_error = pthread_atfork(before, in_parent, in_child);
}

int
cmsgx_process_watch(void)
{
    int error = pthread_once(&cmsgx_process.watched, register_handlers);
    return error != 0 ? error : cmsgx_process.watch_error;
}

void
cmsgx_process_add(cmsgx_fork_hook *hook)
{
    pthread_mutex_lock(&cmsgx_process.lock);
    hook->next = cmsgx_process.hooks;
    cmsgx_process.hooks = hook;
    pthread_mutex_unlock(&cmsgx_process.lock);
}

void
cmsgx_process_remove(cmsgx_fork_hook *hook)
{
    pthread_mutex_lock(&cmsgx_process.lock);
    cmsgx_fork_hook **at = &cmsgx_process.hooks;
    while (*at != hook) {
        at = &(*at)->next;
    }
    *at = hook->next;
    pthread_mutex_unlock(&cmsgx_process.lock);
}

void
cmsgx_process_resume(void)
{
    pthread_mutex_lock(&cmsgx_process.lock);
    for (cmsgx_fork_hook *one = cmsgx_process.hooks; one != NULL; one = one->next) {
        one->resume(one);
    }
    pthread_mutex_unlock(&cmsgx_process.lock);
}
