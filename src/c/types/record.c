#include "types/record.h"

#include "arguments.h"
#include "errors.h"


PyObject *
cmsgx_raise_class_changed(PyObject *record)
{
    const cmsgx_codec *codec = ((cmsgx_struct *)record)->codec;
    return PyErr_Format(PyExc_TypeError, "this %.200s was made as %.200s: its class was changed",
                        Py_TYPE(record)->tp_name,
                        codec != NULL ? codec->kind->tp_name : "nothing");
}

cmsgx_codec *
cmsgx_codec_of_record(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cmsgx_state *state = cmsgx_state_of_type(type);
    cmsgx_codec *codec = cmsgx_codec_of(state, (PyObject *)type);
    if (codec == NULL || !PyType_IsSubtype(type, codec->kind)) {
        (void)cmsgx_raise_unregistered(state, type);
        Py_XDECREF(codec);
        return NULL;
    }
    if (codec->min_size >= 0 && !cmsgx_struct_is_own(self)) {
        (void)cmsgx_raise_class_changed(self);
        Py_DECREF(codec);
        return NULL;
    }
    return codec;
}

/* Making one ------------------------------------------------------------------------------ */

static cmsgx_struct *
struct_new(cmsgx_codec *codec, size_t size)
{
    PyTypeObject *type = codec->kind;
    cmsgx_struct *self;
    if (type->tp_flags & Py_TPFLAGS_HAVE_GC) {
        /* A class of a user. */
        self = (cmsgx_struct *)type->tp_alloc(type, (Py_ssize_t)size);
        if (self == NULL) {
            return NULL;
        }
    }
    else {
#if CMSGX_FREE_LIST
        self = (cmsgx_struct *)codec->spare;
        codec->spare = NULL;
        if (self == NULL || Py_SIZE(self) != (Py_ssize_t)size) {
            PyObject_Free(self);
            self = PyObject_Malloc((size_t)type->tp_basicsize + size);
        }
#else
        self = PyObject_Malloc((size_t)type->tp_basicsize + size);
#endif
        if (self == NULL) {
            return (cmsgx_struct *)PyErr_NoMemory();
        }
        (void)PyObject_InitVar((PyVarObject *)self, type, (Py_ssize_t)size);
    }
    self->codec = (cmsgx_codec *)Py_NewRef(codec);
    self->attached_state = CMSGX_ATTACHED_UNKNOWN;
    return self;
}

static void
struct_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cmsgx_codec *codec = ((cmsgx_struct *)self)->codec;
#if CMSGX_FREE_LIST
    if (codec != NULL && codec->spare == NULL && Py_SIZE(self) <= CMSGX_CANONICAL
        && type == codec->kind && !(type->tp_flags & Py_TPFLAGS_HAVE_GC)) {
        /* Plain memory from now on. */
        codec->spare = self;
    }
    else
#endif
    {
        type->tp_free(self);
    }
    Py_XDECREF(codec);
    Py_DECREF(type);
}

static int
struct_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((cmsgx_struct *)self)->codec);
    return 0;
}

static PyObject *
wrong_size(cmsgx_state *state, const cmsgx_codec *codec, size_t size, size_t right)
{
    PyErr_Format(state->MalformedControlError, "%s: %zu bytes came, it has %zu%s",
                 codec->kind->tp_name, size, right, size < right ? " (truncated)" : "");
    return NULL;
}

PyObject *
cmsgx_struct_read(cmsgx_state *state, cmsgx_codec *codec, const cmsgx_wire_format *format,
                  const unsigned char *data, size_t size)
{
    unsigned char canonical[CMSGX_CANONICAL];
    if (format != NULL && format->encoding != CMSGX_AS_IT_IS) {
        if (format->encoding == CMSGX_WITHOUT_NUL) {
            size -= size > 0 && data[size - 1] == 0;
        }
        else {
            ptrdiff_t length = cmsgx_encoding_read(format->encoding, data, size, canonical);
            if (format->encoding == CMSGX_INTEGER
                && (length < 0 || (size == sizeof(uint16_t) && format->size != size))) {
                /* Of a kernel, an int is one byte where it is not whole. */
                size_t right = format->size > 1 ? format->size : sizeof(int);
                PyErr_Format(state->MalformedControlError,
                             "%s: %zu bytes came, it has 1 or %zu%s", codec->kind->tp_name, size,
                             right, size < right ? " (truncated)" : "");
                return NULL;
            }
            if (length < 0) {
                return wrong_size(state, codec, size, format->size);
            }
            data = canonical;
            size = (size_t)length;
        }
    }
    if (size < (size_t)codec->min_size) {
        return wrong_size(state, codec, size, (size_t)codec->min_size);
    }
    if (codec->max_size >= 0 && size > (size_t)codec->max_size) {
        return wrong_size(state, codec, size, (size_t)codec->max_size);
    }
    if (codec->sockaddr != NULL) {
        size_t end = cmsgx_sockaddr_end(codec->sockaddr, data, size);
        if (end > size) {
            return wrong_size(state, codec, size, end);
        }
    }
    cmsgx_struct *self = struct_new(codec, size);
    if (self != NULL) {
        memcpy(self->payload, data, size);
    }
    return (PyObject *)self;
}

