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
cmsgx_raise_needed(const char *name, Py_ssize_t index, const char *needed, PyObject *object)
{
    const char *what = "", *type = Py_TYPE(object)->tp_name, *hint = "";
    if (PyType_Check(object)) {
        what = "the class ";
        type = ((PyTypeObject *)object)->tp_name;
    }
    else if (PyUnicode_Check(object) && strstr(needed, "bytes-like") != NULL) {
        hint = "; encode it: text.encode()";
    }
    else if (PyLong_Check(object) && strstr(needed, "(level, type, data)") != NULL) {
        hint = "; one (level, type, data) is given in a list";
    }
    return index >= 0
        ? PyErr_Format(PyExc_TypeError, "%s[%zd]: %s is needed, not %s%.200s%s", name, index,
                       needed, what, type, hint)
        : PyErr_Format(PyExc_TypeError, "%s: %s is needed, not %s%.200s%s", name, needed, what,
                       type, hint);
}

PyObject *
cmsgx_raise_too_large(const char *name, PyObject *object, size_t bits)
{
    PyObject *text = PyObject_Repr(object);
    if (text == NULL) {
        /* Too large for Python to convert to a str. */
        PyErr_Clear();
        text = PyUnicode_FromString("an int");
    }
    if (text != NULL) {
        PyErr_Format(PyExc_OverflowError, "%s: %U does not fit in %zu bits, signed", name, text,
                     bits);
        Py_DECREF(text);
    }
    return NULL;
}

void
cmsgx_name_argument(const char *name, Py_ssize_t index)
{
    PyObject *error = cmsgx_save_exception();
    PyObject *type = error == NULL ? NULL : (PyObject *)Py_TYPE(error);
    PyObject *traceback = error == NULL ? NULL : PyException_GetTraceback(error);
    int is_plain = traceback == NULL
        && (type == PyExc_TypeError || type == PyExc_ValueError || type == PyExc_OverflowError
            || type == PyExc_BufferError);
    Py_XDECREF(traceback);
    if (!is_plain) {
        cmsgx_restore_exception(error);
        return;
    }
    if (index >= 0) {
        PyErr_Format(type, "%s[%zd]: %S", name, index, error);
    }
    else {
        PyErr_Format(type, "%s: %S", name, error);
    }
    Py_DECREF(error);
}

PyObject *
cmsgx_raise_of_sock(int error, int fd)
{
    if (error == EBADF) {
        return fd < 0 ? cmsgx_raise_errno(error, "sock: it is closed")
                      : cmsgx_raise_errno(error, "sock: descriptor %d is not open", fd);
    }
    if (error == ENOTSOCK) {
        return cmsgx_raise_errno(error, "sock: descriptor %d is not a socket", fd);
    }
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyObject *
cmsgx_raise_memory_error(size_t bufsize)
{
    return PyErr_Format(PyExc_MemoryError, "bufsize: there is no memory for %zu bytes", bufsize);
}

PyObject *
cmsgx_raise_no_descriptor(const char *what, Py_ssize_t index, PyObject *object)
{
    return cmsgx_raise_needed(what, index, "an int, an Fd or an object with fileno()", object);
}

PyObject *
cmsgx_raise_no_end(int error)
{
    return cmsgx_raise_errno(error,
                             "poll(2) failed, so an empty message cannot be told from the end; "
                             "receive() returns it as it is");
}

/* The name of its type, without the module. */
static const char *
name_of_type(PyObject *object)
{
    const char *dot = strrchr(Py_TYPE(object)->tp_name, '.');
    return dot != NULL ? dot + 1 : Py_TYPE(object)->tp_name;
}

PyObject *
cmsgx_raise_no_copy(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyErr_Format(PyExc_TypeError, "cannot copy or pickle a %.200s", name_of_type(self));
}

PyObject *
cmsgx_raise_busy(PyObject *self)
{
    return PyErr_Format(PyExc_RuntimeError,
                        "this %s is in use by another thread, or by code that a signal handler "
                        "interrupted; use it in one thread at a time",
                        name_of_type(self));
}

PyObject *
cmsgx_raise_receiver_busy(PyObject *self)
{
    return PyErr_Format(PyExc_RuntimeError,
                        "this %s is in use by another thread, or by code that a signal handler "
                        "interrupted; make one for each thread",
                        name_of_type(self));
}
