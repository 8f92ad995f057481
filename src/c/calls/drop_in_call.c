#include "calls/drop_in_call.h"

#include "types/address.h"

int
cmsgx_drop_in_allocate(cmsgx_drop_in *call, Py_ssize_t control_size)
{
    if (control_size < 0 || control_size > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "ancbufsize: %zd; must be 0 to %d", control_size, INT_MAX);
        return -1;
    }
    unsigned char *control = PyMem_Malloc((size_t)control_size + CMSGX_EXTRA_CONTROL);
    if (control == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    call->control = control;
    call->control_size = (size_t)control_size;
    return 0;
}

int
cmsgx_drop_in_warn(void)
{
    return PyErr_WarnEx(PyExc_RuntimeWarning,
                        "received malformed or improperly-truncated ancillary data", 1);
}

static int
msg_flags(const cmsgx_drop_in *call)
{
    return call->flags_asked & CMSGX_MSG_CMSG_CLOEXEC
        ? call->msg.msg_flags
        : call->msg.msg_flags & ~CMSGX_MSG_CMSG_CLOEXEC;
}

static PyObject *
drop_in_address(const cmsgx_drop_in *call)
{
    socklen_t size = call->msg.msg_namelen;
    cmsgx_whence whence = CMSGX_NOWHERE;
    int borrowed = -1;
    if (size > 0 && cmsgx_names_need_socket(call->name.ss_family)) {
        borrowed = cmsgx_sock_borrow(call->sock);
        whence.fd = borrowed;
        whence.proto = cmsgx_sock_proto(call->sock);
    }
    PyObject *address = cmsgx_name_to_object(
        &call->name, size <= sizeof(call->name) ? size : (socklen_t)sizeof(call->name), whence);
    if (borrowed >= 0) {
        cmsgx_sock_give_back(call->sock);
    }
    return address;
}

PyObject *
cmsgx_drop_in_result(const cmsgx_drop_in *call, PyObject *data, PyObject *second)
{
    PyObject *address = data == NULL || second == NULL ? NULL : drop_in_address(call);
    PyObject *flags = address == NULL ? NULL : PyLong_FromLong(msg_flags(call));
    PyObject *result = flags == NULL ? NULL : PyTuple_New(4);
    if (result == NULL) {
        Py_XDECREF(data);
        Py_XDECREF(second);
        Py_XDECREF(address);
        Py_XDECREF(flags);
        return NULL;
    }
    PyTuple_SET_ITEM(result, 0, data);
    PyTuple_SET_ITEM(result, 1, second);
    PyTuple_SET_ITEM(result, 2, flags);
    PyTuple_SET_ITEM(result, 3, address);
    return result;
}
