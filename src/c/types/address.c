#include "types/address.h"

#include "arguments.h"
#include "errors.h"
#include "types/ip.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>

/* Two forms of one class, Address, which has nothing of its own. */

typedef struct {
    PyObject_HEAD
    cmsgx_whence whence;        /* by which its name is read */
    socklen_t size;
    struct sockaddr_storage name;
} raw_address;

/* What is behind the items of a tuple, where tuple itself does not look: it was allocated for more
   of them than it says that it has. */
typedef struct {
    uint32_t size;
    unsigned char name[];
} hidden_name;

static inline hidden_name *
hidden_of(PyObject *tuple)
{
    return (hidden_name *)(void *)(((PyTupleObject *)tuple)->ob_item + Py_SIZE(tuple));
}

/* Its struct sockaddr, borrowed. */
static const void *
name_of(PyObject *self, socklen_t *size)
{
    if (PyTuple_Check(self)) {
        const hidden_name *hidden = hidden_of(self);
        *size = hidden->size;
        return hidden->name;
    }
    const raw_address *raw = (const raw_address *)self;
    *size = raw->size;
    return &raw->name;
}

/* That of IPv4 without a call. */
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
        const hidden_name *hidden = hidden_of(object);
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

/* The tuple --------------------------------------------------------------------------------- */

/* Without its items, which the caller puts in.  The garbage collector has nothing to do with it:
   the items are text, bytes and numbers. */
static inline PyObject *
tuple_new(cmsgx_state *state, Py_ssize_t count, const void *name, size_t size)
{
    size_t room = sizeof(hidden_name) + size;
    Py_ssize_t places = (Py_ssize_t)((room + sizeof(PyObject *) - 1) / sizeof(PyObject *));
    PyObject *tuple = (PyObject *)PyObject_GC_NewVar(PyTupleObject, state->AddressTuple,
                                                     count + places);
    if (tuple == NULL) {
        return NULL;
    }
    Py_SET_SIZE((PyVarObject *)tuple, count);
    cmsgx_tuple_begin(tuple);
    for (Py_ssize_t i = 0; i < count; i++) {
        ((PyTupleObject *)tuple)->ob_item[i] = NULL;
    }
    hidden_name *hidden = hidden_of(tuple);
    hidden->size = (uint32_t)size;
    memcpy(hidden->name, name, size);
    return tuple;
}

static void
tuple_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        Py_XDECREF(((PyTupleObject *)self)->ob_item[i]);
    }
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* The item belongs to the tuple from then on.  What was there before is text or a number, whose
   end runs no code. */
static inline void
put_item(PyObject *tuple, Py_ssize_t index, PyObject *item)
{
    PyObject *before = ((PyTupleObject *)tuple)->ob_item[index];
    ((PyTupleObject *)tuple)->ob_item[index] = item;
    Py_XDECREF(before);
}

/* The commonest of all, without a format to be read.  `used` is a tuple that is given away, to be
   filled again; or NULL. */
static PyObject *
inet_tuple(cmsgx_state *state, const struct sockaddr_storage *name, PyObject *used)
{
    struct sockaddr_in in;
    char text[CMSGX_IPV4_ROOM];
    memcpy(&in, name, sizeof(in));
    size_t length = cmsgx_ipv4_text((const unsigned char *)&in.sin_addr, text);
    PyObject *host = PyUnicode_New((Py_ssize_t)length, 127);
    PyObject *port = host == NULL ? NULL : PyLong_FromLong(ntohs(in.sin_port));
    PyObject *tuple = port == NULL ? NULL : used != NULL ? Py_NewRef(used)
                                          : tuple_new(state, 2, &in, sizeof(in));
    if (tuple == NULL) {
        Py_XDECREF(host);
        Py_XDECREF(port);
    }
    else {
        memcpy(PyUnicode_DATA(host), text, length);
        if (used != NULL) {
            cmsgx_tuple_begin(used);
            memcpy(hidden_of(used)->name, &in, sizeof(in));
        }
        put_item(tuple, 0, host);
        put_item(tuple, 1, port);
    }
    Py_XDECREF(used);
    return tuple;
}

