#include "calls/receiver.h"

#include "arguments.h"
#include "calls/receive.h"
#include "calls/receiver_base.h"
#include "errors.h"
#include "types/message.h"

#include <errno.h>

/* Buffers kept in addition to the one in use: in a loop, the previous message still holds its
   own. */
#define SPARES 2

typedef struct {
    cmsgx_receiver_base base;   /* size: of the data buffer, here or in `into` */
    cmsgx_into *into;           /* owned, or NULL */
    cmsgx_buffer *buffers[SPARES + 1];  /* owned uses; the first is filled next if it is free */
} cmsgx_receiver;

#define SELF(object) ((cmsgx_receiver *)(object))

static void
drop_message_buffers(cmsgx_receiver *self)
{
    for (int i = 0; i <= SPARES; i++) {
        cmsgx_buffer_release(self->buffers[i]);
        self->buffers[i] = NULL;
    }
}

/* A new buffer, in place of the oldest. */
static __attribute__((noinline)) cmsgx_buffer *
add_buffer(cmsgx_receiver *self)
{
    cmsgx_buffer *buffer =
        cmsgx_buffer_new(self->into != NULL ? 0 : self->base.size, self->base.config->control_size,
                         self->into);
    if (buffer != NULL) {
        cmsgx_buffer_release(self->buffers[SPARES]);
        memmove(&self->buffers[1], &self->buffers[0], SPARES * sizeof(self->buffers[0]));
        self->buffers[0] = buffer;
    }
    return buffer;
}

/* A buffer that nobody else uses.  Inlined with the function that follows. */
static inline __attribute__((always_inline)) cmsgx_buffer *
free_buffer(cmsgx_receiver *self)
{
    for (int i = 0; i <= SPARES; i++) {
        cmsgx_buffer *buffer = self->buffers[i];
        if (buffer != NULL && cmsgx_count_get(&buffer->users) == 1) {
            return !buffer->is_taken || cmsgx_buffer_renew(buffer) == 0 ? buffer : NULL;
        }
    }
    return add_buffer(self);
}

/* Receives one message; the receiver is marked as in use.  Sets *sock to the socket.  With `once`
   it makes only one try, and returns NULL without an exception if no message has arrived.  Inlined,
   because its callers are on the fastest path. */
static inline __attribute__((always_inline)) PyObject *
receive_message(cmsgx_receiver *self, size_t size, int flags, PyObject *timeout, int once,
                cmsgx_sock *sock)
{
    if (cmsgx_receiver_begin(&self->base, "Receiver", timeout, once, &flags, sock) < 0) {
        return NULL;
    }
    cmsgx_buffer *buffer = free_buffer(self);
    if (buffer == NULL) {
        return NULL;
    }
    buffer->capacity = size;
    return cmsgx_receive(sock, buffer, self->base.config, flags);
}

/* Parses the `bufsize=` of one call: 0, or -1 with an exception. */
static int
parse_size(const cmsgx_receiver *self, PyObject *given, size_t *size)
{
    if (cmsgx_as_bufsize(given, size) < 0) {
        return -1;
    }
    if (*size > self->base.size && self->base.sock != NULL) {
        PyErr_Format(PyExc_ValueError,
                     self->into != NULL
                         ? "bufsize: %R; the buffers of into= hold %zu bytes"
                         : "bufsize: %R; this Receiver was created for at most %zu bytes",
                     given, self->base.size);
        return -1;
    }
    return 0;
}

/* receive(), and with `once` try_receive(), which has no timeout=. */
static inline __attribute__((always_inline)) PyObject *
receive_as_called(PyObject *object, const cmsgx_signature *signature, PyObject *const *args,
                  Py_ssize_t nargs, PyObject *kwnames, int once)
{
    cmsgx_receiver *self = SELF(object);
    PyObject *values[3] = {NULL};
    cmsgx_sock sock;
    size_t size = self->base.size;
    int flags = 0;

    if ((nargs > 0 || kwnames != NULL)
        && (cmsgx_keywords(self->base.state, signature, args, nargs, kwnames, values) < 0
            || (values[1] != NULL && cmsgx_as_int(values[1], "flags", &flags) < 0)
            || (values[0] != NULL && values[0] != Py_None
                && parse_size(self, values[0], &size) < 0))) {
        return NULL;
    }
    if (!cmsgx_enter(&self->base.busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *message = receive_message(self, size, flags, values[2], once, &sock);
    cmsgx_leave(&self->base.busy);
    return message != NULL || !once || PyErr_Occurred() ? message : Py_NewRef(Py_None);
}

PyDoc_STRVAR(receiver_receive_doc,
"receive($self, /, *, bufsize=None, flags=0, timeout=...)\n--\n\n"
"Receives one message: recvmsg(2).  `bufsize` is the maximum number of bytes of data for this\n"
"call only: to receive a header, for example, and then the bytes whose number it contains.  The\n"
"default, and the maximum, is the size that the Receiver was created with; more raises\n"
"ValueError.  With 0 bytes, on an AF_UNIX stream, the descriptors of the waiting data are\n"
"received without the data.  `flags` are MSG_* bits.  `timeout` is in seconds, or None for no\n"
"limit; by default it is the timeout of the socket.\n\n"
"Raises OSError for errors that the kernel reports; TimeoutError; ControlTruncatedError or\n"
"FdLimitError if requested descriptors are missing; DataTruncatedError if a datagram was\n"
"truncated; MalformedControlError.  If it raises, no received descriptor stays open.");

static PyObject *
receiver_receive(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "receive", 0, 0, {CMSGX_KW_BUFSIZE, CMSGX_KW_FLAGS, CMSGX_KW_TIMEOUT, -1},
    };
    return receive_as_called(object, &signature, args, nargs, kwnames, 0);
}

PyDoc_STRVAR(receiver_try_receive_doc,
"try_receive($self, /, *, bufsize=None, flags=0)\n--\n\n"
"Receives one message that has arrived, as receive() does, or returns None if there is none.\n"
"Never waits, whatever the timeout and the mode of the socket, and raises nothing because there\n"
"is no message: one recvmsg(2) with MSG_DONTWAIT.  With close=\"background\" it also returns\n"
"None, and receives nothing, while too many descriptors wait to be closed.\n\n"
"At the end of a stream it returns an empty message, each time: see is_end().  Raises what\n"
"receive() raises, except TimeoutError and BlockingIOError.");

static PyObject *
receiver_try_receive(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "try_receive", 0, 0, {CMSGX_KW_BUFSIZE, CMSGX_KW_FLAGS, -1},
    };
    return receive_as_called(object, &signature, args, nargs, kwnames, 1);
}

