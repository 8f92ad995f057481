#include "calls/prepared_send.h"

#include "arguments.h"
#include "calls/notes.h"
#include "calls/outgoing_fill.h"
#include "calls/outgoing_send.h"
#include "calls/prepared.h"
#include "errors.h"

#include <errno.h>

#define SELF(object) ((cmsgx_prepared *)(object))

static PyObject *
prepared_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"sock", "data", "fds", "control", "flags", "address",
                                        NULL};
    cmsgx_state *state = cmsgx_state_of_type(type);
    PyObject *given, *data, *fds = NULL, *control = NULL, *number = NULL, *address = Py_None;
    PyObject *result = NULL;
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
    int flags = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|$OOOO:PreparedSend",
                                     (char **)(void *)names, &given, &data, &fds, &control,
                                     &number, &address)
        || cmsgx_sock_resolve_typed(state, given, CMSGX_SENDING, &sock) < 0
        || (number != NULL && cmsgx_as_int(number, "flags", &flags) < 0)) {
        return NULL;
    }
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, &sock);
    out.is_typed = 1;
    if (cmsgx_outgoing_fill(&out, &sock, data, fds, control, address) == 0) {
        result =
            (PyObject *)cmsgx_prepared_new(&out, &sock, data, flags | CMSGX_MSG_NOSIGNAL);
    }
    cmsgx_outgoing_clear(&out);
    return result;
}

/* Trying ----------------------------------------------------------------------------------- */

/* Whether there is anything to send: 1, or 0 with ValueError. */
static int
is_usable(cmsgx_prepared *self)
{
    if (cmsgx_prepared_is_left(self)) {
        return 1;
    }
    if (cmsgx_flag_get(&self->is_done)) {
        PyErr_Format(PyExc_ValueError, "this PreparedSend is done: all of its %zu bytes were sent",
                     self->size);
    }
    else {
        PyErr_Format(PyExc_ValueError,
                     "this PreparedSend was closed, when %zu of %zu bytes were sent", self->sent,
                     self->size);
    }
    return 0;
}

