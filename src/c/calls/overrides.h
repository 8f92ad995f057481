/* Which socket: whether a call may go below the methods that the type of its `sock` has.

   A method that is called as a method never asks: whoever overrides it reaches it by super(), and
   whoever replaced it keeps it.  The module functions ask, and so do the typed calls. */

#ifndef CMSGX_OVERRIDES_H
#define CMSGX_OVERRIDES_H

#include "state.h"

/* What a typed call would pass over, as bits of cmsgx_class. */
#define CMSGX_SENDING (1 << CMSGX_SENDMSG | 1 << CMSGX_SEND)
#define CMSGX_RECEIVING (1 << CMSGX_RECVMSG | 1 << CMSGX_RECV)

/* What is known of a class of sockets, as long as nothing in it or in its bases changes; or NULL.
   It derives from _socket.socket. */
static inline const cmsgx_class *
cmsgx_class_seen(const cmsgx_state *state, PyTypeObject *type)
{
    const cmsgx_class *seen = state->classes;
    while (seen->type != type) {
        if (++seen == state->classes + CMSGX_CLASSES) {
            return NULL;
        }
    }
    return seen->version == cmsgx_type_version(type) ? seen : NULL;
}

/* Whether the type derives from _socket.socket; without a look at its methods. */
int cmsgx_is_socket_class(cmsgx_state *state, PyTypeObject *type);

/* For a module function: whether the object has the method of its own, which is to be called.
   1, 0 where it is a plain socket or has but a number, -1 with an exception. */
int cmsgx_look_closer(cmsgx_state *state, PyObject *object, cmsgx_name name);

static inline int
cmsgx_is_foreign(cmsgx_state *state, PyObject *object, cmsgx_name name)
{
    const cmsgx_class *seen = cmsgx_class_seen(state, Py_TYPE(object));
    if (seen != NULL) {
        return seen->called >> name & 1;
    }
    return PyLong_CheckExact(object) ? 0 : cmsgx_look_closer(state, object, name);
}

/* For a typed call, which would pass over what `names` (one of the masks above) has: 0, or -1 with
   TypeError where a class below socket.socket, or an object of another type, brings one of them.
   *is_green (may be NULL): it is a cmsgx.socket over a class of gevent's or the like, for which
   nothing may wait in C. */
int cmsgx_allow_closer(cmsgx_state *state, PyObject *object, int names, int *is_green);

static inline int
cmsgx_allow(cmsgx_state *state, PyObject *object, int names, int *is_green)
{
    const cmsgx_class *seen = cmsgx_class_seen(state, Py_TYPE(object));
    *is_green = 0;
    if ((seen != NULL && !(seen->overridden & names)) || PyLong_CheckExact(object)) {
        return 0;
    }
    return cmsgx_allow_closer(state, object, names, is_green);
}

/* check_socket(sock, /): whether it is such a green one; TypeError if a typed call would pass over
   a method that sends or receives. */
PyObject *cmsgx_check_socket(PyObject *module, PyObject *sock);

/* Calls the method that an object has of its own; args[0] is the object.  A new reference.  A
   result that would have to be awaited is a TypeError, and a RecursionError gets a note that says
   how methods come to call themselves. */
PyObject *cmsgx_call_foreign(PyObject *name, PyObject *const *args, size_t count);

/* The same for Python: call_foreign(name, sock, ...). */
PyObject *cmsgx_call_foreign_from(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
