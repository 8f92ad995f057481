/* What a receiver was asked for. */

#ifndef CMSGX_RECEIVE_CONFIG_H
#define CMSGX_RECEIVE_CONFIG_H

#include "state.h"

/* What one receiver was asked for: its messages share it. */
typedef struct cmsgx_receive_config {
    cmsgx_count users;
    cmsgx_state *state;     /* borrowed: who has a config has an object of the module */
    size_t fds;             /* descriptors asked for */
    size_t control_size;    /* room given to the kernel */
    int family;             /* AF_*, -1 unknown */
    int type;               /* SOCK_*, -1: asked of the kernel when it matters */
    int raise_truncated;
    cmsgx_row *row;         /* owned use: closes in the background; or NULL */
    int takes_pidfd;        /* PidFd was asked for, or the call takes what comes */
    int asked_pidfd;        /* PidFd was asked for */
    PyObject *want;         /* owned: tuple of kinds that were switched on, or NULL: unknown */
    int is_traced;          /* what uses it may be in a cycle, by a kind of the user's or by `into`:
                               then each object that does holds a reference to `want` instead, and
                               the garbage collector tracks it; the others are spared that */
} cmsgx_receive_config;

/* One use, the caller's. */
cmsgx_receive_config *cmsgx_receive_config_new(cmsgx_state *state);
void cmsgx_receive_config_release(cmsgx_receive_config *config);

/* That of a call which asks for no kinds: the one of the last such call where it is the same.  One
   use, the caller's, or NULL with MemoryError.  Steals the use of `row`, also where it fails; NULL
   closes here. */
cmsgx_receive_config *cmsgx_receive_config_once(cmsgx_state *state, size_t fds, int family,
                                                int type, int raise_truncated, cmsgx_row *row);

/* Gives back the one that is kept. */
void cmsgx_receive_config_free_all(cmsgx_state *state);

static inline cmsgx_receive_config *
cmsgx_receive_config_share(cmsgx_receive_config *config)
{
    cmsgx_count_up(&config->users);
    if (config->is_traced) {
        Py_XINCREF(config->want);
    }
    return config;
}

/* For tp_traverse of an object that uses it. */
static inline int
cmsgx_receive_config_visit(const cmsgx_receive_config *config, visitproc visit, void *arg)
{
    if (config != NULL && config->is_traced) {
        Py_VISIT(config->want);
    }
    return 0;
}

/* One use, the caller's, of what one receiver needs for a ReceiveConfig: that object is shared, its
   row of the closer is not.  NULL with an exception. */
cmsgx_receive_config *cmsgx_receive_config_of(cmsgx_state *state, PyObject *object);

/* Keeps the row of the one (or NULL) whose place it takes. */
void cmsgx_receive_config_inherit(cmsgx_receive_config *config, const cmsgx_receive_config *before);

/* Whether descriptors can come with a message of that family, -1 for one that is not known. */
static inline int
cmsgx_may_bring_fds(int family)
{
    return family == AF_UNIX || family < 0;
}

/* Adds ReceiveConfig to the module: 0, or -1 with an exception. */
int cmsgx_add_receive_config(PyObject *module);

#endif
