/* The Python type Message: its attributes and methods. */

#ifndef CMSGX_MESSAGE_TYPE_H
#define CMSGX_MESSAGE_TYPE_H

#include "state.h"

/* Adds the type to the module: 0, or -1 with an exception. */
int cmsgx_add_message(PyObject *module);

#endif
