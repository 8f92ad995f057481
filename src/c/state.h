/* The state of one module object: types, exceptions, interned names, and the parts of the socket
   module that C uses. */

#ifndef CMSGX_STATE_H
#define CMSGX_STATE_H

/* First, because Python.h sets the feature macros for the system headers. */
#include "compat.h"

#include "plain/closer.h"
#include "plain/platform.h"
#include "plain/walk.h"

/* Indexes into state->keywords, the interned keyword arguments of the functions that are called
   often. */
enum {
    CMSGX_KW_SOCK, CMSGX_KW_BUFFERS, CMSGX_KW_DATA, CMSGX_KW_FDS, CMSGX_KW_CONTROL,
    CMSGX_KW_FLAGS, CMSGX_KW_ADDRESS, CMSGX_KW_TIMEOUT, CMSGX_KW_BUFSIZE, CMSGX_KW_MAXFDS,
    CMSGX_KW_CLOEXEC, CMSGX_KW_ON_TRUNCATION, CMSGX_KW_MESSAGES, CMSGX_KW_CLOSE,
    CMSGX_KW_NOW, CMSGX_KW_FD_CLASS, CMSGX_KW_ON_ERROR, CMSGX_KW_MESSAGE, CMSGX_KW_BATCH,
    CMSGX_KEYWORDS,
};

/* Methods of socket.socket: the three that have a function here, and those that a typed call would
   bypass as well. */
typedef enum {
    CMSGX_SENDMSG, CMSGX_RECVMSG, CMSGX_RECVMSG_INTO, CMSGX_SEND, CMSGX_RECV,
    CMSGX_NAMES,
} cmsgx_name;

typedef struct {
    PyObject *name;         /* interned */
    PyObject *method;       /* that of the class itself */
} cmsgx_stdlib_method;

/* A socket class that was checked: see overrides.h.  One bit for each cmsgx_name. */
#define CMSGX_CLASSES 4
typedef struct {
    PyTypeObject *type;     /* borrowed: compared only, together with its version */
    unsigned int version;
    unsigned char called;       /* neither the class's own nor ours: module functions call it */
    unsigned char overridden;   /* and not the method of socket.socket itself */
} cmsgx_class;

/* The codec of a kind that was looked up recently.  A version is assigned to one class only, and
   once: while the class has it, none of its attributes has changed, so its codec still exists. */
#define CMSGX_CODEC_CACHE_SIZE 8
typedef struct {
    PyTypeObject *kind;     /* borrowed: compared only, together with its version */
    unsigned int version;
    PyObject *codec;        /* borrowed from the kind: valid only while it has that version */
} cmsgx_cached_codec;

#define CMSGX_PEERS_BITS 7

typedef struct {
    /* C types */
    PyTypeObject *Method;
    PyTypeObject *FdBase;
    PyTypeObject *Pin;
    PyTypeObject *MessageFds;
    PyTypeObject *View;
    PyTypeObject *Into;
    PyTypeObject *Address;
    PyTypeObject *RawAddress;
    PyTypeObject *AddressTuple;
    PyTypeObject *Record;
    PyTypeObject *Struct;
    PyTypeObject *Field;
    PyTypeObject *Codec;
    PyTypeObject *Message;
    PyTypeObject *Options;
    PyTypeObject *ReceiveConfig;
    PyTypeObject *Receiver;
    PyTypeObject *Batch;
    PyTypeObject *BatchReceiver;
    PyTypeObject *PreparedSend;
    PyTypeObject *Segments;
    PyTypeObject *SegmentIterator;

    /* The objects that the Python layer gives to C: one struct, filled by one call.  See bind.h. */
    struct {
        PyTypeObject *Fd;               /* NULL: bind() was not called yet */
        PyTypeObject *PidFd;
        PyTypeObject *Rights;
        PyTypeObject *Credentials;
        PyTypeObject *Unknown;
        PyTypeObject *IPAddress;
        PyTypeObject *Outgoing;
        PyObject *BatchResult;          /* (sent, skipped) */
        PyTypeObject *socket_class;     /* socket.socket, the standard library's own */
        PyTypeObject *our_socket;       /* cmsgx.socket, which may derive from another class */
        PyObject *TooManyFdsError;
        PyObject *MalformedControlError;
        PyObject *NotSupportedError;
        PyObject *decode;               /* (family, level, type) -> kind */
        PyObject *raise_truncated;      /* (message, asked, delivered, misses, full, withheld) */
        PyObject *recvmsg_foreign;      /* recvmsg or recvmsg_into of a type that defines its own */
        PyObject *recv_fds_through;     /* recv_fds by a method of the socket, or of its base */
        PyObject *refusal;              /* (kind, family, peer, type, protocol, readers) ->
                                           exception */
        PyObject *family_name;          /* (family) -> "AF_INET" */
        PyObject *note_needs;           /* (error, items, family) */
        PyObject *not_a_kind;           /* (object) -> str */
    };

    /* From the socket module: its C type, and that type's own methods and functions. */
    PyTypeObject *socket;
    cmsgx_stdlib_method stdlib_methods[CMSGX_NAMES];
    cmsgx_class classes[CMSGX_CLASSES];
    size_t next_class;
    PyCFunction socket_fileno;
    PyCFunction socket_gettimeout;
    PyMemberDef *socket_family;
    PyMemberDef *socket_type;
    PyMemberDef *socket_proto;
    Py_ssize_t socket_timeout_at;   /* offset of an int64_t, nanoseconds; 0: unknown */
    Py_ssize_t socket_fd_at;        /* offset of an int; 0: unknown */
    cmsgx_flag socket_fd_known;     /* whether that offset was verified */

    /* Interned names */
    PyObject *str_codec;
    PyObject *str_pack;
    PyObject *str_level;
    PyObject *str_type;
    PyObject *str_trsock;
    PyObject *str_fileno;
    PyObject *keywords[CMSGX_KEYWORDS];

    uint32_t overflow_ids[2];       /* uid and gid that stand for ids without a mapping here */

    cmsgx_cached_codec codec_cache[CMSGX_CODEC_CACHE_SIZE];
    cmsgx_closer *closer;

#if CMSGX_FREE_LIST
    PyObject *free_messages;        /* plain memory, linked by `data` */
    int free_message_count;
    PyObject *free_views;           /* plain memory, linked by `buffer` */
    int free_view_count;
    PyObject *spare_descriptors;    /* plain memory, or NULL */
    PyObject *peers[2 << CMSGX_PEERS_BITS];     /* owned: tuples of addresses, or NULL */
    int peers_kept;
    struct cmsgx_buffer *spare_buffer;      /* without users, or NULL */
    struct cmsgx_receive_config *spare_config;    /* owned use: of the last receive(); or NULL */
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

/* For the types that can be subclassed: searches the bases. */
cmsgx_state *cmsgx_state_of_type(PyTypeObject *type);

/* Makes a type from its spec, keeps it in *slot, and adds it to the module. */
int cmsgx_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot);

#endif