PyObject *
cmsgx_ip_new(cmsgx_state *state, const unsigned char *data, size_t size)
{
    cmsgx_codec *codec = cmsgx_codec_of(state, (PyObject *)state->IPAddress);
    cmsgx_struct *self = NULL;
    if (codec == NULL || codec->kind != state->IPAddress) {
        PyErr_SetString(PyExc_TypeError, "IPAddress is not registered");
    }
    else if ((self = struct_new(codec, size)) != NULL) {
        memcpy(self->payload, data, size);
    }
    Py_XDECREF(codec);
    return (PyObject *)self;
}

size_t
cmsgx_struct_wire_size(const PyObject *record, const cmsgx_wire_format *format)
{
    return format->encoding <= CMSGX_WITHOUT_NUL ? (size_t)Py_SIZE(record) : format->size;
}

void
cmsgx_struct_write(const PyObject *record, const cmsgx_wire_format *format, unsigned char *out)
{
    const cmsgx_struct *self = (const cmsgx_struct *)record;
    cmsgx_encoding_write(format->encoding, self->payload, (size_t)Py_SIZE(record), out,
                     cmsgx_struct_wire_size(record, format));
}

static Py_ssize_t
field_named(const cmsgx_codec *codec, PyObject *name)
{
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        if (PyUnicode_Compare(codec->fields[i]->name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* The value for each field, owned; NULL where an optional one is not given.  0, or -1 with an
   exception. */
static int
arguments(const cmsgx_codec *codec, PyObject *args, PyObject *kwargs, PyObject **values)
{
    const char *kind = codec->kind->tp_name;
    PyObject *name, *value;
    Py_ssize_t position = 0;
    if (PyTuple_GET_SIZE(args) > codec->count) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd fields (%zd given)", kind, codec->count,
                     PyTuple_GET_SIZE(args));
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        values[i] = Py_NewRef(PyTuple_GET_ITEM(args, i));
    }
    while (kwargs != NULL && PyDict_Next(kwargs, &position, &name, &value)) {
        Py_ssize_t at = field_named(codec, name);
        if (at < 0 || values[at] != NULL) {
            PyErr_Format(PyExc_TypeError, at < 0 ? "%s() has no field %R"
                                                 : "%s() got multiple values for field %R",
                         kind, name);
            return -1;
        }
        values[at] = Py_NewRef(value);
    }
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        const cmsgx_field *field = codec->fields[i];
        int is_optional = codec->min_size >= 0 && field->size != 0
                          && field->offset + field->size > (size_t)codec->min_size;
        if (values[i] == NULL) {
            values[i] = Py_XNewRef(field->fallback);
        }
        /* What it is read as where it is not there. */
        if (values[i] == Py_None && is_optional) {
            Py_CLEAR(values[i]);
        }
        if (values[i] == NULL && !is_optional) {
            PyErr_Format(PyExc_TypeError, "%s() is missing field '%U'", kind, field->name);
            return -1;
        }
    }
    return 0;
}

static PyObject *
make_struct(cmsgx_state *state, cmsgx_codec *codec, PyObject **values)
{
    PyTypeObject *type = codec->kind;
    size_t size = (size_t)codec->min_size;
    Py_ssize_t ends[CMSGX_MAX_FIELDS];
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        ends[i] = values[i] == NULL
            ? 0 : cmsgx_field_end(state, type, codec->fields[i], values[i]);
        if (ends[i] < 0) {
            return NULL;
        }
        if ((size_t)ends[i] > size) {
            size = (size_t)ends[i];
        }
    }
    if (codec->max_size >= 0 && size > (size_t)codec->max_size) {
        return PyErr_Format(PyExc_ValueError, "%s: %zu bytes; %zd at most", type->tp_name, size,
                            codec->max_size);
    }
    cmsgx_struct *self = struct_new(codec, size);
    if (self == NULL) {
        return NULL;
    }
    memset(self->payload, 0, size);
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        if (values[i] != NULL
            && cmsgx_field_store(state, type, codec->fields[i], values[i], self->payload,
                                 (size_t)ends[i])
                   < 0) {
            Py_DECREF(self);
            return NULL;
        }
    }
    return (PyObject *)self;
}

