/* The heart of the drop-in functions, in a form that compiles with the full API and with the
   limited API of 3.11 (-DPy_LIMITED_API=0x030b0000): run.py beside this file measures both.

   It does what src/c does for an AF_UNIX socket, in the same order and with the same checks:
   which method the class has, timeout, family, audit event, buffers; the number as late as
   possible, the call without the GIL, zeroed control data, surplus descriptors closed.  Left out
   is what costs both the same or never happens here: keywords, waiting, other families, malformed
   control data.  What the two offer differently stands in the first section, all of it. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "plain/fallbacks.h"
#include "plain/walk.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>

#define FEW 8
#define SMALL_CONTROL 512
#define RIGHTS_CONTROL_SIZE (CMSG_SPACE(CMSGX_MAX_FDS * sizeof(int)) + SMALL_CONTROL)

typedef struct {
    PyObject *name;
    PyObject *method;       /* the class's own */
    unsigned int version;
} stdlib_method;

typedef struct {
    PyTypeObject *socket;           /* _socket.socket */
    PyTypeObject *socket_class;     /* socket.socket */
    PyTypeObject *Method;
    stdlib_method sendmsg, recvmsg;
    PyCFunction fileno, gettimeout;
    Py_ssize_t family_at;
    PyObject *audit, *str_audit, *str_fileno, *str_gettimeout;
} heart_state;

/* The two forms ---------------------------------------------------------------------------- */

#ifdef Py_LIMITED_API

#define BYTES_START PyBytes_AsString
#define BYTES_SIZE PyBytes_Size
#define TUPLE_SET PyTuple_SetItem
#define LIST_SET PyList_SetItem

static Py_ssize_t
size_of(PyObject *sequence)
{
    return PyList_Check(sequence) ? PyList_Size(sequence) : PyTuple_Size(sequence);
}

static PyObject *
item_of(PyObject *sequence, Py_ssize_t i)
{
    return PyList_Check(sequence) ? PyList_GetItem(sequence, i) : PyTuple_GetItem(sequence, i);
}

/* There is no _PyBytes_Resize: a copy. */
static void
shrink(PyObject **bytes, Py_ssize_t size)
{
    PyObject *whole = *bytes;
    *bytes = PyBytes_FromStringAndSize(PyBytes_AsString(whole), size);
    Py_DECREF(whole);
}

/* There is neither _PyType_Lookup nor a type version: the attribute is read each time. */
static int
is_ours(heart_state *state, PyTypeObject *type, stdlib_method *method)
{
    PyObject *found = PyObject_GetAttr((PyObject *)type, method->name);
    int ours = found == method->method || (found != NULL && Py_IS_TYPE(found, state->Method));
    Py_XDECREF(found);
    return ours;
}

/* PySys_Audit came to it with 3.13: sys.audit, looked up once. */
static int
audit(heart_state *state, PyObject *sock, PyObject *address)
{
    PyObject *none = PyObject_CallFunctionObjArgs(state->audit, state->str_audit, sock, address,
                                                  NULL);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

#else

#define BYTES_START PyBytes_AS_STRING
#define BYTES_SIZE PyBytes_GET_SIZE
#define TUPLE_SET PyTuple_SET_ITEM
#define LIST_SET PyList_SET_ITEM
#define size_of PySequence_Fast_GET_SIZE
#define item_of PySequence_Fast_GET_ITEM
#define shrink (void)_PyBytes_Resize
#define audit(state, sock, address) PySys_Audit("socket.sendmsg", "OO", sock, address)

static int
is_ours(heart_state *state, PyTypeObject *type, stdlib_method *method)
{
    unsigned int version =
        type == state->socket_class && PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)
        ? type->tp_version_tag : 0;
    if (version != 0 && version == method->version) {
        return 1;
    }
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *found = _PyType_LookupRef(type, method->name);
#else
    PyObject *found = Py_XNewRef(_PyType_Lookup(type, method->name));
#endif
    int ours = found == method->method || (found != NULL && Py_IS_TYPE(found, state->Method));
    Py_XDECREF(found);
    method->version = ours ? version : 0;
    return ours;
}

