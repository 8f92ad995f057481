#include "record.h"

#include <structmember.h>

#define AT(object, field) ((PyObject **)(void *)((char *)(object) + (field)->slot))

cmsgx_codec *
cmsgx_codec_of(cmsgx_state *state, PyObject *kind)
{
    if (!PyType_Check(kind)) {
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)kind;
    cmsgx_lately *lately = &state->lately[((uintptr_t)kind >> 6) % CMSGX_LATELY];
    unsigned int version = cmsgx_type_version(type);
    if (lately->kind == type && version != 0 && lately->version == version) {
        return (cmsgx_codec *)lately->codec;
    }
    PyObject *codec = cmsgx_type_lookup(type, state->str_codec);
    if (codec == NULL) {
        return NULL;
    }
    /* The class holds it as long as the class lives, and the caller holds the class. */
    Py_DECREF(codec);
    if (!Py_IS_TYPE(codec, state->Codec)) {
        return NULL;
    }
    if (version != 0) {
        *lately = (cmsgx_lately){type, version, codec};
    }
    return (cmsgx_codec *)codec;
}

/* One field between memory and object --------------------------------------------------- */

static size_t
size_of(char format)
{
    switch (format) {
    case 'b': case 'B': return 1;
    case 'h': case 'H': return 2;
    case 'i': case 'I': case 'P': return 4;
    case 'q': case 'Q': return 8;
    default: return 0;
    }
}

static PyObject *
load(char format, const unsigned char *from)
{
    union {
        int8_t b; uint8_t B; int16_t h; uint16_t H; int32_t i; uint32_t I; int64_t q; uint64_t Q;
    } value;
    memcpy(&value, from, size_of(format));
    switch (format) {
    case 'b': return PyLong_FromLong(value.b);
    case 'B': return PyLong_FromLong(value.B);
    case 'h': return PyLong_FromLong(value.h);
    case 'H': return PyLong_FromLong(value.H);
    case 'i': return PyLong_FromLong(value.i);
    case 'I': return PyLong_FromUnsignedLong(value.I);
    case 'P': return value.i == 0 ? Py_NewRef(Py_None) : PyLong_FromLong(value.i);
    case 'q': return PyLong_FromLongLong(value.q);
    default: return PyLong_FromUnsignedLongLong(value.Q);
    }
}

static int
does_not_fit(const cmsgx_codec *codec, const cmsgx_field *field, PyObject *value)
{
    if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_OverflowError, "%s.%U: %R does not fit in %zu bits, %s",
                     codec->kind->tp_name, field->name, value, 8 * size_of(field->format),
                     strchr("BHIQ", field->format) != NULL ? "unsigned" : "signed");
    }
    return -1;
}

/* 0, or -1 with an exception. */
static int
check(const cmsgx_codec *codec, const cmsgx_field *field, PyObject *object)
{
    int overflow;
    if (field->format == 'P' && object == Py_None) {
        return 0;
    }
    if (!PyLong_Check(object) || PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s.%U: an int is needed, not %.200s",
                     codec->kind->tp_name, field->name, Py_TYPE(object)->tp_name);
        return -1;
    }
    if (field->format == 'Q') {
        uint64_t value = PyLong_AsUnsignedLongLong(object);
        return value == UINT64_MAX && PyErr_Occurred() ? does_not_fit(codec, field, object) : 0;
    }
    size_t bits = 8 * size_of(field->format);
    int is_signed = strchr("BHI", field->format) == NULL;
    int64_t value = PyLong_AsLongLongAndOverflow(object, &overflow);
    int64_t top = bits == 64 ? INT64_MAX : (INT64_C(1) << (bits - (size_t)is_signed)) - 1;
    int64_t bottom = is_signed ? -top - 1 : 0;
    return overflow != 0 || value > top || value < bottom ? does_not_fit(codec, field, object) : 0;
}

PyObject *
cmsgx_codec_decode(cmsgx_state *state, const cmsgx_codec *codec, const unsigned char *data,
                   size_t size)
{
    if (size != (size_t)codec->size) {
        PyErr_Format(state->MalformedControlError, "%s: %zu bytes came, it has %zd%s",
                     codec->kind->tp_name, size, codec->size,
                     size < (size_t)codec->size ? " (truncated)" : "");
        return NULL;
    }
    PyObject *self = codec->kind->tp_alloc(codec->kind, 0);
    if (self == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        const cmsgx_field *field = &codec->fields[i];
        PyObject *value = load(field->format, data + field->offset);
        if (value == NULL) {
            Py_DECREF(self);
            return NULL;
        }
        *AT(self, field) = value;
    }
    if (codec->extra != 0) {
        *cmsgx_codec_extra(codec, self) = Py_NewRef(Py_None);
    }
    return self;
}

