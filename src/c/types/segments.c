#include "types/segments.h"

#include "errors.h"
#include "types/view.h"

typedef struct {
    PyObject_HEAD
    cmsgx_state *state;     /* borrowed: the type holds the module */
    cmsgx_buffer *buffer;   /* owned use */
    const unsigned char *start;
    size_t size;
    size_t each;
    Py_ssize_t count;
} segments;

/* A dedicated iterator: the generic one for sequences would add half the cost of creating a
   view. */
typedef struct {
    PyObject_HEAD
    segments *of;           /* owned */
    size_t at;
} segment_iterator;

#define SELF(object) ((segments *)(object))

PyObject *
cmsgx_segments_new(cmsgx_state *state, cmsgx_buffer *buffer, const unsigned char *start,
                   size_t size, size_t each)
{
    segments *self = PyObject_GC_New(segments, state->Segments);
    if (self != NULL) {
        self->state = state;
        self->buffer = cmsgx_buffer_share(buffer);
        self->start = start;
        self->size = size;
        self->each = each == 0 || each > size ? size : each;
        self->count = self->each == 0 ? 1 : (Py_ssize_t)((size + self->each - 1) / self->each);
        if (buffer->into != NULL) {
            Py_INCREF(buffer->into);
            PyObject_GC_Track(self);
        }
    }
    return (PyObject *)self;
}

static int
segments_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->buffer->into);
    return 0;
}

static void
segments_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    cmsgx_into *into = SELF(object)->buffer->into;
    PyObject_GC_UnTrack(object);
    cmsgx_buffer_release(SELF(object)->buffer);
    Py_XDECREF(into);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyObject *
view_at(const segments *self, size_t at)
{
    size_t rest = self->size - at;
    return cmsgx_view_new(self->state, self->buffer, self->start + at,
                          rest < self->each ? rest : self->each);
}

static Py_ssize_t
segments_length(PyObject *object)
{
    return SELF(object)->count;
}

static PyObject *
segments_item(PyObject *object, Py_ssize_t index)
{
    if (index < 0 || index >= SELF(object)->count) {
        PyErr_SetString(PyExc_IndexError, "segment index out of range");
        return NULL;
    }
    return view_at(SELF(object), (size_t)index * SELF(object)->each);
}

static PyObject *
segments_iter(PyObject *object)
{
    segment_iterator *iterator =
        PyObject_GC_New(segment_iterator, SELF(object)->state->SegmentIterator);
    if (iterator != NULL) {
        iterator->of = (segments *)Py_NewRef(object);
        iterator->at = 0;
        if (SELF(object)->buffer->into != NULL) {
            PyObject_GC_Track(iterator);
        }
    }
    return (PyObject *)iterator;
}

static PyObject *
segments_size(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(SELF(object)->each);
}

static PyObject *
segments_repr(PyObject *object)
{
    return PyUnicode_FromFormat("<Segments, %zd of %zu bytes>", SELF(object)->count,
                                SELF(object)->each);
}

static PyGetSetDef segments_getset[] = {
    {"size", segments_size, NULL, "Bytes of each except the last, which may be shorter.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(segments_doc,
"The datagrams that the kernel coalesced (UDP_GRO), in order: a sequence of Views, which are\n"
"created on access.");

static PyMethodDef segments_methods[] = {
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot segments_slots[] = {
    {Py_tp_dealloc, segments_dealloc},
    {Py_tp_traverse, segments_traverse},
    {Py_tp_methods, segments_methods},
    {Py_tp_repr, segments_repr},
    {Py_tp_iter, segments_iter},
    {Py_tp_getset, segments_getset},
    {Py_tp_doc, (void *)segments_doc},
    {Py_sq_length, segments_length},
    {Py_sq_item, segments_item},
    {0, NULL},
};

static PyType_Spec segments_spec = {
    .name = "cmsgx.Segments",
    .basicsize = sizeof(segments),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_SEQUENCE,
    .slots = segments_slots,
};

static int
iterator_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((segment_iterator *)object)->of);
    return 0;
}

static void
iterator_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(((segment_iterator *)object)->of);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyObject *
iterator_next(PyObject *object)
{
    segment_iterator *self = (segment_iterator *)object;
    size_t at = self->at;
    if (at > self->of->size || (at == self->of->size && at > 0)) {
        return NULL;
    }
    /* An empty datagram is one segment. */
    self->at = at + (self->of->each > 0 ? self->of->each : 1);
    return view_at(self->of, at);
}

static PyMethodDef iterator_methods[] = {
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, iterator_dealloc},
    {Py_tp_traverse, iterator_traverse},
    {Py_tp_methods, iterator_methods},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, iterator_next},
    {0, NULL},
};

static PyType_Spec iterator_spec = {
    .name = "cmsgx._cmsg.SegmentIterator",
    .basicsize = sizeof(segment_iterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = iterator_slots,
};

int
cmsgx_add_segments(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    if (cmsgx_add_type(module, &segments_spec, &state->Segments) < 0) {
        return -1;
    }
    return cmsgx_add_type(module, &iterator_spec, &state->SegmentIterator);
}
