#include "process.h"

cmsgx_process_record cmsgx_process = {.generation = 1, .watched = PTHREAD_ONCE_INIT};

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
watch(void)
{
    cmsgx_process.watch_error = pthread_atfork(NULL, NULL, in_child);
}

int
cmsgx_process_watch(void)
{
    int error = pthread_once(&cmsgx_process.watched, watch);
    return error != 0 ? error : cmsgx_process.watch_error;
}
