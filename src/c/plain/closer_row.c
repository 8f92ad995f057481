#include "plain/closer_row.h"

#include <stdlib.h>
#include <sys/resource.h>

/* At most LIMIT descriptors may wait before receivers stop, and one SHARE-th of RLIMIT_NOFILE. */
#define LIMIT ((size_t)4096)
#define SHARE ((size_t)8)
/* Places that are allocated at once. */
#define BLOCK 256

/* Life ------------------------------------------------------------------------------------- */

void
cmsgx_closer_drop(cmsgx_closer *closer)
{
    if (cmsgx_is_last(&closer->users)) {
        cmsgx_process_remove(&closer->hook);
        pthread_cond_destroy(&closer->wake);
        pthread_cond_destroy(&closer->hurry);
        pthread_cond_destroy(&closer->changed);
        pthread_mutex_destroy(&closer->lock);
        while (closer->memory != NULL) {
            cmsgx_places *next = closer->memory->next;
            free(closer->memory);
            closer->memory = next;
        }
        free(closer);
    }
}

cmsgx_row *
cmsgx_row_new(cmsgx_closer *closer)
{
    cmsgx_row *row = calloc(1, sizeof(*row));
    if (row != NULL) {
        row->closer = closer;
        row->is_own = 1;
        (void)cmsgx_closer_limit(closer);
        (void)cmsgx_row_hold(row);
    }
    return row;
}

cmsgx_row *
cmsgx_row_shared(cmsgx_closer *closer, int number)
{
    return cmsgx_row_hold(&closer->rows[(unsigned)number % CMSGX_CLOSER_ROWS]);
}

cmsgx_row *
cmsgx_row_hold(cmsgx_row *row)
{
    if (cmsgx_add(&row->users, 1) == 0) {
        cmsgx_up(&row->closer->users);
    }
    return row;
}

void
cmsgx_row_drop(cmsgx_row *row)
{
    if (row != NULL && cmsgx_is_last(&row->users)) {
        cmsgx_closer *closer = row->closer;
        if (row->is_own) {
            free(row);
        }
        cmsgx_closer_drop(closer);
    }
}

/* Places ----------------------------------------------------------------------------------- */

/* With the lock held.  0, or -1 where there is no memory. */
static int
add_block(cmsgx_closer *closer, size_t count)
{
    cmsgx_places *made = malloc(sizeof(*made) + count * sizeof(made->places[0]));
    if (made == NULL) {
        return -1;
    }
    made->next = closer->memory;
    closer->memory = made;
    for (size_t i = 0; i < count; i++) {
        made->places[i].next = closer->free;
        closer->free = &made->places[i];
    }
    cmsgx_add(&closer->places, count);
    return 0;
}

/* The same: with the lock held.  Others may reserve meanwhile, without it. */
static int
make_places(cmsgx_closer *closer)
{
    for (;;) {
        size_t there = cmsgx_get(&closer->places), wanted = cmsgx_get(&closer->reserved);
        if (there >= wanted) {
            return 0;
        }
        if (add_block(closer, wanted - there > BLOCK ? wanted - there : BLOCK) < 0) {
            return -1;
        }
    }
}

int
cmsgx_row_reserve(cmsgx_row *row, size_t count)
{
    cmsgx_closer *closer = row->closer;
    /* A caller that sees its own number covered has its places: they are never taken back. */
    if (cmsgx_add(&closer->reserved, count) + count <= cmsgx_get(&closer->places)) {
        return 0;
    }
    pthread_mutex_lock(&closer->lock);
    int result = make_places(closer);
    pthread_mutex_unlock(&closer->lock);
    if (result < 0) {
        cmsgx_subtract(&closer->reserved, count);
    }
    return result;
}

void
cmsgx_row_unreserve(cmsgx_row *row, size_t count)
{
    cmsgx_subtract(&row->closer->reserved, count);
}

void
cmsgx_row_free_place(cmsgx_row *row, cmsgx_place *place)
{
    cmsgx_closer *closer = row->closer;
    place->next = closer->free;
    closer->free = place;
    cmsgx_subtract(&row->waiting, 1);
    cmsgx_subtract(&closer->backlog, 1);
    cmsgx_subtract(&closer->reserved, 1);
}

/* How many may wait --------------------------------------------------------------------------- */

static size_t
table_size(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) < 0 || (uint64_t)limit.rlim_cur > LIMIT * SHARE
        ? LIMIT * SHARE : (size_t)limit.rlim_cur;
}

size_t
cmsgx_closer_limit(cmsgx_closer *closer)
{
    size_t limit = table_size() / SHARE;
    size_t few = limit < CMSGX_CLOSER_FEW ? limit : CMSGX_CLOSER_FEW;
    atomic_store_explicit(&closer->few, few, memory_order_relaxed);
    return limit;
}

/* A row without a backlog of its own goes on for a while where others have filled the closer: one
   peer must not stop all. */
int
cmsgx_row_is_over(cmsgx_row *row)
{
    size_t limit = cmsgx_closer_limit(row->closer);
    size_t backlog = cmsgx_get(&row->closer->backlog);
    return backlog > limit && (cmsgx_get(&row->waiting) > 0 || backlog > limit * SHARE / 2);
}

size_t
cmsgx_row_max(const cmsgx_row *row)
{
    size_t limit = cmsgx_closer_limit(row->closer);
    size_t backlog = cmsgx_get(&row->closer->backlog);
    return backlog < limit ? limit - backlog : 0;
}
