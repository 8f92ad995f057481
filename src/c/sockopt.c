#include "sockopt.h"

#include "arguments.h"
#include "descriptor.h"
#include "errors.h"

#include <errno.h>

/* Pins a Descriptor; 0, or -1 with an exception. */
static int
borrow(cmsgx_state *state, PyObject *object, int *fd, PyObject **owner)
{
    *fd = cmsgx_number_of(state, object, "sock", CMSGX_SOCK_INDEX, owner);
    if (*fd < 0) {
        return -1;
    }
    if (*owner != NULL && (*fd = cmsgx_descriptor_pin(*owner)) < 0) {
        cmsgx_raise_unpinnable("sock", -1, object);
        return -1;
    }
    return 0;
}

static void
give_back(PyObject *owner)
{
    if (owner != NULL) {
        cmsgx_descriptor_unpin(owner);
    }
}

/* No option has more: the longest list of groups takes a quarter of it. */
#define MOST_OF_OPTION (1 << 20)

PyObject *
cmsgx_getsockopt(PyObject *module, PyObject *args)
{
    PyObject *object, *owner, *size_given;
    int level, name, fd;
    Py_ssize_t size;

    if (!PyArg_ParseTuple(args, "OiiO:getsockopt", &object, &level, &name, &size_given)
        || cmsgx_as_nearest(size_given, &size) < 0) {
        return NULL;
    }
    if (size < 0 || size > MOST_OF_OPTION) {
        return PyErr_Format(PyExc_ValueError, "size: %R; it is 0 to %d", size_given,
                            MOST_OF_OPTION);
    }
    if (borrow(cmsgx_state_of(module), object, &fd, &owner) < 0) {
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (bytes != NULL) {
        socklen_t length = (socklen_t)size;
        /* Linux writes less than it says it did for some: one byte for HCI_DATA_DIR. */
        memset(PyBytes_AS_STRING(bytes), 0, (size_t)size);
        if (getsockopt(fd, level, name, PyBytes_AS_STRING(bytes), &length) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            Py_CLEAR(bytes);
        }
        else {
            /* Some tell how long the value is, and not how much of it there was room for. */
            (void)_PyBytes_Resize(&bytes, length < (socklen_t)size ? (Py_ssize_t)length : size);
        }
    }
    give_back(owner);
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
    if (value.len > MOST_OF_OPTION) {
        PyErr_Format(PyExc_ValueError, "value: %zd bytes; %d at most", value.len, MOST_OF_OPTION);
    }
    else if (borrow(cmsgx_state_of(module), object, &fd, &owner) == 0) {
        if (setsockopt(fd, level, name, value.buf, (socklen_t)value.len) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
        else {
            result = Py_NewRef(Py_None);
        }
        give_back(owner);
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

    if (!PyArg_ParseTuple(args, "Oii:getsockopt_pidfd", &object, &level, &name)
        || borrow(state, object, &fd, &owner) < 0) {
        return NULL;
    }
    /* The owner first: nothing can fail once there is a descriptor. */
    PyObject *pidfd = cmsgx_descriptor_new(state->PidFd, -1, 0);
    if (pidfd != NULL) {
        if (getsockopt(fd, level, name, &number, &length) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            Py_CLEAR(pidfd);
        }
        else {
            cmsgx_descriptor_set(pidfd, number);
        }
    }
    give_back(owner);
    return pidfd;
}

PyObject *
cmsgx_getfamily(PyObject *module, PyObject *sock)
{
    PyObject *owner;
    int fd;

    if (borrow(cmsgx_state_of(module), sock, &fd, &owner) < 0) {
        return NULL;
    }
    int family = cmsgx_family_of(fd);
    PyObject *result = family < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(family);
    give_back(owner);
    return result;
}

PyObject *
cmsgx_getpeer(PyObject *module, PyObject *sock)
{
    PyObject *owner;
    struct cmsgx_peer peer;
    int fd;

    if (borrow(cmsgx_state_of(module), sock, &fd, &owner) < 0) {
        return NULL;
    }
    PyObject *result = cmsgx_peer_of(fd, &peer) < 0
        ? PyErr_SetFromErrno(PyExc_OSError)
        : PyBytes_FromStringAndSize((const char *)&peer, sizeof(peer));
    give_back(owner);
    return result;
}