#endif

/* What a method descriptor points at: that is opaque in the limited API, and the table which it
   was made from is not. */
static PyCFunction
function_of(PyTypeObject *type, const char *name)
{
    PyMethodDef *method = PyType_GetSlot(type, Py_tp_methods);
    while (method != NULL && method->ml_name != NULL) {
        if (strcmp(method->ml_name, name) == 0 && method->ml_flags == METH_NOARGS) {
            return method->ml_meth;
        }
        method++;
    }
    return NULL;
}

static Py_ssize_t
member_at(PyTypeObject *type, const char *name)
{
    PyMemberDef *member = PyType_GetSlot(type, Py_tp_members);
    while (member != NULL && member->name != NULL) {
        if (strcmp(member->name, name) == 0 && member->type == T_INT) {
            return member->offset;
        }
        member++;
    }
    return -1;
}

/* BY_NAME: as limited API code that does not go to the table of methods would do it. */
#ifdef BY_NAME
#define GET(state, sock, what) PyObject_CallMethodObjArgs(sock, (state)->str_##what, NULL)
#else
#define GET(state, sock, what) (state)->what(sock, NULL)
#endif

/* The socket and the call ------------------------------------------------------------------ */

typedef struct {
    heart_state *state;
    PyObject *object;       /* borrowed */
    int64_t timeout;        /* nanoseconds, -1: none */
} sock_argument;

static int
resolve(heart_state *state, PyObject *object, stdlib_method *method, sock_argument *sock)
{
    int family;
    if ((!Py_IS_TYPE(object, state->socket_class) && !PyObject_TypeCheck(object, state->socket))
        || !is_ours(state, Py_TYPE(object), method)) {
        PyErr_SetString(PyExc_TypeError, "a socket.socket whose methods are its own");
        return -1;
    }
    memcpy(&family, (const char *)object + state->family_at, sizeof(family));
    PyObject *timeout = family == AF_UNIX ? GET(state, object, gettimeout) : NULL;
    if (timeout == NULL) {
        return -1;
    }
    double seconds = timeout == Py_None ? -1 : PyFloat_AsDouble(timeout);
    Py_DECREF(timeout);
    sock->state = state;
    sock->object = object;
    sock->timeout = seconds < 0 ? -1 : (int64_t)(seconds * 1e9);
    return 0;
}

typedef ssize_t (*attempt)(int fd, struct msghdr *msg, int flags);

static ssize_t
call(sock_argument *sock, attempt try_once, struct msghdr *msg, int flags)
{
    if (sock->timeout >= 0) {
        flags |= MSG_DONTWAIT;
    }
    for (;;) {
        PyObject *number = GET(sock->state, sock->object, fileno);
        if (number == NULL) {
            return -1;
        }
        int fd = (int)PyLong_AsLong(number), failed;
        Py_DECREF(number);
        ssize_t result;
        Py_BEGIN_ALLOW_THREADS
        result = try_once(fd, msg, flags);
        failed = errno;
        Py_END_ALLOW_THREADS
        if (result >= 0) {
            return result;
        }
        if (failed != EINTR) {
            errno = failed;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    }
}

static ssize_t
try_sendmsg(int fd, struct msghdr *msg, int flags)
{
    return sendmsg(fd, msg, flags);
}

static ssize_t
try_recvmsg(int fd, struct msghdr *msg, int flags)
{
    memset(msg->msg_control, 0, msg->msg_controllen);
    return recvmsg(fd, msg, flags);
}

static int
as_size(PyObject *object, Py_ssize_t *size)
{
    *size = PyLong_CheckExact(object) ? PyLong_AsSsize_t(object)
                                      : PyNumber_AsSsize_t(object, PyExc_OverflowError);
    if (*size < 0 && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "negative size");
    }
    return *size < 0 ? -1 : 0;
}

