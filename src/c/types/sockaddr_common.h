/* What the readers and writers of socket names share: the socket that a name is of, the form of a
   name of any family, and what an error says. */

#ifndef CMSGX_SOCKADDR_COMMON_H
#define CMSGX_SOCKADDR_COMMON_H

#include "state.h"

/* The socket that a name belongs to, as far as it is known.  `fd` is any descriptor that is a
   socket of the same network namespace, by which interfaces have their names; or -1.  `proto` is
   the protocol, which says what a name of Bluetooth or CAN is; or -1. */
typedef struct {
    int fd;
    int proto;
} cmsgx_whence;

#define CMSGX_NOWHERE ((cmsgx_whence){-1, -1})

/* A name of a family that the socket module does not know: (family, bytes).  A new reference. */
PyObject *cmsgx_unknown_name_to_object(const struct sockaddr_storage *name, socklen_t size);

/* Back from that form: 1 written; 0 where `object` is something else. */
int cmsgx_unknown_name_from_object(int family, PyObject *object, struct sockaddr_storage *name,
                                   socklen_t *size);

/* Raises an error of the type that socket raises: what was given, and what would do.  -1. */
int cmsgx_raise_name_form(PyObject *type, PyObject *object, const char *family, const char *format);

/* The same in place of what PyArg_ParseTuple() raised for the items; an exception that Python code
   raised meanwhile stays.  -1. */
int cmsgx_raise_name_items(PyObject *object, const char *family, const char *format);

#endif
