/* Errors in one line: each of the functions that return PyObject * sets an exception, and returns
   NULL. */

#ifndef CMSGX_ERRORS_H
#define CMSGX_ERRORS_H

#include "compat.h"

/* OSError (or its subclass for that errno) with "strerror: message". */
PyObject *cmsgx_raise_errno(int error, const char *format, ...);

/* `type` is the NotSupportedError of the module's state. */
PyObject *cmsgx_raise_not_supported(PyObject *type, int error, const char *format, ...);

/* EBADF for a descriptor object that owns no descriptor: `what`, or `what[index]` if index >= 0. */
PyObject *cmsgx_raise_closed(const char *what, Py_ssize_t index, PyObject *object);

/* TypeError for an argument of the wrong type, `name`, or `name[index]` if index >= 0: says what is
   `needed` instead, in words, and what it was. */
PyObject *cmsgx_raise_needed(const char *name, Py_ssize_t index, const char *needed,
                             PyObject *object);

/* OverflowError for an int that does not fit. */
PyObject *cmsgx_raise_too_large(const char *name, PyObject *object, size_t bits);

/* Puts `name[index]` before the text of the current exception, if that was raised by C code and not
   by Python code. */
void cmsgx_name_argument(const char *name, Py_ssize_t index);

/* The OSError of a system call on the descriptor that an argument named `sock` stands for. */
PyObject *cmsgx_raise_of_sock(int error, int fd);

/* MemoryError for a buffer of `bufsize` bytes. */
PyObject *cmsgx_raise_memory_error(size_t bufsize);

/* TypeError for an object that is not a descriptor. */
PyObject *cmsgx_raise_no_descriptor(const char *what, Py_ssize_t index, PyObject *object);

/* OSError for a loop, or is_end(), that cannot tell an empty message from the end. */
PyObject *cmsgx_raise_no_end(int error);

/* TypeError for an object that can be neither copied nor pickled, and the methods that raise it, in
   any protocol: for types whose instances own something, or point at what is owned elsewhere. */
PyObject *cmsgx_raise_no_copy(PyObject *self, PyObject *ignored);
#define CMSGX_NO_COPY \
    {"__reduce__", cmsgx_raise_no_copy, METH_NOARGS, NULL}, \
    {"__reduce_ex__", cmsgx_raise_no_copy, METH_O, NULL}

/* RuntimeError for a Message or Batch, and for a receiver, that another thread is using. */
PyObject *cmsgx_raise_busy(PyObject *self);
PyObject *cmsgx_raise_receiver_busy(PyObject *self);

#endif
