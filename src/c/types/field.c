#include "types/field.h"

#include "bind.h"
#include "errors.h"
#include "types/address.h"
#include "types/ip.h"
#include "types/struct.h"

#include <arpa/inet.h>

/* One field between memory and object --------------------------------------------------- */

/* Size of a format in bytes; 0 if it has no fixed size. */
static size_t
size_of(char format)
{
    switch (format) {
    case 'b': case 'B': return 1;
    case 'h': case 'H': case 'n': return 2;
    case 'i': case 'I': case 'P': case 'N': case 'a': return 4;
    case 'q': case 'Q': case 'T': return 8;
    case 'A': return 16;
    default: return 0;
    }
}

static PyObject *
load_sockaddr(cmsgx_state *state, const unsigned char *from, size_t size)
{
    struct sockaddr_storage name;
    if (size > sizeof(name)) {
        size = sizeof(name);
    }
    memset(&name, 0, sizeof(name));
    memcpy(&name, from, size);
    /* All zero, AF_UNSPEC: the kernel has no address. */
    return name.ss_family == AF_UNSPEC ? Py_NewRef(Py_None)
                                       : cmsgx_address_shown(state, &name, (socklen_t)size,
                                                             CMSGX_NOWHERE);
}

static PyObject *
load(cmsgx_state *state, const cmsgx_field *field, const unsigned char *from, size_t rest)
{
    union {
        int8_t b; uint8_t B; int16_t h; uint16_t H; int32_t i; uint32_t I; int64_t q; uint64_t Q;
    } value;
    size_t size = size_of(field->format);
    if (size <= sizeof(value)) {
        memcpy(&value, from, size);
    }
    switch (field->format) {
    case 'b': return PyLong_FromLong(value.b);
    case 'B': return PyLong_FromLong(value.B);
    case 'h': return PyLong_FromLong(value.h);
    case 'H': return PyLong_FromLong(value.H);
    case 'i': return PyLong_FromLong(value.i);
    case 'I': return PyLong_FromUnsignedLong(value.I);
    case 'q': return PyLong_FromLongLong(value.q);
    case 'Q': return PyLong_FromUnsignedLongLong(value.Q);
    case 'n': return PyLong_FromLong(ntohs(value.H));
    case 'N': return PyLong_FromUnsignedLong(ntohl(value.I));
    case 'P': return value.i == 0 ? Py_NewRef(Py_None) : PyLong_FromLong(value.i);
    case 'T': return value.q == 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(value.q);
    case 'a': case 'A': return cmsgx_ip_new(state, from, size);
    case 's': return PyBytes_FromStringAndSize((const char *)from, (Py_ssize_t)field->size);
    case 'S': return load_sockaddr(state, from, field->size != 0 ? field->size : rest);
    default: return PyBytes_FromStringAndSize((const char *)from, (Py_ssize_t)rest);
    }
}

PyObject *
cmsgx_field_load(cmsgx_state *state, const cmsgx_field *field, const unsigned char *payload,
                 size_t size)
{
    if (field->offset > size || field->size > size - field->offset) {
        Py_RETURN_NONE;
    }
    PyObject *value = load(state, field, payload + field->offset, size - field->offset);
    if (field->convert != NULL && value != NULL && value != Py_None) {
        Py_SETREF(value, PyObject_CallOneArg(field->convert, value));
    }
    return value;
}

static int
is_integer(char format)
{
    return format != 0 && strchr("bBhHiIqQnNPT", format) != NULL;
}

static int
does_not_fit(PyTypeObject *kind, const cmsgx_field *field, PyObject *value)
{
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "%s.%U: %R does not fit in %zu bits, %s",
                     kind->tp_name, field->name, value, 8 * size_of(field->format),
                     strchr("BHIQnN", field->format) != NULL ? "unsigned" : "signed");
    }
    return -1;
}

