/* Control buffers for Python: the CMSG_* macros of the platform, and functions that read and build
   one. */

#ifndef CMSGX_WIRE_H
#define CMSGX_WIRE_H

#include "state.h"

PyObject *cmsgx_cmsg_align(PyObject *module, PyObject *number);
PyObject *cmsgx_cmsg_len(PyObject *module, PyObject *number);
PyObject *cmsgx_cmsg_space(PyObject *module, PyObject *number);

/* read_header(buffer, offset): (level, type, cmsg_len, start and end of the data, offset of the
   next header, whether cmsg_len is valid), or None at the end. */
PyObject *cmsgx_read_header(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

/* build(control): a control buffer, as bytes, from typed control messages and (level, type,
   data). */
PyObject *cmsgx_build(PyObject *module, PyObject *control);

#endif
