#include "calls/receive.h"

#include "arguments.h"
#include "calls/background.h"
#include "errors.h"
#include "plain/msghdr.h"
#include "types/message.h"

#include <errno.h>

/* Receiving ------------------------------------------------------------------------------ */

typedef struct {
    struct msghdr msg;
    cmsgx_buffer *buffer;
    socklen_t name_size;
    struct iovec iov;
} receive_call;

static ssize_t
try_recvmsg(int fd, void *context, int flags)
{
    receive_call *call = context;
    cmsgx_buffer *buffer = call->buffer;
    int is_zeroed = buffer->is_zeroed;
    /* Before the call: a fork in another thread may copy the buffer right after it. */
    buffer->is_zeroed = 0;
    ssize_t result =
        cmsgx_msghdr_receive(fd, &call->msg, flags, buffer->control, buffer->control_size,
                             &buffer->name, call->name_size, is_zeroed);
    /* When nothing arrived, only a peek may have written to the buffer.  So a caller that polls
       often, and mostly in vain, is spared the zeroing, which for a large buffer is most of the
       work. */
    buffer->is_zeroed = result < 0 && errno == EAGAIN && !(flags & MSG_PEEK);
    return result;
}

static ssize_t
receive_into(cmsgx_sock *sock, receive_call *call, const cmsgx_receive_config *config, int flags)
{
    return cmsgx_call(sock, cmsgx_events_of(flags), try_recvmsg, call,
                      flags | cmsgx_cloexec_flag(config->family), NULL, NULL);
}

static int
check_received(cmsgx_message *self, cmsgx_sock *sock)
{
    const cmsgx_receive_config *config = self->config;
    cmsgx_state *state = sock->state;

    if (self->buffer->received.malformed) {
        cmsgx_message_close_rest(self);
        PyErr_SetString(state->MalformedControlError,
                        "the received control data is malformed: it contains an invalid length; "
                        "its descriptors were closed");
        return -1;
    }
    if (!config->raise_truncated) {
        return 0;
    }
    int misses =
        (self->buffer->received.flags & MSG_CTRUNC) && self->buffer->received.fds < config->fds;
    int cut = (self->buffer->received.flags & MSG_TRUNC) != 0;
    if (!misses && !cut) {
        return 0;
    }
    Py_ssize_t delivered = (Py_ssize_t)self->buffer->received.fds;
    int withheld = cmsgx_received_had_space(self->buffer);
    cmsgx_message_close_rest(self);
    PyObject *result = PyObject_CallFunction(state->raise_truncated, "Onniii", self,
                                             (Py_ssize_t)config->fds, delivered, misses,
                                             (int)self->buffer->received.is_table_full, withheld);
    Py_XDECREF(result);
    return -1;
}

PyObject *
cmsgx_receive(cmsgx_sock *sock, cmsgx_buffer *buffer, cmsgx_receive_config *config, int flags)
{
    /* The garbage collector may show the message to others before it has arrived. */
    buffer->received.nbytes = buffer->received.fds = buffer->received.pidfds = 0;
    PyObject *message = cmsgx_message_new(sock->state, buffer, config);
    if (message == NULL) {
        return NULL;
    }
    if (config->row != NULL && cmsgx_received_begin(sock, config, 1, flags) < 0) {
        Py_DECREF(message);
        return NULL;
    }
    receive_call call;
    memset(&call.msg, 0, sizeof(call.msg));
    call.buffer = buffer;
    call.name_size = cmsgx_name_size(config->type, flags);
    if (buffer->into != NULL) {
        size_t count = (size_t)buffer->into->count;
        call.msg.msg_iov = buffer->capacity == buffer->into->size
            ? buffer->into->iov : cmsgx_into_cut(buffer->into, buffer->capacity, &count);
        call.msg.msg_iovlen = (__typeof__(call.msg.msg_iovlen))count;
    }
    else {
        cmsgx_msghdr_set_data(&call.msg, &call.iov, buffer->data, buffer->capacity, flags);
    }
    ssize_t nbytes = receive_into(sock, &call, config, flags);
    if (nbytes < 0) {
        cmsgx_received_end(config, 1);
        Py_DECREF(message);
        return NULL;
    }
    cmsgx_receive_take(sock, buffer, config, &call.msg, (size_t)nbytes, flags);
    if ((buffer->received.malformed | buffer->received.truncated)
        && check_received((cmsgx_message *)message, sock) < 0) {
        Py_DECREF(message);
        return NULL;
    }
    return message;
}

