#include "address.h"

#include "errors.h"
#include "record.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/un.h>

#define PATH_AT offsetof(struct sockaddr_un, sun_path)

typedef struct {
    PyObject_HEAD
    socklen_t size;
    struct sockaddr_storage name;
} cmsgx_address;

/* sockaddr to object ------------------------------------------------------------------- */

static PyObject *
unix_to_object(const struct sockaddr_storage *name, socklen_t size)
{
    const char *path = (const char *)name + PATH_AT;
    size_t length = size > PATH_AT ? size - PATH_AT : 0;
    if (CMSGX_HAS_ABSTRACT_NAMES && length > 0 && path[0] == 0) {
        return PyBytes_FromStringAndSize(path, (Py_ssize_t)length);
    }
    return PyUnicode_DecodeFSDefaultAndSize(path, (Py_ssize_t)strnlen(path, length));
}

static PyObject *
inet_to_object(const struct sockaddr_storage *name)
{
    struct sockaddr_in in;
    char text[INET_ADDRSTRLEN];
    memcpy(&in, name, sizeof(in));
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
    return Py_BuildValue("si", text, (int)ntohs(in.sin_port));
}

static PyObject *
inet6_to_object(const struct sockaddr_storage *name)
{
    struct sockaddr_in6 in;
    char text[INET6_ADDRSTRLEN];
    memcpy(&in, name, sizeof(in));
    inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof(text));
    return Py_BuildValue("siII", text, (int)ntohs(in.sin6_port),
                         (unsigned)ntohl(in.sin6_flowinfo), (unsigned)in.sin6_scope_id);
}

PyObject *
cmsgx_address_to_object(const struct sockaddr_storage *name, socklen_t size)
{
    if (size < CMSGX_LEAST_ADDRESS) {
        Py_RETURN_NONE;
    }
    switch (name->ss_family) {
    case AF_UNIX:
        return unix_to_object(name, size);
    case AF_INET:
        return inet_to_object(name);
    case AF_INET6:
        return inet6_to_object(name);
#if CMSGX_HAS_NETLINK_NAMES
    case AF_NETLINK: {
        struct sockaddr_nl netlink;
        memcpy(&netlink, name, sizeof(netlink));
        return Py_BuildValue("II", (unsigned)netlink.nl_pid, (unsigned)netlink.nl_groups);
    }
#endif
    default: {
        size_t at = offsetof(struct sockaddr, sa_data);
        return Py_BuildValue("iy#", (int)name->ss_family, (const char *)name + at,
                             (Py_ssize_t)(size - at));
    }
    }
}

/* Object to sockaddr ------------------------------------------------------------------- */

static int
unix_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    PyObject *path;
    Py_buffer bytes;

    if (PyUnicode_Check(object)) {
        path = PyUnicode_EncodeFSDefault(object);
        if (path == NULL) {
            return -1;
        }
    }
    else if (PyObject_CheckBuffer(object)) {
        path = Py_NewRef(object);
    }
    else {
        return 0;
    }
    if (cmsgx_get_buffer(path, &bytes, PyBUF_SIMPLE) < 0) {
        Py_DECREF(path);
        return -1;
    }
    struct sockaddr_un un;
    size_t length = (size_t)bytes.len;
    int is_abstract = CMSGX_HAS_ABSTRACT_NAMES
                      && (length == 0 || ((const char *)bytes.buf)[0] == 0);
    /* A path needs its NUL, an abstract name has none. */
    int fits = length + (is_abstract ? 0 : 1) <= sizeof(un.sun_path);
    if (fits) {
        memset(&un, 0, sizeof(un));
        un.sun_family = AF_UNIX;
        memcpy(un.sun_path, bytes.buf, length);
        memcpy(name, &un, sizeof(un));
        *size = (socklen_t)(PATH_AT + length + (is_abstract ? 0 : 1));
    }
    PyBuffer_Release(&bytes);
    Py_DECREF(path);
    return fits;
}

