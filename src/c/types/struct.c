#include "types/struct.h"

#include "arguments.h"
#include "errors.h"

PyObject *
cmsgx_raise_class_changed(PyObject *record)
{
    const cmsgx_codec *codec = ((cmsgx_struct *)record)->codec;
    return PyErr_Format(PyExc_TypeError, "this %.200s was created as %.200s: its class was changed",
                        Py_TYPE(record)->tp_name,
                        codec != NULL ? codec->kind->tp_name : "nothing");
}

/* Making one ------------------------------------------------------------------------------ */

cmsgx_struct *
cmsgx_struct_new(cmsgx_codec *codec, size_t size)
{
    PyTypeObject *type = codec->kind;
    cmsgx_struct *self;
    if (type->tp_flags & Py_TPFLAGS_HAVE_GC) {
        /* A user's class. */
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

/* The size that the payload needs for the socket address in that field: more than `size` if the
   address was truncated. */
static size_t
sockaddr_end(const cmsgx_field *field, const unsigned char *payload, size_t size)
{
    struct sockaddr_storage name;
    size_t rest = size > field->offset ? size - field->offset : 0;
    if (field->size != 0 && rest > field->size) {
        rest = field->size;
    }
    size_t min_size = rest == 0 ? 0 : CMSGX_MIN_ADDRESS;
    if (rest >= CMSGX_MIN_ADDRESS) {
        memcpy(&name, payload + field->offset, rest < sizeof(name) ? rest : sizeof(name));
        if (name.ss_family == AF_INET) {
            min_size = sizeof(struct sockaddr_in);
        }
        else if (name.ss_family == AF_INET6) {
            min_size = sizeof(struct sockaddr_in6);
        }
    }
    return field->offset + min_size;
}

static PyObject *
wrong_size(cmsgx_state *state, const cmsgx_codec *codec, size_t size, size_t right)
{
    PyErr_Format(state->MalformedControlError, "%s: %zu bytes received; expected %zu%s",
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
                /* Kernels send an int as one byte (IP_TOS) or as a whole int (IP_TTL): ip(7). */
                size_t right = format->size > 1 ? format->size : sizeof(int);
                PyErr_Format(state->MalformedControlError,
                             "%s: %zu bytes received; expected 1 or %zu%s",
                             codec->kind->tp_name, size, right, size < right ? " (truncated)" : "");
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
        size_t end = sockaddr_end(codec->sockaddr, data, size);
        if (end > size) {
            return wrong_size(state, codec, size, end);
        }
    }
    cmsgx_struct *self = cmsgx_struct_new(codec, size);
    if (self != NULL) {
        memcpy(self->payload, data, size);
    }
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

/* The type ------------------------------------------------------------------------------- */

static const cmsgx_wire_format canonical = {.encoding = CMSGX_AS_IT_IS};

PyDoc_STRVAR(pack_doc,
"pack($self, /)\n--\n\n"
"The payload as the kernel expects it, without header and padding: cmsg(3).");

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

/* Reads one from a buffer: in the wire format of level number[0] and type number[1]; with NULL in
   the kind's first wire format, or with `plain` in the canonical one. */
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
"Creates one from a payload without header, a bytes-like object.  Raises MalformedControlError if\n"
"the length does not match the layout.");

static PyObject *
struct_unpack(PyObject *type, PyObject *data)
{
    return read_buffer(type, data, NULL, 0);
}

PyDoc_STRVAR(unpack_as_doc,
"_unpack_as($type, level, type, data, /)\n--\n\n"
"The same for a payload that was received with that level and type.");

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
        return PyErr_Format(PyExc_ValueError, "attached_state: %d; must be 0 to %d", attached_state,
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
cmsgx_hash_with_class(PyObject *self, PyObject *content)
{
    Py_hash_t hash = content == NULL ? -1 : PyObject_Hash(content);
    Py_XDECREF(content);
    if (hash == -1) {
        return -1;
    }
    hash ^= (Py_hash_t)((uintptr_t)Py_TYPE(self) >> 4);
    return hash == -1 ? -2 : hash;
}

Py_hash_t
cmsgx_struct_hash(PyObject *self)
{
    return cmsgx_hash_with_class(self, PyBytes_FromStringAndSize(
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
     "An extra fact set by the receiving Message; 0: none.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(struct_doc,
"An immutable record that holds its payload; its fields are windows into that.");

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
cmsgx_add_struct(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    state->Struct = (PyTypeObject *)PyType_FromModuleAndSpec(module, &struct_spec,
                                                             (PyObject *)state->Record);
    return state->Struct == NULL ? -1 : PyModule_AddType(module, state->Struct);
}
