/* Options: several socket options that are set, or asked for, by one call. */

#ifndef CMSGX_OPTIONS_H
#define CMSGX_OPTIONS_H

#include "state.h"

/* Options.configuration(), see its docstring: `plans` is a dict, `noted` a list. */
PyObject *cmsgx_configuration(cmsgx_state *state, PyObject *sock, PyObject *plans, PyObject *noted,
                              Py_ssize_t start);

/* Adds Options to the module: 0, or -1 with an exception. */
int cmsgx_add_options(PyObject *module);

#endif
