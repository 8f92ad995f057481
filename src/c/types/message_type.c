#include "types/message_type.h"

#include "errors.h"
#include "types/address.h"
#include "types/message.h"
#include "types/message_control.h"
#include "types/message_fds.h"
#include "types/message_take.h"
#include "types/segments.h"
#include "types/view.h"

#define SELF(object) ((cmsgx_message *)(object))

static PyObject *
joined(const cmsgx_into *into, size_t nbytes)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)nbytes);
    char *to = bytes == NULL ? NULL : PyBytes_AS_STRING(bytes);
    for (Py_ssize_t i = 0; to != NULL && i < into->count && nbytes > 0; i++) {
        size_t part = into->iov[i].iov_len < nbytes ? into->iov[i].iov_len : nbytes;
        memcpy(to, into->iov[i].iov_base, part);
        to += part;
        nbytes -= part;
    }
    return bytes;
}

/* The number of bytes in the buffer.  For a call with MSG_TRUNC, the kernel returns the length of
   the whole datagram. */
static size_t
bytes_here(const cmsgx_message *self)
{
    size_t capacity = self->buffer->capacity;
    return self->buffer->received.nbytes < capacity ? self->buffer->received.nbytes : capacity;
}

static PyObject *
message_data(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    const cmsgx_into *into = self->buffer->into;
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    if (self->data == NULL) {
        self->data = into != NULL
            ? joined(into, bytes_here(self))
            : cmsgx_buffer_bytes(self->buffer, bytes_here(self), !cmsgx_flag_get(&self->viewed));
    }
    PyObject *data = Py_XNewRef(self->data);
    cmsgx_leave(&self->busy);
    return data;
}

static PyObject *
message_view(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = self->config->state;
    const cmsgx_into *into = self->buffer->into;
    const unsigned char *start = self->buffer->data;
    if (into != NULL) {
        /* Data in several buffers has no view; data in a single buffer of the caller has. */
        if (into->count != 1) {
            return message_data(object, NULL);
        }
        start = into->iov[0].iov_base;
    }
    cmsgx_flag_set(&self->viewed);
    return cmsgx_view_new(state, self->buffer, start, bytes_here(self));
}

/* The size that UDP_GRO reported; 0 when the datagram was not coalesced. */
static size_t
segment_size(const cmsgx_message *self)
{
    const cmsgx_buffer *buffer = self->buffer;
    cmsgx_header header;
    size_t offset = 0;
    int size = 0;
    while (cmsgx_walk(buffer->control, buffer->control_used, &offset, &header)
           == CMSGX_MESSAGE) {
        if (header.level == IPPROTO_UDP && header.type == CMSGX_UDP_GRO
            && header.size == sizeof(size)) {
            memcpy(&size, header.data, sizeof(size));
        }
    }
    return size > 0 ? (size_t)size : 0;
}

static PyObject *
message_segments(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    const cmsgx_into *into = self->buffer->into;
    const unsigned char *start = self->buffer->data;
    if (into != NULL) {
        if (into->count != 1) {
            PyErr_SetString(PyExc_ValueError,
                            "segments: the data is in several buffers (into=), and a segment "
                            "may not be contiguous");
            return NULL;
        }
        start = into->iov[0].iov_base;
    }
    cmsgx_flag_set(&self->viewed);
    return cmsgx_segments_new(self->config->state, self->buffer, start, bytes_here(self),
                              segment_size(self));
}

/* The socket that the address came from.  It may be closed by now, and its number in use for
   another file, which is then ignored. */
static cmsgx_whence
whence_of(const cmsgx_buffer *buffer)
{
    cmsgx_whence whence = {buffer->name_fd, buffer->name_proto};
    if (!cmsgx_names_need_socket(buffer->name.ss_family)) {
        return CMSGX_NOWHERE;
    }
    if (whence.fd >= 0 && cmsgx_family_of(whence.fd) != buffer->name.ss_family) {
        whence.fd = -1;
    }
    if (whence.fd >= 0 && whence.proto < 0) {
        whence.proto = cmsgx_proto_of(whence.fd);
    }
    return whence;
}

static PyObject *
message_address(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    if (self->address == NULL) {
        const cmsgx_buffer *buffer = self->buffer;
        self->address = cmsgx_address_shown(self->config->state, &buffer->name,
                                            buffer->name_size, whence_of(buffer));
    }
    PyObject *address = Py_XNewRef(self->address);
    cmsgx_leave(&self->busy);
    return address;
}

