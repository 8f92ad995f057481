/* The settings of a receiver: ReceiveConfig, and the struct that its messages share. */

#ifndef CMSGX_RECEIVE_CONFIG_H
#define CMSGX_RECEIVE_CONFIG_H

#include "state.h"

/* The settings of one receiver, which its messages share. */
typedef struct cmsgx_receive_config {
    cmsgx_count users;
    cmsgx_state *state;     /* borrowed: whoever has a config has an object of the module */
    size_t fds;             /* descriptors requested */
    size_t control_size;    /* size of the control buffer that the kernel may fill */
    int family;             /* AF_*; -1: unknown */
    int type;               /* SOCK_*; -1: unknown, so the kernel is asked when it matters */
    int flags;              /* MSG_* that each call adds */
    int raise_truncated;
    cmsgx_row *row;         /* owned use: closes in the background; or NULL */
    int takes_pidfd;        /* PidFd was requested, or the call takes any that comes */
    int asked_pidfd;        /* PidFd was requested */
    PyObject *want;         /* owned: tuple of the enabled kinds; NULL: unknown */
    int is_traced;          /* its users may be in a reference cycle, through a kind that the user
                               defined or through `into`.  Then each user holds a reference to
                               `want`, and is tracked by the garbage collector, at a cost that the
                               other configs avoid */
} cmsgx_receive_config;

/* One use, the caller's. */
cmsgx_receive_config *cmsgx_receive_config_new(cmsgx_state *state);
void cmsgx_receive_config_release(cmsgx_receive_config *config);

/* The config for one call that enables no kinds; the one of the last such call is reused if it is
   the same.  One use, the caller's, or NULL with MemoryError.  Steals the use of `row`, even on
   failure; if it is NULL, the receiving thread closes the descriptors. */
cmsgx_receive_config *cmsgx_receive_config_once(cmsgx_state *state, size_t fds, int family,
                                                int type, int raise_truncated, cmsgx_row *row);

/* Releases the config that is kept for the next call. */
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

/* A new config for one receiver, from a ReceiveConfig: one use, the caller's.  Receivers can share
   that object, but each has its own row in the closer.  NULL with an exception. */
cmsgx_receive_config *cmsgx_receive_config_of(cmsgx_state *state, PyObject *object);

/* Takes over the row of the config that it replaces, which may be NULL. */
void cmsgx_receive_config_inherit(cmsgx_receive_config *config, const cmsgx_receive_config *before);

/* Whether a message of that family can carry descriptors.  -1: unknown, so it may. */
static inline int
cmsgx_may_bring_fds(int family)
{
    return family == AF_UNIX || family < 0;
}

/* Adds ReceiveConfig to the module: 0, or -1 with an exception. */
int cmsgx_add_receive_config(PyObject *module);

#endif
