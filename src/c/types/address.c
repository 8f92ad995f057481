#include "types/address.h"

#include "arguments.h"
#include "errors.h"
#include "types/ip.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>

/* Address has nothing of its own: an instance is of one of its two forms. */

typedef struct {
    PyObject_HEAD
    cmsgx_whence whence;        /* how to read the name */
    socklen_t size;
    struct sockaddr_storage name;
} raw_address;

/* Its struct sockaddr, borrowed. */
static const void *
name_of(PyObject *self, socklen_t *size)
{
    if (PyTuple_Check(self)) {
        const cmsgx_hidden_name *hidden = cmsgx_hidden_of(self);
        *size = hidden->size;
        return hidden->name;
    }
    const raw_address *raw = (const raw_address *)self;
    *size = raw->size;
    return &raw->name;
}

/* Inlined for IPv4. */
static inline void
copy_name(struct sockaddr_storage *to, const void *from, size_t size)
{
    if (size == sizeof(struct sockaddr_in)) {
        memcpy(to, from, sizeof(struct sockaddr_in));
    }
    else {
        memcpy(to, from, size);
    }
}

int
cmsgx_address_from_object(cmsgx_state *state, int family, PyObject *object,
                          struct sockaddr_storage *name, socklen_t *size)
{
    if (Py_IS_TYPE(object, state->AddressTuple)) {
        const cmsgx_hidden_name *hidden = cmsgx_hidden_of(object);
        *size = hidden->size;
        copy_name(name, hidden->name, hidden->size);
        return 1;
    }
    if (Py_IS_TYPE(object, state->RawAddress)) {
        const raw_address *raw = (const raw_address *)object;
        *size = raw->size;
        copy_name(name, &raw->name, raw->size);
        return 1;
    }
    return cmsgx_name_from_plain(family, object, name, size);
}

/* The raw form ------------------------------------------------------------------------------ */

PyObject *
cmsgx_address_raw(cmsgx_state *state, const struct sockaddr_storage *name, socklen_t size,
                  cmsgx_whence whence)
{
    if (size < CMSGX_MIN_ADDRESS) {
        Py_RETURN_NONE;
    }
    raw_address *raw = PyObject_New(raw_address, state->RawAddress);
    if (raw != NULL) {
        raw->whence = whence;
        raw->size = size <= sizeof(*name) ? size : (socklen_t)sizeof(*name);
        copy_name(&raw->name, name, raw->size);
    }
    return (PyObject *)raw;
}