static PyObject *
message_sender(PyObject *object, void *Py_UNUSED(closure))
{
    const cmsgx_buffer *buffer = SELF(object)->buffer;
    return cmsgx_address_raw(SELF(object)->config->state, &buffer->name, buffer->name_size,
                             whence_of(buffer));
}

static PyObject *
message_fds(PyObject *object, void *Py_UNUSED(closure))
{
    return cmsgx_message_fds_new(object);
}

static PyObject *
message_nbytes(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(SELF(object)->buffer->received.nbytes);
}

static PyObject *
message_flags(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(SELF(object)->buffer->received.flags);
}

static PyObject *
message_truncated(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(object)->buffer->received.truncated);
}

static PyObject *
message_closed(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(cmsgx_flag_get(&SELF(object)->closed));
}

static PyObject *
message_eof(PyObject *object, void *Py_UNUSED(closure))
{
    int eof = SELF(object)->buffer->received.eof;
    return eof == 2 ? Py_NewRef(Py_None) : PyBool_FromLong(eof);
}

static PyObject *
message_closed_fds(PyObject *object, void *Py_UNUSED(closure))
{
    Py_ssize_t count = SELF(object)->buffer->received.closed_fds;
    return count < 0 ? Py_NewRef(Py_None) : PyLong_FromSsize_t(count);
}

PyDoc_STRVAR(message_close_doc,
"close($self, /)\n--\n\n"
"Closes each descriptor that was not taken, as the end of a `with` block does.  The data and the\n"
"control messages stay available.");