/* The items of an (address, port, ...) tuple as C values: 1, or 0 where one is not plain. */
static int
numbers_of(PyObject *tuple, Py_ssize_t from, long limit, long *values)
{
    for (Py_ssize_t i = from; i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        int overflow;
        if (!PyLong_Check(item)) {
            return 0;
        }
        long value = PyLong_AsLongAndOverflow(item, &overflow);
        if (overflow != 0 || value < 0 || value > limit) {
            return 0;
        }
        values[i] = value;
    }
    return 1;
}

static int
inet_from_object(int family, PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    long values[4] = {0, 0, 0, 0};
    Py_ssize_t most = family == AF_INET ? 2 : 4;
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) < 2
        || PyTuple_GET_SIZE(object) > most || !PyUnicode_Check(PyTuple_GET_ITEM(object, 0))
        || !numbers_of(object, 1, family == AF_INET ? 65535 : (long)INT_MAX, values)
        || values[1] > 65535 || values[2] > 0xfffff) {
        return 0;
    }
    Py_ssize_t length;
    const char *host = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(object, 0), &length);
    if (host == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (strlen(host) != (size_t)length) {
        return 0;
    }
    if (family == AF_INET) {
        struct sockaddr_in in;
        memset(&in, 0, sizeof(in));
        in.sin_family = AF_INET;
        in.sin_port = htons((uint16_t)values[1]);
        if (inet_pton(AF_INET, host, &in.sin_addr) != 1) {
            return 0;
        }
        memcpy(name, &in, sizeof(in));
        *size = sizeof(in);
    }
    else {
        struct sockaddr_in6 in;
        memset(&in, 0, sizeof(in));
        in.sin6_family = AF_INET6;
        in.sin6_port = htons((uint16_t)values[1]);
        in.sin6_flowinfo = htonl((uint32_t)values[2]);
        in.sin6_scope_id = (uint32_t)values[3];
        if (inet_pton(AF_INET6, host, &in.sin6_addr) != 1) {
            return 0;
        }
        memcpy(name, &in, sizeof(in));
        *size = sizeof(in);
    }
    return 1;
}

int
cmsgx_address_from_object(cmsgx_state *state, int family, PyObject *object,
                          struct sockaddr_storage *name, socklen_t *size)
{
    if (Py_IS_TYPE(object, state->Address)) {
        const cmsgx_address *address = (const cmsgx_address *)object;
        memcpy(name, &address->name, address->size);
        *size = address->size;
        return 1;
    }
    int known = family == AF_UNIX ? unix_from_object(object, name, size)
                : family == AF_INET || family == AF_INET6
                    ? inet_from_object(family, object, name, size) : 0;
    if (known > 0) {
        cmsgx_set_address_length(name, *size);
    }
    return known;
}

/* Address ------------------------------------------------------------------------------ */

PyObject *
cmsgx_address_new(cmsgx_state *state, const struct sockaddr_storage *name, socklen_t size)
{
    if (size < CMSGX_LEAST_ADDRESS) {
        Py_RETURN_NONE;
    }
    cmsgx_address *address = PyObject_New(cmsgx_address, state->Address);
    if (address != NULL) {
        address->size = size <= sizeof(*name) ? size : (socklen_t)sizeof(*name);
        memcpy(&address->name, name, address->size);
        /* It is read as the whole struct of its family. */
        memset((char *)&address->name + address->size, 0, sizeof(*name) - address->size);
    }
    return (PyObject *)address;
}

static PyObject *
address_value(PyObject *self, void *Py_UNUSED(closure))
{
    const cmsgx_address *address = (const cmsgx_address *)self;
    return cmsgx_address_to_object(&address->name, address->size);
}

static PyObject *
address_family(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((const cmsgx_address *)self)->name.ss_family);
}

