#include "calls/outgoing.h"

#include "arguments.h"
#include "errors.h"
#include "types/fd_argument.h"

void
cmsgx_outgoing_init(cmsgx_outgoing *out, cmsgx_outgoing_arrays arrays, cmsgx_state *state,
                    cmsgx_sock *sock)
{
    out->state = state;
    out->sock = sock;
    out->is_typed = 0;
    out->never_waits = 0;
    out->packet_family = AF_UNSPEC;
    memset(&out->msg, 0, sizeof(out->msg));
    out->data_size = 0;
    out->initial = arrays;
    cmsgx_outgoing_empty(out);
}

void
cmsgx_outgoing_clear(cmsgx_outgoing *out)
{
    for (Py_ssize_t i = 0; i < out->buffer_count; i++) {
        if (out->buffers[i].obj != NULL) {
            PyBuffer_Release(&out->buffers[i]);
        }
    }
    for (size_t i = 0; out->owned_fd_count > 0 && i < out->fd_count; i++) {
        Py_CLEAR(out->fd_owners[i]);
    }
    if (out->buffers != out->initial.buffers) {
        PyMem_Free(out->buffers);
        PyMem_Free(out->iov);
    }
    if (out->control != out->initial.control) {
        PyMem_Free(out->control);
    }
    if (out->fds != out->initial.fds) {
        PyMem_Free(out->fds);
        PyMem_Free(out->fd_owners);
    }
}

/* Keeping ---------------------------------------------------------------------------------- */

size_t
cmsgx_outgoing_kept_size(const cmsgx_outgoing *from)
{
    size_t size = 0;
    if (from->buffers == from->initial.buffers) {
        size += (size_t)from->buffer_count * (sizeof(*from->buffers) + sizeof(*from->iov));
    }
    if (from->fds == from->initial.fds) {
        size += from->fd_count * (sizeof(*from->fd_owners) + sizeof(*from->fds));
    }
    /* A multiple of the alignment that its headers need. */
    return size + (from->control == from->initial.control ? from->control_used : 0);
}

/* Copies an array that is borrowed to *memory, and moves that past it.  Returns the copy, or an
   array that was allocated. */
static void *
keep_array(void *array, const void *borrowed, size_t size, unsigned char **memory)
{
    if (array != borrowed) {
        return array;
    }
    void *copy = *memory;
    if (size > 0) {
        memcpy(copy, array, size);
        *memory += size;
    }
    return copy;
}

void
cmsgx_outgoing_move(cmsgx_outgoing *to, cmsgx_outgoing *from, PyObject *data, void *memory)
{
    unsigned char *next = memory;
    size_t buffers = (size_t)from->buffer_count, fds = from->fd_count;
    const cmsgx_outgoing_arrays *stack = &from->initial;
    *to = *from;
    /* In this order each is aligned. */
    to->buffers = keep_array(from->buffers, stack->buffers, buffers * sizeof(*to->buffers), &next);
    to->iov = keep_array(from->iov, stack->iov, buffers * sizeof(*to->iov), &next);
    to->control = keep_array(from->control, stack->control, from->control_used, &next);
    to->fd_owners =
        keep_array(from->fd_owners, stack->fd_owners, fds * sizeof(*to->fd_owners), &next);
    to->fds = keep_array(from->fds, stack->fds, fds * sizeof(*to->fds), &next);
    to->initial = (cmsgx_outgoing_arrays){
        from->buffers == stack->buffers ? to->buffers : NULL,
        from->iov == stack->iov ? to->iov : NULL,
        from->buffer_count,
        from->fds == stack->fds ? to->fds : NULL,
        from->fd_owners == stack->fd_owners ? to->fd_owners : NULL,
        from->fd_count,
        from->control == stack->control ? to->control : NULL,
        from->control_used,
    };
    if (PyBytes_CheckExact(data)) {
        to->buffers[0].obj = Py_NewRef(data);
    }
    if (from->msg.msg_name != NULL) {
        to->msg.msg_name = &to->name;
    }
    cmsgx_outgoing_empty(from);
    cmsgx_outgoing_finish(to);
}

/* Data ------------------------------------------------------------------------------------- */

int
cmsgx_outgoing_add_buffer(cmsgx_outgoing *out, PyObject *object, int is_held)
{
    Py_buffer *buffer = &out->buffers[out->buffer_count];
    if (PyBytes_CheckExact(object)) {
        /* The same buffer that bytes export, without the call: bytes neither count nor release
           their exports. */
        buffer->obj = is_held ? NULL : Py_NewRef(object);
        buffer->buf = PyBytes_AS_STRING(object);
        buffer->len = PyBytes_GET_SIZE(object);
    }
    else if (cmsgx_as_buffer(object, out->is_typed ? "data" : "buffers",
                             is_held ? -1 : out->buffer_count, buffer, PyBUF_SIMPLE)
             < 0) {
        return -1;
    }
    out->iov[out->buffer_count].iov_base = buffer->buf;
    out->iov[out->buffer_count].iov_len = (size_t)buffer->len;
    out->data_size += (size_t)buffer->len;
    out->buffer_count++;
    return 0;
}

