#include "errors.h"

#include <errno.h>
#include <string.h>

PyObject *
cmsgx_raise_errno(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (message == NULL) {
        return NULL;
    }
    PyObject *text = PyUnicode_FromFormat("%s: %U", strerror(error), message);
    Py_DECREF(message);
    if (text == NULL) {
        return NULL;
    }
    PyObject *exception = PyObject_CallFunction(PyExc_OSError, "iN", error, text);
    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}

PyObject *
cmsgx_raise_not_supported(PyObject *type, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *text = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    PyObject *exception = text == NULL ? NULL : PyObject_CallFunction(type, "iN", error, text);
    if (exception != NULL) {
        PyErr_SetObject(type, exception);
        Py_DECREF(exception);
    }
    return NULL;
}

PyObject *
cmsgx_raise_closed(const char *what, Py_ssize_t index, PyObject *object)
{
    return index >= 0 ? cmsgx_raise_errno(EBADF, "%s[%zd]: %R", what, index, object)
                      : cmsgx_raise_errno(EBADF, "%s: %R", what, object);
}

PyObject *
cmsgx_raise_no_descriptor(const char *what, Py_ssize_t index, PyObject *object)
{
    const char *type = Py_TYPE(object)->tp_name;
    const char *hint = "an int, an Fd or an object with fileno() is needed";
    return index >= 0
        ? PyErr_Format(PyExc_TypeError, "%s[%zd]: %s, not %.200s", what, index, hint, type)
        : PyErr_Format(PyExc_TypeError, "%s: %s, not %.200s", what, hint, type);
}

PyObject *
cmsgx_raise_no_end(int error)
{
    return cmsgx_raise_errno(error,
                             "poll(2) failed, so an empty message cannot be told from the end; "
                             "call receive() instead of the loop");
}

PyObject *
cmsgx_raise_no_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.');
    return PyErr_Format(PyExc_TypeError, "cannot copy or pickle a %.200s",
                        name != NULL ? name + 1 : Py_TYPE(self)->tp_name);
}

PyObject *
cmsgx_raise_busy(PyObject *self)
{
    /* By another thread, or by this one, which is below it on the stack. */
    return PyErr_Format(PyExc_RuntimeError, "this %s is in use", Py_TYPE(self)->tp_name);
}
