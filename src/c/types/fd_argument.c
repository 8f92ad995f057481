#include "types/fd_argument.h"

#include "arguments.h"
#include "errors.h"

#include <errno.h>

/* Errors ------------------------------------------------------------------------------- */

PyObject *
cmsgx_raise_gone(const char *what, Py_ssize_t index, PyObject *self)
{
    cmsgx_gone how = cmsgx_fd_gone(self);
    if (how == CMSGX_GONE_CLOSED) {
        return cmsgx_raise_closed(what, index, self);   /* which says it by repr() */
    }
    const char *sentence = cmsgx_gone_texts[how].sentence;
    return index >= 0
        ? cmsgx_raise_errno(EBADF, "%s[%zd]: %R: %s", what, index, self, sentence)
        : cmsgx_raise_errno(EBADF, "%s: %R: %s", what, self, sentence);
}

PyObject *
cmsgx_raise_unpinnable(const char *what, Py_ssize_t index, PyObject *self)
{
    if (cmsgx_fd_number(self) < 0) {
        return cmsgx_raise_gone(what, index, self);
    }
    return index >= 0
        ? cmsgx_raise_errno(EBUSY, "%s[%zd]: too many system calls use %R", what, index, self)
        : cmsgx_raise_errno(EBUSY, "%s: too many system calls use %R", what, self);
}

/* Numbers ------------------------------------------------------------------------------ */

/* What fileno() says; -1 with an exception. */
static int
ask_for_number(cmsgx_state *state, PyObject *object, const char *what, Py_ssize_t index)
{
    PyObject *method;
    int has = cmsgx_fileno_method(state, object, &method);
    if (has <= 0) {
        return has < 0 ? -1 : (cmsgx_raise_no_descriptor(what, index, object), -1);
    }
    PyObject *result = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    if (result == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) {
            return -1;
        }
        /* As a file that is closed does. */
        PyErr_Clear();
        if (index >= 0) {
            PyErr_Format(PyExc_ValueError, "%s[%zd]: %R has no file descriptor (closed?)", what,
                         index, object);
        }
        else {
            cmsgx_raise_closed(what, index, object);
        }
        return -1;
    }
    int number = -1;
    if (!PyLong_Check(result)) {
        cmsgx_raise_no_descriptor(what, index, object);
    }
    else if (cmsgx_as_int(result, what, &number) == 0 && number < 0) {
        /* As a socket that is closed does. */
        cmsgx_raise_closed(what, index, object);
        number = -1;
    }
    Py_DECREF(result);
    return number;
}

int
cmsgx_fd_from_object(cmsgx_state *state, PyObject *object, const char *what, Py_ssize_t index,
                PyObject **owner)
{
    *owner = NULL;
    if (PyLong_CheckExact(object) || (PyLong_Check(object) && !PyBool_Check(object))) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(object, &overflow);
        if (overflow == 0 && number >= 0 && number <= INT_MAX) {
            return (int)number;
        }
        if (index == CMSGX_SOCK_INDEX && (overflow != 0 ? overflow : number) < 0) {
            cmsgx_raise_closed(what, index, object);
        }
        else if (index >= 0) {
            PyErr_Format(PyExc_ValueError, "%s[%zd]: %R is not a file descriptor", what, index,
                         object);
        }
        else {
            PyErr_Format(PyExc_ValueError, "%s: %R is not a file descriptor", what, object);
        }
        return -1;
    }
    if (cmsgx_fd_check(state, object)) {
        int number = cmsgx_fd_number(object);
        if (number < 0) {
            cmsgx_raise_gone(what, index, object);
            return -1;
        }
        *owner = object;
        return number;
    }
    if (PyBool_Check(object) || PyType_Check(object)) {
        cmsgx_raise_no_descriptor(what, index, object);
        return -1;
    }
    return ask_for_number(state, object, what, index);
}

int
cmsgx_borrow(cmsgx_state *state, PyObject *sock, int *fd, PyObject **owner)
{
    *fd = cmsgx_fd_from_object(state, sock, "sock", CMSGX_SOCK_INDEX, owner);
    if (*fd < 0) {
        return -1;
    }
    if (*owner != NULL && (*fd = cmsgx_fd_pin(*owner)) < 0) {
        cmsgx_raise_unpinnable("sock", -1, sock);
        return -1;
    }
    return 0;
}

void
cmsgx_give_back(PyObject *owner)
{
    if (owner != NULL) {
        int error = errno;
        cmsgx_fd_unpin(owner);
        errno = error;
    }
}