int
cmsgx_outgoing_add_buffers(cmsgx_outgoing *out, PyObject *buffers, const char *name,
                           const char *needed)
{
    PyObject *sequence = out->is_typed && PyUnicode_Check(buffers)
        ? cmsgx_raise_needed(name, -1, needed, buffers)
        : cmsgx_sequence(buffers, name, needed);
    if (sequence == NULL) {
        return -1;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    int result = -1;
    if (count > INT_MAX) {
        PyErr_Format(PyExc_OSError, "%s: %zd buffers; that is too many", name, count);
        goto done;
    }
    if (count > out->initial.buffer_capacity) {
        Py_buffer *many = PyMem_New(Py_buffer, (size_t)count);
        struct iovec *iov = PyMem_New(struct iovec, (size_t)count);
        if (many == NULL || iov == NULL) {
            PyMem_Free(many);
            PyMem_Free(iov);
            PyErr_NoMemory();
            goto done;
        }
        out->buffers = many;
        out->iov = iov;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i >= PySequence_Fast_GET_SIZE(sequence)) {
            PyErr_SetString(PyExc_RuntimeError, "the list of buffers changed while it was read");
            goto done;
        }
        /* From then on the export keeps the item alive. */
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(sequence, i));
        int added = cmsgx_outgoing_add_buffer(out, item, 0);
        Py_DECREF(item);
        if (added < 0) {
            if (PyObject_CheckBuffer(buffers) && PyErr_ExceptionMatches(PyExc_TypeError)) {
                /* The items of bytes are ints: what is missing is the list around the bytes. */
                PyErr_Clear();
                cmsgx_raise_needed(name, -1, needed, buffers);
            }
            goto done;
        }
    }
    result = 0;

done:
    Py_DECREF(sequence);
    return result;
}

/* Control data ----------------------------------------------------------------------------- */

static const char *
control_argument(const cmsgx_outgoing *out)
{
    return out->is_typed ? "control" : "ancdata";
}