static PyObject *
try_again(cmsgx_prepared *self)
{
    cmsgx_sock sock;
    ssize_t sent = -1;
    int error = 0;
    if (!is_usable(self)) {
        return NULL;
    }
    if (cmsgx_sock_resolve_typed(self->out.state, self->sock, CMSGX_SENDING, &sock) == 0) {
        sock.timeout = CMSGX_ONE_TRY;
        sent = cmsgx_prepared_send(self, &sock, self->flags | MSG_DONTWAIT, &error);
    }
    return sent >= 0 ? PyLong_FromSsize_t(sent)
         : cmsgx_prepared_keep_numbers(self, error) < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(prepared_try_send_doc,
"try_send($self, /)\n--\n\n"
"Sends what it can without waiting: sendmsg(2) with MSG_DONTWAIT.  Returns the number of bytes\n"
"that went, or None if the kernel takes nothing now.\n\n"
"Raises ValueError if all was sent or it was closed; and OSError as send() does: then nothing of\n"
"this try was sent, and it can be tried again.  Raises OSError with the index of a plain number\n"
"of `fds` that could not be duplicated.");

static PyObject *
prepared_try_send(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    cmsgx_prepared *self = SELF(object);
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    PyObject *result = try_again(self);
    cmsgx_leave(&self->busy);
    return result;
}

PyDoc_STRVAR(prepared_send_doc,
"_send($self, timeout, /)\n--\n\n"
"Makes one call that succeeds, and waits for that as send() does; `timeout` is as for send().\n"
"Returns None, or, without raising it, the OSError of the system call: so an exception that is\n"
"raised comes from elsewhere.  Plain numbers are not duplicated.");

static PyObject *
prepared_wait_and_send(PyObject *object, PyObject *timeout)
{
    cmsgx_prepared *self = SELF(object);
    cmsgx_sock sock;
    ssize_t sent = -1;
    int error = 0;
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    if (is_usable(self)
        && cmsgx_sock_resolve_typed(self->out.state, self->sock, CMSGX_SENDING, &sock) == 0
        && cmsgx_sock_set_timeout(&sock, timeout) == 0) {
        sent = cmsgx_prepared_send(self, &sock, self->flags, &error);
    }
    cmsgx_leave(&self->busy);
    return sent >= 0 ? Py_NewRef(Py_None) : error == 0 ? NULL : cmsgx_save_exception();
}

/* After a try that took `sent` bytes, or -1 for EAGAIN, before it was made.  0, or -1 with an
   exception. */
static int
begin(cmsgx_prepared *self, ssize_t sent)
{
    int result = 0;
    (void)cmsgx_enter(&self->busy);
    if (sent > 0) {
        cmsgx_prepared_count(self, (size_t)sent);
    }
    else if (cmsgx_prepared_keep_numbers(self, EAGAIN) < 0) {
        cmsgx_flag_set(&self->is_closed);
        result = -1;
    }
    cmsgx_leave(&self->busy);
    return result;
}

/* What send_or_prepare() returns, of an object that is made before the first try. */
static PyObject *
keep_and_try(cmsgx_outgoing *out, const cmsgx_sock *sock, PyObject *data, int flags)
{
    PyObject *object = (PyObject *)cmsgx_prepared_new(out, sock, data, flags);
    PyObject *sent = object == NULL ? NULL : prepared_try_send(object, NULL);
    if (sent != NULL && !cmsgx_flag_get(&SELF(object)->is_done)) {
        Py_DECREF(sent);
        return object;
    }
    if (object != NULL) {
        cmsgx_flag_set(&SELF(object)->is_closed);
        Py_DECREF(object);
    }
    return sent;
}

PyObject *
cmsgx_send_or_prepare(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    enum {SOCK, DATA, FDS, CONTROL, FLAGS, ADDRESS, COUNT};
    static const cmsgx_signature signature = {
        "send_or_prepare", 2, 2,
        {CMSGX_KW_SOCK, CMSGX_KW_DATA, CMSGX_KW_FDS, CMSGX_KW_CONTROL, CMSGX_KW_FLAGS,
         CMSGX_KW_ADDRESS, -1},
    };
    PyObject *values[COUNT] = {NULL};
    cmsgx_state *state = cmsgx_state_of(module);
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
    PyObject *result = NULL;
    int error = 0, flags = 0;

    if (cmsgx_keywords(state, &signature, args, nargs, kwnames, values) < 0
        || cmsgx_sock_resolve_typed(state, values[SOCK], CMSGX_SENDING, &sock) < 0
        || (values[FLAGS] != NULL && cmsgx_as_int(values[FLAGS], "flags", &flags) < 0)) {
        return NULL;
    }
    flags |= CMSGX_MSG_NOSIGNAL;
    sock.timeout = CMSGX_ONE_TRY;
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, &sock);
    out.is_typed = out.never_waits = 1;
    if (cmsgx_outgoing_fill(&out, &sock, values[DATA], values[FDS], values[CONTROL],
                            values[ADDRESS] != NULL ? values[ADDRESS] : Py_None)
        < 0) {
        goto done;
    }
    size_t size = out.data_size;
    ssize_t sent = -1;
    if (out.buffer_count > CMSGX_MAX_BUFFERS) {
        /* A stream takes them in several calls, which the object knows how to make. */
        result = keep_and_try(&out, &sock, values[DATA], flags);
    }
    else if ((sent = cmsgx_outgoing_send(&out, &sock, flags | MSG_DONTWAIT, &error)) >= 0
             && (size_t)sent >= size) {
        result = PyLong_FromSsize_t(sent);
        goto done;
    }
    else if (sent >= 0 || error == EAGAIN) {
        result = (PyObject *)cmsgx_prepared_new(&out, &sock, values[DATA], flags);
        if (result != NULL && begin(SELF(result), sent) < 0) {
            Py_CLEAR(result);
        }
    }
    if (result == NULL) {
        cmsgx_set_attribute("sent", "n", sent > 0 ? (Py_ssize_t)sent : 0);
        cmsgx_note_used_up((const cmsgx_argument[]){{"data", values[DATA]},
                                                    {"fds", values[FDS]},
                                                    {"control", values[CONTROL]}},
                           3);
    }

done:
    cmsgx_outgoing_clear(&out);
    return result;
}

/* The type --------------------------------------------------------------------------------- */

PyDoc_STRVAR(prepared_close_doc,
"close($self, /)\n--\n\n"
"Lets go of what was not sent: the data, the descriptors, and the duplicates that it made.  Does\n"
"nothing the second time.  Does not close the socket.");

static PyObject *
prepared_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    cmsgx_prepared *self = SELF(object);
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    cmsgx_flag_set(&self->is_closed);
    cmsgx_prepared_let_go(self);
    cmsgx_leave(&self->busy);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(prepared_enter_doc,
"__enter__($self, /)\n--\n\n"
"Returns itself, for `as`.");

PyDoc_STRVAR(prepared_exit_doc,
"__exit__($self, /, *exc_info)\n--\n\n"
"Lets go of what was not sent, as close() does.");

static PyObject *
prepared_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *
prepared_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return prepared_close(self, NULL);
}

static PyObject *
prepared_sent(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(cmsgx_prepared_sent(SELF(object)));
}

static PyObject *
prepared_is_done(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(cmsgx_flag_get(&SELF(object)->is_done));
}

