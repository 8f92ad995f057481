#include "types/receive_config.h"

#include "bind.h"
#include "arguments.h"
#include "errors.h"
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
        /* Descriptors that are stuck in that row still count for this receiver. */
        cmsgx_row_drop(config->row);
        config->row = cmsgx_row_hold(before->row);
    }
}

/* Whether all of these are kinds of the package itself, which live as long as it does, so a cycle
   through them is never garbage. */
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

/* ReceiveConfig ---------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    size_t fds;
    size_t control_size;
    PyObject *want;         /* owned */
    int family;
    int type;
    int flags;
    char takes_pidfd;
    char raise_truncated;
    char in_background;
    char is_lasting;        /* nothing that it refers to can be in a reference cycle */
} config_object;

#define SELF(object) ((config_object *)(object))

cmsgx_receive_config *
cmsgx_receive_config_of(cmsgx_state *state, PyObject *object)
{
    if (!Py_IS_TYPE(object, state->ReceiveConfig)) {
        cmsgx_raise_needed("config", -1, "a ReceiveConfig", object);
        return NULL;
    }
    const config_object *self = SELF(object);
    cmsgx_receive_config *config = cmsgx_receive_config_new(state);
    if (config == NULL) {
        return NULL;
    }
    config->fds = self->fds;
    config->control_size = self->control_size;
    config->family = self->family;
    config->type = self->type;
    config->flags = self->flags;
    config->takes_pidfd = config->asked_pidfd = self->takes_pidfd;
    config->raise_truncated = self->raise_truncated;
    config->want = Py_NewRef(self->want);
    config->is_traced = !self->is_lasting;
    if (self->in_background && (config->row = cmsgx_row_new(state->closer)) == NULL) {
        PyErr_NoMemory();
        cmsgx_receive_config_release(config);
        return NULL;
    }
    return config;
}

static PyObject *
config_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"fds", "control_size", "want", "family", "type",
                                        "takes_pidfd", "raise_truncated", "in_background", "flags",
                                        NULL};
    cmsgx_state *state = cmsgx_state_of_type(type);
    PyObject *fds_given = NULL, *size_given = NULL, *want = NULL;
    PyObject *family_given = NULL, *type_given = NULL;
    size_t fds;
    Py_ssize_t control_size;
    int family = -1, sock_type = -1, takes_pidfd = 0, raise_truncated = 1, in_background = 0;
    int flags = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOOpppi:ReceiveConfig",
                                     (char **)(void *)names, &fds_given, &size_given, &want,
                                     &family_given, &type_given, &takes_pidfd, &raise_truncated,
                                     &in_background, &flags)) {
        return NULL;
    }
    if (fds_given == NULL || size_given == NULL || want == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "ReceiveConfig() requires fds=, control_size= and want=");
        return NULL;
    }
    if (cmsgx_as_fds(state, fds_given, &fds) < 0
        || cmsgx_as_nearest(size_given, "control_size", &control_size) < 0
        || (family_given != NULL && cmsgx_as_int(family_given, "family", &family) < 0)
        || (type_given != NULL && cmsgx_as_int(type_given, "type", &sock_type) < 0)) {
        return NULL;
    }
    if (!PyTuple_Check(want)) {
        cmsgx_raise_needed("want", -1, "a tuple of kinds", want);
        return NULL;
    }
    /* On 32-bit systems cmsgx_as_nearest() turns any larger number into INT_MAX. */
    if (control_size < 0 || control_size >= INT_MAX) {
        PyErr_Format(PyExc_ValueError, "control_size: %R; must be 0 to %d", size_given,
                     INT_MAX - 1);
        return NULL;
    }
    int is_lasting = are_lasting(state, want);
    config_object *self = SELF(type->tp_alloc(type, 0));
    if (self == NULL) {
        return NULL;
    }
    int may_bring_fds = cmsgx_may_bring_fds(family);
    /* Not more than can come, so that none can be missing. */
    self->fds = may_bring_fds ? fds : 0;
    self->control_size = (size_t)control_size;
    self->want = Py_NewRef(want);
    self->family = family;
    self->type = sock_type;
    self->flags = flags;
    self->takes_pidfd = (char)takes_pidfd;
    self->raise_truncated = (char)raise_truncated;
    self->in_background = (char)(in_background && may_bring_fds);
    self->is_lasting = (char)is_lasting;
    /* Descriptors that do not fit in the control buffer are closed by the kernel, in the thread
       that receives: unix(7), SCM_RIGHTS. */
    if (self->in_background && self->control_size < CMSGX_MAX_CONTROL_SIZE) {
        self->control_size = CMSGX_MAX_CONTROL_SIZE;
    }
    return (PyObject *)self;
}

static int
config_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->want);
    return 0;
}

static void
config_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(SELF(object)->want);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMemberDef config_members[] = {
    {"fds", Py_T_PYSSIZET, offsetof(config_object, fds), Py_READONLY,
     "The maximum number of descriptors for each message."},
    {"control_size", Py_T_PYSSIZET, offsetof(config_object, control_size), Py_READONLY,
     "The size of the control buffer, in bytes."},
    {"want", Py_T_OBJECT_EX, offsetof(config_object, want), Py_READONLY,
     "The kinds that are enabled, a tuple."},
    {"family", Py_T_INT, offsetof(config_object, family), Py_READONLY, "AF_*; -1: unknown."},
    {"type", Py_T_INT, offsetof(config_object, type), Py_READONLY,
     "SOCK_*; -1: unknown, so the kernel is asked when it matters."},
    {"takes_pidfd", Py_T_BOOL, offsetof(config_object, takes_pidfd), Py_READONLY,
     "Whether a PidFd was requested."},
    {"raise_truncated", Py_T_BOOL, offsetof(config_object, raise_truncated), Py_READONLY,
     "Whether a receive raises if data or descriptors are missing."},
    {"in_background", Py_T_BOOL, offsetof(config_object, in_background), Py_READONLY,
     "Whether the background closer closes the descriptors that are not taken."},
    {"flags", Py_T_INT, offsetof(config_object, flags), Py_READONLY, "MSG_* that each call adds."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef config_methods[] = {
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(config_doc,
"ReceiveConfig(*, fds, control_size, want, family=-1, type=-1, takes_pidfd=False, "
"raise_truncated=True, in_background=False, flags=0)\n--\n\n"
"The settings of a receiver, and the size of its control buffer.  It is immutable, so any number\n"
"of receivers can share one.");

static PyType_Slot config_slots[] = {
    {Py_tp_new, config_make},
    {Py_tp_dealloc, config_dealloc},
    {Py_tp_traverse, config_traverse},
    {Py_tp_methods, config_methods},
    {Py_tp_members, config_members},
    {Py_tp_doc, (void *)config_doc},
    {0, NULL},
};

static PyType_Spec config_spec = {
    .name = "cmsgx._cmsg.ReceiveConfig",
    .basicsize = sizeof(config_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = config_slots,
};

int
cmsgx_add_receive_config(PyObject *module)
{
    return cmsgx_add_type(module, &config_spec, &cmsgx_state_of(module)->ReceiveConfig);
}