/* 0, or -1 with an exception. */
static int
check_integer(PyTypeObject *kind, const cmsgx_field *field, PyObject *object)
{
    char format = field->format;
    int overflow;
    if ((format == 'P' || format == 'T') && object == Py_None) {
        return 0;
    }
    int is_bool = field->convert == (PyObject *)&PyBool_Type;
    if (!PyLong_Check(object) || (PyBool_Check(object) && !is_bool)) {
        PyErr_Format(PyExc_TypeError, "%s.%U: an int is needed, not %.200s", kind->tp_name,
                     field->name, Py_TYPE(object)->tp_name);
        return -1;
    }
    if (format == 'Q') {
        uint64_t value = PyLong_AsUnsignedLongLong(object);
        return value == UINT64_MAX && PyErr_Occurred() ? does_not_fit(kind, field, object) : 0;
    }
    size_t bits = 8 * size_of(format);
    assert(bits > 0 && bits <= 64);
    int is_signed = strchr("BHInN", format) == NULL;
    int64_t value = PyLong_AsLongLongAndOverflow(object, &overflow);
    int64_t top = bits == 64 ? INT64_MAX : (INT64_C(1) << (bits - (size_t)is_signed)) - 1;
    int64_t bottom = is_signed ? -top - 1 : 0;
    if (field->is_bounded
        && (overflow != 0 || value < field->min_value || value > field->max_value)) {
        PyErr_Format(PyExc_ValueError, "%s.%U: %R; must be %lld to %lld", kind->tp_name,
                     field->name, object, (long long)field->min_value, (long long)field->max_value);
        return -1;
    }
    return overflow != 0 || value > top || value < bottom ? does_not_fit(kind, field, object) : 0;
}

/* The object has passed check_integer(). */
static void
store_integer(char format, PyObject *object, unsigned char *to)
{
    uint64_t value = object == Py_None ? 0
        : format == 'Q' ? PyLong_AsUnsignedLongLong(object) : (uint64_t)PyLong_AsLongLong(object);
    if (format == 'n') {
        value = htons((uint16_t)value);
    }
    else if (format == 'N') {
        value = htonl((uint32_t)value);
    }
    uint16_t two = (uint16_t)value;
    uint32_t four = (uint32_t)value;
    switch (size_of(format)) {
    case 1: *to = (unsigned char)value; break;
    case 2: memcpy(to, &two, sizeof(two)); break;
    case 4: memcpy(to, &four, sizeof(four)); break;
    default: memcpy(to, &value, sizeof(value));
    }
}

/* Writes the address to `to` in network order: from its bytes, an IPAddress, or anything that
   IPAddress() takes.  0, or -1 with an exception. */
static int
store_ip(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field, PyObject *value,
         unsigned char *to)
{
    Py_ssize_t size = (Py_ssize_t)size_of(field->format);
    if (PyBytes_CheckExact(value) && PyBytes_GET_SIZE(value) == size) {
        memcpy(to, PyBytes_AS_STRING(value), (size_t)size);
        return 0;
    }
    if (cmsgx_need_bound(state) < 0) {
        return -1;
    }
    PyObject *ip = Py_IS_TYPE(value, state->IPAddress)
        ? Py_NewRef(value)
        : PyObject_CallOneArg((PyObject *)state->IPAddress, value);
    int is_right = ip != NULL && Py_IS_TYPE(ip, state->IPAddress) && Py_SIZE(ip) == size
                   && cmsgx_struct_is_own(ip);
    if (is_right) {
        memcpy(to, ((cmsgx_struct *)ip)->payload, (size_t)size);
    }
    else if (ip != NULL) {
        PyErr_Format(PyExc_ValueError, "%s.%U: %R is not an IPv%d address", kind->tp_name,
                     field->name, value, field->format == 'a' ? 4 : 6);
    }
    Py_XDECREF(ip);
    return is_right ? 0 : -1;
}

/* Converts a socket address.  Returns its size in bytes, or -1 with an exception. */
static Py_ssize_t
as_sockaddr(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field, PyObject *value,
            struct sockaddr_storage *name)
{
    socklen_t size;
    if (value == Py_None) {
        memset(name, 0, sizeof(*name));
        return sizeof(struct sockaddr_in);
    }
    int family = PyTuple_Check(value) && PyTuple_GET_SIZE(value) > 2 ? AF_INET6 : AF_INET;
    int known = cmsgx_address_from_object(state, family, value, name, &size);
    if (known == 0) {
        PyErr_Format(PyExc_ValueError,
                     "%s.%U: %R; a numeric (host, port), or (host, port, flowinfo, scope), or an "
                     "Address",
                     kind->tp_name, field->name, value);
    }
    return known > 0 ? (Py_ssize_t)size : -1;
}