static PyObject *
make_record(cmsgx_codec *codec, PyObject **values)
{
    PyObject *self = codec->kind->tp_alloc(codec->kind, 0);
    for (Py_ssize_t i = 0; self != NULL && i < codec->count; i++) {
        if (PyMember_SetOne((char *)self, codec->slots[i]->d_member, values[i]) < 0) {
            Py_CLEAR(self);
        }
    }
    return self;
}

static PyObject *
record_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    cmsgx_state *state = cmsgx_state_of_type(type);
    cmsgx_codec *codec = cmsgx_codec_of(state, (PyObject *)type);
    PyObject *values[CMSGX_MAX_FIELDS] = {NULL};
    PyObject *self = NULL;
    if (codec == NULL || codec->kind != type) {
        (void)cmsgx_raise_unregistered(state, type);
        Py_XDECREF(codec);
        return NULL;
    }
    if (arguments(codec, args, kwargs, values) == 0) {
        self = codec->min_size >= 0 ? make_struct(state, codec, values)
                                 : make_record(codec, values);
    }
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        Py_XDECREF(values[i]);
    }
    Py_DECREF(codec);
    return self;
}

/* What every record has ------------------------------------------------------------------- */

static PyObject *
value_of(PyObject *self, const cmsgx_codec *codec, Py_ssize_t i)
{
    const cmsgx_struct *record = (const cmsgx_struct *)self;
    if (codec->min_size >= 0) {
        return cmsgx_field_load(cmsgx_state_of_type(codec->kind), codec->fields[i],
                                record->payload, (size_t)Py_SIZE(record));
    }
    return PyMember_GetOne((const char *)self, codec->slots[i]->d_member);
}

static PyObject *
values_of(PyObject *self)
{
    cmsgx_codec *codec = cmsgx_codec_of_record(self);
    PyObject *tuple = codec == NULL ? NULL : PyTuple_New(codec->count);
    for (Py_ssize_t i = 0; tuple != NULL && i < codec->count; i++) {
        PyObject *value = value_of(self, codec, i);
        if (value == NULL) {
            Py_CLEAR(tuple);
        }
        else {
            PyTuple_SET_ITEM(tuple, i, value);
        }
    }
    Py_XDECREF(codec);
    return tuple;
}

static PyObject *
record_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *values = values_of(self);
    return values == NULL ? NULL : Py_BuildValue("ON", Py_TYPE(self), values);
}

static int
record_setattr(PyObject *self, PyObject *name, PyObject *Py_UNUSED(value))
{
    PyErr_Format(PyExc_AttributeError, "%s is immutable: cannot set %R", Py_TYPE(self)->tp_name,
                 name);
    return -1;
}

static PyObject *
record_compare(PyObject *self, PyObject *other, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || !Py_IS_TYPE(other, Py_TYPE(self))) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *result = NULL;
    PyObject *a = values_of(self);
    PyObject *b = a == NULL ? NULL : values_of(other);
    if (b != NULL) {
        result = PyObject_RichCompare(a, b, operation);
    }
    Py_XDECREF(a);
    Py_XDECREF(b);
    return result;
}

/* Steals `content`, which may be NULL. */
static Py_hash_t
hash_with(PyObject *self, PyObject *content)
{
    Py_hash_t hash = content == NULL ? -1 : PyObject_Hash(content);
    Py_XDECREF(content);
    if (hash == -1) {
        return -1;
    }
    hash ^= (Py_hash_t)((uintptr_t)Py_TYPE(self) >> 4);
    return hash == -1 ? -2 : hash;
}

static Py_hash_t
record_hash(PyObject *self)
{
    return hash_with(self, values_of(self));
}

