#include "types/codec.h"

#include "errors.h"

#include <errno.h>

#include <arpa/inet.h>

cmsgx_codec *
cmsgx_codec_of(cmsgx_state *state, PyObject *kind)
{
    if (!PyType_Check(kind)) {
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)kind;
    cmsgx_cached_codec *codec_cache =
        &state->codec_cache[((uintptr_t)kind >> 6) % CMSGX_CODEC_CACHE_SIZE];
    unsigned int version = cmsgx_type_version(type);
    if (codec_cache->kind == type && version != 0 && codec_cache->version == version) {
        return (cmsgx_codec *)Py_NewRef(codec_cache->codec);
    }
    PyObject *codec = cmsgx_type_lookup(type, state->str_codec);
    if (codec == NULL) {
        return NULL;
    }
    if (!Py_IS_TYPE(codec, state->Codec)) {
        Py_DECREF(codec);
        return NULL;
    }
    if (version != 0) {
        *codec_cache = (cmsgx_cached_codec){type, version, codec};
    }
    return (cmsgx_codec *)codec;
}

int
cmsgx_is_unsupported(cmsgx_state *state, PyObject *kind)
{
    if (!PyType_Check(kind)) {
        return 0;
    }
    PyObject *codec = cmsgx_type_lookup((PyTypeObject *)kind, state->str_codec);
    Py_XDECREF(codec);
    return codec == Py_None;
}

PyObject *
cmsgx_raise_unregistered(cmsgx_state *state, PyTypeObject *kind)
{
    if (!cmsgx_is_unsupported(state, (PyObject *)kind)) {
        return PyErr_Format(PyExc_TypeError,
                            "%s is not a registered kind of control message: see "
                            "cmsgx.kinds.register",
                            kind->tp_name);
    }
    return cmsgx_raise_not_supported(state->NotSupportedError, ENOPROTOOPT,
                                     "%s: not supported on this system", kind->tp_name);
}

int
cmsgx_codec_comes_over(const cmsgx_codec *codec, int family)
{
    for (Py_ssize_t i = 0; i < codec->format_count; i++) {
        const cmsgx_wire_format *format = &codec->formats[i];
        if (cmsgx_codec_received(codec, family, format->level, format->type) != NULL) {
            return 1;
        }
    }
    return 0;
}

int
cmsgx_codec_comes(const cmsgx_codec *codec)
{
    for (Py_ssize_t i = 0; i < codec->format_count; i++) {
        if (codec->formats[i].directions & CMSGX_RECEIVED) {
            return 1;
        }
    }
    return 0;
}

int
cmsgx_field_may_be_sent(const cmsgx_field *field, const cmsgx_wire_format *format,
                        const unsigned char *payload, size_t size)
{
    int64_t value = 0;
    uint32_t word;
    if (field->offset + field->size > size) {
        return 1;
    }
    if (field->size == sizeof(value)) {
        memcpy(&value, payload + field->offset, sizeof(value));
    }
    else {
        memcpy(&word, payload + field->offset, sizeof(word));
        value = field->format == 'i' ? (int32_t)word
            : field->format == 'N' ? (int64_t)ntohl(word) : (int64_t)word;
    }
    return value >= format->min_value && value <= format->max_value;
}

/* Codec ---------------------------------------------------------------------------------- */

/* The descriptor of a slot of its instances: a new reference, or NULL with an exception. */
static PyMemberDescrObject *
member_slot(PyTypeObject *kind, PyObject *name)
{
    PyObject *member = PyObject_GetAttr((PyObject *)kind, name);
    if (member != NULL && Py_IS_TYPE(member, &PyMemberDescr_Type)
        && PyType_IsSubtype(kind, ((PyMemberDescrObject *)member)->d_common.d_type)
        && ((PyMemberDescrObject *)member)->d_member->type == Py_T_OBJECT_EX) {
        return (PyMemberDescrObject *)member;
    }
    if (member != NULL) {
        PyErr_Format(PyExc_TypeError, "%s: field %R must be one of its __slots__", kind->tp_name,
                     name);
        Py_DECREF(member);
    }
    return NULL;
}

