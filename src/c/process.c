#include "process.h"

cmsgx_process_record cmsgx_process = {.generation = 1, .watched = PTHREAD_ONCE_INIT};

static void
in_child(void)
{
    uint32_t next = cmsgx_generation() + 1;
    atomic_store_explicit(&cmsgx_process.generation, next != 0 ? next : 1, memory_order_relaxed);
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
