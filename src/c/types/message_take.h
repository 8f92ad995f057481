/* The methods of Message that move descriptors out of it, as objects or as numbers. */

#ifndef CMSGX_MESSAGE_TAKE_H
#define CMSGX_MESSAGE_TAKE_H

#include "state.h"

PyObject *cmsgx_message_take(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *cmsgx_message_take_one(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames);
PyObject *cmsgx_message_take_all(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *kwnames);
PyObject *cmsgx_message_detach_all(PyObject *object, PyObject *ignored);

#endif
