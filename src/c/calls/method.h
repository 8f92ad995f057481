/* Method: lets a C function of this module bind as a method of any class.

   A builtin function has no __get__, and a method descriptor would need a class of ours as
   its owner and could not reach the module's state.  This type is a callable that binds, with
   Py_TPFLAGS_METHOD_DESCRIPTOR, so that no bound object is made for a call.

   It wraps a function of this module that is also a method of a socket, and does the work of that
   function itself: see overrides.h. */

#ifndef CMSGX_METHOD_H
#define CMSGX_METHOD_H

#include "state.h"

int cmsgx_add_method(PyObject *module);

#endif
