#include "calls/new_fd.h"

#include "arguments.h"
#include "bind.h"
#include "types/fd_ownership.h"
#include "errors.h"
#include "plain/platform.h"
#include "plain/walk.h"

#include <errno.h>

PyObject *
cmsgx_memfd_create(PyObject *module, PyObject *args)
{
    PyObject *name;
    unsigned int flags;

    if (!PyArg_ParseTuple(args, "O&I:memfd_create", PyUnicode_FSConverter, &name, &flags)) {
        return NULL;
    }
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *owner = cmsgx_need_bound(state) < 0 ? NULL : cmsgx_fd_new(state->Fd, -1, 0);
    if (owner != NULL) {
        int number = cmsgx_sys_memfd_create(PyBytes_AS_STRING(name), flags);
        if (number < 0) {
            cmsgx_raise_errno(errno, "memfd_create(2) of %R", name);
            Py_CLEAR(owner);
        }
        else {
            cmsgx_fd_set(owner, number);
        }
    }
    Py_DECREF(name);
    return owner;
}

PyObject *
cmsgx_own_result(PyObject *module, PyObject *args)
{
    PyTypeObject *type;
    PyObject *function;

    if (!PyArg_ParseTuple(args, "O!O:own_result", &PyType_Type, &type, &function)) {
        return NULL;
    }
    if (!PyType_IsSubtype(type, cmsgx_state_of(module)->FdBase)) {
        return PyErr_Format(PyExc_TypeError, "type: a subclass of FdBase is needed, not %.200s",
                            type->tp_name);
    }
    PyObject *pair = PyTuple_New(2);
    PyObject *owner = pair == NULL ? NULL : cmsgx_fd_new(type, -1, 0);
    PyObject *result = owner == NULL ? NULL : PyObject_CallNoArgs(function);
    if (result != NULL) {
        PyObject *item = PyTuple_CheckExact(result) && PyTuple_GET_SIZE(result) > 0
            ? PyTuple_GET_ITEM(result, 0) : result;
        int overflow = 1;
        long number = PyLong_CheckExact(item) ? PyLong_AsLongAndOverflow(item, &overflow) : -1;
        if (overflow == 0 && number >= 0 && number <= INT_MAX) {
            cmsgx_fd_set(owner, (int)number);
            PyTuple_SET_ITEM(pair, 0, owner);
            PyTuple_SET_ITEM(pair, 1, result);
            return pair;
        }
        PyErr_Format(PyExc_TypeError, "%R returned %R, which is not a descriptor", function, item);
    }
    Py_XDECREF(result);
    Py_XDECREF(owner);
    Py_XDECREF(pair);
    return NULL;
}

PyObject *
cmsgx_close_each(PyObject *Py_UNUSED(module), PyObject *numbers)
{
    Py_buffer view;
    if (cmsgx_as_buffer(numbers, "numbers", -1, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (size_t at = 0; at + sizeof(int) <= (size_t)view.len; at += sizeof(int)) {
        int fd;
        memcpy(&fd, (const char *)view.buf + at, sizeof(fd));
        cmsgx_close_all(&fd, 1);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}
