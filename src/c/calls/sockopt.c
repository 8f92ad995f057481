#include "calls/sockopt.h"

#include "arguments.h"
#include "bind.h"
#include "types/fd_argument.h"
#include "errors.h"

#include <errno.h>

/* Bytes.  No option has more: the longest list of groups takes a quarter of it. */
#define MAX_OPTION_SIZE (1 << 20)

PyObject *
cmsgx_getsockopt(PyObject *module, PyObject *args)
{
    PyObject *object, *owner, *size_given;
    int level, name, fd;
    Py_ssize_t size;

    if (!PyArg_ParseTuple(args, "OiiO:getsockopt", &object, &level, &name, &size_given)
        || cmsgx_as_nearest(size_given, "size", &size) < 0) {
        return NULL;
    }
    if (size < 0 || size > MAX_OPTION_SIZE) {
        return PyErr_Format(PyExc_ValueError, "size: %R; must be 0 to %d", size_given,
                            MAX_OPTION_SIZE);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (bytes == NULL) {
        return NULL;
    }
    if (cmsgx_borrow(cmsgx_state_of(module), object, &fd, &owner) < 0) {
        Py_DECREF(bytes);
        return NULL;
    }
    socklen_t length = (socklen_t)size;
    /* For some options Linux writes less than it reports: one byte for HCI_DATA_DIR. */
    memset(PyBytes_AS_STRING(bytes), 0, (size_t)size);
    int result = getsockopt(fd, level, name, PyBytes_AS_STRING(bytes), &length);
    cmsgx_give_back(owner);
    if (result < 0) {
        Py_DECREF(bytes);
        return cmsgx_raise_of_sock(errno, fd);
    }
    /* Some options report the length of the value rather than how much of it fitted. */
    (void)_PyBytes_Resize(&bytes, length < (socklen_t)size ? (Py_ssize_t)length : size);
    return bytes;
}

PyObject *
cmsgx_setsockopt(PyObject *module, PyObject *args)
{
    PyObject *object, *owner;
    int level, name, fd;
    Py_buffer value;

    if (!PyArg_ParseTuple(args, "Oiiy*:setsockopt", &object, &level, &name, &value)) {
        return NULL;
    }
    PyObject *result = NULL;
    if (value.len > MAX_OPTION_SIZE) {
        PyErr_Format(PyExc_ValueError, "value: %zd bytes; %d at most", value.len, MAX_OPTION_SIZE);
    }
    else if (cmsgx_borrow(cmsgx_state_of(module), object, &fd, &owner) == 0) {
        int done = setsockopt(fd, level, name, value.buf, (socklen_t)value.len);
        cmsgx_give_back(owner);
        result = done < 0 ? cmsgx_raise_of_sock(errno, fd) : Py_NewRef(Py_None);
    }
    PyBuffer_Release(&value);
    return result;
}

PyObject *
cmsgx_getsockopt_pidfd(PyObject *module, PyObject *args)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *object, *owner;
    int level, name, fd;
    int number = -1;
    socklen_t length = sizeof(number);

    if (!PyArg_ParseTuple(args, "Oii:getsockopt_pidfd", &object, &level, &name)) {
        return NULL;
    }
    /* The owner first, as nothing may fail once there is a descriptor. */
    PyObject *pidfd = cmsgx_need_bound(state) < 0 ? NULL : cmsgx_fd_new(state->PidFd, -1, 0);
    if (pidfd == NULL) {
        return NULL;
    }
    if (cmsgx_borrow(state, object, &fd, &owner) < 0) {
        Py_DECREF(pidfd);
        return NULL;
    }
    int result = getsockopt(fd, level, name, &number, &length);
    if (result == 0) {
        cmsgx_fd_set(pidfd, number);
    }
    cmsgx_give_back(owner);
    if (result < 0) {
        Py_DECREF(pidfd);
        return cmsgx_raise_of_sock(errno, fd);
    }
    return pidfd;
}

PyObject *
cmsgx_getfamily(PyObject *module, PyObject *sock)
{
    PyObject *owner;
    int fd;

    if (cmsgx_borrow(cmsgx_state_of(module), sock, &fd, &owner) < 0) {
        return NULL;
    }
    int family = cmsgx_family_of(fd);
    cmsgx_give_back(owner);
    return family < 0 ? cmsgx_raise_of_sock(errno, fd) : PyLong_FromLong(family);
}

PyObject *
cmsgx_getpeer(PyObject *module, PyObject *sock)
{
    PyObject *owner;
    struct cmsgx_peer peer;
    int fd;

    if (cmsgx_borrow(cmsgx_state_of(module), sock, &fd, &owner) < 0) {
        return NULL;
    }
    int result = cmsgx_peer_of(fd, &peer);
    cmsgx_give_back(owner);
    return result < 0 ? cmsgx_raise_of_sock(errno, fd)
                      : PyBytes_FromStringAndSize((const char *)&peer, sizeof(peer));
}
