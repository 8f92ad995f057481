#include "calls/method.h"

#include "calls/drop_in_receive.h"
#include "calls/drop_in_receive_fds.h"
#include "calls/drop_in_send.h"
#include "calls/overrides.h"
#include "errors.h"

typedef PyObject *(*positional_function)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*positional_method)(cmsgx_state *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*keyword_function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
typedef PyObject *(*keyword_method)(cmsgx_state *, PyObject *const *, Py_ssize_t, PyObject *);

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    cmsgx_state *state;         /* borrowed: the function holds its module */
    PyObject *function;         /* owned: a function of the module */
    positional_method positional;   /* its work as a method: one of these two */
    keyword_method with_keywords;
    Py_ssize_t calls;
} cmsgx_method;

static PyObject *
refuse(const cmsgx_method *method, PyObject *const *args, Py_ssize_t nargs)
{
    const char *name = ((PyCFunctionObject *)method->function)->m_ml->ml_name;
    if (nargs == 0) {
        return PyErr_Format(PyExc_TypeError, "unbound method %s() needs a socket", name);
    }
    return PyErr_Format(PyExc_TypeError,
                        "method '%s' of sockets doesn't apply to a '%.200s' object", name,
                        Py_TYPE(args[0])->tp_name);
}

static PyObject *
method_vectorcall(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    cmsgx_method *method = (cmsgx_method *)self;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);

    /* A plain count: without a GIL threads may lose some calls, but never count one too many. */
    cmsgx_relaxed_increment(&method->calls);
    if (nargs == 0
        || (cmsgx_class_seen(method->state, Py_TYPE(args[0])) == NULL
            && !cmsgx_is_socket_class(method->state, Py_TYPE(args[0])))) {
        return refuse(method, args, nargs);
    }
    if (method->positional == NULL) {
        return method->with_keywords(method->state, args, nargs, kwnames);
    }
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        return PyErr_Format(PyExc_TypeError, "%s() takes no keyword arguments",
                            ((PyCFunctionObject *)method->function)->m_ml->ml_name);
    }
    return method->positional(method->state, args, nargs);
}

/* Finds what does the work of a function of the module when it is called as a method. */
static int
find_work(cmsgx_method *self)
{
    const struct {
        positional_function function;
        positional_method method;
    } positional[] = {
        {cmsgx_sendmsg, cmsgx_sendmsg_method},
        {cmsgx_recvmsg, cmsgx_recvmsg_method},
        {cmsgx_recvmsg_into, cmsgx_recvmsg_into_method},
        {cmsgx_recvmsg_inheritable, cmsgx_recvmsg_inheritable_method},
        {cmsgx_recvmsg_into_inheritable, cmsgx_recvmsg_into_inheritable_method},
    };
    const struct {
        keyword_function function;
        keyword_method method;
    } with_keywords[] = {
        {cmsgx_send_fds, cmsgx_send_fds_method},
        {cmsgx_recv_fds, cmsgx_recv_fds_method},
    };
    void (*given)(void) = (void (*)(void))PyCFunction_GET_FUNCTION(self->function);

    for (size_t i = 0; i < sizeof(positional) / sizeof(positional[0]); i++) {
        if ((void (*)(void))positional[i].function == given) {
            self->positional = positional[i].method;
            return 1;
        }
    }
    for (size_t i = 0; i < sizeof(with_keywords) / sizeof(with_keywords[0]); i++) {
        if ((void (*)(void))with_keywords[i].function == given) {
            self->with_keywords = with_keywords[i].method;
            return 1;
        }
    }
    return 0;
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
    cmsgx_method *self = (cmsgx_method *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = method_vectorcall;
    self->function = Py_NewRef(function);
    if (!find_work(self)) {
        Py_DECREF(self);
        return PyErr_Format(PyExc_TypeError, "method(): %R is not a method of a socket", function);
    }
    self->state = cmsgx_state_of(PyCFunction_GET_SELF(function));
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

static void
method_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(((cmsgx_method *)self)->function);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", Py_T_PYSSIZET, offsetof(cmsgx_method, vectorcall), Py_READONLY, NULL},
    {"__wrapped__", Py_T_OBJECT_EX, offsetof(cmsgx_method, function), Py_READONLY, NULL},
    {"calls", Py_T_PYSSIZET, offsetof(cmsgx_method, calls), Py_READONLY,
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
