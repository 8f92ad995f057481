/* The inside of a socket object, an instance of the C type of the `socket` module: where it keeps
   its number and its timeout, which is found once, and how it takes over the descriptor of an Fd.
   */

#ifndef CMSGX_SOCKET_OBJECT_H
#define CMSGX_SOCKET_OBJECT_H

#include "state.h"

/* give_to_socket(fd, sock, family, type, proto, is_blocking, /): makes `sock`, which was not
   initialised, the owner of the descriptor of `fd`, in one step.  If that fails, `fd` owns it as
   before. */
PyObject *cmsgx_give_to_socket(PyObject *module, PyObject *args);

/* Finds what the state keeps of the socket module.  0, or -1 with an exception. */
int cmsgx_add_socket_object(PyObject *module);

#endif