PyObject *
cmsgx_raw_address(PyObject *module, PyObject *bytes)
{
    struct sockaddr_storage name;
    Py_buffer view;
    if (cmsgx_get_buffer(bytes, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    size_t size = (size_t)view.len < sizeof(name) ? (size_t)view.len : sizeof(name);
    memcpy(&name, view.buf, size);
    PyBuffer_Release(&view);
    if (size >= CMSGX_MIN_ADDRESS && name.ss_family == AF_UNSPEC) {
        /* All zero: the kernel has no address. */
        size = 0;
    }
    return cmsgx_address_raw(cmsgx_state_of(module), &name, (socklen_t)size, CMSGX_NOWHERE);
}

static PyObject *
raw_value(PyObject *self)
{
    const raw_address *raw = (const raw_address *)self;
    return cmsgx_name_to_object(&raw->name, raw->size, raw->whence);
}

static void
raw_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *
raw_repr(PyObject *self)
{
    PyObject *value = raw_value(self);
    PyObject *text = value == NULL ? NULL : PyUnicode_FromFormat("<Address %R>", value);
    Py_XDECREF(value);
    return text;
}

static Py_hash_t
raw_hash(PyObject *self)
{
    const raw_address *raw = (const raw_address *)self;
    return cmsgx_hash_bytes(&raw->name, (Py_ssize_t)raw->size);
}

static PyObject *
raw_compare(PyObject *self, PyObject *other, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || !Py_IS_TYPE(other, Py_TYPE(self))) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    const raw_address *a = (const raw_address *)self;
    const raw_address *b = (const raw_address *)other;
    int equal = a->size == b->size && memcmp(&a->name, &b->name, a->size) == 0;
    return PyBool_FromLong(equal == (operation == Py_EQ));
}

/* Address ------------------------------------------------------------------------------------ */

static PyObject *
raise_other_family(cmsgx_state *state, PyObject *value, int is, int wanted)
{
    PyObject *first = PyObject_CallFunction(state->family_name, "i", is);
    PyObject *second = first == NULL
        ? NULL : PyObject_CallFunction(state->family_name, "i", wanted);
    if (second != NULL) {
        PyErr_Format(PyExc_ValueError, "value: %R is of the family %U, not %U", value, first,
                     second);
    }
    Py_XDECREF(first);
    Py_XDECREF(second);
    return NULL;
}

static PyObject *
address_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"", "", "proto", NULL};
    cmsgx_state *state = cmsgx_state_of_type(type);
    struct sockaddr_storage name;
    socklen_t size;
    cmsgx_whence whence = CMSGX_NOWHERE;
    PyObject *number, *value, *proto = NULL;
    int family;

    if (type != state->Address && type != state->RawAddress) {
        return PyErr_Format(PyExc_TypeError, "%.200s: Address cannot be subclassed", type->tp_name);
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$O:Address", (char **)(void *)names,
                                     &number, &value, &proto)
        || cmsgx_as_int(number, "family", &family) < 0
        || (proto != NULL && cmsgx_as_int(proto, "proto", &whence.proto) < 0)) {
        return NULL;
    }
    int known = 0;
    if (PyObject_TypeCheck(value, state->Address)) {
        known = cmsgx_address_from_object(state, family, value, &name, &size);
        if (name.ss_family != family) {
            return raise_other_family(state, value, (int)name.ss_family, family);
        }
    }
    else {
        known = cmsgx_name_from_object(family, whence, value, &name, &size);
        if (known == 0) {
            known = cmsgx_name_resolve(family, value, &name, &size);
        }
    }
    if (known == 0) {
        PyErr_Format(PyExc_ValueError,
                     "family: %d; the socket module has no addresses of that family, so value has "
                     "to be (%d, bytes), not %R", family, family, value);
    }
    return known > 0 ? cmsgx_address_raw(state, &name, size, whence) : NULL;
}

static PyObject *
address_value(PyObject *self, void *Py_UNUSED(closure))
{
    return PyTuple_Check(self)
        ? PyTuple_GetSlice(self, 0, Py_SIZE(self)) : raw_value(self);
}

static PyObject *
address_family(PyObject *self, void *Py_UNUSED(closure))
{
    socklen_t size;
    struct sockaddr_storage name;
    const void *bytes = name_of(self, &size);
    memcpy(&name, bytes, CMSGX_MIN_ADDRESS);
    return PyLong_FromLong(name.ss_family);
}

static PyObject *
address_ip(PyObject *self, void *Py_UNUSED(closure))
{
    struct sockaddr_storage name;
    socklen_t size;
    const void *bytes = name_of(self, &size);
    memset(&name, 0, sizeof(name));
    memcpy(&name, bytes, size);

    if (name.ss_family == AF_INET) {
        size = sizeof(struct in_addr);
        bytes = (const char *)&name + offsetof(struct sockaddr_in, sin_addr);
    }
    else if (name.ss_family == AF_INET6) {
        size = sizeof(struct in6_addr);
        bytes = (const char *)&name + offsetof(struct sockaddr_in6, sin6_addr);
    }
    else {
        Py_RETURN_NONE;
    }
    PyObject *ip = cmsgx_ip_new(cmsgx_state_of_self(self), bytes, size);
    PyObject *value = ip == NULL ? NULL : PyObject_GetAttrString(ip, "ip");
    Py_XDECREF(ip);
    return value;
}

static PyObject *
address_packed(PyObject *self, void *Py_UNUSED(closure))
{
    socklen_t size;
    const void *bytes = name_of(self, &size);
    return PyBytes_FromStringAndSize(bytes, (Py_ssize_t)size);
}

