/* The methods of Message that find control messages and decode them. */

#ifndef CMSGX_MESSAGE_CONTROL_H
#define CMSGX_MESSAGE_CONTROL_H

#include "state.h"

PyObject *cmsgx_message_subscript(PyObject *object, PyObject *kind);
PyObject *cmsgx_message_get(PyObject *object, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_message_get_all(PyObject *object, PyObject *kind);
int cmsgx_message_contains(PyObject *object, PyObject *kind);
PyObject *cmsgx_message_control(PyObject *object, void *closure);
PyObject *cmsgx_message_iter(PyObject *object);

#endif
