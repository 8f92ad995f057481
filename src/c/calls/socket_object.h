/* What is inside of a socket object, an instance of the C type that the `socket` module has: where
   it keeps its number and its timeout, found once; and how one is made of an Fd. */

#ifndef CMSGX_SOCKET_OBJECT_H
#define CMSGX_SOCKET_OBJECT_H

#include "state.h"

/* give_to_socket(fd, sock, family, type, proto, is_blocking, /): makes `sock`, which was not
   initialised, the owner of the descriptor of `fd`, in one step.  Where that fails, `fd` owns it
   as before. */
PyObject *cmsgx_give_to_socket(PyObject *module, PyObject *args);

int cmsgx_add_socket_object(PyObject *module);

#endif
