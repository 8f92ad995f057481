#include "types/sockaddr_common.h"

#include <stddef.h>

PyObject *
cmsgx_unknown_name_to_object(const struct sockaddr_storage *name, socklen_t size)
{
    size_t at = offsetof(struct sockaddr, sa_data);
    return Py_BuildValue("iy#", (int)name->ss_family, (const char *)name + at,
                         (Py_ssize_t)(size - at));
}

int
cmsgx_unknown_name_from_object(int family, PyObject *object, struct sockaddr_storage *name,
                               socklen_t *size)
{
    size_t at = offsetof(struct sockaddr, sa_data);
    PyObject *bytes = PyTuple_Check(object) && PyTuple_GET_SIZE(object) == 2
        ? PyTuple_GET_ITEM(object, 1) : NULL;
    int overflow;
    if (bytes == NULL || !PyBytes_Check(bytes) || !PyLong_Check(PyTuple_GET_ITEM(object, 0))
        || PyLong_AsLongAndOverflow(PyTuple_GET_ITEM(object, 0), &overflow) != family
        || (size_t)PyBytes_GET_SIZE(bytes) > sizeof(*name) - at) {
        return 0;
    }
    memset(name, 0, at);
    name->ss_family = (__typeof__(name->ss_family))family;
    memcpy((char *)name + at, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    *size = (socklen_t)(at + (size_t)PyBytes_GET_SIZE(bytes));
    return 1;
}

int
cmsgx_raise_name_form(PyObject *type, PyObject *object, const char *family, const char *format)
{
    PyErr_Format(type, "address: %R; an %s address is %s", object, family, format);
    return -1;
}

int
cmsgx_raise_name_items(PyObject *object, const char *family, const char *format)
{
    static PyObject *const *const types[] = {&PyExc_OverflowError, &PyExc_TypeError,
                                             &PyExc_ValueError};
    PyObject *error = cmsgx_save_exception();
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (error != NULL && Py_IS_TYPE(error, (PyTypeObject *)*types[i])) {
            Py_DECREF(error);
            return cmsgx_raise_name_form(*types[i], object, family, format);
        }
    }
    cmsgx_restore_exception(error);
    return -1;
}
