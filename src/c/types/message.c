#include "types/message.h"

#include "errors.h"
#include "types/fd_ownership.h"

#define SELF(object) ((cmsgx_message *)(object))

int
cmsgx_message_hold(PyObject *object)
{
    return cmsgx_enter(&SELF(object)->busy);
}

void
cmsgx_message_let_go(PyObject *object)
{
    cmsgx_leave(&SELF(object)->busy);
}

size_t
cmsgx_message_collect(PyObject *object)
{
    cmsgx_message *self = SELF(object);
    size_t count = self->buffer->received.fds + self->buffer->received.pidfds;
    int *fds = self->buffer->fds;
    cmsgx_flag_set(&self->closed);
    for (size_t i = 0; self->slots != NULL && i < count; i++) {
        cmsgx_slot *slot = &self->slots[i];
        if (slot->object != NULL && !slot->taken) {
            fds[i] = cmsgx_fd_take_to_close(slot->object, CMSGX_GONE_WITH_MESSAGE);
        }
    }
    return count;
}

void
cmsgx_message_close_rest(cmsgx_message *self)
{
    size_t count = cmsgx_message_collect((PyObject *)self);
    cmsgx_close_numbers(self->config->row, self->buffer->fds, count);
}

int
cmsgx_message_close(PyObject *object)
{
    cmsgx_message *self = SELF(object);
    if (cmsgx_flag_get(&self->closed)) {
        return 0;
    }
    if (!cmsgx_enter(&self->busy)) {
        cmsgx_raise_busy(object);
        return -1;
    }
    cmsgx_message_close_rest(self);
    cmsgx_leave(&self->busy);
    return 0;
}

/* The number of descriptors that are still plain numbers.  Those that are objects close
   themselves. */
static size_t
unclaimed(const cmsgx_message *self)
{
    size_t count = 0;
    size_t arrived = self->buffer->received.fds + self->buffer->received.pidfds;
    for (size_t i = 0; !cmsgx_flag_get(&self->closed) && i < arrived; i++) {
        count += self->buffer->fds[i] >= 0;
    }
    return count;
}

int
cmsgx_message_traverse(PyObject *object, visitproc visit, void *arg)
{
    const cmsgx_message *self = SELF(object);
    size_t fds = self->buffer->received.fds + self->buffer->received.pidfds;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->buffer->into);
    for (size_t i = 0; self->slots != NULL && i < fds; i++) {
        Py_VISIT(self->slots[i].object);
    }
    return cmsgx_receive_config_visit(self->config, visit, arg);
}

void
cmsgx_message_dealloc(PyObject *object)
{
    cmsgx_message *self = SELF(object);
    PyTypeObject *type = Py_TYPE(object);
#if CMSGX_FREE_LIST
    cmsgx_state *state = self->config->state;
#endif
    cmsgx_into *into = NULL;
    if (self->is_traced) {
        PyObject_GC_UnTrack(object);
        into = self->buffer->into;
    }
    size_t fds = self->buffer->received.fds + self->buffer->received.pidfds;
    size_t count = unclaimed(self);

    if (count > 0) {
        PyObject *pending = cmsgx_save_exception();
        /* They are closed before the warning, which may run Python code. */
        cmsgx_close_numbers(self->config->row, self->buffer->fds, fds);
        if (PyErr_ResourceWarning(NULL, 1, "Message with %zu descriptors was never closed",
                                  count)) {
            PyErr_WriteUnraisable(NULL);
        }
        cmsgx_restore_exception(pending);
    }
    if (self->slots != NULL) {
        for (size_t i = 0; i < fds; i++) {
            Py_XDECREF(self->slots[i].object);
        }
        if (self->slots != self->inline_slots) {
            PyMem_Free(self->slots);
        }
    }
    Py_XDECREF(self->data);
    Py_XDECREF(self->address);
    cmsgx_buffer_release(self->buffer);
    cmsgx_receive_config_release(self->config);
    Py_XDECREF(into);
#if CMSGX_FREE_LIST
    if (state->free_message_count < CMSGX_FREE_LIST) {
        /* Plain memory from now on: it holds no reference to the type. */
        self->data = state->free_messages;
        state->free_messages = object;
        state->free_message_count++;
        Py_DECREF(type);
        return;
    }
#endif
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

void
cmsgx_message_free_all(cmsgx_state *state)
{
#if CMSGX_FREE_LIST
    while (state->free_messages != NULL) {
        PyObject *one = state->free_messages;
        state->free_messages = SELF(one)->data;
        PyObject_GC_Del(one);
    }
    state->free_message_count = CMSGX_FREE_LIST;
#else
    (void)state;
#endif
}
