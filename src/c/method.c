#include "method.h"

#include "errors.h"

#include <structmember.h>

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *function;     /* owned: a builtin function */
    vectorcallfunc target;  /* that function's own */
    Py_ssize_t calls;
} cmsgx_method;

static PyObject *
method_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    cmsgx_method *method = (cmsgx_method *)self;
    /* A plain count: threads without a GIL may lose some, and none is counted in vain. */
    cmsgx_relaxed_increment(&method->calls);
    return method->target(method->function, args, nargsf, kwnames);
}

static PyObject *
method_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *function;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "method() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!:method", &PyCFunction_Type, &function)) {
        return NULL;
    }
    vectorcallfunc target = PyVectorcall_Function(function);
    if (target == NULL) {
        PyErr_SetString(PyExc_TypeError, "method() needs a function that takes vectorcalls");
        return NULL;
    }
    cmsgx_method *self = (cmsgx_method *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = method_vectorcall;
        self->function = Py_NewRef(function);
        self->target = target;
    }
    return (PyObject *)self;
}

static PyObject *
method_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

static PyObject *
method_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<method of %R>", ((cmsgx_method *)self)->function);
}

static PyObject *
method_attribute(PyObject *self, void *name)
{
    return PyObject_GetAttrString(((cmsgx_method *)self)->function, name);
}

static int
method_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((cmsgx_method *)self)->function);
    return 0;
}

static int
method_clear(PyObject *self)
{
    Py_CLEAR(((cmsgx_method *)self)->function);
    return 0;
}

static void
method_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)method_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(cmsgx_method, vectorcall), READONLY, NULL},
    {"__wrapped__", T_OBJECT, offsetof(cmsgx_method, function), READONLY, NULL},
    {"calls", T_PYSSIZET, offsetof(cmsgx_method, calls), READONLY,
     "How often it was called, about: threads may lose counts."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef method_getset[] = {
    {"__name__", method_attribute, NULL, NULL, "__name__"},
    {"__qualname__", method_attribute, NULL, NULL, "__qualname__"},
    {"__doc__", method_attribute, NULL, NULL, "__doc__"},
    {"__text_signature__", method_attribute, NULL, NULL, "__text_signature__"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef method_methods[] = {
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_new, method_make},
    {Py_tp_dealloc, method_dealloc},
    {Py_tp_methods, method_methods},
    {Py_tp_traverse, method_traverse},
    {Py_tp_clear, method_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, method_get},
    {Py_tp_repr, method_repr},
    {Py_tp_members, method_members},
    {Py_tp_getset, method_getset},
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "cmsgx._cmsg.method",
    .basicsize = sizeof(cmsgx_method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = method_slots,
};

int
cmsgx_add_method(PyObject *module)
{
    return cmsgx_add_type(module, &method_spec, &cmsgx_state_of(module)->Method);
}
