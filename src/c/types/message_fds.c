#include "types/message_fds.h"

#include "arguments.h"
#include "errors.h"
#include "types/fd_ownership.h"

#define SELF(object) ((cmsgx_message *)(object))

int
cmsgx_message_need_slots(cmsgx_message *self)
{
    size_t count = self->buffer->received.fds + self->buffer->received.pidfds;
    if (self->slots != NULL) {
        return 0;
    }
    if (count <= CMSGX_INLINE_SLOTS + 1) {
        self->slots = memset(self->inline_slots, 0, sizeof(self->inline_slots));
    }
    else if ((self->slots = PyMem_Calloc(count, sizeof(cmsgx_slot))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

int
cmsgx_message_number(const cmsgx_message *self, size_t at, int *error)
{
    int is_closed = cmsgx_flag_get(&self->closed);
    int number = self->buffer->fds[at];
    *error = 0;
    if (number >= 0) {
        return is_closed ? -1 : number;
    }
    if (number > INT_MIN && (number != -1 || (!is_closed && !self->slots[at].taken))) {
        *error = -number;
    }
    return -1;
}

/* An object without a number, whose error messages say why.  NULL with an exception. */
static PyObject *
object_of_none(PyTypeObject *type, const cmsgx_slot *slot, int error)
{
    PyObject *object = cmsgx_fd_new(type, -1, error);
    if (object != NULL && error == 0) {
        cmsgx_fd_set_gone(object,
                                  slot->taken ? CMSGX_GONE_TAKEN : CMSGX_GONE_WITH_MESSAGE);
    }
    return object;
}

PyObject *
cmsgx_message_object(cmsgx_message *self, size_t at)
{
    cmsgx_state *state = self->config->state;
    if (cmsgx_message_need_slots(self) < 0) {
        return NULL;
    }
    cmsgx_slot *slot = &self->slots[at];
    if (slot->object == NULL) {
        int error;
        int number = cmsgx_message_number(self, at, &error);
        PyTypeObject *type = at < self->buffer->received.fds ? state->Fd : state->PidFd;
        slot->object = number >= 0 ? cmsgx_fd_new(type, number, error)
                                   : object_of_none(type, slot, error);
        if (slot->object != NULL) {
            if (self->config->row != NULL) {
                cmsgx_fd_set_row(slot->object, self->config->row);
            }
            self->buffer->fds[at] = -1;
        }
    }
    return slot->object;
}

/* MessageFds: the type of msg.fds, a read-only sequence. */

typedef struct {
    PyObject_HEAD
    PyObject *message;      /* owned */
} cmsgx_message_fds;

PyObject *
cmsgx_message_fds_new(PyObject *message)
{
    cmsgx_state *state = cmsgx_state_of_self(message);
    cmsgx_message_fds *self;
#if CMSGX_FREE_LIST
    if (state->spare_descriptors != NULL) {
        self = (cmsgx_message_fds *)state->spare_descriptors;
        state->spare_descriptors = NULL;
        (void)PyObject_INIT(self, state->MessageFds);
    }
    else
#endif
    {
        self = PyObject_GC_New(cmsgx_message_fds, state->MessageFds);
        if (self == NULL) {
            return NULL;
        }
    }
    self->message = Py_NewRef(message);
    if (SELF(message)->is_traced) {
        PyObject_GC_Track(self);
    }
    return (PyObject *)self;
}

static int
message_fds_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((cmsgx_message_fds *)self)->message);
    return 0;
}

static void
message_fds_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject *message = ((cmsgx_message_fds *)self)->message;
    if (SELF(message)->is_traced) {
        PyObject_GC_UnTrack(self);
    }
#if CMSGX_FREE_LIST
    cmsgx_state *state = SELF(message)->config->state;
    if (state->spare_descriptors == NULL && state->MessageFds != NULL) {
        /* Plain memory from now on: it holds no reference to the type. */
        state->spare_descriptors = self;
        self = NULL;
    }
#endif
    if (self != NULL) {
        PyObject_GC_Del(self);
    }
    Py_DECREF(message);
    Py_DECREF(type);
}

void
cmsgx_message_fds_free_all(cmsgx_state *state)
{
#if CMSGX_FREE_LIST
    if (state->spare_descriptors != NULL) {
        PyObject_GC_Del(state->spare_descriptors);
        state->spare_descriptors = NULL;
    }
#else
    (void)state;
#endif
}

static Py_ssize_t
message_fds_length(PyObject *self)
{
    return (Py_ssize_t)SELF(((cmsgx_message_fds *)self)->message)->buffer->received.fds;
}