/* What a record holds was checked when it was made. */
static void
put(char format, PyObject *object, unsigned char *to)
{
    union {
        int8_t b; int16_t h; int32_t i; int64_t q; uint64_t Q;
    } value;
    size_t size = size_of(format);
    switch (size) {
    case 1: value.b = (int8_t)(uint8_t)PyLong_AsLong(object); break;
    case 2: value.h = (int16_t)(uint16_t)PyLong_AsLong(object); break;
    case 4:
        value.i = object == Py_None ? 0 : (int32_t)(uint32_t)PyLong_AsLongLong(object);
        break;
    default:
        if (format == 'Q') {
            value.Q = PyLong_AsUnsignedLongLong(object);
        }
        else {
            value.q = PyLong_AsLongLong(object);
        }
    }
    memcpy(to, &value, size);
}

int
cmsgx_codec_encode(const cmsgx_codec *codec, PyObject *record, unsigned char *out)
{
    memset(out, 0, (size_t)codec->size);
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        const cmsgx_field *field = &codec->fields[i];
        PyObject *value = *AT(record, field);
        if (value == NULL) {
            PyErr_SetObject(PyExc_AttributeError, field->name);
            return -1;
        }
        put(field->format, value, out + field->offset);
    }
    return 0;
}

/* Record --------------------------------------------------------------------------------- */

/* The codec whose fields lie in `self`; NULL with TypeError. */
static cmsgx_codec *
codec_of_record(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cmsgx_codec *codec = cmsgx_codec_of(cmsgx_state_of_type(type), (PyObject *)type);
    if (codec == NULL || !PyType_IsSubtype(type, codec->kind)) {
        PyErr_Format(PyExc_TypeError, "%s is not a registered kind of control message",
                     type->tp_name);
        return NULL;
    }
    return codec;
}

