/* PreparedSend: a send that was filled once, and is tried until all of it has gone. */

#ifndef CMSGX_PREPARED_SEND_H
#define CMSGX_PREPARED_SEND_H

#include "state.h"

/* send_or_prepare(sock, data, *, fds=(), control=(), flags=0, address=None): one try, and a
   PreparedSend only if something is left. */
PyObject *cmsgx_send_or_prepare(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames);

int cmsgx_add_prepared_send(PyObject *module);

#endif