static int
add_field(cmsgx_codec *codec, cmsgx_state *state, PyObject *item)
{
    if (!Py_IS_TYPE(item, state->Field)) {
        PyErr_Format(PyExc_TypeError, "%R is not a Field", item);
        return -1;
    }
    cmsgx_field *field = (cmsgx_field *)item;
    int is_object = field->format == 'O';
    if (is_object != (codec->min_size < 0)
        || (codec->max_size >= 0 && field->offset + field->size > (size_t)codec->max_size)) {
        PyErr_Format(PyExc_ValueError, "%s: %R is outside the layout, which has %zd bytes",
                     codec->kind->tp_name, item, codec->max_size);
        return -1;
    }
    if (is_object && (codec->slots[codec->count] = member_slot(codec->kind, field->name)) == NULL) {
        return -1;
    }
    if (!is_object && field->kind == NULL) {
        field->kind = (PyTypeObject *)Py_NewRef(codec->kind);
    }
    if (field->format == 'S') {
        codec->sockaddr = field;
    }
    if (field->is_bounded && field->format != 't' && codec->bounded == NULL) {
        codec->bounded = field;
    }
    codec->fields[codec->count++] = (cmsgx_field *)Py_NewRef(item);
    return 0;
}

/* An encoding reads and writes the canonical payload as a whole: the layout has to have exactly
   that size.  0, or -1 with an exception. */
static int
check_encoding(const cmsgx_codec *codec, cmsgx_encoding encoding)
{
    const char *name = cmsgx_encoding_name(encoding);
    Py_ssize_t canonical = (Py_ssize_t)cmsgx_encoding_canonical(encoding);
    if (encoding == CMSGX_AS_IT_IS) {
        return 0;
    }
    if (codec->min_size < 0) {
        PyErr_Format(PyExc_ValueError,
                     "encoding: '%s'; %s packs and unpacks itself, so it can have none", name,
                     codec->kind->tp_name);
        return -1;
    }
    if (encoding == CMSGX_WITHOUT_NUL) {
        return 0;
    }
    if (canonical == 0) {
        PyErr_Format(PyExc_ValueError, "encoding: '%s'; not available on this system", name);
        return -1;
    }
    if (codec->min_size != canonical || codec->max_size != canonical) {
        PyErr_Format(PyExc_ValueError,
                     "encoding: '%s' stands for a layout of %zd bytes, and that of %s has %zd%s",
                     name, canonical, codec->kind->tp_name, codec->min_size,
                     codec->min_size == codec->max_size ? "" : " or more");
        return -1;
    }
    return 0;
}

static int
read_format(cmsgx_codec *codec, PyObject *item)
{
    cmsgx_wire_format *format = &codec->formats[codec->format_count];
    unsigned long long families, sent_over = 0;
    long long min_value = INT64_MIN;
    Py_ssize_t size;
    int encoding, reader = CMSGX_BY_ANY;
    if (!PyArg_ParseTuple(item,
                          "Kiiini|KILi;a wire format is (families, level, type, directions, size, "
                          "encoding, sent_over=0, sent_by=0, min_value=-2**63, reader=0)",
                          &families, &format->level, &format->type, &format->directions, &size,
                          &encoding, &sent_over, &format->sent_by, &min_value, &reader)) {
        return -1;
    }
    if (encoding < 0 || encoding >= CMSGX_ENCODINGS || reader < 0 || reader >= CMSGX_READERS) {
        PyErr_Format(PyExc_ValueError, "%s: %R is not a wire format", codec->kind->tp_name, item);
        return -1;
    }
    format->encoding = (cmsgx_encoding)encoding;
    format->reader = (cmsgx_reader)reader;
    format->size = encoding == CMSGX_INTEGER ? (size_t)size : cmsgx_encoding_size(format->encoding);
    if (encoding == CMSGX_INTEGER ? size != 1 && size != 2 && size != 4
                                   : size < 0 || (size != 0 && (size_t)size != format->size)) {
        PyErr_Format(PyExc_ValueError,
                     "%s: %R is not a wire format: size: %zd; must be 1, 2 or 4 for 'integer', and "
                     "not to be chosen for another encoding",
                     codec->kind->tp_name, item, size);
        return -1;
    }
    format->families = families;
    format->sent_over = sent_over;
    format->min_value = min_value;
    if ((format->directions & CMSGX_SENT) && codec->sent == NULL) {
        codec->sent = format;
    }
    codec->format_count++;
    return check_encoding(codec, format->encoding);
}

