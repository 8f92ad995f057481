#include "types/batch.h"

#include "arguments.h"
#include "errors.h"
#include "types/message.h"

typedef struct {
    cmsgx_buffer *buffer;   /* owned use */
    PyObject *message;      /* owned, or NULL: then the batch owns the descriptors in the buffer */
} slot;

typedef struct {
    PyObject_VAR_HEAD       /* ob_size: capacity */
    cmsgx_busy busy;
    cmsgx_flag closed;
    int is_end;             /* see cmsgx_batch_is_end() */
    size_t count;
    cmsgx_receive_config *config; /* owned use */
    slot slots[];
} cmsgx_batch;

#define SELF(object) ((cmsgx_batch *)(object))

PyObject *
cmsgx_batch_new(cmsgx_receive_config *config, size_t count)
{
    cmsgx_batch *self =
        PyObject_GC_NewVar(cmsgx_batch, config->state->Batch, (Py_ssize_t)count);
    if (self != NULL) {
        self->busy = 0;
        self->closed = 0;
        self->is_end = 0;
        self->count = 0;
        self->config = cmsgx_receive_config_share(config);
        if (config->is_traced) {
            PyObject_GC_Track(self);
        }
    }
    return (PyObject *)self;
}

void
cmsgx_batch_add(PyObject *batch, cmsgx_buffer *buffer)
{
    cmsgx_batch *self = SELF(batch);
    self->slots[self->count++] = (slot){cmsgx_buffer_share(buffer), NULL};
}

void
cmsgx_batch_set_end(PyObject *batch, int is_end)
{
    SELF(batch)->is_end = is_end;
}

int
cmsgx_batch_is_end(PyObject *batch)
{
    return SELF(batch)->is_end;
}

/* Moves the descriptors that a message still owns back to buffer->fds.  Returns how many elements
   of it are in use. */
static size_t
collect(slot *one)
{
    if (one->message != NULL) {
        return cmsgx_message_collect(one->message);
    }
    return one->buffer->received.fds + one->buffer->received.pidfds;
}

/* Closes all descriptors that were not taken, many at a time.  Returns how many there were. */
static size_t
close_rest(cmsgx_batch *self)
{
    enum {MANY = 256};
    int fds[MANY];
    size_t waiting = 0, closed = 0;

    cmsgx_flag_set(&self->closed);
    for (size_t i = 0; i < self->count; i++) {
        size_t count = collect(&self->slots[i]);
        int *numbers = self->slots[i].buffer->fds;
        for (size_t at = 0; at < count; at++) {
            if (numbers[at] < 0) {
                continue;
            }
            if (waiting == MANY) {
                cmsgx_close_numbers(self->config->row, fds, waiting);
                waiting = 0;
            }
            fds[waiting++] = numbers[at];
            numbers[at] = -1;
            closed++;
        }
    }
    cmsgx_close_numbers(self->config->row, fds, waiting);
    return closed;
}

int
cmsgx_batch_close(PyObject *batch)
{
    cmsgx_batch *self = SELF(batch);
    if (cmsgx_flag_get(&self->closed)) {
        return 0;
    }
    if (!cmsgx_enter(&self->busy)) {
        cmsgx_raise_busy(batch);
        return -1;
    }
    /* All or none: if another thread uses one of the messages, none is closed. */
    size_t held = 0;
    while (held < self->count && (self->slots[held].message == NULL
                                  || cmsgx_message_hold(self->slots[held].message))) {
        held++;
    }
    int is_free = held == self->count;
    if (is_free) {
        (void)close_rest(self);
    }
    while (held-- > 0) {
        if (self->slots[held].message != NULL) {
            cmsgx_message_let_go(self->slots[held].message);
        }
    }
    cmsgx_leave(&self->busy);
    if (!is_free) {
        cmsgx_raise_busy(batch);
        return -1;
    }
    return 0;
}

static int
batch_traverse(PyObject *object, visitproc visit, void *arg)
{
    const cmsgx_batch *self = SELF(object);
    Py_VISIT(Py_TYPE(object));
    for (size_t i = 0; i < self->count; i++) {
        Py_VISIT(self->slots[i].message);
    }
    return cmsgx_receive_config_visit(self->config, visit, arg);
}

