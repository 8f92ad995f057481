/* What belongs to the process and not to a module object: the one record that fork(2) has to know
   of, and, besides the module's definition, the only mutable static.  Plain C, no Python.h. */

#ifndef CMSGX_PROCESS_H
#define CMSGX_PROCESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct {
    /* How many forks lie between the first process and this one, from 1 on, never 0: what was
       marked with another generation was marked by a thread of a parent, which is not here. */
    _Atomic uint32_t generation;
    pthread_once_t watched;
    int watch_error;            /* of registering the handlers, for good */
} cmsgx_process_record;

/* Hidden: each copy of the extension in a process has its own. */
extern __attribute__((visibility("hidden"))) cmsgx_process_record cmsgx_process;

/* Only the child of a fork changes it, when it has no other thread yet. */
static inline uint32_t
cmsgx_generation(void)
{
    return atomic_load_explicit(&cmsgx_process.generation, memory_order_relaxed);
}

/* Registers the handlers of fork(2), once for a process, whatever number of interpreters import
   the module.  By pthread_atfork(3) and not by os.register_at_fork(): these run after all hooks in
   Python, so that none of those can wait for what is held here.  0, or an errno. */
int cmsgx_process_watch(void);

#endif