/* Python tracks the instances of each class that it creates.  Instances that are only bytes can
   be in a cycle only through their class.  If that lives as long as the package they need no
   tracking, which halves the cost of creating and freeing one. */
static void
without_gc(PyTypeObject *kind, const PyTypeObject *base)
{
    if (kind->tp_basicsize == base->tp_basicsize && kind->tp_dictoffset == 0
        && kind->tp_weaklistoffset == 0 && kind->tp_finalize == NULL) {
        kind->tp_flags &= ~(unsigned long)Py_TPFLAGS_HAVE_GC;
        kind->tp_traverse = NULL;
        kind->tp_clear = NULL;
        kind->tp_free = PyObject_Free;
        kind->tp_dealloc = base->tp_dealloc;
    }
}

static PyObject *
codec_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"kind",   "formats",    "min_size", "max_size",
                                        "fields", "is_lasting", NULL};
    PyObject *kind, *fields, *formats;
    Py_ssize_t min_size, max_size;
    int is_lasting = 0;
    cmsgx_state *state = cmsgx_state_of_type(type);

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!nnO!|p", (char **)(void *)names,
                                     &PyType_Type, &kind, &PyTuple_Type, &formats, &min_size,
                                     &max_size, &PyTuple_Type, &fields, &is_lasting)) {
        return NULL;
    }
    if (min_size >= 0 && max_size >= 0 && min_size > max_size) {
        return PyErr_Format(PyExc_ValueError, "min_size: %zd; it is more than max_size: %zd",
                            min_size, max_size);
    }
    if (!PyType_IsSubtype((PyTypeObject *)kind, min_size < 0 ? state->Record : state->Struct)) {
        return PyErr_Format(PyExc_TypeError, "%R is not a subclass of %s", kind,
                            min_size < 0 ? "ControlMessage" : "StructMessage");
    }
    size_t count = (size_t)PyTuple_GET_SIZE(fields);
    if (count > CMSGX_MAX_FIELDS) {
        return PyErr_Format(PyExc_ValueError, "fields: %zu; %d at most", count,
                            CMSGX_MAX_FIELDS);
    }
    cmsgx_codec *codec = (cmsgx_codec *)type->tp_alloc(type, 0);
    if (codec == NULL) {
        return NULL;
    }
    codec->kind = (PyTypeObject *)Py_NewRef(kind);
    codec->is_lasting = is_lasting;
    codec->min_size = min_size;
    codec->max_size = max_size;
    codec->formats = PyMem_Calloc((size_t)PyTuple_GET_SIZE(formats) + 1, sizeof(cmsgx_wire_format));
    codec->fields = PyMem_Calloc(count + 1, sizeof(cmsgx_field *));
    codec->slots = PyMem_Calloc(count + 1, sizeof(PyMemberDescrObject *));
    if (codec->formats == NULL || codec->fields == NULL || codec->slots == NULL) {
        PyErr_NoMemory();
        goto error;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(formats); i++) {
        if (read_format(codec, PyTuple_GET_ITEM(formats, i)) < 0) {
            goto error;
        }
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fields); i++) {
        if (add_field(codec, state, PyTuple_GET_ITEM(fields, i)) < 0) {
            goto error;
        }
    }
    for (Py_ssize_t i = 0; codec->bounded != NULL && i < codec->format_count; i++) {
        cmsgx_wire_format *format = &codec->formats[i];
        format->min_value =
            format->min_value == INT64_MIN ? codec->bounded->min_value : format->min_value;
        format->max_value = codec->bounded->max_value;
    }
    if (min_size >= 0 && is_lasting) {
        without_gc(codec->kind, state->Struct);
    }
    return (PyObject *)codec;