static void
batch_dealloc(PyObject *object)
{
    cmsgx_batch *self = SELF(object);
    PyTypeObject *type = Py_TYPE(object);
    size_t others = 0;
    PyObject_GC_UnTrack(object);

    /* A message closes its own descriptors: somebody may still hold it. */
    for (size_t i = 0; i < self->count; i++) {
        if (self->slots[i].message == NULL) {
            self->slots[others++] = self->slots[i];
            continue;
        }
        Py_DECREF(self->slots[i].message);
        cmsgx_buffer_release(self->slots[i].buffer);
    }
    self->count = others;
    PyObject *pending = cmsgx_save_exception();
    size_t left = close_rest(self);
    if (left > 0
        && PyErr_ResourceWarning(NULL, 1, "Batch with %zu descriptors was never closed", left)) {
        PyErr_WriteUnraisable(NULL);
    }
    cmsgx_restore_exception(pending);
    for (size_t i = 0; i < self->count; i++) {
        cmsgx_buffer_release(self->slots[i].buffer);
    }
    cmsgx_receive_config_release(self->config);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static Py_ssize_t
batch_length(PyObject *object)
{
    return (Py_ssize_t)SELF(object)->count;
}

static PyObject *
batch_item(PyObject *object, Py_ssize_t index)
{
    cmsgx_batch *self = SELF(object);
    if (index < 0 || (size_t)index >= self->count) {
        PyErr_SetString(PyExc_IndexError, "batch index out of range");
        return NULL;
    }
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    slot *one = &self->slots[index];
    if (one->message == NULL) {
        one->message = cmsgx_message_new(self->config->state, one->buffer, self->config);
        if (one->message != NULL && cmsgx_flag_get(&self->closed)) {
            (void)cmsgx_message_close(one->message);
        }
    }
    PyObject *message = Py_XNewRef(one->message);
    cmsgx_leave(&self->busy);
    return message;
}

static PyObject *
batch_subscript(PyObject *object, PyObject *key)
{
    Py_ssize_t count = batch_length(object);
    if (PySlice_Check(key)) {
        Py_ssize_t start, stop, step;
        if (PySlice_Unpack(key, &start, &stop, &step) < 0) {
            return NULL;
        }
        Py_ssize_t size = PySlice_AdjustIndices(count, &start, &stop, step);
        PyObject *tuple = PyTuple_New(size);
        for (Py_ssize_t i = 0; tuple != NULL && i < size; i++) {
            PyObject *message = batch_item(object, start + i * step);
            if (message == NULL) {
                Py_CLEAR(tuple);
            }
            else {
                PyTuple_SET_ITEM(tuple, i, message);
            }
        }
        return tuple;
    }
    Py_ssize_t index;
    if (cmsgx_as_index(key, &index) < 0) {
        return NULL;
    }
    return batch_item(object, index < 0 ? index + count : index);
}

PyDoc_STRVAR(batch_close_doc,
"close($self, /)\n--\n\n"
"Closes each descriptor that was not taken from its message, as the end of a `with` block does.");

static PyObject *
batch_close_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return cmsgx_batch_close(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
batch_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *
batch_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return batch_close_method(self, NULL);
}

static PyObject *
batch_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(cmsgx_flag_get(&SELF(self)->closed));
}

static PyObject *
batch_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<Batch of %zu messages%s>", SELF(self)->count,
                                cmsgx_flag_get(&SELF(self)->closed) ? ", closed" : "");
}

PyDoc_STRVAR(batch_enter_doc,
"__enter__($self, /)\n--\n\n"
"Returns the batch itself, for `as`.");

PyDoc_STRVAR(batch_exit_doc,
"__exit__($self, /, *exc_info)\n--\n\n"
"Closes each descriptor that was not taken from its message.");

static PyMethodDef batch_methods[] = {
    {"close", batch_close_method, METH_NOARGS, batch_close_doc},
    {"__enter__", batch_enter, METH_NOARGS, batch_enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))batch_exit, METH_FASTCALL, batch_exit_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef batch_getset[] = {
    {"closed", batch_closed, NULL, "Whether close() was called, or a `with` block ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(batch_doc,
"The messages of one receive, in order: a sequence with length, indexing and slicing.  It owns\n"
"the descriptors that are not taken, and closes them at the end of a `with` block.");

static PyType_Slot batch_slots[] = {
    {Py_tp_dealloc, batch_dealloc},
    {Py_tp_traverse, batch_traverse},
    {Py_tp_repr, batch_repr},
    {Py_tp_iter, PySeqIter_New},
    {Py_tp_methods, batch_methods},
    {Py_tp_getset, batch_getset},
    {Py_tp_doc, (void *)batch_doc},
    {Py_sq_length, batch_length},
    {Py_sq_item, batch_item},
    {Py_mp_length, batch_length},
    {Py_mp_subscript, batch_subscript},
    {0, NULL},
};

static PyType_Spec batch_spec = {
    .name = "cmsgx.Batch",
    .basicsize = offsetof(cmsgx_batch, slots),
    .itemsize = sizeof(slot),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_SEQUENCE,
    .slots = batch_slots,
};

int
cmsgx_add_batch(PyObject *module)
{
    return cmsgx_add_type(module, &batch_spec, &cmsgx_state_of(module)->Batch);
}