/* 1 if the size matches the field (a socket address may be shorter); else 0 with ValueError. */
static int
check_size(PyTypeObject *kind, const cmsgx_field *field, Py_ssize_t size)
{
    Py_ssize_t field_size = (Py_ssize_t)field->size;
    if (size == field_size || (size < field_size && field->format == 'S')) {
        return 1;
    }
    PyErr_Format(PyExc_ValueError, "%s.%U: %zd bytes; its size is %zu", kind->tp_name, field->name,
                 size, field->size);
    return 0;
}

/* Gets the value as a buffer.  0, or -1 with an exception that names the field. */
static int
as_buffer(const PyTypeObject *kind, const cmsgx_field *field, PyObject *value, Py_buffer *buffer)
{
    if (cmsgx_get_buffer(value, buffer, PyBUF_SIMPLE) == 0) {
        return 0;
    }
    if (!PyObject_CheckBuffer(value)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s.%U: a bytes-like object is needed, not %.200s",
                     kind->tp_name, field->name, Py_TYPE(value)->tp_name);
    }
    return -1;
}

Py_ssize_t
cmsgx_field_end(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field, PyObject *value)
{
    Py_ssize_t size = (Py_ssize_t)field->size;
    if (is_integer(field->format)) {
        if (check_integer(kind, field, value) < 0) {
            return -1;
        }
    }
    else if (field->format == 'a' || field->format == 'A') {
        unsigned char address[16];
        if (store_ip(state, kind, field, value, address) < 0) {
            return -1;
        }
    }
    else if (field->format == 'S') {
        struct sockaddr_storage name;
        if ((size = as_sockaddr(state, kind, field, value, &name)) < 0
            || (field->size != 0 && !check_size(kind, field, size))) {
            return -1;
        }
    }
    else {
        Py_buffer buffer;
        if (as_buffer(kind, field, value, &buffer) < 0) {
            return -1;
        }
        size = buffer.len;
        PyBuffer_Release(&buffer);
        if (field->format == 's' && !check_size(kind, field, size)) {
            return -1;
        }
        if (field->is_bounded && (size < field->min_value || size > field->max_value)) {
            PyErr_Format(PyExc_ValueError, "%s.%U: %zd bytes; its size is %lld to %lld",
                         kind->tp_name, field->name, size, (long long)field->min_value,
                         (long long)field->max_value);
            return -1;
        }
    }
    return (Py_ssize_t)field->offset + size;
}

/* 1 if the value still has the length that was measured, else 0 with ValueError: Python code may
   have run since. */
static int
is_as_before(PyTypeObject *kind, const cmsgx_field *field, Py_ssize_t length, size_t measured)
{
    if ((size_t)length == measured) {
        return 1;
    }
    PyErr_Format(PyExc_ValueError, "%s.%U: its length changed while it was read, from %zu to %zd",
                 kind->tp_name, field->name, measured, length);
    return 0;
}

int
cmsgx_field_store(cmsgx_state *state, PyTypeObject *kind, const cmsgx_field *field,
                  PyObject *value, unsigned char *payload, size_t end)
{
    unsigned char *to = payload + field->offset;
    size_t size = end - field->offset;
    if (is_integer(field->format)) {
        store_integer(field->format, value, to);
    }
    else if (field->format == 'a' || field->format == 'A') {
        return store_ip(state, kind, field, value, to);
    }
    else if (field->format == 'S') {
        struct sockaddr_storage name;
        Py_ssize_t length = as_sockaddr(state, kind, field, value, &name);
        if (length < 0 || !is_as_before(kind, field, length, size)) {
            return -1;
        }
        memcpy(to, &name, size);
    }
    else {
        Py_buffer buffer;
        if (as_buffer(kind, field, value, &buffer) < 0) {
            return -1;
        }
        int is_right = is_as_before(kind, field, buffer.len, size);
        if (is_right) {
            memcpy(to, buffer.buf, size);
        }
        PyBuffer_Release(&buffer);
        return is_right ? 0 : -1;
    }
    return 0;
}

