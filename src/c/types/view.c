#include "types/view.h"

#include "arguments.h"
#include "errors.h"

typedef struct {
    PyObject_HEAD
    cmsgx_state *state;     /* borrowed: the type holds the module */
    cmsgx_buffer *buffer;   /* owned use */
    const unsigned char *start;
    Py_ssize_t size;
} cmsgx_view;

PyObject *
cmsgx_view_new(cmsgx_state *state, cmsgx_buffer *buffer, const unsigned char *start, size_t size)
{
    cmsgx_view *view;
#if CMSGX_FREE_LIST
    if (state->free_views != NULL) {
        view = (cmsgx_view *)state->free_views;
        state->free_views = (PyObject *)(void *)view->buffer;
        state->free_view_count--;
        (void)PyObject_INIT(view, state->View);
    }
    else
#endif
    {
        view = PyObject_GC_New(cmsgx_view, state->View);
        if (view == NULL) {
            return NULL;
        }
        view->state = state;
    }
    view->buffer = cmsgx_buffer_share(buffer);
    view->start = start;
    view->size = (Py_ssize_t)size;
    if (buffer->into != NULL) {
        Py_INCREF(buffer->into);
        PyObject_GC_Track(view);
    }
    return (PyObject *)view;
}

static int
view_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((cmsgx_view *)self)->buffer->into);
    return 0;
}

static void
view_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    cmsgx_view *view = (cmsgx_view *)self;
    cmsgx_into *into = view->buffer->into;
    if (into != NULL) {
        PyObject_GC_UnTrack(self);
    }
    cmsgx_buffer_release(view->buffer);
    Py_XDECREF(into);
#if CMSGX_FREE_LIST
    cmsgx_state *state = view->state;
    if (state->free_view_count < CMSGX_FREE_LIST) {
        view->buffer = (cmsgx_buffer *)(void *)state->free_views;
        state->free_views = self;
        state->free_view_count++;
        Py_DECREF(type);
        return;
    }
#endif
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

void
cmsgx_view_free_all(cmsgx_state *state)
{
#if CMSGX_FREE_LIST
    while (state->free_views != NULL) {
        PyObject *one = state->free_views;
        state->free_views = (PyObject *)(void *)((cmsgx_view *)one)->buffer;
        PyObject_GC_Del(one);
    }
    state->free_view_count = CMSGX_FREE_LIST;
#else
    (void)state;
#endif
}

static int
view_getbuffer(PyObject *self, Py_buffer *out, int flags)
{
    cmsgx_view *view = (cmsgx_view *)self;
    return PyBuffer_FillInfo(out, self, (void *)(uintptr_t)view->start, view->size, 1, flags);
}

static Py_ssize_t
view_length(PyObject *self)
{
    return ((cmsgx_view *)self)->size;
}

static PyObject *
view_tobytes(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    cmsgx_view *view = (cmsgx_view *)self;
    return PyBytes_FromStringAndSize((const char *)view->start, view->size);
}

static PyObject *
view_item(PyObject *self, Py_ssize_t index)
{
    cmsgx_view *view = (cmsgx_view *)self;
    if (index < 0 || index >= view->size) {
        PyErr_SetString(PyExc_IndexError, "view index out of range");
        return NULL;
    }
    return PyLong_FromLong(view->start[index]);
}

static PyObject *
view_subscript(PyObject *self, PyObject *key)
{
    cmsgx_view *view = (cmsgx_view *)self;
    if (PyLong_CheckExact(key)) {
        Py_ssize_t at = PyLong_AsSsize_t(key);
        if ((size_t)at < (size_t)view->size) {
            return PyLong_FromLong(view->start[at]);
        }
        PyErr_Clear();
    }
    if (PySlice_Check(key)) {
        Py_ssize_t start, stop, step;
        if (PySlice_Unpack(key, &start, &stop, &step) < 0) {
            return NULL;
        }
        Py_ssize_t size = PySlice_AdjustIndices(view->size, &start, &stop, step);
        if (step == 1) {
            return cmsgx_view_new(view->state, view->buffer, view->start + start,
                                  (size_t)size);
        }
        PyObject *memory = PyMemoryView_FromObject(self);
        PyObject *slice = memory == NULL ? NULL : PyObject_GetItem(memory, key);
        Py_XDECREF(memory);
        return slice;
    }
    Py_ssize_t index;
    if (cmsgx_as_index(key, &index) < 0) {
        return NULL;
    }
    return view_item(self, index < 0 ? index + view->size : index);
}

static PyObject *
view_compare(PyObject *self, PyObject *other, int operation)
{
    Py_buffer buffer;
    if ((operation != Py_EQ && operation != Py_NE) || !PyObject_CheckBuffer(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    if (cmsgx_get_buffer(other, &buffer, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        Py_RETURN_NOTIMPLEMENTED;
    }
    cmsgx_view *view = (cmsgx_view *)self;
    int equal = buffer.len == view->size
                && memcmp(buffer.buf, view->start, (size_t)view->size) == 0;
    PyBuffer_Release(&buffer);
    return PyBool_FromLong(equal == (operation == Py_EQ));
}

static Py_hash_t
view_hash(PyObject *self)
{
    PyObject *bytes = view_tobytes(self, NULL);
    if (bytes == NULL) {
        return -1;
    }
    Py_hash_t hash = PyObject_Hash(bytes);
    Py_DECREF(bytes);
    return hash;
}

static PyObject *
view_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<View of %zd bytes>", ((cmsgx_view *)self)->size);
}

static PyObject *
view_nbytes(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(((cmsgx_view *)self)->size);
}

PyDoc_STRVAR(tobytes_doc,
"tobytes($self, /)\n--\n\nA copy of the bytes.");

static PyMethodDef view_methods[] = {
    {"tobytes", view_tobytes, METH_NOARGS, tobytes_doc},
    {"__bytes__", view_tobytes, METH_NOARGS, NULL},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef view_getset[] = {
    {"nbytes", view_nbytes, NULL, "The length in bytes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(view_doc,
"Received bytes without a copy, read-only: a bytes-like object.  The bytes never change: as long\n"
"as a View or a slice of it exists, the receiver uses other memory.");

static PyType_Slot view_slots[] = {
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_traverse, view_traverse},
    {Py_tp_repr, view_repr},
    {Py_tp_hash, view_hash},
    {Py_tp_richcompare, view_compare},
    {Py_tp_iter, PySeqIter_New},
    {Py_tp_methods, view_methods},
    {Py_tp_getset, view_getset},
    {Py_tp_doc, (void *)view_doc},
    {Py_sq_length, view_length},
    {Py_sq_item, view_item},
    {Py_mp_length, view_length},
    {Py_mp_subscript, view_subscript},
    {Py_bf_getbuffer, view_getbuffer},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "cmsgx.View",
    .basicsize = sizeof(cmsgx_view),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_SEQUENCE,
    .slots = view_slots,
};

int
cmsgx_add_view(PyObject *module)
{
    return cmsgx_add_type(module, &view_spec, &cmsgx_state_of(module)->View);
}
