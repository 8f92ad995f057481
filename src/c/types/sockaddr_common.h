/* What the files that read and write socket names share: the socket of a name, the form of a name
   of an unknown family, and errors. */

#ifndef CMSGX_SOCKADDR_COMMON_H
#define CMSGX_SOCKADDR_COMMON_H

#include "state.h"

/* The socket that a name belongs to, as far as it is known.  `fd` is any socket of the same network
   namespace, which determines the names of interfaces; or -1.  `proto` is the protocol, which
   determines the form of a name of Bluetooth or CAN; or -1. */
typedef struct {
    int fd;
    int proto;
} cmsgx_whence;

#define CMSGX_NOWHERE ((cmsgx_whence){-1, -1})

/* A name of a family that the socket module does not know, as (family, bytes): a new reference. */
PyObject *cmsgx_unknown_name_to_object(const struct sockaddr_storage *name, socklen_t size);

/* Writes a name from that form.  1 if written; 0 if `object` is something else. */
int cmsgx_unknown_name_from_object(int family, PyObject *object, struct sockaddr_storage *name,
                                   socklen_t *size);

/* Raises an error of the type that socket raises: what was given, and what would do.  -1. */
int cmsgx_raise_name_form(PyObject *type, PyObject *object, const char *family, const char *format);

/* The same in place of what PyArg_ParseTuple() raised for the items; an exception that Python code
   raised meanwhile stays.  -1. */
int cmsgx_raise_name_items(PyObject *object, const char *family, const char *format);

#endif
