#include "calls/receiver.h"

#include "arguments.h"
#include "calls/receive.h"
#include "calls/receiver_base.h"
#include "errors.h"
#include "types/message.h"

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

/* Receives one message; the receiver is marked as in use.  Sets *sock to the socket.  `once` makes
   only one try, as for CMSGX_ONE_TRY.  Inlined, because two of its callers are on the fastest
   path. */
static inline __attribute__((always_inline)) PyObject *
receive_message(cmsgx_receiver *self, size_t size, int flags, PyObject *timeout, int once,
                cmsgx_sock *sock)
{
    if (cmsgx_receiver_begin(&self->base, "Receiver", timeout, flags, sock) < 0) {
        return NULL;
    }
    if (once) {
        sock->timeout = CMSGX_ONE_TRY;
    }
    cmsgx_buffer *buffer = free_buffer(self);
    if (buffer == NULL) {
        return NULL;
    }
    buffer->capacity = size;
    return cmsgx_receive(sock, buffer, self->base.config, flags);
}

PyDoc_STRVAR(try_doc,
"_try($self, flags, /)\n--\n\n"
"Like receive(), but does not wait: returns None if no message has arrived.");

static PyObject *
receiver_try(PyObject *object, PyObject *flags_given)
{
    cmsgx_receiver *self = SELF(object);
    cmsgx_sock sock;
    int flags;

    if (cmsgx_as_int(flags_given, "flags", &flags) < 0) {
        return NULL;
    }
    if (!cmsgx_enter(&self->base.busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *message =
        receive_message(self, self->base.size, flags | MSG_DONTWAIT, NULL, 1, &sock);
    cmsgx_leave(&self->base.busy);
    return message != NULL || PyErr_Occurred() ? message : Py_NewRef(Py_None);
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

static PyObject *
receiver_receive(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "receive", 0, 0, {CMSGX_KW_BUFSIZE, CMSGX_KW_FLAGS, CMSGX_KW_TIMEOUT, -1},
    };
    cmsgx_receiver *self = SELF(object);
    PyObject *values[3] = {NULL};
    cmsgx_sock sock;
    size_t size = self->base.size;
    int flags = 0;

    if ((nargs > 0 || kwnames != NULL)
        && (cmsgx_keywords(self->base.state, &signature, args, nargs, kwnames, values) < 0
            || (values[1] != NULL && cmsgx_as_int(values[1], "flags", &flags) < 0)
            || (values[0] != NULL && values[0] != Py_None
                && parse_size(self, values[0], &size) < 0))) {
        return NULL;
    }
    if (!cmsgx_enter(&self->base.busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *message = receive_message(self, size, flags, values[2], 0, &sock);
    cmsgx_leave(&self->base.busy);
    return message;
}

/* One step of a loop. */
static inline __attribute__((always_inline)) PyObject *
receive_next_message(PyObject *object, int *is_end)
{
    cmsgx_sock sock;
    PyObject *message = receive_message(SELF(object), SELF(object)->base.size, 0, NULL, 0, &sock);
    if (message != NULL) {
        *is_end = ((cmsgx_message *)message)->buffer->received.eof;
        if (*is_end == 2) {
            *is_end = cmsgx_sock_has_hung_up(&sock);
            *is_end = *is_end < 0 ? -errno : *is_end;
        }
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

static int
receiver_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"sock", "bufsize", "into", NULL};
    cmsgx_receiver *self = SELF(object);
    PyObject *sock, *size_given, *into;
    size_t size;
    int is_green;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:Receiver", (char **)(void *)names, &sock,
                                     &size_given, &into)
        || cmsgx_as_bufsize(size_given, &size) < 0
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
    {"_try", receiver_try, METH_O, try_doc},
    {"_configure", receiver_configure, METH_O, receiver_configure_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef receiver_members[] = {
    {"sock", Py_T_OBJECT_EX, offsetof(cmsgx_receiver, base.sock), Py_READONLY,
     "The socket that it receives from."},
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