static PyObject *
record_repr(PyObject *self)
{
    cmsgx_codec *codec = cmsgx_codec_of_record(self);
    if (codec == NULL) {
        return NULL;
    }
    PyObject *parts = PyList_New(0);
    PyObject *result = NULL;
    for (Py_ssize_t i = 0; parts != NULL && i < codec->count; i++) {
        PyObject *value = value_of(self, codec, i);
        PyObject *part = value == NULL
            ? NULL : PyUnicode_FromFormat("%U=%R", codec->fields[i]->name, value);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            Py_CLEAR(parts);
        }
        Py_XDECREF(part);
        Py_XDECREF(value);
    }
    if (parts != NULL) {
        PyObject *comma = PyUnicode_FromString(", ");
        PyObject *joined = comma == NULL ? NULL : PyUnicode_Join(comma, parts);
        if (joined != NULL) {
            /* Looked at now: a repr() above may have given the class another name. */
            const char *dot = strrchr(codec->kind->tp_name, '.');
            result = PyUnicode_FromFormat(
                "%s(%U)", dot != NULL ? dot + 1 : codec->kind->tp_name, joined);
        }
        Py_XDECREF(joined);
        Py_XDECREF(comma);
        Py_DECREF(parts);
    }
    Py_DECREF(codec);
    return result;
}

static void
record_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Immutable: a copy is the same. */
static PyObject *
record_copy(PyObject *self, PyObject *Py_UNUSED(memo))
{
    return Py_NewRef(self);
}

static PyMethodDef record_methods[] = {
    {"__copy__", record_copy, METH_NOARGS, NULL},
    {"__deepcopy__", record_copy, METH_O, NULL},
    {"__reduce__", record_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(record_doc,
"An immutable record whose fields are slots of its class, as the class's Codec says.");

static PyType_Slot record_slots[] = {
    {Py_tp_new, record_make},
    {Py_tp_dealloc, record_dealloc},
    {Py_tp_setattro, record_setattr},
    {Py_tp_richcompare, record_compare},
    {Py_tp_hash, record_hash},
    {Py_tp_repr, record_repr},
    {Py_tp_methods, record_methods},
    {Py_tp_doc, (void *)record_doc},
    {0, NULL},
};

static PyType_Spec record_spec = {
    .name = "cmsgx._cmsg.Record",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = record_slots,
};

/* Struct ---------------------------------------------------------------------------------- */

static const cmsgx_wire_format canonical = {.encoding = CMSGX_AS_IT_IS};

PyDoc_STRVAR(pack_doc,
"pack($self, /)\n--\n\n"
"The payload as the kernel has it, without header or padding: cmsg(3).");

static PyObject *
struct_pack(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const cmsgx_codec *codec = ((cmsgx_struct *)self)->codec;
    if (!cmsgx_struct_is_own(self)) {
        return cmsgx_raise_class_changed(self);
    }
    const cmsgx_wire_format *format = codec->sent;
    if (format == NULL) {
        format = codec->format_count > 0 ? &codec->formats[0] : &canonical;
    }
    PyObject *bytes =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)cmsgx_struct_wire_size(self, format));
    if (bytes != NULL) {
        cmsgx_struct_write(self, format, (unsigned char *)PyBytes_AS_STRING(bytes));
    }
    return bytes;
}

/* Reads one from a buffer, in the form that `level` and `type` name, or (NULL) in the kind's own;
   `plain`: in the canonical one. */
static PyObject *
read_buffer(PyObject *type, PyObject *data, const int *number, int plain)
{
    cmsgx_state *state = cmsgx_state_of_type((PyTypeObject *)type);
    cmsgx_codec *codec = cmsgx_codec_of(state, type);
    PyObject *self = NULL;
    Py_buffer buffer;
    if (codec == NULL || codec->min_size < 0 || codec->kind != (PyTypeObject *)type) {
        (void)cmsgx_raise_unregistered(state, (PyTypeObject *)type);
        Py_XDECREF(codec);
        return NULL;
    }
    const cmsgx_wire_format *format =
        codec->format_count > 0 && !plain ? &codec->formats[0] : &canonical;
    if (number != NULL) {
        format = cmsgx_codec_received(codec, -1, number[0], number[1]);
        if (format == NULL) {
            format = &codec->formats[0];
        }
    }
    if (cmsgx_as_buffer(data, "data", -1, &buffer, PyBUF_SIMPLE) == 0) {
        self = cmsgx_struct_read(state, codec, format, buffer.buf, (size_t)buffer.len);
        PyBuffer_Release(&buffer);
    }
    Py_DECREF(codec);
    return self;
}

