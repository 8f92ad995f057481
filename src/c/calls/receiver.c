#include "calls/receiver.h"

#include "arguments.h"
#include "calls/receive.h"
#include "errors.h"
#include "types/message.h"

/* Buffers kept beside the one in use: in a loop the message before still holds its own. */
#define SPARES 2

typedef struct {
    PyObject_HEAD
    cmsgx_busy busy;
    cmsgx_state *state;
    PyObject *sock;             /* owned */
    cmsgx_receive_config *config;     /* owned use */
    cmsgx_into *into;           /* owned, or NULL */
    size_t size;                /* bytes of data for each message at most, here or in `into` */
    cmsgx_buffer *buffers[SPARES + 1];  /* owned uses; the first is filled next, if it is free */
    PyObject *last;             /* owned: the message of the step before, in a loop */
} cmsgx_receiver;

static void
drop_buffers(cmsgx_receiver *self)
{
    for (int i = 0; i <= SPARES; i++) {
        cmsgx_buffer_release(self->buffers[i]);
        self->buffers[i] = NULL;
    }
}

/* A buffer that nobody reads: one of ours, or a new one in the place of the oldest. */
static cmsgx_buffer *
free_buffer(cmsgx_receiver *self)
{
    for (int i = 0; i <= SPARES; i++) {
        cmsgx_buffer *buffer = self->buffers[i];
        if (buffer != NULL && cmsgx_count_get(&buffer->users) == 1) {
            return buffer;
        }
    }
    cmsgx_buffer *buffer =
        cmsgx_buffer_new(self->into != NULL ? 0 : self->size, self->config->control_size,
                         self->into);
    if (buffer != NULL) {
        cmsgx_buffer_release(self->buffers[SPARES]);
        memmove(&self->buffers[1], &self->buffers[0], SPARES * sizeof(self->buffers[0]));
        self->buffers[0] = buffer;
    }
    return buffer;
}

static PyObject *
raise_not_made(void)
{
    return PyErr_Format(PyExc_ValueError,
                        "the Receiver was not initialised: a subclass calls super().__init__()");
}

/* With the receiver marked as in use.  *sock is what it received from.  With `once` the one try of
   CMSGX_ONE_TRY.  Inlined: two of its callers are on the fastest path. */
