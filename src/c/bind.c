#include "bind.h"

#include "errors.h"

#include <stddef.h>
#include <string.h>

#define UNBOUND "cmsgx._cmsg is not bound to the Python layer: import cmsgx, which binds it"

typedef enum {
    CLASS,          /* a subclass of the type at offset `base` of the state */
    BUILTIN,        /* a subclass of *builtin */
    EXCEPTION,      /* the same, for an exception */
    FUNCTION,       /* a callable */
} sort;

static const struct {
    const char *name;
    size_t slot;
    sort sort;
    size_t base;
    void *builtin;
} expected[] = {
#define SLOT(name) #name, offsetof(cmsgx_state, name)
    {SLOT(Fd), CLASS, offsetof(cmsgx_state, FdBase), NULL},
    {SLOT(PidFd), CLASS, offsetof(cmsgx_state, FdBase), NULL},
    {SLOT(Rights), CLASS, offsetof(cmsgx_state, Record), NULL},
    {SLOT(Credentials), CLASS, offsetof(cmsgx_state, Struct), NULL},
    {SLOT(Unknown), CLASS, offsetof(cmsgx_state, Record), NULL},
    {SLOT(IPAddress), CLASS, offsetof(cmsgx_state, Struct), NULL},
    {SLOT(Outgoing), BUILTIN, 0, &PyTuple_Type},
    {SLOT(BatchResult), BUILTIN, 0, &PyLong_Type},
    {SLOT(socket_class), CLASS, offsetof(cmsgx_state, socket), NULL},
    /* Any class: after gevent.monkey it derives from one that only holds a socket. */
    {SLOT(our_socket), BUILTIN, 0, &PyBaseObject_Type},
    {SLOT(TooManyFdsError), EXCEPTION, 0, &PyExc_ValueError},
    {SLOT(MalformedControlError), EXCEPTION, 0, &PyExc_ValueError},
    {SLOT(NotSupportedError), EXCEPTION, 0, &PyExc_OSError},
    {SLOT(decode), FUNCTION, 0, NULL},
    {SLOT(raise_truncated), FUNCTION, 0, NULL},
    {SLOT(recvmsg_foreign), FUNCTION, 0, NULL},
    {SLOT(recv_fds_through), FUNCTION, 0, NULL},
    {SLOT(refusal), FUNCTION, 0, NULL},
    {SLOT(family_name), FUNCTION, 0, NULL},
    {SLOT(note_needs), FUNCTION, 0, NULL},
    {SLOT(not_a_kind), FUNCTION, 0, NULL},
#undef SLOT
};
#define EXPECTED (sizeof(expected) / sizeof(expected[0]))

static PyObject **
state_slot(cmsgx_state *state, size_t offset)
{
    return (PyObject **)(void *)((char *)state + offset);
}

/* Before the call ------------------------------------------------------------------------- */

int
cmsgx_raise_unbound(void)
{
    PyErr_SetString(PyExc_RuntimeError, UNBOUND);
    return -1;
}

static PyObject *
unbound(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    (void)cmsgx_raise_unbound();
    return NULL;
}

static PyMethodDef unbound_method = {
    "unbound", (PyCFunction)(void (*)(void))unbound, METH_VARARGS | METH_KEYWORDS, NULL,
};

int
cmsgx_add_unbound(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *function = PyCFunction_New(&unbound_method, NULL);
    if (function == NULL) {
        return -1;
    }
    for (size_t i = 0; i < EXPECTED; i++) {
        PyObject **slot = state_slot(state, expected[i].slot);
        if (expected[i].sort == FUNCTION) {
            *slot = Py_NewRef(function);
        }
        else if (expected[i].sort == EXCEPTION) {
            *slot = Py_NewRef(PyExc_RuntimeError);
        }
    }
    Py_DECREF(function);
    return 0;
}

/* The call -------------------------------------------------------------------------------- */

/* 0, or -1 with TypeError. */
static int
check_bound(cmsgx_state *state, size_t i, PyObject *given)
{
    if (expected[i].sort == FUNCTION) {
        if (!PyCallable_Check(given)) {
            cmsgx_raise_needed(expected[i].name, -1, "a callable", given);
            return -1;
        }
        return 0;
    }
    PyObject *base = expected[i].sort == CLASS ? *state_slot(state, expected[i].base)
        : expected[i].sort == BUILTIN ? (PyObject *)expected[i].builtin
        : *(PyObject **)expected[i].builtin;
    if (!PyType_Check(given)
        || !PyType_IsSubtype((PyTypeObject *)given, (PyTypeObject *)base)) {
        char needed[100];
        PyOS_snprintf(needed, sizeof(needed), "a subclass of %s", ((PyTypeObject *)base)->tp_name);
        cmsgx_raise_needed(expected[i].name, -1, needed, given);
        return -1;
    }
    return 0;
}

/* Stores each object, borrowed, at the index of its name.  0, or -1 with TypeError. */
static int
sort_by_name(PyObject *const *args, PyObject *kwnames, PyObject **given)
{
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        size_t i = 0;
        while (i < EXPECTED && PyUnicode_CompareWithASCIIString(name, expected[i].name) != 0) {
            i++;
        }
        if (i == EXPECTED) {
            PyErr_Format(PyExc_TypeError, "bind: unknown argument %R", name);
            return -1;
        }
        given[i] = args[k];
    }
    return 0;
}

/* TypeError that names all missing arguments. */
static void
raise_missing(PyObject *const *given)
{
    char names[512] = "";
    for (size_t i = 0; i < EXPECTED; i++) {
        if (given[i] == NULL) {
            size_t used = strlen(names);
            PyOS_snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "",
                          expected[i].name);
        }
    }
    PyErr_Format(PyExc_TypeError, "bind: missing: %s", names);
}

PyObject *
cmsgx_bind(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *given[EXPECTED] = {NULL};

    if (nargs > 0) {
        PyErr_SetString(PyExc_TypeError, "bind: all arguments are keyword-only");
        return NULL;
    }
    if (state->Fd != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bind: already called; it can be called only once");
        return NULL;
    }
    if (sort_by_name(args, kwnames, given) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < EXPECTED; i++) {
        if (given[i] == NULL) {
            raise_missing(given);
            return NULL;
        }
    }
    for (size_t i = 0; i < EXPECTED; i++) {
        if (check_bound(state, i, given[i]) < 0) {
            return NULL;
        }
    }
    for (size_t i = 0; i < EXPECTED; i++) {
        Py_XSETREF(*state_slot(state, expected[i].slot), Py_NewRef(given[i]));
    }
    Py_RETURN_NONE;
}
