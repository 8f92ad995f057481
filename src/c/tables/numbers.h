/* The numbers that Python takes from here: AF_*, SOL_*, SCM_* and the like. */

#ifndef CMSGX_NUMBERS_H
#define CMSGX_NUMBERS_H

#include "state.h"

/* Adds each to the module by its name.  0, or -1 with an exception. */
int cmsgx_add_numbers(PyObject *module);

#endif