static Py_ssize_t
field_named(const cmsgx_codec *codec, PyObject *name)
{
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        if (PyUnicode_Compare(codec->fields[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static PyObject *
record_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    cmsgx_codec *codec = cmsgx_codec_of(cmsgx_state_of_type(type), (PyObject *)type);
    if (codec == NULL || codec->kind != type) {
        return PyErr_Format(PyExc_TypeError,
                            "%s is not a registered kind of control message: see "
                            "cmsgx.kinds.register",
                            type->tp_name);
    }
    if (PyTuple_GET_SIZE(args) > codec->count) {
        return PyErr_Format(PyExc_TypeError, "%s() takes %zd fields (%zd given)", type->tp_name,
                            codec->count, PyTuple_GET_SIZE(args));
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(args); i++) {
        *AT(self, &codec->fields[i]) = Py_NewRef(PyTuple_GET_ITEM(args, i));
    }
    PyObject *name, *value;
    Py_ssize_t position = 0;
    while (kwargs != NULL && PyDict_Next(kwargs, &position, &name, &value)) {
        Py_ssize_t at = field_named(codec, name);
        if (at < 0 || *AT(self, &codec->fields[at]) != NULL) {
            PyErr_Format(PyExc_TypeError, at < 0 ? "%s() has no field %R"
                                                 : "%s() got multiple values for field %R",
                         type->tp_name, name);
            goto error;
        }
        *AT(self, &codec->fields[at]) = Py_NewRef(value);
    }
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        const cmsgx_field *field = &codec->fields[i];
        if (*AT(self, field) == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() misses field '%U'", type->tp_name, field->name);
            goto error;
        }
        if (field->format != 'O' && check(codec, field, *AT(self, field)) < 0) {
            goto error;
        }
    }
    if (codec->extra != 0) {
        *cmsgx_codec_extra(codec, self) = Py_NewRef(Py_None);
    }
    return self;

error:
    Py_DECREF(self);
    return NULL;
}

static PyObject *
fields_of(PyObject *self)
{
    cmsgx_codec *codec = codec_of_record(self);
    PyObject *tuple = codec == NULL ? NULL : PyTuple_New(codec->count);
    for (Py_ssize_t i = 0; tuple != NULL && i < codec->count; i++) {
        PyObject *value = *AT(self, &codec->fields[i]);
        if (value == NULL) {
            PyErr_SetObject(PyExc_AttributeError, codec->fields[i].name);
            Py_CLEAR(tuple);
        }
        else {
            PyTuple_SET_ITEM(tuple, i, Py_NewRef(value));
        }
    }
    return tuple;
}

PyDoc_STRVAR(pack_doc,
"pack($self, /)\n--\n\n"
"The payload as the kernel takes it, without header or padding: cmsg(3).");

static PyObject *
record_pack(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cmsgx_codec *codec = codec_of_record(self);
    if (codec == NULL) {
        return NULL;
    }
    if (codec->size < 0) {
        return PyErr_Format(PyExc_TypeError, "%s does not say how it is packed",
                            Py_TYPE(self)->tp_name);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, codec->size);
    if (bytes != NULL
        && cmsgx_codec_encode(codec, self, (unsigned char *)PyBytes_AS_STRING(bytes)) < 0) {
        Py_CLEAR(bytes);
    }
    return bytes;
}

PyDoc_STRVAR(unpack_doc,
"unpack($type, data, /)\n--\n\n"
"Makes one from a payload (without its header), a bytes-like object.  MalformedControlError\n"
"where its length is not that of the layout.");

static PyObject *
record_unpack(PyObject *type, PyObject *data)
{
    cmsgx_state *state = cmsgx_state_of_type((PyTypeObject *)type);
    cmsgx_codec *codec = cmsgx_codec_of(state, type);
    Py_buffer buffer;
    if (codec == NULL || codec->size < 0) {
        return PyErr_Format(PyExc_TypeError, "%s does not say how it is unpacked",
                            ((PyTypeObject *)type)->tp_name);
    }
    if (PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *self = cmsgx_codec_decode(state, codec, buffer.buf, (size_t)buffer.len);
    PyBuffer_Release(&buffer);
    return self;
}

static PyObject *
record_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *fields = fields_of(self);
    return fields == NULL ? NULL : Py_BuildValue("ON", Py_TYPE(self), fields);
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
    PyObject *a = fields_of(self);
    PyObject *b = a == NULL ? NULL : fields_of(other);
    if (b != NULL) {
        result = PyObject_RichCompare(a, b, operation);
    }
    Py_XDECREF(a);
    Py_XDECREF(b);
    return result;
}

static Py_hash_t
record_hash(PyObject *self)
{
    PyObject *fields = fields_of(self);
    Py_hash_t hash = fields == NULL ? -1 : PyObject_Hash(fields);
    Py_XDECREF(fields);
    if (hash == -1) {
        return -1;
    }
    hash ^= (Py_hash_t)((uintptr_t)Py_TYPE(self) >> 4);
    return hash == -1 ? -2 : hash;
}

static PyObject *
record_repr(PyObject *self)
{
    cmsgx_codec *codec = codec_of_record(self);
    if (codec == NULL) {
        return NULL;
    }
    const char *dot = strrchr(codec->kind->tp_name, '.');
    PyObject *parts = PyList_New(0);
    PyObject *result = NULL;
    for (Py_ssize_t i = 0; parts != NULL && i < codec->count; i++) {
        const cmsgx_field *field = &codec->fields[i];
        PyObject *part = PyUnicode_FromFormat("%U=%R", field->name, *AT(self, field));
        if (part == NULL || PyList_Append(parts, part) < 0) {
            Py_CLEAR(parts);
        }
        Py_XDECREF(part);
    }
    if (parts != NULL) {
        PyObject *comma = PyUnicode_FromString(", ");
        PyObject *joined = comma == NULL ? NULL : PyUnicode_Join(comma, parts);
        if (joined != NULL) {
            result = PyUnicode_FromFormat(
                "%s(%U)", dot != NULL ? dot + 1 : codec->kind->tp_name, joined);
        }
        Py_XDECREF(joined);
        Py_XDECREF(comma);
        Py_DECREF(parts);
    }
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
    {"pack", record_pack, METH_NOARGS, pack_doc},
    {"unpack", record_unpack, METH_O | METH_CLASS, unpack_doc},
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

/* Codec ---------------------------------------------------------------------------------- */

static Py_ssize_t
slot_of(PyTypeObject *kind, PyObject *name)
{
    Py_ssize_t offset = -1;
    PyObject *member = PyObject_GetAttr((PyObject *)kind, name);
    if (member != NULL && Py_IS_TYPE(member, &PyMemberDescr_Type)
        && PyType_IsSubtype(kind, ((PyMemberDescrObject *)member)->d_common.d_type)
        && ((PyMemberDescrObject *)member)->d_member->type == T_OBJECT_EX) {
        offset = ((PyMemberDescrObject *)member)->d_member->offset;
    }
    Py_XDECREF(member);
    if (offset < 0 && !PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "%s: field %R must be one of its __slots__", kind->tp_name,
                     name);
    }
    return offset;
}

static int
read_field(cmsgx_codec *codec, PyObject *item)
{
    cmsgx_field *field = &codec->fields[codec->count];
    Py_ssize_t offset;
    int format;
    if (!PyArg_ParseTuple(item, "UnC;a field is (name, offset, format)", &field->name, &offset,
                          &format)) {
        return -1;
    }
    size_t size = size_of((char)format);
    if ((size == 0) != (format == 'O' && codec->size < 0) || offset < 0
        || (codec->size >= 0 && (size_t)offset + size > (size_t)codec->size)) {
        PyErr_Format(PyExc_ValueError, "%s: field %R lies outside of its layout",
                     codec->kind->tp_name, item);
        return -1;
    }
    field->offset = (size_t)offset;
    field->format = (char)format;
    field->slot = slot_of(codec->kind, field->name);
    if (field->slot < 0) {
        return -1;
    }
    Py_INCREF(field->name);
    codec->count++;
    return 0;
}

static PyObject *
codec_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"kind", "level", "type", "size", "fields", "extra", NULL};
    PyObject *kind, *fields, *extra = NULL;
    int level, number;
    Py_ssize_t size;
    cmsgx_state *state = cmsgx_state_of_type(type);

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!iinO!|O", (char **)(void *)names,
                                     &PyType_Type, &kind, &level, &number, &size, &PyTuple_Type,
                                     &fields, &extra)) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)kind, state->Record)) {
        return PyErr_Format(PyExc_TypeError, "%R is not a subclass of ControlMessage", kind);
    }
    cmsgx_codec *codec = (cmsgx_codec *)type->tp_alloc(type, 0);
    if (codec == NULL) {
        return NULL;
    }
    codec->kind = (PyTypeObject *)Py_NewRef(kind);
    codec->level = level;
    codec->type = number;
    codec->size = size;
    codec->fields = PyMem_Calloc((size_t)PyTuple_GET_SIZE(fields) + 1, sizeof(cmsgx_field));
    if (codec->fields == NULL) {
        PyErr_NoMemory();
        goto error;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fields); i++) {
        if (read_field(codec, PyTuple_GET_ITEM(fields, i)) < 0) {
            goto error;
        }
    }
    if (extra != NULL && extra != Py_None && (codec->extra = slot_of(codec->kind, extra)) < 0) {
        goto error;
    }
    return (PyObject *)codec;

