#include "types/buffer.h"

#include "arguments.h"
#include "errors.h"
#include "plain/msghdr.h"

#define LINE 64
#define ROUND_UP(n) (((n) + 15) & ~(size_t)15)

static unsigned char *
at_line(unsigned char *memory)
{
    return memory + (LINE - (uintptr_t)memory % LINE) % LINE;
}

/* The memory of the data ------------------------------------------------------------------- */

/* From this size on, copying the data takes a notable part of the time of a receive. */
#define LARGE (16 << 10)

/* From this size on a block is not shortened.  glibc maps such blocks, until one that is freed
   shows it that this length is needed again and again.  If each of them is shortened before it is
   freed, every message is a new mapping with all its page faults, which takes longer than the
   copy. */
#define MAPPED ((128 << 10) - LINE)

static int
is_large(size_t size)
{
    return CMSGX_BYTES_HEAD > 0 && size >= LARGE;
}

/* A block for `size` bytes of data.  A large one is laid out as bytes are.  0, or -1 with
   MemoryError. */
static int
give_block(cmsgx_buffer *buffer, size_t size)
{
    size_t more = is_large(size) ? CMSGX_BYTES_HEAD + 1 : LINE;
    buffer->block = PyObject_Malloc(size + more);
    if (buffer->block == NULL) {
        cmsgx_raise_memory_error(size);
        return -1;
    }
    buffer->block_size = size;
    buffer->is_taken = 0;
    buffer->data =
        is_large(size) ? buffer->block + CMSGX_BYTES_HEAD : at_line(buffer->block);
    return 0;
}

static void
drop_block(cmsgx_buffer *buffer)
{
    if (buffer->is_taken) {
        Py_XDECREF((PyObject *)(void *)buffer->block);
    }
    else {
        PyObject_Free(buffer->block);
    }
    buffer->block = NULL;
}

int
cmsgx_buffer_renew(cmsgx_buffer *buffer)
{
    /* First, so that the same memory is used again if nobody else has the bytes any more. */
    drop_block(buffer);
    return give_block(buffer, buffer->block_size);
}

PyObject *
cmsgx_buffer_bytes(cmsgx_buffer *buffer, size_t size, int may_move)
{
    /* realloc() may move what it shortens.  Without a GIL another thread may be making a view at
       this moment, so there the block keeps its length, which it would do anyway: that realloc()
       returns no memory as long as half of it is used. */
    int is_cut = CMSGX_HAS_GIL && size < buffer->block_size;
    if (!is_large(buffer->block_size) || size < buffer->block_size - size
        || (is_cut && (!may_move || buffer->block_size >= MAPPED))) {
        return PyBytes_FromStringAndSize((const char *)buffer->data, (Py_ssize_t)size);
    }
    if (is_cut) {
        /* Not _PyBytes_Resize(), which frees the data if it fails. */
        unsigned char *shorter = PyObject_Realloc(buffer->block, CMSGX_BYTES_HEAD + size + 1);
        if (shorter == NULL) {
            return PyErr_NoMemory();
        }
        buffer->block = shorter;
        buffer->data = shorter + CMSGX_BYTES_HEAD;
    }
    buffer->is_taken = 1;
    return Py_NewRef(cmsgx_bytes_in(buffer->block, size));
}

/* Buffers ---------------------------------------------------------------------------------- */

cmsgx_buffer *
cmsgx_buffer_new(size_t data_size, size_t control_size, cmsgx_into *into)
{
    size_t control_at = ROUND_UP(sizeof(cmsgx_buffer));
    size_t fds_at = control_at + ROUND_UP(control_size + CMSGX_EXTRA_CONTROL);
    size_t data_at = fds_at + ROUND_UP(control_size);

    unsigned char *memory =
        PyMem_Malloc(is_large(data_size) ? data_at : data_at + LINE + data_size);
    if (memory == NULL) {
        cmsgx_raise_memory_error(data_size);
        return NULL;
    }
    cmsgx_buffer *buffer = (cmsgx_buffer *)(void *)memory;
    memset(buffer, 0, sizeof(*buffer));
    buffer->users = 1;
    buffer->name_fd = buffer->name_proto = -1;
    buffer->control = memory + control_at;
    buffer->control_size = control_size;
    buffer->fds = (int *)(void *)(memory + fds_at);
    buffer->capacity = into != NULL ? into->size : data_size;
    buffer->into = into;
    if (!is_large(data_size)) {
        /* Aligned to a cache line, where the kernel copies fastest. */
        buffer->data = at_line(memory + data_at);
    }
    else if (give_block(buffer, data_size) < 0) {
        PyMem_Free(memory);
        return NULL;
    }
    return buffer;
}

/* The data has a block of its own.  The rest is about 8 KB, whatever the size of the data, and is
   kept: allocating it each time would take longer than the rest of a call that receives little. */
