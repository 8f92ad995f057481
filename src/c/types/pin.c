#include "types/pin.h"

#include "errors.h"
#include "types/fd_argument.h"

/* A pin ends with its object at the latest, so an exception anywhere cannot leave one behind. */

typedef struct {
    PyObject_HEAD
    PyObject *owner;        /* owned: the FdBase, or another object, which is not pinned */
    cmsgx_word is_held;
    uint32_t generation;    /* of the process that made it: it holds nothing in a child */
    int number;
} pin;

static pin *
new_pin(cmsgx_state *state, PyObject *owner)
{
    pin *self = PyObject_New(pin, state->Pin);
    if (self != NULL) {
        self->owner = Py_NewRef(owner);
        self->is_held = 0;
        self->generation = cmsgx_generation();
    }
    return self;
}

PyObject *
cmsgx_pin_new(cmsgx_state *state, PyObject *owner)
{
    pin *self = new_pin(state, owner);
    if (self != NULL) {
        self->number = cmsgx_fd_pin(owner);
        self->is_held = self->number >= 0;
        if (self->number < 0) {
            Py_CLEAR(self);
        }
    }
    return (PyObject *)self;
}

PyObject *
cmsgx_pin_of(PyObject *module, PyObject *object)
{
    pin *self = new_pin(cmsgx_state_of(module), object);
    PyObject *owner;
    if (self != NULL) {
        if (cmsgx_borrow(cmsgx_state_of(module), object, &self->number, &owner) < 0) {
            Py_CLEAR(self);
        }
        else {
            self->is_held = owner != NULL;
        }
    }
    return (PyObject *)self;
}

static void
release(PyObject *object)
{
    pin *self = (pin *)object;
    uint64_t is_held = cmsgx_word_get(&self->is_held);
    while (is_held && !cmsgx_word_swap(&self->is_held, &is_held, 0)) {
    }
    if (is_held && self->generation == cmsgx_generation()) {
        cmsgx_fd_unpin(self->owner);
    }
}

static void
pin_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    release(object);
    Py_DECREF(((pin *)object)->owner);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyObject *
pin_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(((pin *)self)->number);
}

static PyObject *
pin_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    release(self);
    Py_RETURN_NONE;
}

static PyMethodDef pin_methods[] = {
    {"__enter__", pin_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))pin_exit, METH_FASTCALL, NULL},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pin_slots[] = {
    {Py_tp_dealloc, pin_dealloc},
    {Py_tp_methods, pin_methods},
    {0, NULL},
};

static PyType_Spec pin_spec = {
    .name = "cmsgx._cmsg.Pin",
    .basicsize = sizeof(pin),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pin_slots,
};

int
cmsgx_add_pin(PyObject *module)
{
    return cmsgx_add_type(module, &pin_spec, &cmsgx_state_of(module)->Pin);
}