static PyObject *
message_fds_item(PyObject *self, Py_ssize_t index)
{
    PyObject *message = ((cmsgx_message_fds *)self)->message;
    if (index < 0 || index >= (Py_ssize_t)SELF(message)->buffer->received.fds) {
        return PyErr_Format(PyExc_IndexError,
                            "fds: index out of range; %zu descriptors came with this message",
                            SELF(message)->buffer->received.fds);
    }
    if (!cmsgx_enter(&SELF(message)->busy)) {
        return cmsgx_raise_busy(message);
    }
    PyObject *item = Py_XNewRef(cmsgx_message_object(SELF(message), (size_t)index));
    cmsgx_leave(&SELF(message)->busy);
    return item;
}

static PyObject *
message_fds_subscript(PyObject *self, PyObject *key)
{
    if (PySlice_Check(key)) {
        PyObject *tuple = PySequence_Tuple(self);
        PyObject *slice = tuple == NULL ? NULL : PyObject_GetItem(tuple, key);
        Py_XDECREF(tuple);
        return slice;
    }
    Py_ssize_t index;
    if (cmsgx_as_index(key, &index) < 0) {
        return NULL;
    }
    return message_fds_item(self, index < 0 ? index + message_fds_length(self) : index);
}

/* Calls the named method on a tuple of the same items. */
static PyObject *
call_on_tuple(PyObject *self, const char *name, PyObject *args)
{
    PyObject *tuple = PySequence_Tuple(self);
    PyObject *method = tuple == NULL ? NULL : PyObject_GetAttrString(tuple, name);
    PyObject *result = method == NULL ? NULL : PyObject_CallObject(method, args);
    Py_XDECREF(method);
    Py_XDECREF(tuple);
    return result;
}

PyDoc_STRVAR(index_doc,
"index($self, value, start=0, stop=sys.maxsize, /)\n--\n\n"
"The index of the first item that is equal to `value`.  Raises ValueError if there is none.");

static PyObject *
message_fds_index(PyObject *self, PyObject *args)
{
    return call_on_tuple(self, "index", args);
}

PyDoc_STRVAR(count_doc,
"count($self, value, /)\n--\n\n"
"The number of items that are equal to `value`: 0 or 1.");

static PyObject *
message_fds_count(PyObject *self, PyObject *args)
{
    return call_on_tuple(self, "count", args);
}

static PyMethodDef message_fds_methods[] = {
    {"index", message_fds_index, METH_VARARGS, index_doc},
    {"count", message_fds_count, METH_VARARGS, count_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyObject *
message_fds_compare(PyObject *self, PyObject *other, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || !PySequence_Check(other)
        || PyUnicode_Check(other) || PyBytes_Check(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *a = PySequence_Tuple(self);
    PyObject *b = a == NULL ? NULL : PySequence_Tuple(other);
    PyObject *result = b == NULL ? NULL : PyObject_RichCompare(a, b, operation);
    Py_XDECREF(a);
    Py_XDECREF(b);
    return result;
}

static PyObject *
message_fds_repr(PyObject *self)
{
    PyObject *tuple = PySequence_Tuple(self);
    PyObject *text = tuple == NULL ? NULL : PyUnicode_FromFormat("<MessageFds %R>", tuple);
    Py_XDECREF(tuple);
    return text;
}

PyDoc_STRVAR(message_fds_doc,
"The descriptors that came with a message, in order, as Fd objects: a read-only sequence.  The\n"
"message owns them until they are taken.");

static PyType_Slot message_fds_slots[] = {
    {Py_tp_dealloc, message_fds_dealloc},
    {Py_tp_traverse, message_fds_traverse},
    {Py_tp_repr, message_fds_repr},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, message_fds_compare},
    {Py_tp_iter, PySeqIter_New},
    {Py_tp_doc, (void *)message_fds_doc},
    {Py_tp_methods, message_fds_methods},
    {Py_sq_length, message_fds_length},
    {Py_sq_item, message_fds_item},
    {Py_mp_length, message_fds_length},
    {Py_mp_subscript, message_fds_subscript},
    {0, NULL},
};

static PyType_Spec message_fds_spec = {
    .name = "cmsgx.MessageFds",
    .basicsize = sizeof(cmsgx_message_fds),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_SEQUENCE,
    .slots = message_fds_slots,
};

int
cmsgx_add_message_fds(PyObject *module)
{
    return cmsgx_add_type(module, &message_fds_spec, &cmsgx_state_of(module)->MessageFds);
}