unsigned char *
cmsgx_outgoing_grow_control(cmsgx_outgoing *out, size_t size)
{
    /* The limit of the socket module, which is too low for CMSG_SPACE to wrap around. */
    if (size > INT_MAX - CMSG_SPACE(0) - sizeof(size_t)) {
        PyErr_Format(PyExc_OSError, "%s: an item of %zu bytes is too large", control_argument(out),
                     size);
        return NULL;
    }
    size_t space = CMSG_SPACE(size);
    if (out->control_used + space > INT_MAX) {
        PyErr_Format(PyExc_OSError, "%s: the items are too large together", control_argument(out));
        return NULL;
    }
    /* As bytes that are used fit an int, so does a capacity. */
    size_t need = out->control_used + space, capacity = 2 * out->control_capacity;
    capacity = capacity < need ? need : capacity < INT_MAX ? capacity : INT_MAX;
    unsigned char *larger = PyMem_Malloc(capacity);
    if (larger == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(larger, out->control, out->control_used);
    if (out->control != out->initial.control) {
        PyMem_Free(out->control);
    }
    out->control = larger;
    out->control_capacity = capacity;
    return out->control + out->control_used;
}

int
cmsgx_outgoing_add_rights(cmsgx_outgoing *out, size_t from)
{
    return cmsgx_outgoing_add_cmsg(out, SOL_SOCKET, SCM_RIGHTS, out->fds + from,
                                      (out->fd_count - from) * sizeof(int));
}

/* Descriptors ------------------------------------------------------------------------------ */

static int
grow_fds(cmsgx_outgoing *out, size_t more)
{
    size_t need = out->fd_count + more;
    if (need <= out->fd_capacity) {
        return 0;
    }
    int *numbers = PyMem_New(int, need);
    PyObject **owners = PyMem_New(PyObject *, need);
    if (numbers == NULL || owners == NULL) {
        PyMem_Free(numbers);
        PyMem_Free(owners);
        PyErr_NoMemory();
        return -1;
    }
    memcpy(numbers, out->fds, out->fd_count * sizeof(*numbers));
    memcpy(owners, out->fd_owners, out->fd_count * sizeof(*owners));
    if (out->fds != out->initial.fds) {
        PyMem_Free(out->fds);
        PyMem_Free(out->fd_owners);
    }
    out->fds = numbers;
    out->fd_owners = owners;
    out->fd_capacity = need;
    return 0;
}

/* An int as array('i') takes it, or an object that owns a descriptor. */
static int
lenient_number(cmsgx_state *state, PyObject *object, Py_ssize_t index, PyObject **owner)
{
    *owner = NULL;
    if (PyIndex_Check(object)) {
        int overflow;
        PyObject *whole = PyNumber_Index(object);
        if (whole == NULL) {
            return -1;
        }
        long number = PyLong_AsLongAndOverflow(whole, &overflow);
        Py_DECREF(whole);
        if (overflow != 0 || number > INT_MAX || number < INT_MIN) {
            PyErr_Format(PyExc_OverflowError, "fds[%zd]: %R is not a file descriptor", index,
                         object);
            return -1;
        }
        return (int)number;
    }
    return cmsgx_fd_from_object(state, object, "fds", index, owner);
}

static int
add_fd(cmsgx_outgoing *out, PyObject *object, int strict)
{
    PyObject *owner;
    Py_ssize_t index = (Py_ssize_t)out->fd_count;
    int number = strict ? cmsgx_fd_from_object(out->state, object, "fds", index, &owner)
                        : lenient_number(out->state, object, index, &owner);
    if (number < 0 && PyErr_Occurred()) {
        return -1;
    }
    out->fds[index] = number;
    /* Kept alive until the call is over: nothing else may refer to what a generator made, and its
       file would be closed. */
    out->fd_owners[index] = PyLong_Check(object) ? NULL : Py_NewRef(object);
    out->owned_fd_count += !PyLong_Check(object);
    out->fd_count++;
    return 0;
}

/* The common case, a valid int, which runs no Python code and cannot fail: 1, or 0 for anything
   else. */
static int
add_plain_number(cmsgx_outgoing *out, PyObject *object)
{
    int overflow;
    if (!PyLong_CheckExact(object)) {
        return 0;
    }
    long number = PyLong_AsLongAndOverflow(object, &overflow);
    if (overflow != 0 || number < 0 || number > INT_MAX) {
        return 0;
    }
    out->fds[out->fd_count] = (int)number;
    out->fd_owners[out->fd_count] = NULL;
    out->fd_count++;
    return 1;
}

/* Whether one message can carry `count` more: 0, or -1 with an exception. */
static int
check_count(const cmsgx_outgoing *out, size_t count)
{
    if (count + out->fd_count > CMSGX_MAX_FDS) {
        PyErr_Format(out->state->TooManyFdsError,
                     "fds: %zu descriptors; one message carries %d at most, so send several",
                     count + out->fd_count, CMSGX_MAX_FDS);
        return -1;
    }
    return 0;
}

static int
add_packed_fds(cmsgx_outgoing *out, const Py_buffer *view)
{
    size_t count = (size_t)view->len / sizeof(int);
    if (count * sizeof(int) != (size_t)view->len) {
        PyErr_Format(PyExc_ValueError, "fds: %zd bytes; that is not a multiple of %zu", view->len,
                     sizeof(int));
        return -1;
    }
    if ((out->is_typed && check_count(out, count) < 0) || grow_fds(out, count) < 0) {
        return -1;
    }
    memcpy(out->fds + out->fd_count, view->buf, (size_t)view->len);
    memset(out->fd_owners + out->fd_count, 0, count * sizeof(*out->fd_owners));
    out->fd_count += count;
    return 0;
}

int
cmsgx_outgoing_add_fd_bytes(cmsgx_outgoing *out, PyObject *bytes)
{
    Py_buffer view;
    if (cmsgx_as_buffer(bytes, "fds", -1, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int result = add_packed_fds(out, &view);
    PyBuffer_Release(&view);
    return result;
}

int
cmsgx_outgoing_add_payload(cmsgx_outgoing *out, int level, int type, const Py_buffer *payload)
{
    if (out->is_typed && level == SOL_SOCKET && type == SCM_RIGHTS) {
        return add_packed_fds(out, payload);
    }
    return cmsgx_outgoing_add_cmsg(out, level, type, payload->buf, (size_t)payload->len);
}

/* From a list or a tuple, whose reference it steals, or NULL with an exception. */
int
cmsgx_outgoing_add_listed_fds(cmsgx_outgoing *out, PyObject *sequence, int strict)
{
    if (sequence == NULL) {
        return -1;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    int result = -1;
    if ((strict && check_count(out, (size_t)count) < 0) || grow_fds(out, (size_t)count) < 0) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i >= PySequence_Fast_GET_SIZE(sequence)) {
            PyErr_SetString(PyExc_RuntimeError, "the list of fds changed while it was read");
            goto done;
        }
        PyObject *item = PySequence_Fast_GET_ITEM(sequence, i);
        int added = add_plain_number(out, item);
        if (added) {
            continue;
        }
        Py_INCREF(item);
        added = add_fd(out, item, strict);
        Py_DECREF(item);
        if (added < 0) {
            goto done;
        }
    }
    result = 0;

done:
    Py_DECREF(sequence);
    return result;
}

int
cmsgx_outgoing_add_fds(cmsgx_outgoing *out, PyObject *fds, int strict)
{
    /* The most common types, without a call. */
    int is_listed = PyTuple_CheckExact(fds) || (CMSGX_HAS_GIL && PyList_CheckExact(fds));
    return cmsgx_outgoing_add_listed_fds(out,
                      is_listed ? Py_NewRef(fds) : cmsgx_listed_fds(out->state, fds, strict),
                      strict);
}
