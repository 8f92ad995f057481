/* What belongs to the process and not to a module object: the record that the handlers of fork(2)
   need.  Besides the module's definition it is the only mutable static.  Plain C, no Python.h. */

#ifndef CMSGX_PROCESS_H
#define CMSGX_PROCESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* What an object needs done around fork(2); embedded in it.  All but `resume` run in the handlers
   of pthread_atfork(3), and all run with the lock of the list held. */
typedef struct cmsgx_fork_hook {
    void (*before)(struct cmsgx_fork_hook *);
    void (*after_in_parent)(struct cmsgx_fork_hook *);
    void (*after_in_child)(struct cmsgx_fork_hook *);
    void (*resume)(struct cmsgx_fork_hook *);   /* in the child, once threads may be started */
    struct cmsgx_fork_hook *next;
} cmsgx_fork_hook;

typedef struct {
    /* Counts the forks between the first process and this one; starts at 1 and is never 0.  A mark
       with another generation was made by a thread of a parent, which does not exist here. */
    _Atomic uint32_t generation;
    /* The thread that made the last fork, and the first generation since which only that thread
       forked: what it was doing goes on in this process. */
    uint64_t survivor;
    uint32_t since;
    pthread_once_t watched;
    int watch_error;            /* the errno of registering the handlers; final */
    pthread_mutex_t lock;       /* of the list; taken before any lock that a hook takes */
    cmsgx_fork_hook *hooks;
} cmsgx_process_record;

/* Hidden: each copy of the extension in a process has its own. */
extern __attribute__((visibility("hidden"))) cmsgx_process_record cmsgx_process;

/* It changes only in the child of a fork, before that has another thread. */
static inline uint32_t
cmsgx_generation(void)
{
    return atomic_load_explicit(&cmsgx_process.generation, memory_order_relaxed);
}

#define CMSGX_GENERATION_BITS 16
#define CMSGX_GENERATION_MASK ((UINT32_C(1) << CMSGX_GENERATION_BITS) - 1)

/* Names this thread in this process, to mark something as in use by it: never 0.  An address has
   48 significant bits, which leaves 16 for the generation: two that look the same are 65536 forks
   apart, each made by the child of the one before. */
static inline uint64_t
cmsgx_stamp(void)
{
    return (uint64_t)(uintptr_t)pthread_self() << CMSGX_GENERATION_BITS
           | (cmsgx_generation() & CMSGX_GENERATION_MASK);
}

/* Whether the thread that made the stamp exists in this process: in the process where it was made,
   and in those that this same thread forked. */
int cmsgx_stamp_is_ours(uint64_t stamp);

/* Registers the handlers of fork(2), once for a process, however many interpreters import the
   module.  With pthread_atfork(3) and not os.register_at_fork(): the handlers run after all hooks
   in Python, so no such hook can wait for a lock that is held here.  0, or an errno. */
int cmsgx_process_watch(void);

/* Adds a hook to the list, which borrows it until it is removed. */
void cmsgx_process_add(cmsgx_fork_hook *hook);
void cmsgx_process_remove(cmsgx_fork_hook *hook);

/* Calls each hook's `resume`: in a child, after the handlers, which must not start a thread. */
void cmsgx_process_resume(void);

#endif
