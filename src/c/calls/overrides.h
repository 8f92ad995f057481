/* Whether a call may make its system call itself, or would bypass methods that the type of its
   `sock` overrides.

   A method that is called as a method never asks: who overrides it reaches it by super().  The
   module functions ask, and so do the typed calls. */

#ifndef CMSGX_OVERRIDES_H
#define CMSGX_OVERRIDES_H

#include "state.h"

/* The methods that a typed call would bypass, as bits of cmsgx_class. */
#define CMSGX_SENDING (1 << CMSGX_SENDMSG | 1 << CMSGX_SEND)
#define CMSGX_RECEIVING (1 << CMSGX_RECVMSG | 1 << CMSGX_RECV)

/* What is known about a subclass of _socket.socket, valid as long as nothing in it or in its bases
   changes; or NULL. */
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

/* Whether the type derives from _socket.socket, whatever its methods. */
int cmsgx_is_socket_class(cmsgx_state *state, PyTypeObject *type);

/* For a module function: whether the object has its own method of that name, which is then to be
   called.  1; 0 for a plain socket or an object that has only a number; -1 with an exception. */
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

/* For a typed call, which bypasses the methods in `names`, one of the masks above: 0, or -1 with
   TypeError if a subclass of socket.socket, or an object of another type, defines one of them.
   *is_green is set if it is a cmsgx.socket derived from a class of gevent or the like, for which C
   must not wait. */
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

/* check_socket(sock, /): whether it is such a green one; TypeError if a typed call would bypass a
   method that sends or receives. */
PyObject *cmsgx_check_socket(PyObject *module, PyObject *sock);

/* Calls an object's own method; args[0] is the object.  A new reference.  TypeError if the result
   would have to be awaited; a RecursionError gets a note that says how a method comes to call
   itself. */
PyObject *cmsgx_call_foreign(PyObject *name, PyObject *const *args, size_t count);

/* The same for Python: call_foreign(name, sock, ...). */
PyObject *cmsgx_call_foreign_from(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
