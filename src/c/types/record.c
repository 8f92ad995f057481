#include "types/record.h"

#include "types/field.h"
#include "types/struct.h"

/* What a record is read with: a new reference, or NULL with an exception. */
static cmsgx_codec *
codec_of_record(PyObject *self)
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

/* The value of each field, owned; NULL if an optional one is not given.  0, or -1 with an
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
        /* An optional field that is absent reads as None. */
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
    cmsgx_struct *self = cmsgx_struct_new(codec, size);
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
    cmsgx_codec *codec = codec_of_record(self);
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

static Py_hash_t
record_hash(PyObject *self)
{
    return cmsgx_hash_with_class(self, values_of(self));
}

static PyObject *
record_repr(PyObject *self)
{
    cmsgx_codec *codec = codec_of_record(self);
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
            /* Read now: a repr() above may have renamed the class. */
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

/* Immutable: a copy is the object itself. */
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
"An immutable record whose fields are slots of its class, in the order of the class's Codec.");

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

int
cmsgx_add_record(PyObject *module)
{
    return cmsgx_add_type(module, &record_spec, &cmsgx_state_of(module)->Record);
}