/* Whether a message is only the end of the stream, as cmsgx_receiver_next() needs it.  The socket
   is asked if an empty message looks like the end. */
static inline __attribute__((always_inline)) int
is_end_of_stream(PyObject *message, const cmsgx_sock *sock)
{
    int eof = ((cmsgx_message *)message)->buffer->received.eof;
    if (eof != 2) {
        return eof;
    }
    int has_hung_up = cmsgx_sock_has_hung_up(sock);
    return has_hung_up < 0 ? -errno : has_hung_up;
}

PyDoc_STRVAR(receiver_is_end_doc,
"is_end($self, /, message)\n--\n\n"
"Whether `message` is only the end of the stream, after which a `for` loop stops: True or False.\n"
"Where `message.eof` is known, this is the same.  If it is None, because an empty message of\n"
"SOCK_SEQPACKET, or a read of 0 bytes from a stream, looks like the end, the socket is asked\n"
"whether the peer has hung up and nothing more is queued: poll(2), POLLRDHUP.  So ask right after\n"
"the receive, before the next one.  An empty message that the peer sent last, before it hung up,\n"
"cannot be told from the end, and counts as the end.  A loop that reads 0 bytes at a time also\n"
"stops once the peer has hung up: it would never reach the bytes that are left.\n\n"
"`message` should be from this receiver.  For one that another receiver made, the answer is from\n"
"`message.eof` too; where that is None, it is about the socket of this receiver.\n\n"
"Raises OSError if the socket cannot be asked, because it is closed or poll(2) fails; TypeError\n"
"for anything but a Message.");