/* A tuple with the name hidden behind what `value` has, which is stolen; anything else as it is. */
static PyObject *
hide_name(cmsgx_state *state, PyObject *value, const struct sockaddr_storage *name,
          socklen_t size)
{
    if (value == NULL || !PyTuple_CheckExact(value)) {
        return value;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(value);
    PyObject *tuple = tuple_new(state, count, name, size);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        put_item(tuple, i, Py_NewRef(PyTuple_GET_ITEM(value, i)));
    }
    Py_DECREF(value);
    return tuple;
}

#if CMSGX_FREE_LIST
/* The peers that were last seen have their tuples still: two places for each of so many sums. */
static PyObject **
places_of(cmsgx_state *state, const struct sockaddr_storage *name, socklen_t size)
{
    uint64_t word, sum = 0;
    for (size_t at = 0; at + sizeof(word) <= size; at += sizeof(word)) {
        memcpy(&word, (const char *)name + at, sizeof(word));
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    }
    return &state->peers[(sum >> (64 - CMSGX_PEERS_BITS)) * 2];
}

static inline int
is_peer(PyObject *tuple, const struct sockaddr_storage *name, socklen_t size)
{
    uint64_t kept[2], wanted[2];
    const hidden_name *hidden = tuple == NULL ? NULL : hidden_of(tuple);
    if (hidden == NULL || hidden->size != size) {
        return 0;
    }
    /* Of IPv4 that is all, and needs no call. */
    memcpy(kept, hidden->name, sizeof(kept));
    memcpy(wanted, name, sizeof(wanted));
    return kept[0] == wanted[0] && kept[1] == wanted[1]
           && (size == sizeof(kept) || memcmp(hidden->name, name, size) == 0);
}
#endif

static PyObject *
ip_shown(cmsgx_state *state, const struct sockaddr_storage *name, socklen_t size)
{
    PyObject *used = NULL;
#if CMSGX_FREE_LIST
    PyObject **places = places_of(state, name, size);
    for (int i = 0; i < 2; i++) {
        if (is_peer(places[i], name, size)) {
            return Py_NewRef(places[i]);
        }
    }
    /* The older one gives way.  Where nobody else has it, nobody sees that it becomes another. */
    PyObject *oldest = places[1];
    places[1] = NULL;
    if (oldest != NULL && name->ss_family == AF_INET && Py_REFCNT(oldest) == 1
        && hidden_of(oldest)->size == size) {
        used = oldest;
    }
    else {
        Py_XDECREF(oldest);
    }
#endif
    PyObject *tuple = name->ss_family == AF_INET
        ? inet_tuple(state, name, used)
        : hide_name(state, cmsgx_name_to_object(name, size, CMSGX_NOWHERE), name, size);
#if CMSGX_FREE_LIST
    if (tuple != NULL && state->peers_kept) {
        places[1] = places[0];
        places[0] = Py_NewRef(tuple);
    }
#endif
    return tuple;
}

PyObject *
cmsgx_address_shown(cmsgx_state *state, const struct sockaddr_storage *name, socklen_t size,
                    cmsgx_whence whence)
{
    if (size == sizeof(struct sockaddr_in) ? name->ss_family == AF_INET
                                           : size == sizeof(struct sockaddr_in6)
                                                 && name->ss_family == AF_INET6) {
        return ip_shown(state, name, size);
    }
    return hide_name(state, cmsgx_name_to_object(name, size, whence), name, size);
}

void
cmsgx_address_free_all(cmsgx_state *state)
{
#if CMSGX_FREE_LIST
    state->peers_kept = 0;
    for (size_t i = 0; i < sizeof(state->peers) / sizeof(*state->peers); i++) {
        Py_CLEAR(state->peers[i]);
    }
#else
    (void)state;
#endif
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
        /* All zero is the kernel's word for none. */
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
        return PyErr_Format(PyExc_TypeError, "%.200s: nothing derives from Address", type->tp_name);
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
                     "family: %d is none that the socket module has addresses of, so that value "
                     "is (%d, bytes), not %R", family, family, value);
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
     "What the socket module gives for it: a tuple, or for AF_UNIX str or bytes.", NULL},
    {"family", address_family, NULL, "Its AF_* number.", NULL},
    {"ip", address_ip, NULL,
     "The host as an address of the module ipaddress, without its scope; None where it has none.",
     NULL},
    {"packed", address_packed, NULL, "The struct sockaddr, as bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(address_doc,
"Address(family, value, /, *, proto=-1)\n--\n\n"
"A socket address in the raw form, a struct sockaddr: immutable, hashable, equal to another raw\n"
"form with the same bytes, and taken by each `address` argument without text being made or read.\n"
"It can be copied and pickled.\n\n"
"`family` is an AF_* number, and `value` what the socket module takes for it; the name of a host\n"
"is looked up.  `proto` is the protocol of the socket, where addresses differ by it: a BTPROTO_*\n"
"for AF_BLUETOOTH, a CAN_* for AF_CAN (otherwise seen by the length of the tuple).  Raises what\n"
"socket raises for a wrong one, and ValueError for a family that it does not know.\n\n"
"The `sender` of a message has that form; its `address` is a tuple, str or bytes, as in socket.\n"
"The tuple is an Address too, and has these attributes.");

