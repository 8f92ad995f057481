/* What belongs to the process and not to a module object: the one record that fork(2) has to know
   of, and, besides the module's definition, the only mutable static.  Plain C, no Python.h. */

#ifndef CMSGX_PROCESS_H
#define CMSGX_PROCESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* What is to be done around fork(2), embedded in the object that it is done for.  `before` to
   `after_in_child` run in the handlers of pthread_atfork(3), with the lock of the list held. */
typedef struct cmsgx_fork_hook {
    void (*before)(struct cmsgx_fork_hook *);
    void (*after_in_parent)(struct cmsgx_fork_hook *);
    void (*after_in_child)(struct cmsgx_fork_hook *);
    void (*resume)(struct cmsgx_fork_hook *);   /* in the child, once threads may be started */
    struct cmsgx_fork_hook *next;
} cmsgx_fork_hook;

typedef struct {
    /* How many forks lie between the first process and this one, from 1 on, never 0: what was
       marked with another generation was marked by a thread of a parent, which is not here. */
    _Atomic uint32_t generation;
    /* The thread that made the last fork, in its parent and so here, and the first generation
       since which only that thread made them: what it was in the middle of goes on here. */
    uint64_t survivor;
    uint32_t since;
    pthread_once_t watched;
    int watch_error;            /* of registering the handlers, for good */
    pthread_mutex_t lock;       /* of the list; taken before any lock that a hook takes */
    cmsgx_fork_hook *hooks;
} cmsgx_process_record;

/* Hidden: each copy of the extension in a process has its own. */
extern __attribute__((visibility("hidden"))) cmsgx_process_record cmsgx_process;

/* Only the child of a fork changes it, when it has no other thread yet. */
static inline uint32_t
cmsgx_generation(void)
{
    return atomic_load_explicit(&cmsgx_process.generation, memory_order_relaxed);
}

#define CMSGX_GENERATION_BITS 16
#define CMSGX_GENERATION_MASK ((UINT32_C(1) << CMSGX_GENERATION_BITS) - 1)

/* This thread in this process, to mark something as in use by: never 0.  Of an address 48 bits
   are significant, and of a generation 16 will do: between two that look the same 65536 forks lie,
   each by the child of the one before. */
static inline uint64_t
cmsgx_stamp(void)
{
    return (uint64_t)(uintptr_t)pthread_self() << CMSGX_GENERATION_BITS
           | (cmsgx_generation() & CMSGX_GENERATION_MASK);
}

/* Whether the thread that made the stamp, and had not finished when a fork copied it here, is in
   this process: as in the process that made it, and in those that this very thread forked. */
int cmsgx_stamp_is_ours(uint64_t stamp);

/* Registers the handlers of fork(2), once for a process, whatever number of interpreters import
   the module.  By pthread_atfork(3) and not by os.register_at_fork(): these run after all hooks in
   Python, so that none of those can wait for what is held here.  0, or an errno. */
int cmsgx_process_watch(void);

/* The list of hooks: borrowed from one call to the other. */
void cmsgx_process_add(cmsgx_fork_hook *hook);
void cmsgx_process_remove(cmsgx_fork_hook *hook);

/* In a child, after the handlers, which may not start a thread: calls each hook's `resume`. */
void cmsgx_process_resume(void);

#endif