static PyObject *
receiver_is_end(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const cmsgx_signature signature = {"is_end", 1, 1, {CMSGX_KW_MESSAGE, -1}};
    cmsgx_receiver_base *base = &SELF(object)->base;
    PyObject *message = NULL;
    cmsgx_sock sock;
    int no_flags = 0;

    if (cmsgx_keywords(base->state, &signature, args, nargs, kwnames, &message) < 0) {
        return NULL;
    }
    if (!Py_IS_TYPE(message, base->state->Message)) {
        return cmsgx_raise_needed("message", -1, "a Message", message);
    }
    int eof = ((cmsgx_message *)message)->buffer->received.eof;
    if (eof != 2) {
        return PyBool_FromLong(eof);
    }
    if (!cmsgx_enter(&base->busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *answer = NULL;
    if (cmsgx_receiver_begin(base, "Receiver", NULL, 0, &no_flags, &sock) == 0
        && (sock.kind != CMSGX_SOCKET || cmsgx_sock_read_number(&sock) == 0)) {
        int is_end = is_end_of_stream(message, &sock);
        answer = is_end == -EBADF ? cmsgx_raise_of_sock(EBADF, sock.fd)
                                  : cmsgx_receiver_tell(is_end);
    }
    cmsgx_leave(&base->busy);
    return answer;
}

/* One step of a loop. */
static inline __attribute__((always_inline)) PyObject *
receive_next_message(PyObject *object, int *is_end)
{
    cmsgx_sock sock;
    PyObject *message = receive_message(SELF(object), SELF(object)->base.size, 0, NULL, 0, &sock);
    if (message != NULL) {
        *is_end = is_end_of_stream(message, &sock);
    }
    return message;
}

static PyObject *
receiver_next(PyObject *object)
{
    return cmsgx_receiver_next(object, cmsgx_message_close, receive_next_message);
}

PyDoc_STRVAR(receiver_configure_doc,
"_configure($self, config, /)\n--\n\n"
"Applies a ReceiveConfig to all calls from now on.");

static void
renew_receiver(PyObject *object)
{
    cmsgx_receiver *self = SELF(object);
    self->base.config->is_traced |= self->into != NULL;
    drop_message_buffers(self);
}

static PyObject *
receiver_configure(PyObject *object, PyObject *config)
{
    return cmsgx_receiver_configure(object, config, renew_receiver);
}

/* Gives it its socket and its buffers, once: 0, or -1 with an exception. */
static int
begin_receiver(PyObject *object, PyObject *sock, PyObject *size_given, PyObject *into)
{
    cmsgx_receiver *self = SELF(object);
    size_t size;
    int is_green;

    if (cmsgx_as_bufsize(size_given, &size) < 0
        || cmsgx_allow(self->base.state, sock, CMSGX_RECEIVING, &is_green) < 0) {
        return -1;
    }
    /* First everything that can run Python code, because that may call __init__() again. */
    cmsgx_into *filled = NULL;
    if (into != Py_None && (filled = cmsgx_into_new(self->base.state, into)) == NULL) {
        return -1;
    }
    if (!cmsgx_enter(&self->base.busy)) {
        Py_XDECREF(filled);
        cmsgx_raise_receiver_busy(object);
        return -1;
    }
    int is_first = self->base.sock == NULL;
    if (is_first) {
        self->into = filled;
        if (self->base.config != NULL) {
            /* As in _configure(): nothing has been received with it yet. */
            self->base.config->is_traced |= filled != NULL;
        }
        self->base.size = filled != NULL ? filled->size : size;
        self->base.sock = Py_NewRef(sock);
    }
    cmsgx_leave(&self->base.busy);
    if (!is_first) {
        Py_XDECREF(filled);
        PyErr_SetString(PyExc_TypeError, "a Receiver can be initialised only once");
        return -1;
    }
    return 0;
}

static int
receiver_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"sock", "bufsize", "into", NULL};
    PyObject *sock, *size, *into;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:Receiver", (char **)(void *)names, &sock,
                                     &size, &into)) {
        return -1;
    }
    return begin_receiver(object, sock, size, into);
}

PyDoc_STRVAR(open_doc,
"_open($self, sock, bufsize, into, known, want, fds, on_truncation, close, /)\n--\n\n"
"Initialises it, and switches on what it is asked for.  `known` is a dict: a key is the tuple\n"
"(fds, on_truncation, close, *want); its value is a tuple: what was asked for, the plans for\n"
"Options.configuration(), and the key.  Returns True, None if `known` has no such key, or what\n"
"is missing, as Options.configuration() does.  The options that were set are noted in `_before`.");

static PyObject *
receiver_open(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 + CMSGX_OPEN_ARGS) {
        return PyErr_Format(PyExc_TypeError, "_open() takes 8 arguments, not %zd", nargs);
    }
    return begin_receiver(object, args[0], args[1], args[2]) < 0
        ? NULL : cmsgx_receiver_open(object, &args[3], renew_receiver);
}

static int
receiver_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(SELF(object)->into);
    return cmsgx_receiver_traverse(object, visit, arg);
}

static int
receiver_clear(PyObject *object)
{
    cmsgx_receiver *self = SELF(object);
    drop_message_buffers(self);
    cmsgx_receiver_clear(&self->base);
    Py_CLEAR(self->into);
    return 0;
}

static void
receiver_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)receiver_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef receiver_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))receiver_receive, METH_FASTCALL | METH_KEYWORDS,
     receiver_receive_doc},
    {"try_receive", (PyCFunction)(void (*)(void))receiver_try_receive,
     METH_FASTCALL | METH_KEYWORDS, receiver_try_receive_doc},
    {"is_end", (PyCFunction)(void (*)(void))receiver_is_end, METH_FASTCALL | METH_KEYWORDS,
     receiver_is_end_doc},
    {"_open", (PyCFunction)(void (*)(void))receiver_open, METH_FASTCALL, open_doc},
    {"_configure", receiver_configure, METH_O, receiver_configure_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef receiver_members[] = {
    {"sock", Py_T_OBJECT_EX, offsetof(cmsgx_receiver, base.sock), Py_READONLY,
     "The socket that it receives from."},
    CMSGX_RECEIVER_MEMBERS(cmsgx_receiver),
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot receiver_slots[] = {
    {Py_tp_new, cmsgx_receiver_make},
    {Py_tp_init, receiver_init},
    {Py_tp_dealloc, receiver_dealloc},
    {Py_tp_traverse, receiver_traverse},
    {Py_tp_clear, receiver_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, receiver_next},
    {Py_tp_methods, receiver_methods},
    {Py_tp_members, receiver_members},
    {0, NULL},
};

static PyType_Spec receiver_spec = {
    .name = "cmsgx._cmsg.Receiver",
    .basicsize = sizeof(cmsgx_receiver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = receiver_slots,
};

int
cmsgx_add_receiver(PyObject *module)
{
    return cmsgx_add_type(module, &receiver_spec, &cmsgx_state_of(module)->Receiver);
}