static PyObject *
message_close_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return cmsgx_message_close(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
message_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *
message_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return cmsgx_message_close(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
message_repr(PyObject *object)
{
    const cmsgx_message *self = SELF(object);
    return PyUnicode_FromFormat("<Message %zu bytes, %zu descriptors%s%s%s>",
                                self->buffer->received.nbytes, self->buffer->received.fds,
                                self->buffer->received.truncated ? ", truncated" : "",
                                self->buffer->received.eof == 1 ? ", end of stream" : "",
                                cmsgx_flag_get(&self->closed) ? ", closed" : "");
}

PyDoc_STRVAR(take_doc,
"take($self, which, /, *, fd_class=None)\n--\n\n"
"Moves one descriptor out of the message: `which` is an index of `fds`, or the class PidFd.  The\n"
"caller owns the returned Fd; closing the message leaves it open.  Raises IndexError or KeyError\n"
"if there is no such descriptor, and ValueError if it was already taken, if its object was\n"
"closed or given away, or if the message is closed.\n\n"
"`fd_class` is the class of the returned object: a subclass of Fd, or of PidFd for the PidFd.\n"
"Its memory is allocated before it owns the descriptor, and neither its __new__() nor its\n"
"__init__() is called, so nothing can fail in between.  The Fd that `fds` then has at that index\n"
"owns nothing.");

PyDoc_STRVAR(take_one_doc,
"take_one($self, /, *, fd_class=None)\n--\n\n"
"Moves the only descriptor out of the message, as take(0) does.  Raises ValueError with the\n"
"number of descriptors that came if that is not one, including those that were closed because of\n"
"`fds=`; the message then still owns the descriptors that it has.");

PyDoc_STRVAR(take_all_doc,
"take_all($self, /, *, fd_class=None)\n--\n\n"
"Moves each descriptor of `fds` that was not taken yet out of the message.  Returns a list of\n"
"Fd, or of `fd_class` as for take(), which the caller owns: all of them or, if it raises, none.\n"
"Raises ValueError if the message is closed, or if the Fd of one of them was closed or given\n"
"away.");

PyDoc_STRVAR(detach_all_doc,
"detach_all($self, /)\n--\n\n"
"Moves each descriptor of `fds` that was not taken yet out of the message.  Returns a list of\n"
"numbers, which the caller owns and must close: all of them or, if it raises, none.  Raises\n"
"ValueError if the message or one of them was closed, and OSError if the kernel delivered an\n"
"errno in place of one.");

PyDoc_STRVAR(get_doc,
"get($self, kind, default=None, /)\n--\n\n"
"The first control message of that kind, or `default` if there is none.");

PyDoc_STRVAR(get_all_doc,
"get_all($self, kind, /)\n--\n\n"
"All control messages of that kind, as a tuple in the order in which they came.");

PyDoc_STRVAR(message_enter_doc,
"__enter__($self, /)\n--\n\n"
"Returns the message itself, for `as`.");

PyDoc_STRVAR(message_exit_doc,
"__exit__($self, /, *exc_info)\n--\n\n"
"Closes each descriptor that was not taken.");

static PyMethodDef message_methods[] = {
    {"take", (PyCFunction)(void (*)(void))cmsgx_message_take, METH_FASTCALL | METH_KEYWORDS,
     take_doc},
    {"take_one", (PyCFunction)(void (*)(void))cmsgx_message_take_one,
     METH_FASTCALL | METH_KEYWORDS, take_one_doc},
    {"take_all", (PyCFunction)(void (*)(void))cmsgx_message_take_all,
     METH_FASTCALL | METH_KEYWORDS, take_all_doc},
    {"detach_all", cmsgx_message_detach_all, METH_NOARGS, detach_all_doc},
    {"get", (PyCFunction)(void (*)(void))cmsgx_message_get, METH_FASTCALL, get_doc},
    {"get_all", cmsgx_message_get_all, METH_O, get_all_doc},
    {"close", message_close_method, METH_NOARGS, message_close_doc},
    {"__enter__", message_enter, METH_NOARGS, message_enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))message_exit, METH_FASTCALL, message_exit_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef message_getset[] = {
    {"data", message_data, NULL, "The bytes, made on first use; without a copy if they are many.",
     NULL},
    {"view", message_view, NULL,
     "The bytes without a copy: a read-only bytes-like object.",
     NULL},
    {"flags", message_flags, NULL,
     "msg_flags of recvmsg(2): MSG_CTRUNC, MSG_TRUNC, MSG_EOR, ...", NULL},
    {"nbytes", message_nbytes, NULL, "The return value of recvmsg(2).", NULL},
    {"segments", message_segments, NULL,
     "The datagrams that UDP_GRO coalesced, a sequence of View; just one if none were coalesced.",
     NULL},
    {"fds", message_fds, NULL, "The descriptors, a read-only sequence of Fd.", NULL},
    {"control", cmsgx_message_control, NULL,
     "The control messages, a tuple, decoded on each access.", NULL},
    {"address", message_address, NULL,
     "The address of the sender, as the socket module returns it: a tuple, which is an Address\n"
     "too, or str or bytes for AF_UNIX.  None if there is none, and on a stream, which has one\n"
     "peer: getpeername().", NULL},
    {"sender", message_sender, NULL,
     "The same in the raw form of Address: hashable, and created without formatting text.", NULL},
    {"truncated", message_truncated, NULL,
     "Whether data or control data was truncated, or surplus descriptors were dropped.", NULL},
    {"eof", message_eof, NULL,
     "Whether this is the end of the stream; None if an empty message would look the same.", NULL},
    {"closed_fds", message_closed_fds, NULL,
     "How many descriptors beyond those requested were closed; None if the kernel dropped some,\n"
     "because it does not report how many.",
     NULL},
    {"closed", message_closed, NULL, "Whether close() was called, or a `with` block ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(message_doc,
"The result of one receive: data, descriptors, control messages, address.  It owns the\n"
"descriptors that are not taken, and closes them at the end of a `with` block.\n\n"
"msg[K] is the first control message of kind K, `K in msg` says whether there is one, and\n"
"iterating over msg yields all control messages.");

static PyType_Slot message_slots[] = {
    {Py_tp_dealloc, cmsgx_message_dealloc},
    {Py_tp_traverse, cmsgx_message_traverse},
    {Py_tp_repr, message_repr},
    {Py_tp_iter, cmsgx_message_iter},
    {Py_tp_methods, message_methods},
    {Py_tp_getset, message_getset},
    {Py_tp_doc, (void *)message_doc},
    {Py_mp_subscript, cmsgx_message_subscript},
    {Py_sq_contains, cmsgx_message_contains},
    {0, NULL},
};

static PyType_Spec message_spec = {
    .name = "cmsgx.Message",
    .basicsize = sizeof(cmsgx_message),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = message_slots,
};

int
cmsgx_add_message(PyObject *module)
{
    return cmsgx_add_type(module, &message_spec, &cmsgx_state_of(module)->Message);
}
