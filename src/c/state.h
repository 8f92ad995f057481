/* The state of one module object: types, exceptions, interned names, what `socket` offers. */

#ifndef CMSGX_STATE_H
#define CMSGX_STATE_H

/* First, as Python.h chooses what the system's headers show. */
#include "compat.h"

#include "closer.h"
#include "constants.h"
#include "walk.h"

/* Keyword arguments of the functions that are called often: interned, at these places of
   state->keywords. */
enum {
    CMSGX_KW_SOCK, CMSGX_KW_BUFFERS, CMSGX_KW_DATA, CMSGX_KW_FDS, CMSGX_KW_CONTROL,
    CMSGX_KW_FLAGS, CMSGX_KW_ADDRESS, CMSGX_KW_TIMEOUT, CMSGX_KW_BUFSIZE, CMSGX_KW_MAXFDS,
    CMSGX_KW_CLOEXEC, CMSGX_KW_ON_TRUNCATION, CMSGX_KW_MESSAGES,
    CMSGX_KEYWORDS,
};

/* A method of socket.socket that has a function here. */
typedef struct {
    PyObject *name;         /* interned */
    PyObject *method;       /* the class's own */
    unsigned int version;   /* of socket_class, when its attribute was seen to be that, or ours */
} cmsgx_own;

/* The codecs of kinds that were looked up lately.  A version is given to one class once: as long as
   a class has it, none of its attributes has changed since, so its codec is still there. */
#define CMSGX_LATELY 8
typedef struct {
    PyTypeObject *kind;     /* borrowed: compared only, together with its version */
    unsigned int version;
    PyObject *codec;        /* borrowed from the kind: only good while it has that version */
} cmsgx_lately;

typedef struct {
    /* C types */
    PyTypeObject *Method;
    PyTypeObject *Descriptor;
    PyTypeObject *Pin;
    PyTypeObject *Descriptors;
    PyTypeObject *View;
    PyTypeObject *Address;
    PyTypeObject *Record;
    PyTypeObject *Struct;
    PyTypeObject *Field;
    PyTypeObject *Codec;
    PyTypeObject *Message;
    PyTypeObject *Receiver;
    PyTypeObject *Batch;
    PyTypeObject *BatchReceiver;
    PyTypeObject *Segments;
    PyTypeObject *SegmentIterator;

    /* Classes of the Python layer, given to register(). */
    PyTypeObject *Fd;
    PyTypeObject *PidFd;
    PyTypeObject *Rights;
    PyTypeObject *Credentials;
    PyTypeObject *Unknown;
    PyTypeObject *IPAddress;
    PyObject *decode;               /* (family, level, type) -> kind */
    PyObject *raise_truncated;      /* (message, asked, delivered, misses, full, withheld) */
    PyObject *recvmsg_foreign;      /* recvmsg or recvmsg_into of a type that has its own */
    PyObject *recv_fds_foreign;     /* recv_fds for a type with a recvmsg() of its own */

    /* Exceptions of cmsgx.errors */
    PyObject *TooManyFdsError;
    PyObject *MalformedControlError;
    PyObject *NotSupportedError;

    /* Of the socket module: its C type, that type's own methods and functions. */
    PyTypeObject *socket;
    PyTypeObject *socket_class;     /* its subclass that nearly all sockets are of */
    cmsgx_own own_sendmsg;
    cmsgx_own own_recvmsg;
    cmsgx_own own_recvmsg_into;
    PyCFunction socket_fileno;
    PyCFunction socket_gettimeout;
    PyMemberDef *socket_family;
    PyMemberDef *socket_type;
    Py_ssize_t socket_timeout_at;   /* int64_t of nanoseconds in the object; 0: not known */
    Py_ssize_t socket_fd_at;        /* int in the object; 0: not known */
    cmsgx_flag socket_fd_known;     /* and seen to be that */

    /* Interned names */
    PyObject *str_codec;
    PyObject *str_pack;
    PyObject *str_level;
    PyObject *str_type;
    PyObject *keywords[CMSGX_KEYWORDS];

    uint32_t overflow_ids[2];       /* uid and gid that stand for those without a number here */

    cmsgx_lately lately[CMSGX_LATELY];
    cmsgx_closer *closer;

#if CMSGX_FREE_LIST
    PyObject *free_messages;        /* plain memory, linked by `data` */
    int free_message_count;
    PyObject *free_views;           /* plain memory, linked by `buffer` */
    int free_view_count;
#endif
} cmsgx_state;

extern PyModuleDef cmsgx_module;

static inline cmsgx_state *
cmsgx_state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* For the types that cannot be subclassed. */
static inline cmsgx_state *
cmsgx_state_of_self(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* For the types that can: looks along the bases. */
cmsgx_state *cmsgx_state_of_type(PyTypeObject *type);

/* Each file adds what it defines; 0, or -1 with an exception. */
int cmsgx_add_sock(PyObject *module);
int cmsgx_add_method(PyObject *module);
int cmsgx_add_descriptor(PyObject *module);
int cmsgx_add_pin(PyObject *module);
int cmsgx_add_view(PyObject *module);
int cmsgx_add_address(PyObject *module);
int cmsgx_add_record(PyObject *module);
int cmsgx_add_codec(PyObject *module);
int cmsgx_add_descriptors(PyObject *module);
int cmsgx_add_message(PyObject *module);
int cmsgx_add_receiver(PyObject *module);
int cmsgx_add_batch(PyObject *module);
int cmsgx_add_batch_receiver(PyObject *module);
int cmsgx_add_segments(PyObject *module);
int cmsgx_add_constants(PyObject *module);
int cmsgx_add_layouts(PyObject *module);

/* Makes a type from its spec, keeps it in *slot, and adds it to the module. */
int cmsgx_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot);

#endif