static PyObject *
prepared_repr(PyObject *object)
{
    const cmsgx_prepared *self = SELF(object);
    int is_closed = cmsgx_flag_get(&self->is_closed) && !cmsgx_flag_get(&self->is_done);
    return PyUnicode_FromFormat("<PreparedSend of %R: %zu of %zu bytes sent%s>", self->sock,
                                cmsgx_prepared_sent(self), self->size, is_closed ? ", closed" : "");
}

static int
prepared_traverse(PyObject *object, visitproc visit, void *arg)
{
    const cmsgx_prepared *self = SELF(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->sock);
    for (Py_ssize_t i = 0; i < self->out.buffer_count; i++) {
        Py_VISIT(self->out.buffers[i].obj);
    }
    for (size_t i = 0; i < self->out.fd_count; i++) {
        Py_VISIT(self->out.fd_owners[i]);
    }
    return 0;
}

static int
prepared_clear(PyObject *object)
{
    cmsgx_flag_set(&SELF(object)->is_closed);
    cmsgx_prepared_let_go(SELF(object));
    Py_CLEAR(SELF(object)->sock);
    return 0;
}

static void
prepared_finalize(PyObject *object)
{
    if (!cmsgx_prepared_is_left(SELF(object))) {
        return;
    }
    PyObject *pending = cmsgx_save_exception();
    if (PyErr_ResourceWarning(object, 1, "%R was neither sent nor closed", object) != 0) {
        PyErr_WriteUnraisable(object);
    }
    cmsgx_restore_exception(pending);
}

static void
prepared_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (cmsgx_prepared_is_left(SELF(object)) && PyObject_CallFinalizerFromDealloc(object) < 0) {
        return;
    }
    PyObject_GC_UnTrack(object);
    PyObject *pending = cmsgx_save_exception();
    cmsgx_prepared_let_go(SELF(object));
    Py_XDECREF(SELF(object)->sock);
    cmsgx_restore_exception(pending);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef prepared_methods[] = {
    {"try_send", prepared_try_send, METH_NOARGS, prepared_try_send_doc},
    {"_send", prepared_wait_and_send, METH_O, prepared_send_doc},
    {"close", prepared_close, METH_NOARGS, prepared_close_doc},
    {"__enter__", prepared_enter, METH_NOARGS, prepared_enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))prepared_exit, METH_FASTCALL, prepared_exit_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef prepared_getset[] = {
    {"sent", prepared_sent, NULL, "The number of bytes that were sent so far.", NULL},
    {"is_done", prepared_is_done, NULL,
     "Whether everything was sent; without data, whether one try succeeded.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(prepared_doc,
"PreparedSend(sock, data, *, fds=(), control=(), flags=0, address=None)\n--\n\n"
"A send that is prepared once and can be tried until all of it has gone: for loops that wait by\n"
"other means.  The arguments are those of send(), and are checked here; iterators are read here,\n"
"once.  A host name is resolved here, which may take a while.\n\n"
"try_send() sends what the kernel takes at once.  Descriptors and control messages go once, with\n"
"the first byte.  Until then an Fd is held, and pinned for each try; one that was closed is\n"
"OSError (EBADF) with its index.  Plain numbers, and objects with fileno(), are duplicated\n"
"(close-on-exec) when the first try has not sent them, so what is closed or reused after it does\n"
"no harm; until it they must stay open.  The descriptors stay the caller's; the duplicates are\n"
"closed when they have gone, by close(), at the end of `with`, and at the latest with this\n"
"object.  The data must not change until it was sent.\n\n"
"Over a stream a send may take several tries, and more than 1024 buffers take several calls;\n"
"another socket takes all in one message or raises.  If two threads use one PreparedSend at\n"
"once, one of them gets a RuntimeError.  One that is collected before it is done or closed\n"
"causes a ResourceWarning.  sendmsg(2), unix(7)");

static PyType_Slot prepared_slots[] = {
    {Py_tp_new, prepared_make},
    {Py_tp_dealloc, prepared_dealloc},
    {Py_tp_finalize, prepared_finalize},
    {Py_tp_traverse, prepared_traverse},
    {Py_tp_clear, prepared_clear},
    {Py_tp_repr, prepared_repr},
    {Py_tp_methods, prepared_methods},
    {Py_tp_getset, prepared_getset},
    {Py_tp_doc, (void *)prepared_doc},
    {0, NULL},
};

static PyType_Spec prepared_spec = {
    .name = "cmsgx.PreparedSend",
    .basicsize = offsetof(cmsgx_prepared, arrays),
    .itemsize = 1,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = prepared_slots,
};

int
cmsgx_add_prepared_send(PyObject *module)
{
    return cmsgx_add_type(module, &prepared_spec, &cmsgx_state_of(module)->PreparedSend);
}
