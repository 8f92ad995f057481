#include "types/address_tuple.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* Without its items, which the caller sets.  Not tracked by the garbage collector: the items are
   text, bytes and numbers. */
static inline PyObject *
tuple_new(cmsgx_state *state, Py_ssize_t count, const void *name, size_t size)
{
    size_t hidden_size = sizeof(cmsgx_hidden_name) + size;
    Py_ssize_t places = (Py_ssize_t)((hidden_size + sizeof(PyObject *) - 1) / sizeof(PyObject *));
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
    cmsgx_hidden_name *hidden = cmsgx_hidden_of(tuple);
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

/* Steals `item`.  The item before it is text or a number, whose deallocation runs no code. */
static inline void
put_item(PyObject *tuple, Py_ssize_t index, PyObject *item)
{
    PyObject *before = ((PyTupleObject *)tuple)->ob_item[index];
    ((PyTupleObject *)tuple)->ob_item[index] = item;
    Py_XDECREF(before);
}

/* The most frequent form, without parsing a format string.  `used` is a tuple to fill again, which
   is stolen; or NULL. */
static PyObject *
inet_tuple(cmsgx_state *state, const struct sockaddr_storage *name, PyObject *used)
{
    struct sockaddr_in in;
    char text[CMSGX_IPV4_TEXT_SIZE];
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
            memcpy(cmsgx_hidden_of(used)->name, &in, sizeof(in));
        }
        put_item(tuple, 0, host);
        put_item(tuple, 1, port);
    }
    Py_XDECREF(used);
    return tuple;
}

/* For a tuple an AddressTuple with its items; anything else as it is.  Steals `value`. */
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
/* The tuples of recent peers are kept: two places for each value of a hash. */
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
    const cmsgx_hidden_name *hidden = tuple == NULL ? NULL : cmsgx_hidden_of(tuple);
    if (hidden == NULL || hidden->size != size) {
        return 0;
    }
    /* All bytes of an IPv4 address, without a call. */
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
    /* Replaces the older one.  If nobody else has a reference the tuple itself is filled again. */
    PyObject *oldest = places[1];
    places[1] = NULL;
    if (oldest != NULL && name->ss_family == AF_INET && Py_REFCNT(oldest) == 1
        && cmsgx_hidden_of(oldest)->size == size) {
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

/* The type ---------------------------------------------------------------------------------- */

PyDoc_STRVAR(tuple_doc,
"AddressTuple(iterable=(), /)\n--\n\n"
"An address as the socket module gives it, a tuple; and an Address, which an `address` argument\n"
"takes without parsing its text.\n\n"
"Only cmsgx creates instances: calling this type gives a plain tuple.");

/* Code that copies data of any type calls type(address)(items), as dataclasses.asdict() does.  It
   gets a plain tuple, as other items have no name. */
static PyObject *
tuple_make(PyTypeObject *Py_UNUSED(type), PyObject *args, PyObject *kwargs)
{
    return PyObject_Call((PyObject *)&PyTuple_Type, args, kwargs);
}

/* As a plain tuple: its items have all of the value. */
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

static PyType_Slot tuple_slots[] = {
    {Py_tp_new, tuple_make},
    {Py_tp_dealloc, tuple_dealloc},
    {Py_tp_methods, tuple_methods},
    {Py_tp_doc, (void *)tuple_doc},
    {0, NULL},
};

static PyType_Spec tuple_spec = {
    .name = "cmsgx.AddressTuple",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tuple_slots,
};

int
cmsgx_add_address_tuple(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *bases = PyTuple_Pack(2, &PyTuple_Type, state->Address);
    PyObject *type = bases == NULL ? NULL : PyType_FromModuleAndSpec(module, &tuple_spec, bases);
    Py_XDECREF(bases);
    state->AddressTuple = (PyTypeObject *)type;
#if CMSGX_FREE_LIST
    state->peers_kept = 1;
#endif
    return type == NULL ? -1 : PyModule_AddType(module, state->AddressTuple);
}