/* Receiving -------------------------------------------------------------------------------- */

/* (data, list, flags, address).  Steals the first two. */
static PyObject *
result_of(PyObject *data, PyObject *list, const struct msghdr *msg)
{
    PyObject *address = list == NULL ? NULL : msg->msg_namelen == 0 ? Py_NewRef(Py_None)
        : PyBytes_FromStringAndSize(msg->msg_name, (Py_ssize_t)msg->msg_namelen);
    PyObject *flags = address == NULL ? NULL
        : PyLong_FromLong(msg->msg_flags & ~CMSGX_MSG_CMSG_CLOEXEC);
    PyObject *result = flags == NULL ? NULL : PyTuple_New(4);
    if (result == NULL) {
        Py_XDECREF(data);
        Py_XDECREF(list);
        Py_XDECREF(address);
        Py_XDECREF(flags);
        return NULL;
    }
    TUPLE_SET(result, 0, data);
    TUPLE_SET(result, 1, list);
    TUPLE_SET(result, 2, flags);
    TUPLE_SET(result, 3, address);
    return result;
}

static PyObject *
number_list(const struct msghdr *msg, size_t max_fds)
{
    int fds[RIGHTS_CONTROL_SIZE / sizeof(int)];
    cmsgx_found found = cmsgx_gather(msg->msg_control, msg->msg_controllen, fds);
    size_t keep = found.rights < max_fds ? found.rights : max_fds;
    size_t surplus = found.rights + found.pidfds - keep;
    if (surplus > 0) {
        Py_BEGIN_ALLOW_THREADS
        cmsgx_close_all(fds + keep, surplus);
        Py_END_ALLOW_THREADS
    }
    PyObject *list = PyList_New((Py_ssize_t)keep);
    for (size_t i = 0; list != NULL && i < keep; i++) {
        PyObject *number = PyLong_FromLong(fds[i]);
        if (number == NULL) {
            Py_CLEAR(list);
        }
        else {
            LIST_SET(list, (Py_ssize_t)i, number);
        }
    }
    if (list == NULL) {
        cmsgx_close_all(fds, keep);
    }
    return list;
}

static PyObject *
receive(PyObject *module, PyObject *const *args, void *control, size_t control_size,
        Py_ssize_t max_fds)
{
    heart_state *state = PyModule_GetState(module);
    struct sockaddr_storage name;
    sock_argument sock;
    Py_ssize_t size;

    if (resolve(state, args[0], &state->recvmsg, &sock) < 0 || as_size(args[1], &size) < 0) {
        return NULL;
    }
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL) {
        return NULL;
    }
    struct iovec iov = {BYTES_START(data), (size_t)size};
    struct msghdr msg = {
        .msg_name = &name, .msg_namelen = sizeof(name), .msg_iov = &iov, .msg_iovlen = 1,
        .msg_control = control, .msg_controllen = control_size,
    };
    ssize_t received = call(&sock, try_recvmsg, &msg, CMSGX_MSG_CMSG_CLOEXEC);
    if (received < 0) {
        Py_DECREF(data);
        return NULL;
    }
    if (received < size) {
        shrink(&data, received);
    }
    PyObject *list = data == NULL ? NULL : max_fds < 0 ? PyList_New(0)
                                                       : number_list(&msg, (size_t)max_fds);
    return result_of(data, list, &msg);
}

/* recvmsg(sock, bufsize): without room for control messages there are none. */
static PyObject *
heart_recvmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    unsigned char control[SMALL_CONTROL] __attribute__((aligned(16)));
    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError, "recvmsg() takes 2 arguments (%zd given)", nargs);
    }
    return receive(module, args, control, 0, -1);
}