error:
    Py_DECREF(codec);
    return NULL;
}

static int
codec_traverse(PyObject *self, visitproc visit, void *arg)
{
    const cmsgx_codec *codec = (const cmsgx_codec *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(codec->kind);
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        Py_VISIT(codec->fields[i]);
        Py_VISIT(codec->slots[i]);
    }
    return 0;
}

static void
codec_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cmsgx_codec *codec = (cmsgx_codec *)self;
    PyObject_GC_UnTrack(self);
    Py_XDECREF(codec->kind);
    for (Py_ssize_t i = 0; i < codec->count; i++) {
        Py_DECREF(codec->fields[i]);
        Py_XDECREF(codec->slots[i]);
    }
    PyMem_Free(codec->formats);
    PyMem_Free(codec->fields);
    PyMem_Free(codec->slots);
#if CMSGX_FREE_LIST
    PyObject_Free(codec->spare);
#endif
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
codec_fields(PyObject *self, void *Py_UNUSED(closure))
{
    const cmsgx_codec *codec = (const cmsgx_codec *)self;
    PyObject *names = PyTuple_New(codec->count);
    for (Py_ssize_t i = 0; names != NULL && i < codec->count; i++) {
        PyTuple_SET_ITEM(names, i, Py_NewRef(codec->fields[i]->name));
    }
    return names;
}

static PyMemberDef codec_members[] = {
    {"kind", Py_T_OBJECT_EX, offsetof(cmsgx_codec, kind), Py_READONLY, "The class."},
    {"min_size", Py_T_PYSSIZET, offsetof(cmsgx_codec, min_size), Py_READONLY,
     "Minimum size of the payload in bytes; -1: the class packs and unpacks itself."},
    {"max_size", Py_T_PYSSIZET, offsetof(cmsgx_codec, max_size), Py_READONLY,
     "Maximum size of the payload in bytes; -1: no limit."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef codec_getset[] = {
    {"fields", codec_fields, NULL, "The names of the fields, in order.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(codec_doc,
"Codec(kind, formats, min_size, max_size, fields, is_lasting=False)\n--\n\n"
"What a kind is in a control message; `is_lasting`: a class of this package.  Each wire format is\n"
"(families, level, type, directions, size, encoding, sent_over=0, sent_by=0, min_value=-2**63,\n"
"reader=0).  `families`: a bit mask of AF_*, 0 for any; `directions`: 1 received, 2 sent, 4 sent\n"
"by the family of the packet; `size`: bytes of the payload, for CMSGX_INTEGER only; `sent_over`,\n"
"`sent_by`: masks of the AF_* that it is sent over and the SOCK_* that send it, 0 for any;\n"
"`min_value`: the smallest value that is sent; `reader`: the protocol that has to read it,\n"
"CMSGX_BY_*.");

static PyMethodDef codec_methods[] = {
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot codec_slots[] = {
    {Py_tp_new, codec_make},
    {Py_tp_dealloc, codec_dealloc},
    {Py_tp_methods, codec_methods},
    {Py_tp_traverse, codec_traverse},
    {Py_tp_members, codec_members},
    {Py_tp_getset, codec_getset},
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
cmsgx_add_codec(PyObject *module)
{
    return cmsgx_add_type(module, &codec_spec, &cmsgx_state_of(module)->Codec);
}
