#include "calls/receiver_base.h"

#include "calls/options.h"

PyObject *
cmsgx_receiver_make(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        ((cmsgx_receiver_base *)self)->state = cmsgx_state_of_type(type);
    }
    return self;
}

PyObject *
cmsgx_receiver_configure(PyObject *object, PyObject *given, void (*renew)(PyObject *))
{
    cmsgx_receiver_base *self = (cmsgx_receiver_base *)object;
    cmsgx_receive_config *config = cmsgx_receive_config_of(self->state, given);
    if (config == NULL) {
        return NULL;
    }
    if (!cmsgx_enter(&self->busy)) {
        cmsgx_receive_config_release(config);
        return cmsgx_raise_receiver_busy(object);
    }
    cmsgx_receive_config *before = self->config;
    cmsgx_receive_config_inherit(config, before);
    self->config = config;
    renew(object);
    cmsgx_leave(&self->busy);
    cmsgx_receive_config_release(before);
    Py_RETURN_NONE;
}

/* Whether both keys have items of the same classes: an object of another class can equal a kind. */
static int
are_alike(PyObject *key, PyObject *other)
{
    Py_ssize_t count = PyTuple_GET_SIZE(key);
    int result = PyTuple_Check(other) && PyTuple_GET_SIZE(other) == count;
    for (Py_ssize_t i = 0; result && i < count; i++) {
        result = Py_IS_TYPE(PyTuple_GET_ITEM(key, i), Py_TYPE(PyTuple_GET_ITEM(other, i)));
    }
    return result;
}

static int
is_known_item(PyObject *item)
{
    return PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 3
           && PyDict_Check(PyTuple_GET_ITEM(item, 1));
}

/* The item of `known` for the arguments of a receiver: a new reference, or NULL, without an
   exception if it is not there, or if an argument is of a class whose equality says too little. */
static PyObject *
find_known(PyObject *known, PyObject *const *asked)
{
    PyObject *found = NULL;
    if (!PyLong_CheckExact(asked[1])
        || (!PyTuple_CheckExact(asked[0]) && !PyList_CheckExact(asked[0]))) {
        return NULL;
    }
    PyObject *want = CMSGX_HAS_GIL ? Py_NewRef(asked[0]) : cmsgx_unchanging(asked[0]);
    PyObject *key = want == NULL ? NULL : PyTuple_New(3 + PySequence_Fast_GET_SIZE(want));
    for (Py_ssize_t i = 0; key != NULL && i < PyTuple_GET_SIZE(key); i++) {
        PyObject *item = i < 3 ? asked[i + 1] : PySequence_Fast_GET_ITEM(want, i - 3);
        PyTuple_SET_ITEM(key, i, Py_NewRef(item));
    }
    if (key != NULL && cmsgx_dict_get(known, key, &found) < 0
        && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();      /* one of them has no hash */
    }
    if (found != NULL && is_known_item(found) && !are_alike(key, PyTuple_GET_ITEM(found, 2))) {
        Py_CLEAR(found);
    }
    Py_XDECREF(key);
    Py_XDECREF(want);
    return found;
}

PyObject *
cmsgx_receiver_open(PyObject *object, PyObject *const *args, void (*renew)(PyObject *))
{
    cmsgx_receiver_base *self = (cmsgx_receiver_base *)object;
    if (!PyDict_Check(args[0])) {
        return cmsgx_raise_needed("known", -1, "a dict", args[0]);
    }
    self->generation = cmsgx_generation();
    if ((self->noted = PyList_New(0)) == NULL) {
        return NULL;
    }
    self->is_open = 1;
    PyObject *known = find_known(args[0], &args[1]);
    if (known == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    PyObject *found = NULL;
    if (!is_known_item(known)) {
        cmsgx_raise_needed("known", -1, "a dict of (asked, plans, key)", known);
    }
    else {
        self->asked = Py_NewRef(PyTuple_GET_ITEM(known, 0));
        found = cmsgx_configuration(self->state, self->sock, PyTuple_GET_ITEM(known, 1),
                                    self->noted, 0);
    }
    Py_DECREF(known);
    if (found == NULL || !Py_IS_TYPE(found, self->state->ReceiveConfig)) {
        return found;
    }
    PyObject *done = cmsgx_receiver_configure(object, found, renew);
    Py_DECREF(found);
    Py_XDECREF(done);
    return done == NULL ? NULL : Py_NewRef(Py_True);
}

int
cmsgx_receiver_traverse(PyObject *object, visitproc visit, void *arg)
{
    const cmsgx_receiver_base *self = (cmsgx_receiver_base *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->sock);
    Py_VISIT(self->last);
    Py_VISIT(self->asked);
    Py_VISIT(self->noted);
    return cmsgx_receive_config_visit(self->config, visit, arg);
}

void
cmsgx_receiver_clear(cmsgx_receiver_base *self)
{
    cmsgx_receive_config *config = self->config;
    self->config = NULL;
    Py_CLEAR(self->sock);
    Py_CLEAR(self->last);
    Py_CLEAR(self->asked);
    Py_CLEAR(self->noted);
    cmsgx_receive_config_release(config);
}

PyObject *
cmsgx_receiver_tell(int is_end)
{
    return is_end < 0 ? cmsgx_raise_no_end(-is_end) : PyBool_FromLong(is_end == 1);
}

PyObject *
cmsgx_raise_not_initialised(const char *name)
{
    return PyErr_Format(PyExc_ValueError,
                        "the %s was not initialised: a subclass must call super().__init__()",
                        name);
}