/* recv_fds(sock, bufsize, maxfds) */
static PyObject *
heart_recv_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    unsigned char control[RIGHTS_CONTROL_SIZE] __attribute__((aligned(16)));
    Py_ssize_t max_fds;
    if (nargs != 3) {
        return PyErr_Format(PyExc_TypeError, "recv_fds() takes 3 arguments (%zd given)", nargs);
    }
    if (as_size(args[2], &max_fds) < 0) {
        return NULL;
    }
    return receive(module, args, control, sizeof(control), max_fds);
}

/* Sending ---------------------------------------------------------------------------------- */

/* send_fds(sock, buffers, fds) */
static PyObject *
heart_send_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    heart_state *state = PyModule_GetState(module);
    unsigned char control[CMSG_SPACE(CMSGX_MAX_FDS * sizeof(int))] __attribute__((aligned(16)));
    int numbers[CMSGX_MAX_FDS];
    Py_buffer buffers[FEW];
    struct iovec iov[FEW];
    struct msghdr msg = {.msg_iov = iov};
    Py_ssize_t count = 0, fds = 0;
    sock_argument sock;
    PyObject *result = NULL;

    if (nargs != 3) {
        return PyErr_Format(PyExc_TypeError, "send_fds() takes 3 arguments (%zd given)", nargs);
    }
    if (resolve(state, args[0], &state->sendmsg, &sock) < 0) {
        return NULL;
    }
    PyObject *list = PySequence_Fast(args[2], "fds must be iterable");
    PyObject *items = list == NULL ? NULL : PySequence_Fast(args[1], "buffers must be iterable");
    if (items == NULL || size_of(list) > CMSGX_MAX_FDS || size_of(items) > FEW) {
        goto done;
    }
    for (; fds < size_of(list); fds++) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(item_of(list, fds), &overflow);
        if (overflow != 0 || number < 0 || number > INT_MAX) {
            PyErr_Format(PyExc_ValueError, "fds[%zd] is not a descriptor", fds);
            goto done;
        }
        numbers[fds] = (int)number;
    }
    if (audit(state, args[0], Py_None) < 0) {
        goto done;
    }
    for (; count < size_of(items); count++) {
        PyObject *item = item_of(items, count);
        Py_buffer *buffer = &buffers[count];
        if (PyBytes_CheckExact(item)) {
            buffer->obj = Py_NewRef(item);
            buffer->buf = BYTES_START(item);
            buffer->len = BYTES_SIZE(item);
        }
        else if (PyObject_GetBuffer(item, buffer, PyBUF_SIMPLE) < 0) {
            goto done;
        }
        iov[count].iov_base = buffer->buf;
        iov[count].iov_len = (size_t)buffer->len;
    }
    msg.msg_iovlen = (size_t)count;
    if (fds > 0) {
        msg.msg_control = control;
        msg.msg_controllen = cmsgx_put(control, SOL_SOCKET, SCM_RIGHTS, numbers,
                                       (size_t)fds * sizeof(int));
    }
    ssize_t sent = call(&sock, try_sendmsg, &msg, 0);
    result = sent < 0 ? NULL : PyLong_FromSsize_t(sent);

done:
    for (Py_ssize_t i = 0; i < count; i++) {
        PyBuffer_Release(&buffers[i]);
    }
    Py_XDECREF(items);
    Py_XDECREF(list);
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "too many");
    }
    return result;
}