PyDoc_STRVAR(unpack_doc,
"unpack($type, data, /)\n--\n\n"
"Makes one from a payload (without its header), a bytes-like object.  MalformedControlError\n"
"where its length is not that of the layout.");

static PyObject *
struct_unpack(PyObject *type, PyObject *data)
{
    return read_buffer(type, data, NULL, 0);
}

PyDoc_STRVAR(unpack_as_doc,
"_unpack_as($type, level, type, data, /)\n--\n\n"
"The same for a payload that came with that level and type.");

static PyObject *
struct_unpack_as(PyObject *type, PyObject *args)
{
    PyObject *data;
    int number[2];
    if (!PyArg_ParseTuple(args, "iiO:_unpack_as", &number[0], &number[1], &data)) {
        return NULL;
    }
    return read_buffer(type, data, number, 0);
}

static PyObject *
struct_restore(PyObject *type, PyObject *args)
{
    PyObject *data;
    int attached_state;
    if (!PyArg_ParseTuple(args, "Oi:_restore", &data, &attached_state)) {
        return NULL;
    }
    if (attached_state < 0 || attached_state >= CMSGX_ATTACHED_STATES) {
        return PyErr_Format(PyExc_ValueError, "attached_state: %d; it is 0 to %d", attached_state,
                            CMSGX_ATTACHED_STATES - 1);
    }
    PyObject *self = read_buffer(type, data, NULL, 1);
    if (self != NULL) {
        ((cmsgx_struct *)self)->attached_state = attached_state;
    }
    return self;
}

static PyObject *
struct_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const cmsgx_struct *record = (const cmsgx_struct *)self;
    if (!cmsgx_struct_is_own(self)) {
        return cmsgx_raise_class_changed(self);
    }
    PyObject *restore = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "_restore");
    return restore == NULL ? NULL
                           : Py_BuildValue("N(y#i)", restore, (const char *)record->payload,
                                           Py_SIZE(self), record->attached_state);
}

PyObject *
cmsgx_struct_compare(PyObject *self, PyObject *other, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || !Py_IS_TYPE(other, Py_TYPE(self))) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    int equal = Py_SIZE(self) == Py_SIZE(other)
                && memcmp(((cmsgx_struct *)self)->payload, ((cmsgx_struct *)other)->payload,
                          (size_t)Py_SIZE(self)) == 0;
    return PyBool_FromLong(equal == (operation == Py_EQ));
}

Py_hash_t
cmsgx_struct_hash(PyObject *self)
{
    return hash_with(self, PyBytes_FromStringAndSize(
                               (const char *)((cmsgx_struct *)self)->payload, Py_SIZE(self)));
}

static PyObject *
struct_attached_state(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((cmsgx_struct *)self)->attached_state);
}

static PyMethodDef struct_methods[] = {
    {"pack", struct_pack, METH_NOARGS, pack_doc},
    {"unpack", struct_unpack, METH_O | METH_CLASS, unpack_doc},
    {"_unpack_as", struct_unpack_as, METH_VARARGS | METH_CLASS, unpack_as_doc},
    {"_restore", struct_restore, METH_VARARGS | METH_CLASS, NULL},
    {"__reduce__", struct_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef struct_getset[] = {
    {"_attached_state", struct_attached_state, NULL,
     "What who received it knows besides; 0: nothing.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(struct_doc,
"An immutable record that is its payload; its fields are windows into that.");

static PyType_Slot struct_slots[] = {
    {Py_tp_richcompare, cmsgx_struct_compare},
    {Py_tp_hash, cmsgx_struct_hash},
    {Py_tp_dealloc, struct_dealloc},
    {Py_tp_traverse, struct_traverse},
    {Py_tp_methods, struct_methods},
    {Py_tp_getset, struct_getset},
    {Py_tp_doc, (void *)struct_doc},
    {0, NULL},
};

static PyType_Spec struct_spec = {
    .name = "cmsgx._cmsg.Struct",
    .basicsize = offsetof(cmsgx_struct, payload),
    .itemsize = 1,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = struct_slots,
};

int
cmsgx_add_record(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    if (cmsgx_add_type(module, &record_spec, &state->Record) < 0) {
        return -1;
    }
    state->Struct = (PyTypeObject *)PyType_FromModuleAndSpec(module, &struct_spec,
                                                             (PyObject *)state->Record);
    return state->Struct == NULL ? -1 : PyModule_AddType(module, state->Struct);
}
