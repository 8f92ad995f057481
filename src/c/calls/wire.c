#include "calls/wire.h"

#include "arguments.h"
#include "calls/outgoing_control.h"

/* Parses a length with the limits of the socket module, so that results and errors are the same. */
static int
as_length(PyObject *number, const char *name, size_t max, size_t *length)
{
    Py_ssize_t value;
    if (cmsgx_as_size(number, "length", &value) < 0) {
        return -1;
    }
    if (value < 0 || (size_t)value > max) {
        PyErr_Format(PyExc_OverflowError, "length: %zd; %s() takes 0 to %zu", value, name, max);
        return -1;
    }
    *length = (size_t)value;
    return 0;
}

PyObject *
cmsgx_cmsg_align(PyObject *Py_UNUSED(module), PyObject *number)
{
    size_t length;
    size_t unit = CMSG_SPACE(1) - CMSG_SPACE(0);
    if (as_length(number, "CMSG_ALIGN", INT_MAX - unit + 1, &length) < 0) {
        return NULL;
    }
    return PyLong_FromSize_t((length + unit - 1) & ~(unit - 1));
}

PyObject *
cmsgx_cmsg_len(PyObject *Py_UNUSED(module), PyObject *number)
{
    size_t length;
    if (as_length(number, "CMSG_LEN", INT_MAX - CMSG_LEN(0), &length) < 0) {
        return NULL;
    }
    return PyLong_FromSize_t(CMSG_LEN(length));
}

PyObject *
cmsgx_cmsg_space(PyObject *Py_UNUSED(module), PyObject *number)
{
    size_t length;
    if (as_length(number, "CMSG_SPACE", INT_MAX - CMSG_SPACE(1), &length) < 0) {
        return NULL;
    }
    return PyLong_FromSize_t(CMSG_SPACE(length));
}

PyObject *
cmsgx_read_header(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    Py_buffer buffer;
    Py_ssize_t at;
    cmsgx_header header;
    PyObject *result = NULL;

    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "read_header() takes a buffer and an offset");
        return NULL;
    }
    if (cmsgx_as_size(args[1], "offset", &at) < 0
        || cmsgx_as_buffer(args[0], "control", -1, &buffer, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (at < 0) {
        PyErr_SetString(PyExc_ValueError, "offset: it cannot be negative");
    }
    else {
        size_t offset = (size_t)at;
        cmsgx_step step = cmsgx_walk(buffer.buf, (size_t)buffer.len, &offset, &header);
        if (step == CMSGX_END) {
            result = Py_NewRef(Py_None);
        }
        else {
            struct cmsghdr raw;
            memcpy(&raw, (const char *)buffer.buf + header.offset, sizeof(raw));
            Py_ssize_t start = (Py_ssize_t)(header.offset + CMSG_LEN(0));
            result = Py_BuildValue("iiKnnnO", header.level, header.type,
                                   (unsigned long long)raw.cmsg_len, start,
                                   start + (Py_ssize_t)header.size, (Py_ssize_t)offset,
                                   step == CMSGX_MESSAGE ? Py_True : Py_False);
        }
    }
    PyBuffer_Release(&buffer);
    return result;
}

PyObject *
cmsgx_build(PyObject *module, PyObject *control)
{
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
    PyObject *bytes = NULL;
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), cmsgx_state_of(module), NULL);
    PyObject *items = PyObject_TypeCheck(control, out.state->Record)
        ? PyTuple_Pack(1, control)
        : cmsgx_sequence(control, "control", CMSGX_NEEDED_CONTROL);
    if (items != NULL && cmsgx_outgoing_add_ancdata(&out, items, "control") >= 0) {
        bytes = PyBytes_FromStringAndSize((const char *)out.control,
                                          (Py_ssize_t)out.control_used);
    }
    Py_XDECREF(items);
    cmsgx_outgoing_clear(&out);
    return bytes;
}
