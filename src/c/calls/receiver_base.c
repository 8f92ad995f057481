#include "calls/receiver_base.h"

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

int
cmsgx_receiver_traverse(PyObject *object, visitproc visit, void *arg)
{
    const cmsgx_receiver_base *self = (cmsgx_receiver_base *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->sock);
    Py_VISIT(self->last);
    return cmsgx_receive_config_visit(self->config, visit, arg);
}

void
cmsgx_receiver_clear(cmsgx_receiver_base *self)
{
    cmsgx_receive_config *config = self->config;
    self->config = NULL;
    Py_CLEAR(self->sock);
    Py_CLEAR(self->last);
    cmsgx_receive_config_release(config);
}

PyObject *
cmsgx_receiver_tell(int is_end)
{
    return is_end < 0 ? cmsgx_raise_no_end(-is_end) : PyBool_FromLong(is_end);
}

PyObject *
cmsgx_raise_not_initialised(const char *name)
{
    return PyErr_Format(PyExc_ValueError,
                        "the %s was not initialised: a subclass must call super().__init__()",
                        name);
}