static PyGetSetDef address_getset[] = {
    {"value", address_value, NULL,
     "The address as the socket module gives it: a tuple; for AF_UNIX str or bytes.", NULL},
    {"family", address_family, NULL, "Its AF_* number.", NULL},
    {"ip", address_ip, NULL,
     "The host as an address of the module ipaddress, without its scope; None if it has no host.",
     NULL},
    {"packed", address_packed, NULL, "The struct sockaddr, as bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(address_doc,
"Address(family, value, /, *, proto=-1)\n--\n\n"
"A socket address in its raw form, a struct sockaddr: immutable, hashable, and equal to another\n"
"raw form with the same bytes.  Each `address` argument takes one, without formatting or parsing\n"
"text.  It can be copied and pickled.\n\n"
"`family` is an AF_* number, and `value` what the socket module takes for that family; a host\n"
"name is looked up.  `proto` is the protocol of the socket, if the form of an address depends on\n"
"it: a BTPROTO_* for AF_BLUETOOTH, a CAN_* for AF_CAN (default: by the length of the tuple).\n"
"Raises what socket raises for an invalid address, and ValueError for a family that socket does\n"
"not know.\n\n"
"The `sender` of a message has this form.  Its `address` is a tuple, str or bytes, as in socket;\n"
"the tuple is an Address too, and has the same attributes.");

/* A pickle is not trusted: the bytes may be anything, as received bytes may, but their number
   has to be that of an address. */
static PyObject *
raw_restore(PyObject *type, PyObject *args)
{
    struct sockaddr_storage name;
    cmsgx_whence whence = CMSGX_NOWHERE;
    Py_buffer packed;
    if (!PyArg_ParseTuple(args, "y*i:_restore", &packed, &whence.proto)) {
        return NULL;
    }
    size_t size = (size_t)packed.len;
    int fits = size >= CMSGX_MIN_ADDRESS && size <= sizeof(name);
    if (fits) {
        memcpy(&name, packed.buf, size);
    }
    PyBuffer_Release(&packed);
    if (!fits) {
        return PyErr_Format(PyExc_ValueError, "packed: %zu bytes; an address has %zu to %zu", size,
                            (size_t)CMSGX_MIN_ADDRESS, sizeof(name));
    }
    return cmsgx_address_raw(cmsgx_state_of_type((PyTypeObject *)type), &name, (socklen_t)size,
                             whence);
}

/* By the type that has a public name. */
static PyObject *
raw_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const raw_address *raw = (const raw_address *)self;
    PyObject *restore = PyObject_GetAttrString(
        (PyObject *)cmsgx_state_of_self(self)->Address, "_restore");
    return restore == NULL ? NULL
                           : Py_BuildValue("N(y#i)", restore, (const char *)&raw->name,
                                           (Py_ssize_t)raw->size, raw->whence.proto);
}

/* Immutable: a copy is the object itself. */
static PyObject *
raw_copy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    return Py_NewRef(self);
}

static PyMethodDef address_methods[] = {
    {"_restore", raw_restore, METH_VARARGS | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef raw_methods[] = {
    {"__reduce__", raw_reduce, METH_NOARGS, NULL},
    {"__copy__", raw_copy, METH_NOARGS, NULL},
    {"__deepcopy__", raw_copy, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot address_slots[] = {
    {Py_tp_new, address_make},
    {Py_tp_methods, address_methods},
    {Py_tp_getset, address_getset},
    {Py_tp_doc, (void *)address_doc},
    {0, NULL},
};

static PyType_Slot raw_slots[] = {
    {Py_tp_dealloc, raw_dealloc},
    {Py_tp_methods, raw_methods},
    {Py_tp_repr, raw_repr},
    {Py_tp_hash, raw_hash},
    {Py_tp_richcompare, raw_compare},
    {Py_tp_doc, (void *)address_doc},
    {0, NULL},
};

static PyType_Spec address_spec = {
    .name = "cmsgx.Address",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_BASETYPE,
    .slots = address_slots,
};

static PyType_Spec raw_spec = {
    .name = "cmsgx.Address",  /* as in repr() and errors */
    .basicsize = sizeof(raw_address),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = raw_slots,
};

int
cmsgx_add_address(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    if (cmsgx_add_type(module, &address_spec, &state->Address) < 0) {
        return -1;
    }
    state->RawAddress = (PyTypeObject *)PyType_FromModuleAndSpec(module, &raw_spec,
                                                                 (PyObject *)state->Address);
    return state->RawAddress == NULL
        ? -1 : PyModule_AddObjectRef(module, "RawAddress", (PyObject *)state->RawAddress);
}