/* receive ---------------------------------------------------------------------------------- */

PyObject *
cmsgx_receive_once(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    enum {SOCK, BUFSIZE, FDS, FLAGS, TIMEOUT, TRUNCATION, CLOSE, COUNT};
    static const cmsgx_signature signature = {
        "receive", 2, 2,
        {CMSGX_KW_SOCK, CMSGX_KW_BUFSIZE, CMSGX_KW_FDS, CMSGX_KW_FLAGS, CMSGX_KW_TIMEOUT,
         CMSGX_KW_ON_TRUNCATION, CMSGX_KW_CLOSE, -1},
    };
    PyObject *values[COUNT] = {NULL};
    cmsgx_state *state = cmsgx_state_of(module);
    cmsgx_sock sock;
    size_t size, fds = 0;
    int flags = 0, raise_truncated = 1, in_background = 0;

    if (cmsgx_keywords(state, &signature, args, nargs, kwnames, values) < 0
        || cmsgx_sock_resolve_typed(state, values[SOCK], CMSGX_RECEIVING, &sock) < 0
        || cmsgx_sock_set_timeout(&sock, values[TIMEOUT]) < 0
        || cmsgx_as_bufsize(values[BUFSIZE], &size) < 0
        || (values[FDS] != NULL && cmsgx_as_fds(state, values[FDS], &fds) < 0)
        || (values[FLAGS] != NULL && cmsgx_as_int(values[FLAGS], "flags", &flags) < 0)
        || (values[TRUNCATION] != NULL
            && cmsgx_as_truncation(values[TRUNCATION], &raise_truncated) < 0)
        || (values[CLOSE] != NULL && cmsgx_as_close(values[CLOSE], &in_background) < 0)) {
        return NULL;
    }
    int family = sock.kind == CMSGX_SOCKET ? cmsgx_sock_family(&sock) : -1;
    int type = sock.kind == CMSGX_SOCKET ? cmsgx_sock_type(&sock) : -1;
    if (!cmsgx_may_bring_fds(family)) {
        if (fds > 0 && fds < CMSGX_MAX_FDS) {
            /* As for a Receiver.  The family of a descriptor number is not queried for each
               message. */
            PyObject *name = PyObject_CallFunction(state->family_name, "i", family);
            if (name != NULL) {
                cmsgx_raise_not_supported(state->NotSupportedError, EOPNOTSUPP,
                                          "fds=%zu: receiving descriptors is for AF_UNIX "
                                          "sockets; the family of this one is %U",
                                          fds, name);
                Py_DECREF(name);
            }
            return NULL;
        }
        fds = 0;
    }
    if (cmsgx_check_peek(fds, flags) < 0) {
        return NULL;
    }
    PyObject *message = NULL;
    cmsgx_row *row = in_background && cmsgx_may_bring_fds(family)
        ? cmsgx_row_shared(state->closer, cmsgx_sock_number(&sock)) : NULL;
    cmsgx_receive_config *config =
        cmsgx_receive_config_once(state, fds, family, type, raise_truncated, row);
    cmsgx_buffer *buffer = config == NULL ? NULL : cmsgx_buffer_once(state, size);
    if (buffer != NULL) {
        message = cmsgx_receive(&sock, buffer, config, flags);
    }
    cmsgx_buffer_release(buffer);
    cmsgx_receive_config_release(config);
    return message;
}