/* Field ----------------------------------------------------------------------------------- */

/* Field(name, offset, format, size=0, default=..., convert=None, bounds=None, doc=None)

   Formats: bBhHiIqQ as in struct, native; n N: 16 and 32 bits in network order; P: an i where 0 is
   None; T: a q of nanoseconds where 0 is None; a A: an IPv4 or IPv6 address; s: `size` bytes; t:
   all bytes that follow; S: a socket address, of `size` bytes or (0) all that follows; O: an
   object of the instance, not in the payload.

   `convert` is called with the value that is read.  `bounds` are the (min_value, max_value) that a
   constructor accepts: the value of an i, I, N or q, or the length of a t in bytes.  A value that
   is read may be out of bounds.  `doc` says what the field is.

   The type itself has no docstring, as its __doc__ is that of each field. */
static PyObject *
field_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"name", "offset", "format", "size", "default", "convert",
                                        "bounds", "doc", NULL};
    PyObject *name, *fallback = NULL, *convert = Py_None, *bounds = Py_None, *doc = Py_None;
    Py_ssize_t offset, size = 0;
    long long min_value = 0, max_value = 0;
    int format;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "UnC|nOOOO:Field", (char **)(void *)names, &name,
                                     &offset, &format, &size, &fallback, &convert, &bounds, &doc)) {
        return NULL;
    }
    if (bounds != Py_None) {
        if (!PyTuple_Check(bounds)) {
            return PyErr_Format(PyExc_TypeError,
                                "bounds: (min_value, max_value) is needed, not %.200s",
                                Py_TYPE(bounds)->tp_name);
        }
        if (!PyArg_ParseTuple(bounds, "LL;bounds are (min_value, max_value)", &min_value,
                              &max_value)) {
            return NULL;
        }
        /* The formats that cmsgx_field_may_be_sent() reads. */
        if (min_value > max_value || format > 127 || strchr("iINqt", format) == NULL) {
            return PyErr_Format(PyExc_ValueError,
                                "field %R: bounds %R are not (min_value, max_value) of a format "
                                "that has them",
                                name, bounds);
        }
    }
    if (doc != Py_None && !PyUnicode_CheckExact(doc)) {
        return PyErr_Format(PyExc_TypeError, "doc: a str or None is needed, not %.200s",
                            Py_TYPE(doc)->tp_name);
    }
    if (!PyUnicode_CheckExact(name)) {
        return PyErr_Format(PyExc_TypeError, "name: a str is needed, not %.200s",
                            Py_TYPE(name)->tp_name);
    }
    if (format > 127 || strchr("bBhHiIqQnNPTaAstSO", format) == NULL || offset < 0 || size < 0
        || offset > INT_MAX || size > INT_MAX) {
        return PyErr_Format(PyExc_ValueError,
                            "field %R: invalid layout: offset %zd, format '%c', size %zd",
                            name, offset, format, size);
    }
    cmsgx_field *self = (cmsgx_field *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->name = Py_NewRef(name);
        self->offset = (size_t)offset;
        self->size = format == 's' || format == 'S' ? (size_t)size : size_of((char)format);
        self->format = (char)format;
        self->fallback = Py_XNewRef(fallback);
        self->convert = convert == Py_None ? NULL : Py_NewRef(convert);
        self->doc = Py_NewRef(doc);
        self->is_plain = convert == Py_None && strchr("iIP", format) != NULL;
        self->is_bounded = bounds != Py_None;
        self->min_value = min_value;
        self->max_value = max_value;
    }
    return (PyObject *)self;
}