/* put(number, data): sendmsg(2) with as little Python as there can be, to measure receiving. */
static PyObject *
heart_put(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t Py_UNUSED(nargs))
{
    struct iovec iov = {BYTES_START(args[1]), (size_t)BYTES_SIZE(args[1])};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (sendmsg((int)PyLong_AsLong(args[0]), &msg, 0) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_NewRef(Py_None);
}

/* A function that binds as a method does, as install() puts it into a class ----------------- */

typedef struct {
    PyObject_HEAD
    PyObject *function;
#ifndef Py_LIMITED_API
    vectorcallfunc vectorcall;
    vectorcallfunc target;
#endif
} method;

#ifdef Py_LIMITED_API
/* Heap types have no vectorcall in it before 3.12: the arguments are put into a tuple. */
static PyObject *
method_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return PyObject_Call(((method *)self)->function, args, kwargs);
}
#else
static PyObject *
method_call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    method *m = (method *)self;
    return m->target(m->function, args, nargsf, kwnames);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(method, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
#endif

static PyObject *
method_make(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    method *self = (method *)PyType_GenericAlloc(type, 0);
    if (self != NULL && !PyArg_ParseTuple(args, "O", &self->function)) {
        Py_CLEAR(self);
    }
    if (self != NULL) {
        Py_INCREF(self->function);
#ifndef Py_LIMITED_API
        self->vectorcall = method_call;
        self->target = PyVectorcall_Function(self->function);
#endif
    }
    return (PyObject *)self;
}

static void
method_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((method *)self)->function);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyType_Slot method_slots[] = {
    {Py_tp_new, method_make},
    {Py_tp_dealloc, method_dealloc},
#ifdef Py_LIMITED_API
    {Py_tp_call, method_call},
#else
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, method_members},
#endif
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "heart.method",
    .basicsize = sizeof(method),
#ifdef Py_LIMITED_API
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_METHOD_DESCRIPTOR,
#else
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_HAVE_VECTORCALL,
#endif
    .slots = method_slots,
};

/* The module ------------------------------------------------------------------------------- */

static PyObject *
attribute(const char *module, const char *name)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *found = imported == NULL ? NULL : PyObject_GetAttrString(imported, name);
    Py_XDECREF(imported);
    return found;
}

static int
set_stdlib_method(heart_state *state, stdlib_method *method, const char *name)
{
    method->name = PyUnicode_InternFromString(name);
    method->method = PyObject_GetAttrString((PyObject *)state->socket, name);
    return method->name == NULL || method->method == NULL ? -1 : 0;
}

static int
heart_exec(PyObject *module)
{
    heart_state *state = PyModule_GetState(module);
    if ((state->socket = (PyTypeObject *)attribute("_socket", "socket")) == NULL
        || (state->socket_class = (PyTypeObject *)attribute("socket", "socket")) == NULL
        || (state->audit = attribute("sys", "audit")) == NULL
        || (state->str_audit = PyUnicode_InternFromString("socket.sendmsg")) == NULL
        || (state->str_fileno = PyUnicode_InternFromString("fileno")) == NULL
        || (state->str_gettimeout = PyUnicode_InternFromString("gettimeout")) == NULL
        || set_stdlib_method(state, &state->sendmsg, "sendmsg") < 0
        || set_stdlib_method(state, &state->recvmsg, "recvmsg") < 0) {
        return -1;
    }
    state->fileno = function_of(state->socket, "fileno");
    state->gettimeout = function_of(state->socket, "gettimeout");
    state->family_at = member_at(state->socket, "family");
    if (state->fileno == NULL || state->gettimeout == NULL || state->family_at < 0) {
        PyErr_SetString(PyExc_ImportError, "_socket.socket is not as expected");
        return -1;
    }
    state->Method = (PyTypeObject *)PyType_FromSpec(&method_spec);
    return state->Method == NULL
        ? -1 : PyModule_AddObjectRef(module, "method", (PyObject *)state->Method);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL, NULL

static PyMethodDef functions[] = {
    {"recvmsg", FAST(heart_recvmsg)},
    {"recv_fds", FAST(heart_recv_fds)},
    {"send_fds", FAST(heart_send_fds)},
    {"put", FAST(heart_put)},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, heart_exec},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "heart",
    .m_size = sizeof(heart_state),
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit_heart(void)
{
    return PyModuleDef_Init(&definition);
}
