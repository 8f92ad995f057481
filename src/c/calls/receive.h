/* Receiving one message as a Message: what a Receiver does each time, and receive().

   The heart of the library is in cmsgx_receive(): everything is allocated before recvmsg(2);
   after it the message owns each number, and nothing in between can fail, collect garbage or
   run Python code. */

#ifndef CMSGX_RECEIVE_H
#define CMSGX_RECEIVE_H

#include "types/received.h"

/* Receives one message.  `buffer` is exclusively the caller's, and becomes the message's too.
   Returns a new Message; NULL with an exception, and then no descriptor is left open.  With
   CMSGX_ONE_TRY NULL without an exception where nothing is there. */
PyObject *cmsgx_receive(cmsgx_sock *sock, cmsgx_buffer *buffer, cmsgx_receive_config *config,
                        int flags);

/* receive(sock, bufsize, *, fds=0, flags=0, timeout=..., on_truncation='raise', close='now') */
PyObject *cmsgx_receive_once(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

#endif