static inline __attribute__((always_inline)) PyObject *
receive(cmsgx_receiver *self, size_t size, int flags, PyObject *timeout, int once,
        cmsgx_sock *sock)
{
    cmsgx_state *state = self->state;

    if (self->config == NULL || self->sock == NULL) {
        return raise_not_made();
    }
    if (cmsgx_sock_resolve_typed(state, self->sock, CMSGX_RECEIVING, sock) < 0
        || (timeout != NULL && cmsgx_sock_set_timeout(sock, timeout) < 0)
        || cmsgx_check_peek(self->config->fds, flags) < 0) {
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
    return cmsgx_receive(sock, buffer, self->config, flags);
}

PyDoc_STRVAR(try_doc,
"_try($self, flags, /)\n--\n\n"
"receive(), which waits for nothing, and gives None where nothing is there.");

static PyObject *
receiver_try(PyObject *object, PyObject *flags_given)
{
    cmsgx_receiver *self = (cmsgx_receiver *)object;
    cmsgx_sock sock;
    int flags;

    if (cmsgx_as_int(flags_given, "flags", &flags) < 0) {
        return NULL;
    }
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *message = receive(self, self->size, flags | MSG_DONTWAIT, NULL, 1, &sock);
    cmsgx_leave(&self->busy);
    return message != NULL || PyErr_Occurred() ? message : Py_NewRef(Py_None);
}

PyDoc_STRVAR(receive_doc,
"receive($self, /, *, bufsize=None, flags=0, timeout=...)\n--\n\n"
"Receives one message: recvmsg(2).  `bufsize` is the most bytes of data, for this call only: of\n"
"a header, say, and then of what it says that follows.  By default, and at most, it is what the\n"
"Receiver was made for; beyond that it is a ValueError.  0 bytes of an AF_UNIX stream come with\n"
"the descriptors of what waits.  `flags` are MSG_* bits, `timeout` seconds or None, by default\n"
"the socket's own.\n\n"
"Raises what the kernel reports; TimeoutError; ControlTruncatedError and FdLimitError where\n"
"descriptors that were asked for are missing; DataTruncatedError where a datagram was cut;\n"
"MalformedControlError.  Then no descriptor stays open.");

/* `bufsize=` of one call: 0, or -1 with an exception. */
static int
parse_size(const cmsgx_receiver *self, PyObject *given, size_t *size)
{
    if (cmsgx_as_bufsize(given, size) < 0) {
        return -1;
    }
    if (*size > self->size && self->sock != NULL) {
        PyErr_Format(PyExc_ValueError,
                     self->into != NULL
                         ? "bufsize: %R; the buffers of into= have %zu bytes"
                         : "bufsize: %R; this Receiver was made for %zu bytes at most",
                     given, self->size);
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
    cmsgx_receiver *self = (cmsgx_receiver *)object;
    PyObject *values[3] = {NULL};
    cmsgx_sock sock;
    size_t size = self->size;
    int flags = 0;

    if ((nargs > 0 || kwnames != NULL)
        && (cmsgx_keywords(self->state, &signature, args, nargs, kwnames, values) < 0
            || (values[1] != NULL && cmsgx_as_int(values[1], "flags", &flags) < 0)
            || (values[0] != NULL && values[0] != Py_None
                && parse_size(self, values[0], &size) < 0))) {
        return NULL;
    }
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *message = receive(self, size, flags, values[2], 0, &sock);
    cmsgx_leave(&self->busy);
    return message;
}

/* The step of a loop: what was left of the message before is closed. */
static PyObject *
next(cmsgx_receiver *self)
{
    cmsgx_sock sock;

    if (self->last != NULL) {
        if (cmsgx_message_close(self->last) < 0) {
            return NULL;
        }
        /* Gone before the next is received, so that its buffer may be free. */
        Py_CLEAR(self->last);
    }
    PyObject *message = receive(self, self->size, 0, NULL, 0, &sock);
    if (message == NULL) {
        return NULL;
    }
    int eof = ((cmsgx_message *)message)->buffer->received.eof;
    if (eof == 2) {
        eof = cmsgx_sock_has_hung_up(&sock);
    }
    if (eof != 0) {
        int error = errno;
        (void)cmsgx_message_close(message);
        Py_DECREF(message);
        return eof > 0 ? NULL : cmsgx_raise_no_end(error);
    }
    self->last = Py_NewRef(message);
    return message;
}

static PyObject *
receiver_next(PyObject *object)
{
    cmsgx_receiver *self = (cmsgx_receiver *)object;
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *message = next(self);
    cmsgx_leave(&self->busy);
    return message;
}

PyDoc_STRVAR(configure_doc,
"_configure($self, fds, control_size, want, family, type, takes_pidfd, raise_truncated, "
"in_background, /)\n--\n\n"
"Sets what is asked for and the room for it, from the next receive on.");

static PyObject *
receiver_configure(PyObject *object, PyObject *args)
{
    cmsgx_receiver *self = (cmsgx_receiver *)object;
    cmsgx_state *state = self->state;
    cmsgx_receive_config *config = cmsgx_receive_config_parse(state, args);
    if (config == NULL) {
        return NULL;
    }
    if (!cmsgx_enter(&self->busy)) {
        cmsgx_receive_config_release(config);
        return cmsgx_raise_receiver_busy(object);
    }
    config->is_traced |= self->into != NULL;
    cmsgx_receive_config *before = self->config;
    cmsgx_receive_config_inherit(config, before);
    self->config = config;
    drop_buffers(self);
    cmsgx_leave(&self->busy);
    cmsgx_receive_config_release(before);
    Py_RETURN_NONE;
}

static PyObject *
receiver_make(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *self = type->tp_alloc(type, 0);
    (void)args;
    if (self != NULL) {
        ((cmsgx_receiver *)self)->state = cmsgx_state_of_type(type);
    }
    return self;
}

static int
receiver_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"sock", "bufsize", "into", NULL};
    cmsgx_receiver *self = (cmsgx_receiver *)object;
    PyObject *sock, *size_given, *into;
    size_t size;
    int is_green;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:Receiver", (char **)(void *)names, &sock,
                                     &size_given, &into)
        || cmsgx_as_bufsize(size_given, &size) < 0
        || cmsgx_allow(self->state, sock, CMSGX_RECEIVING, &is_green) < 0) {
        return -1;
    }
    /* First all that can run Python code, which may come here once more. */
    cmsgx_into *filled = NULL;
    if (into != Py_None && (filled = cmsgx_into_new(self->state, into)) == NULL) {
        return -1;
    }
    if (!cmsgx_enter(&self->busy)) {
        Py_XDECREF(filled);
        cmsgx_raise_receiver_busy(object);
        return -1;
    }
    int is_first = self->sock == NULL;
    if (is_first) {
        self->into = filled;
        if (self->config != NULL) {
            /* As in configure(): nobody has received anything by it yet. */
            self->config->is_traced |= filled != NULL;
        }
        self->size = filled != NULL ? filled->size : size;
        self->sock = Py_NewRef(sock);
    }
    cmsgx_leave(&self->busy);
    if (!is_first) {
        Py_XDECREF(filled);
        PyErr_SetString(PyExc_TypeError, "a Receiver is initialised once");
        return -1;
    }
    return 0;
}

static int
receiver_traverse(PyObject *object, visitproc visit, void *arg)
{
    cmsgx_receiver *self = (cmsgx_receiver *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->sock);
    Py_VISIT(self->into);
    Py_VISIT(self->last);
    return cmsgx_receive_config_visit(self->config, visit, arg);
}

static int
receiver_clear(PyObject *object)
{
    cmsgx_receiver *self = (cmsgx_receiver *)object;
    cmsgx_receive_config *config = self->config;
    self->config = NULL;
    drop_buffers(self);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->last);
    Py_CLEAR(self->into);
    cmsgx_receive_config_release(config);
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
     receive_doc},
    {"_try", receiver_try, METH_O, try_doc},
    {"_configure", receiver_configure, METH_VARARGS, configure_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef receiver_members[] = {
    {"sock", Py_T_OBJECT_EX, offsetof(cmsgx_receiver, sock), Py_READONLY, "What it receives from."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot receiver_slots[] = {
    {Py_tp_new, receiver_make},
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