cmsgx_buffer *
cmsgx_buffer_once(cmsgx_state *state, size_t data_size)
{
    cmsgx_buffer *buffer = NULL;
#if CMSGX_FREE_LIST
    buffer = state->spare_buffer;
    state->spare_buffer = NULL;
#endif
    if (buffer == NULL && (buffer = cmsgx_buffer_new(0, CMSGX_MAX_CONTROL_SIZE, NULL)) == NULL) {
        return NULL;
    }
    buffer->users = 1;
    buffer->keeper = state;
    if (give_block(buffer, data_size) < 0) {
        cmsgx_buffer_free(buffer);
        return NULL;
    }
    buffer->capacity = data_size;
    return buffer;
}

void
cmsgx_buffer_free(cmsgx_buffer *buffer)
{
    drop_block(buffer);
#if CMSGX_FREE_LIST
    cmsgx_state *state = buffer->keeper;
    if (state != NULL && state->spare_buffer == NULL && state->Message != NULL) {
        state->spare_buffer = buffer;
        return;
    }
#endif
    PyMem_Free(buffer);
}

void
cmsgx_buffer_free_all(cmsgx_state *state)
{
#if CMSGX_FREE_LIST
    PyMem_Free(state->spare_buffer);
    state->spare_buffer = NULL;
#else
    (void)state;
#endif
}

/* Buffers of the caller -------------------------------------------------------------------- */

#define SELF(object) ((cmsgx_into *)(object))

cmsgx_into *
cmsgx_into_new(cmsgx_state *state, PyObject *buffers)
{
    cmsgx_into *into = NULL;
    int is_one = PyObject_CheckBuffer(buffers);
    PyObject *sequence = is_one
        ? PyTuple_Pack(1, buffers)
        : cmsgx_sequence(buffers, "into", "a writable bytes-like object, or a sequence of them,");
    if (sequence != NULL && !PyTuple_Check(sequence)) {
        Py_SETREF(sequence, PyList_AsTuple(sequence));
    }
    if (sequence == NULL || (into = PyObject_GC_New(cmsgx_into, state->Into)) == NULL) {
        goto error;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(sequence);
    into->count = 0;
    into->size = 0;
    into->views = PyMem_New(Py_buffer, (size_t)count + 1);
    into->iov = PyMem_New(struct iovec, 2 * ((size_t)count + 1));
    if (into->views == NULL || into->iov == NULL) {
        PyErr_NoMemory();
        goto error;
    }
    into->cut = into->iov + count + 1;
    for (; into->count < count; into->count++) {
        Py_buffer *view = &into->views[into->count];
        if (cmsgx_as_buffer(PyTuple_GET_ITEM(sequence, into->count), "into",
                            is_one ? -1 : into->count, view, PyBUF_WRITABLE)
            < 0) {
            goto error;
        }
        into->iov[into->count].iov_base = view->buf;
        into->iov[into->count].iov_len = (size_t)view->len;
        /* The same buffer may occur many times: the total can exceed SIZE_MAX. */
        into->size = (size_t)view->len > SIZE_MAX - into->size
            ? SIZE_MAX : into->size + (size_t)view->len;
    }
    Py_DECREF(sequence);
    PyObject_GC_Track(into);
    return into;

error:
    Py_XDECREF(sequence);
    Py_XDECREF(into);
    return NULL;
}

struct iovec *
cmsgx_into_cut(cmsgx_into *into, size_t size, size_t *count)
{
    size_t used = 0;
    /* At least one, even for 0 bytes: some systems refuse a call without any. */
    while (used < (size_t)into->count && (used == 0 || size > 0)) {
        struct iovec *one = &into->cut[used];
        *one = into->iov[used];
        one->iov_len = one->iov_len < size ? one->iov_len : size;
        size -= one->iov_len;
        used++;
    }
    *count = used;
    return into->cut;
}

static void
into_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    for (Py_ssize_t i = 0; i < SELF(object)->count; i++) {
        PyBuffer_Release(&SELF(object)->views[i]);
    }
    PyMem_Free(SELF(object)->views);
    PyMem_Free(SELF(object)->iov);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static int
into_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    for (Py_ssize_t i = 0; i < SELF(object)->count; i++) {
        Py_VISIT(SELF(object)->views[i].obj);
    }
    return 0;
}

/* No tp_clear: each cycle contains another object that is mutable and so has a tp_clear. */
static PyType_Slot into_slots[] = {
    {Py_tp_dealloc, into_dealloc},
    {Py_tp_traverse, into_traverse},
    {0, NULL},
};

static PyType_Spec into_spec = {
    .name = "cmsgx._cmsg.Into",
    .basicsize = sizeof(cmsgx_into),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = into_slots,
};

int
cmsgx_add_buffer(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    /* Internal: not added to the module. */
    state->Into = (PyTypeObject *)PyType_FromModuleAndSpec(module, &into_spec, NULL);
    return state->Into == NULL ? -1 : 0;
}
