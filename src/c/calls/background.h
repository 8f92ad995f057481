/* What Python code sees of the background closer. */

#ifndef CMSGX_BACKGROUND_H
#define CMSGX_BACKGROUND_H

#include "state.h"

PyObject *cmsgx_closer_submit(PyObject *module, PyObject *descriptor);
PyObject *cmsgx_closer_wait_for(PyObject *module, PyObject *seconds);
PyObject *cmsgx_closer_counts(PyObject *module, PyObject *ignored);
PyObject *cmsgx_closer_resume_all(PyObject *module, PyObject *ignored);

#endif