static PyObject *
address_ip(PyObject *self, void *Py_UNUSED(closure))
{
    const cmsgx_address *address = (const cmsgx_address *)self;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    const void *bytes;
    size_t size;

    if (address->name.ss_family == AF_INET) {
        memcpy(&in, &address->name, sizeof(in));
        bytes = &in.sin_addr;
        size = sizeof(in.sin_addr);
    }
    else if (address->name.ss_family == AF_INET6) {
        memcpy(&in6, &address->name, sizeof(in6));
        bytes = &in6.sin6_addr;
        size = sizeof(in6.sin6_addr);
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
    const cmsgx_address *address = (const cmsgx_address *)self;
    return PyBytes_FromStringAndSize((const char *)&address->name, (Py_ssize_t)address->size);
}

static void
address_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *
address_repr(PyObject *self)
{
    PyObject *value = address_value(self, NULL);
    PyObject *text = value == NULL ? NULL : PyUnicode_FromFormat("<Address %R>", value);
    Py_XDECREF(value);
    return text;
}

static PyObject *
address_str(PyObject *self)
{
    PyObject *value = address_value(self, NULL);
    PyObject *text = value == NULL ? NULL : PyObject_Str(value);
    Py_XDECREF(value);
    return text;
}

static Py_hash_t
address_hash(PyObject *self)
{
    PyObject *value = address_value(self, NULL);
    if (value == NULL) {
        return -1;
    }
    Py_hash_t hash = PyObject_Hash(value);
    Py_DECREF(value);
    return hash;
}

static PyObject *
address_compare(PyObject *self, PyObject *other, int operation)
{
    if (operation != Py_EQ && operation != Py_NE) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (Py_IS_TYPE(other, Py_TYPE(self))) {
        const cmsgx_address *a = (const cmsgx_address *)self;
        const cmsgx_address *b = (const cmsgx_address *)other;
        int equal = a->size == b->size && memcmp(&a->name, &b->name, a->size) == 0;
        return PyBool_FromLong(equal == (operation == Py_EQ));
    }
    PyObject *value = address_value(self, NULL);
    PyObject *result = value == NULL ? NULL : PyObject_RichCompare(value, other, operation);
    Py_XDECREF(value);
    return result;
}

static Py_ssize_t
address_length(PyObject *self)
{
    PyObject *value = address_value(self, NULL);
    if (value == NULL) {
        return -1;
    }
    Py_ssize_t length = PyObject_Size(value);
    Py_DECREF(value);
    return length;
}

static PyObject *
address_item(PyObject *self, PyObject *key)
{
    PyObject *value = address_value(self, NULL);
    PyObject *item = value == NULL ? NULL : PyObject_GetItem(value, key);
    Py_XDECREF(value);
    return item;
}

static PyObject *
address_iter(PyObject *self)
{
    PyObject *value = address_value(self, NULL);
    PyObject *iterator = value == NULL ? NULL : PyObject_GetIter(value);
    Py_XDECREF(value);
    return iterator;
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
"A socket address as it came from the kernel; text is made of it on demand.  Compares, hashes,\n"
"indexes and unpacks like what the socket module gives (`value`), and goes back to the kernel\n"
"unconverted as an `address` argument.");

static PyMethodDef address_methods[] = {
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot address_slots[] = {
    {Py_tp_dealloc, address_dealloc},
    {Py_tp_methods, address_methods},
    {Py_tp_repr, address_repr},
    {Py_tp_str, address_str},
    {Py_tp_hash, address_hash},
    {Py_tp_richcompare, address_compare},
    {Py_tp_iter, address_iter},
    {Py_tp_getset, address_getset},
    {Py_tp_doc, (void *)address_doc},
    {Py_mp_length, address_length},
    {Py_mp_subscript, address_item},
    {0, NULL},
};

static PyType_Spec address_spec = {
    .name = "cmsgx.Address",
    .basicsize = sizeof(cmsgx_address),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = address_slots,
};

int
cmsgx_add_address(PyObject *module)
{
    return cmsgx_add_type(module, &address_spec, &cmsgx_state_of(module)->Address);
}
