#include "types/receive_config.h"

#include "bind.h"
#include "arguments.h"
#include "plain/msghdr.h"
#include "types/codec.h"

cmsgx_receive_config *
cmsgx_receive_config_new(cmsgx_state *state)
{
    if (cmsgx_need_bound(state) < 0) {
        return NULL;
    }
    cmsgx_receive_config *config = PyMem_Calloc(1, sizeof(*config));
    if (config == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    config->users = 1;
    config->state = state;
    return config;
}

cmsgx_receive_config *
cmsgx_receive_config_once(cmsgx_state *state, size_t fds, int family, int type, int raise_truncated,
                   cmsgx_row *row)
{
    cmsgx_receive_config *config;
#if CMSGX_FREE_LIST
    config = state->spare_config;
    if (config != NULL && config->fds == fds && config->family == family
        && config->type == type && config->raise_truncated == raise_truncated && row == NULL) {
        return cmsgx_receive_config_share(config);
    }
#endif
    config = cmsgx_receive_config_new(state);
    if (config == NULL) {
        cmsgx_row_drop(row);
        return NULL;
    }
    config->row = row;
    config->fds = fds;
    config->family = family;
    config->type = type;
    config->raise_truncated = raise_truncated;
    config->takes_pidfd = 1;
#if CMSGX_FREE_LIST
    if (row == NULL) {
        cmsgx_receive_config_release(state->spare_config);
        state->spare_config = cmsgx_receive_config_share(config);
    }
#endif
    return config;
}

void
cmsgx_receive_config_free_all(cmsgx_state *state)
{
#if CMSGX_FREE_LIST
    cmsgx_receive_config_release(state->spare_config);
    state->spare_config = NULL;
#else
    (void)state;
#endif
}

void
cmsgx_receive_config_release(cmsgx_receive_config *config)
{
    if (config == NULL) {
        return;
    }
    PyObject *want = config->want;
    int is_traced = config->is_traced;
    if (cmsgx_count_down(&config->users)) {
        cmsgx_row_drop(config->row);
        PyMem_Free(config);
        Py_XDECREF(want);
    }
    else if (is_traced) {
        Py_XDECREF(want);
    }
}

void
cmsgx_receive_config_inherit(cmsgx_receive_config *config, const cmsgx_receive_config *before)
{
    if (before != NULL && before->row != NULL && config->row != NULL) {
        /* What is stuck there still counts for this receiver. */
        cmsgx_row_drop(config->row);
        config->row = cmsgx_row_hold(before->row);
    }
}

/* Whether these are kinds of the package, which live as long as it does: no cycle with them is
   garbage. */
static int
are_lasting(cmsgx_state *state, PyObject *kinds)
{
    int result = 1;
    for (Py_ssize_t i = 0; result && i < PyTuple_GET_SIZE(kinds); i++) {
        PyObject *kind = PyTuple_GET_ITEM(kinds, i);
        cmsgx_codec *codec = cmsgx_codec_of(state, kind);
        result = kind == (PyObject *)state->PidFd || (codec != NULL && codec->is_lasting);
        Py_XDECREF(codec);
    }
    return result;
}

cmsgx_receive_config *
cmsgx_receive_config_parse(cmsgx_state *state, PyObject *args)
{
    PyObject *fds_given, *size_given, *want;
    size_t fds;
    Py_ssize_t control_size;
    int family, type, takes_pidfd, raise_truncated, in_background;

    if (!PyArg_ParseTuple(args, "OOO!iippp:_configure", &fds_given, &size_given, &PyTuple_Type,
                          &want, &family, &type, &takes_pidfd, &raise_truncated, &in_background)
        || cmsgx_as_fds(state, fds_given, &fds) < 0
        || cmsgx_as_nearest(size_given, "control_size", &control_size) < 0) {
        return NULL;
    }
    /* 32 bits have no nearer one than INT_MAX to what is larger. */
    if (control_size < 0 || control_size >= INT_MAX) {
        PyErr_Format(PyExc_ValueError, "control_size: %R; it is 0 to %d", size_given, INT_MAX - 1);
        return NULL;
    }
    cmsgx_receive_config *config = cmsgx_receive_config_new(state);
    if (config == NULL) {
        return NULL;
    }
    config->fds = fds;
    config->control_size = (size_t)control_size;
    config->family = family;
    config->type = type;
    if (!cmsgx_may_bring_fds(family)) {
        /* As many as can come: none, so that none can be missing. */
        config->fds = 0;
    }
    config->takes_pidfd = takes_pidfd;
    config->asked_pidfd = takes_pidfd;
    config->raise_truncated = raise_truncated;
    config->want = Py_NewRef(want);
    if (in_background && cmsgx_may_bring_fds(family)) {
        if ((config->row = cmsgx_row_new(state->closer)) == NULL) {
            PyErr_NoMemory();
            cmsgx_receive_config_release(config);
            return NULL;
        }
        /* What the kernel has no room for it closes, in the thread that receives. */
        if (config->control_size < CMSGX_MAX_CONTROL_SIZE) {
            config->control_size = CMSGX_MAX_CONTROL_SIZE;
        }
    }
    config->is_traced = !are_lasting(state, want);
    return config;
}
