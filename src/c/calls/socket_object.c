#include "calls/socket_object.h"

#include "types/fd.h"

/* A socket object for a descriptor that an Fd owns ------------------------------------- */

/* Removes the timeout of a socket object, and leaves O_NONBLOCK alone.  Does nothing if it is not
   known where the object keeps its timeout. */
static void
clear_timeout(const cmsgx_state *state, PyObject *object)
{
    const int64_t none = -1;
    if (state->socket_timeout_at > 0) {
        memcpy((char *)object + state->socket_timeout_at, &none, sizeof(none));
    }
}

PyObject *
cmsgx_give_to_socket(PyObject *module, PyObject *args)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *fd, *sock;
    int family, type, proto, is_blocking;

    if (!PyArg_ParseTuple(args, "O!O!iiip:give_to_socket", state->FdBase, &fd, state->socket,
                          &sock, &family, &type, &proto, &is_blocking)) {
        return NULL;
    }
    PyObject *arguments = Py_BuildValue("(iiii)", family, type, proto, cmsgx_fd_number(fd));
    if (cmsgx_fd_give_to(fd, sock, state->socket->tp_init, arguments, CMSGX_GONE_TO_SOCKET) < 0) {
        return NULL;
    }
    if (is_blocking && (type & CMSGX_SOCK_NONBLOCK)) {
        clear_timeout(state, sock);
    }
    Py_RETURN_NONE;
}

/* What is found in the socket module ---------------------------------------------------- */

static PyCFunction
function_of(PyTypeObject *type, const char *name)
{
    PyCFunction function = NULL;
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)type, name);
    if (descriptor != NULL && Py_IS_TYPE(descriptor, &PyMethodDescr_Type)
        && ((PyMethodDescrObject *)descriptor)->d_method->ml_flags == METH_NOARGS) {
        function = ((PyMethodDescrObject *)descriptor)->d_method->ml_meth;
    }
    Py_XDECREF(descriptor);
    if (function == NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ImportError, "_socket.socket.%s is not the expected method", name);
    }
    return function;
}

static PyMemberDef *
member_of(PyTypeObject *type, const char *name)
{
    PyMemberDef *member = NULL;
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)type, name);
    if (descriptor != NULL && Py_IS_TYPE(descriptor, &PyMemberDescr_Type)
        && ((PyMemberDescrObject *)descriptor)->d_member->type == Py_T_INT) {
        member = ((PyMemberDescrObject *)descriptor)->d_member;
    }
    Py_XDECREF(descriptor);
    if (member == NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ImportError, "_socket.socket.%s is not the expected member", name);
    }
    return member;
}

static int
keeps(PyObject *sock, Py_ssize_t at, const char *seconds, int64_t nanoseconds)
{
    int64_t kept;
    PyObject *timeout = PyFloat_FromDouble(PyOS_string_to_double(seconds, NULL, NULL));
    PyObject *result = timeout == NULL
        ? NULL : PyObject_CallMethod(sock, "settimeout", "O", timeout);
    Py_XDECREF(timeout);
    Py_XDECREF(result);
    /* It has no descriptor, so settimeout() fails, but only after it has stored the timeout. */
    PyErr_Clear();
    memcpy(&kept, (const char *)sock + at, sizeof(kept));
    return kept == nanoseconds;
}

/* Where a socket object keeps its descriptor and its timeout: before its family, and after its
   protocol number and a pointer, in every CPython so far (PySocketSockObject in
   Modules/socketmodule.h).  Trusted only if an unopened socket shows the expected values there;
   otherwise the object's methods are called each time. */
static void
find_places(cmsgx_state *state, PyTypeObject *type, const PyMemberDef *family,
            const PyMemberDef *proto)
{
    size_t at = (size_t)proto->offset + sizeof(int);
    at = (at + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *) + sizeof(void *);
    at = (at + CMSGX_ALIGN64 - 1) / CMSGX_ALIGN64 * CMSGX_ALIGN64;
    if (at + sizeof(int64_t) > (size_t)type->tp_basicsize
        || (size_t)family->offset < sizeof(PyObject) + sizeof(int)) {
        return;
    }
    PyObject *none = PyTuple_New(0);
    PyObject *sock = none == NULL ? NULL : type->tp_new(type, none, NULL);
    if (sock != NULL && keeps(sock, (Py_ssize_t)at, "1.25", INT64_C(1250000000))
        && keeps(sock, (Py_ssize_t)at, "86400.5", INT64_C(86400500000000))
        && keeps(sock, (Py_ssize_t)at, "0", 0)) {
        int fd;
        state->socket_timeout_at = (Py_ssize_t)at;
        at = (size_t)family->offset - sizeof(fd);
        memcpy(&fd, (const char *)sock + at, sizeof(fd));
        state->socket_fd_at = fd == -1 ? (Py_ssize_t)at : 0;
    }
    Py_XDECREF(sock);
    Py_XDECREF(none);
    PyErr_Clear();
}

int
cmsgx_add_socket_object(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *socket = PyImport_ImportModule("_socket");
    PyObject *type = socket == NULL ? NULL : PyObject_GetAttrString(socket, "socket");
    Py_XDECREF(socket);
    if (type == NULL) {
        return -1;
    }
    state->socket = (PyTypeObject *)type;
    for (int i = 0; i < CMSGX_NAMES; i++) {
        cmsgx_stdlib_method *one = &state->stdlib_methods[i];
        if ((one->method = PyObject_GetAttr(type, one->name)) == NULL) {
            return -1;
        }
    }
    if ((state->socket_proto = member_of(state->socket, "proto")) == NULL
        || (state->socket_fileno = function_of(state->socket, "fileno")) == NULL
        || (state->socket_gettimeout = function_of(state->socket, "gettimeout")) == NULL
        || (state->socket_family = member_of(state->socket, "family")) == NULL
        || (state->socket_type = member_of(state->socket, "type")) == NULL) {
        return -1;
    }
    find_places(state, state->socket, state->socket_family, state->socket_proto);
    return 0;
}