static PyObject *
field_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    const cmsgx_field *field = (const cmsgx_field *)self;
    if (field->is_plain && object != NULL && Py_IS_TYPE(object, field->kind)
        && cmsgx_struct_is_own(object)
        && field->offset + sizeof(int32_t) <= (size_t)Py_SIZE(object)) {
        uint32_t word;
        memcpy(&word, ((cmsgx_struct *)object)->payload + field->offset, sizeof(word));
        return field->format == 'I' ? PyLong_FromUnsignedLong(word)
            : field->format == 'P' && word == 0 ? Py_NewRef(Py_None)
            : PyLong_FromLong((int32_t)word);
    }
    cmsgx_state *state = cmsgx_state_of_self(self);
    if (object == NULL) {
        return Py_NewRef(self);
    }
    if (!PyObject_TypeCheck(object, state->Struct)) {
        return PyErr_Format(PyExc_TypeError, "field %R does not belong to %.200s",
                            ((cmsgx_field *)self)->name, Py_TYPE(object)->tp_name);
    }
    if (!cmsgx_struct_is_own(object)) {
        return cmsgx_raise_class_changed(object);
    }
    const cmsgx_struct *record = (const cmsgx_struct *)object;
    return cmsgx_field_load(state, (cmsgx_field *)self, record->payload, (size_t)Py_SIZE(record));
}

/* With a setter it is a data descriptor: lookup does not try the instance first. */
static int
field_set(PyObject *self, PyObject *object, PyObject *Py_UNUSED(value))
{
    PyErr_Format(PyExc_AttributeError, "%s is immutable: cannot set %R", Py_TYPE(object)->tp_name,
                 ((cmsgx_field *)self)->name);
    return -1;
}

/* No tp_clear: a Field never changes, so each cycle has a class or a container that clears itself,
   and whoever still holds the Field finds it complete. */
static int
field_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((cmsgx_field *)self)->kind);
    Py_VISIT(((cmsgx_field *)self)->fallback);
    Py_VISIT(((cmsgx_field *)self)->convert);
    return 0;
}

static void
field_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(((cmsgx_field *)self)->kind);
    Py_XDECREF(((cmsgx_field *)self)->name);
    Py_XDECREF(((cmsgx_field *)self)->doc);
    Py_XDECREF(((cmsgx_field *)self)->fallback);
    Py_XDECREF(((cmsgx_field *)self)->convert);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
field_repr(PyObject *object)
{
    const cmsgx_field *self = (const cmsgx_field *)object;
    return PyUnicode_FromFormat("<Field %U at %zu, %c>", self->name, self->offset, self->format);
}

/* None, or (min_value, max_value). */
static PyObject *
field_bounds(PyObject *object, void *Py_UNUSED(closure))
{
    const cmsgx_field *self = (const cmsgx_field *)object;
    return self->is_bounded
        ? Py_BuildValue("LL", (long long)self->min_value, (long long)self->max_value)
        : Py_NewRef(Py_None);
}

static PyGetSetDef field_getset[] = {
    {"bounds", field_bounds, NULL,
     "(min_value, max_value) that a constructor accepts (for bytes: of the length), or\n"
     "None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef field_members[] = {
    {"__name__", Py_T_OBJECT_EX, offsetof(cmsgx_field, name), Py_READONLY, NULL},
    {"__doc__", Py_T_OBJECT_EX, offsetof(cmsgx_field, doc), Py_READONLY, NULL},
    {"offset", Py_T_PYSSIZET, offsetof(cmsgx_field, offset), Py_READONLY,
     "Offset in the payload, in bytes."},
    {"size", Py_T_PYSSIZET, offsetof(cmsgx_field, size), Py_READONLY,
     "Size in bytes; 0 for all bytes that follow."},
    {"default", Py_T_OBJECT_EX, offsetof(cmsgx_field, fallback), Py_READONLY,
     "The default of the constructor's argument; absent if that is required."},
    {"format", Py_T_CHAR, offsetof(cmsgx_field, format), Py_READONLY, "Its format."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef field_methods[] = {
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot field_slots[] = {
    {Py_tp_new, field_make},
    {Py_tp_dealloc, field_dealloc},
    {Py_tp_methods, field_methods},
    {Py_tp_traverse, field_traverse},
    {Py_tp_descr_get, field_get},
    {Py_tp_descr_set, field_set},
    {Py_tp_repr, field_repr},
    {Py_tp_members, field_members},
    {Py_tp_getset, field_getset},
    {0, NULL},
};

static PyType_Spec field_spec = {
    .name = "cmsgx._cmsg.Field",
    .basicsize = sizeof(cmsgx_field),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = field_slots,
};

int
cmsgx_add_field(PyObject *module)
{
    return cmsgx_add_type(module, &field_spec, &cmsgx_state_of(module)->Field);
}