error:
    Py_DECREF(codec);
    return NULL;
}

static int
codec_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((cmsgx_codec *)self)->kind);
    return 0;
}

static int
codec_clear(PyObject *self)
{
    Py_CLEAR(((cmsgx_codec *)self)->kind);
    return 0;
}

static void
codec_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cmsgx_codec *codec = (cmsgx_codec *)self;
    PyObject_GC_UnTrack(self);
    (void)codec_clear(self);
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        Py_DECREF(codec->fields[i].name);
    }
    PyMem_Free(codec->fields);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef codec_members[] = {
    {"kind", T_OBJECT, offsetof(cmsgx_codec, kind), READONLY, "The class."},
    {"level", T_INT, offsetof(cmsgx_codec, level), READONLY, "cmsg_level"},
    {"type", T_INT, offsetof(cmsgx_codec, type), READONLY, "cmsg_type"},
    {"size", T_PYSSIZET, offsetof(cmsgx_codec, size), READONLY,
     "Bytes of the payload; -1 where the class packs and unpacks itself."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(codec_doc,
"Codec(kind, level, type, size, fields, extra=None)\n--\n\n"
"What a kind is in a control message.  `fields` has a (name, offset, format) for each: bBhHiIqQ\n"
"as in struct, native; P an i where 0 stands for None; O an object outside of the payload.");

static PyType_Slot codec_slots[] = {
    {Py_tp_new, codec_make},
    {Py_tp_dealloc, codec_dealloc},
    {Py_tp_traverse, codec_traverse},
    {Py_tp_clear, codec_clear},
    {Py_tp_members, codec_members},
    {Py_tp_doc, (void *)codec_doc},
    {0, NULL},
};

static PyType_Spec codec_spec = {
    .name = "cmsgx._cmsg.Codec",
    .basicsize = sizeof(cmsgx_codec),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = codec_slots,
};

int
cmsgx_add_record(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    if (cmsgx_add_type(module, &record_spec, &state->Record) < 0) {
        return -1;
    }
    return cmsgx_add_type(module, &codec_spec, &state->Codec);
}