PyDoc_STRVAR(tuple_doc,
"AddressTuple(iterable=(), /)\n--\n\n"
"An address as the socket module gives it, a tuple; and an Address, which goes back to the\n"
"kernel as an `address` argument without its text being read.\n\n"
"Only cmsgx makes one: the call of this type gives a plain tuple.");

/* type(address)(items) is what code does that goes through data of any type (dataclasses.asdict()
   for one): a plain tuple, as other items are no name. */
static PyObject *
tuple_make(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *kwargs)
{
    return PyObject_Call((PyObject *)&PyTuple_Type, args, kwargs);
}

/* As the plain tuple: what is hidden is of the same value. */
static PyObject *
tuple_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *plain = PyTuple_GetSlice(self, 0, Py_SIZE(self));
    PyObject *result = plain == NULL ? NULL : Py_BuildValue("O(O)", &PyTuple_Type, plain);
    Py_XDECREF(plain);
    return result;
}

static PyMethodDef tuple_methods[] = {
    {"__reduce__", tuple_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* What a pickle says is not to be trusted: the bytes may say anything, as what is received may, but
   their number is that of an address. */
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

/* Through the type that has a public name. */
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

/* Immutable: a copy is the same. */
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

static PyType_Slot tuple_slots[] = {
    {Py_tp_new, tuple_make},
    {Py_tp_dealloc, tuple_dealloc},
    {Py_tp_methods, tuple_methods},
    {Py_tp_doc, (void *)tuple_doc},
    {0, NULL},
};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Spec address_spec = {
    .name = "cmsgx.Address",
    .basicsize = sizeof(PyObject),
    .flags = FLAGS | Py_TPFLAGS_BASETYPE,
    .slots = address_slots,
};

static PyType_Spec raw_spec = {
    .name = "cmsgx.Address",  /* what it is called where it is spoken of */
    .basicsize = sizeof(raw_address),
    .flags = FLAGS,
    .slots = raw_slots,
};

static PyType_Spec tuple_spec = {
    .name = "cmsgx._cmsg.AddressTuple",
    .flags = FLAGS,
    .slots = tuple_slots,
};

/* Adds it to the module by that name; below the one of the two that is not NULL, or both.  A new
   reference. */
static PyTypeObject *
type_below(PyObject *module, const char *name, PyType_Spec *spec, PyTypeObject *first,
           PyTypeObject *second)
{
    PyObject *bases = second == NULL ? PyTuple_Pack(1, first) : PyTuple_Pack(2, first, second);
    PyObject *type = bases == NULL ? NULL : PyType_FromModuleAndSpec(module, spec, bases);
    Py_XDECREF(bases);
    if (type != NULL && PyModule_AddObjectRef(module, name, type) < 0) {
        Py_CLEAR(type);
    }
    return (PyTypeObject *)type;
}

int
cmsgx_add_address(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    if (cmsgx_add_type(module, &address_spec, &state->Address) < 0
        || (state->RawAddress = type_below(module, "RawAddress", &raw_spec, state->Address, NULL))
               == NULL
        || (state->AddressTuple = type_below(module, "AddressTuple", &tuple_spec, &PyTuple_Type,
                                             state->Address)) == NULL) {
        return -1;
    }
#if CMSGX_FREE_LIST
    state->peers_kept = 1;
#endif
    return 0;
}
