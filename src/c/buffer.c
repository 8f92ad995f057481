#include "buffer.h"

#define LINE 64
#define ROUND_UP(n) (((n) + 15) & ~(size_t)15)

cmsgx_buffer *
cmsgx_buffer_new(size_t data_size, size_t control_size, cmsgx_into *into)
{
    size_t control_at = ROUND_UP(sizeof(cmsgx_buffer));
    size_t fds_at = control_at + ROUND_UP(control_size + CMSGX_MORE_ROOM);
    size_t data_at = fds_at + ROUND_UP(control_size);

    if (data_size > PY_SSIZE_T_MAX - data_at - LINE) {
        PyErr_NoMemory();
        return NULL;
    }
    unsigned char *memory = PyMem_Malloc(data_at + LINE + data_size);
    if (memory == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    cmsgx_buffer *buffer = (cmsgx_buffer *)(void *)memory;
    memset(buffer, 0, sizeof(*buffer));
    buffer->users = 1;
    buffer->control = memory + control_at;
    buffer->control_size = control_size;
    buffer->fds = (int *)(void *)(memory + fds_at);
    /* At a cache line, where the kernel copies fastest. */
    buffer->data = memory + data_at;
    buffer->data += (LINE - (uintptr_t)buffer->data % LINE) % LINE;
    buffer->data_size = data_size;
    buffer->into = into;
    if (into != NULL) {
        cmsgx_count_up(&into->users);
    }
    return buffer;
}

void
cmsgx_buffer_release(cmsgx_buffer *buffer)
{
    if (buffer != NULL && cmsgx_count_down(&buffer->users)) {
        cmsgx_into_release(buffer->into);
        PyMem_Free(buffer);
    }
}

void
cmsgx_into_release(cmsgx_into *into)
{
    if (into != NULL && cmsgx_count_down(&into->users)) {
        for (Py_ssize_t i = 0; i < into->count; i++) {
            PyBuffer_Release(&into->views[i]);
        }
        PyMem_Free(into->views);
        PyMem_Free(into->iov);
        PyMem_Free(into);
    }
}

cmsgx_into *
cmsgx_into_new(PyObject *buffers)
{
    cmsgx_into *into = PyMem_Calloc(1, sizeof(*into));
    if (into == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    into->users = 1;

    PyObject *sequence = PyObject_CheckBuffer(buffers)
        ? PyTuple_Pack(1, buffers)
        : PySequence_Tuple(buffers);
    if (sequence == NULL) {
        goto error;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(sequence);
    into->views = PyMem_New(Py_buffer, (size_t)count + 1);
    into->iov = PyMem_New(struct iovec, (size_t)count + 1);
    if (into->views == NULL || into->iov == NULL) {
        PyErr_NoMemory();
        goto error;
    }
    for (; into->count < count; into->count++) {
        Py_buffer *view = &into->views[into->count];
        if (cmsgx_get_buffer(PyTuple_GET_ITEM(sequence, into->count), view, PyBUF_WRITABLE)
            < 0) {
            goto error;
        }
        into->iov[into->count].iov_base = view->buf;
        into->iov[into->count].iov_len = (size_t)view->len;
        /* One buffer may be there many times: more bytes than 32 bits can count. */
        into->size = (size_t)view->len > SIZE_MAX - into->size
            ? SIZE_MAX : into->size + (size_t)view->len;
    }
    Py_DECREF(sequence);
    return into;

error:
    Py_XDECREF(sequence);
    cmsgx_into_release(into);
    return NULL;
}
