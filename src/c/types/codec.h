/* Codec: what a class is in a control message.  It has the class's fields, each a window into
   the payload, and the wire formats in which the payload is received and sent: level, type and
   family. */

#ifndef CMSGX_CODEC_H
#define CMSGX_CODEC_H

#include "state.h"

#include "plain/encoding.h"

#define CMSGX_MAX_FIELDS 32

/* Where one field lies and what it is: a Field, whose values field.h reads and writes. */
typedef struct {
    PyObject_HEAD
    PyTypeObject *kind;     /* owned: the class that it is a field of, or NULL */
    PyObject *name;         /* owned */
    PyObject *doc;          /* owned: str or None */
    PyObject *convert;      /* owned: called with the value that is read; or NULL */
    PyObject *fallback;     /* owned: the default of a constructor; or NULL */
    size_t offset;          /* in the payload */
    size_t size;            /* in bytes; 0 for 't', and for an 'S' that takes all
                               bytes that follow */
    char format;            /* see field_make() */
    char is_plain;          /* a 32-bit integer without `convert`: read most often */
    char is_bounded;        /* a constructor takes min_value to max_value; of bytes: how many */
    int64_t min_value;
    int64_t max_value;
} cmsgx_field;

/* What a wire format is used for. */
enum {
    CMSGX_RECEIVED = 1,
    CMSGX_SENT = 2,
    CMSGX_SENT_BY_PEER = 4, /* `sent_over` is the family of the packet: an AF_INET6 socket sends
                               IPv4 packets to an IPv4-mapped address */
};

/* The protocol that has to read a wire format that is sent, if the family and type of a socket do
   not tell: kinds/_way.py has their names, in this order. */
typedef enum {
    CMSGX_BY_ANY,
    CMSGX_BY_UDP,           /* including UDP-Lite, which refuses it */
    CMSGX_BY_TCP,           /* an IP stream has to be TCP without kTLS; any other socket */
    CMSGX_BY_KTLS,
    CMSGX_BY_SCTP,
    CMSGX_BY_NO_HEADER,     /* not a raw socket whose packets include the IP header */
    CMSGX_BY_HEADER,        /* such a one */
    CMSGX_READERS,
} cmsgx_reader;

typedef struct {
    uint64_t families;      /* bit 1 << AF_* of the sockets that receive it; 0: any */
    uint64_t sent_over;     /* bit 1 << AF_*; 0: any */
    uint32_t sent_by;       /* bit 1 << SOCK_*; 0: any */
    cmsgx_reader reader;
    int level;
    int type;
    int directions;
    size_t size;            /* bytes of the payload that is sent; of CMSGX_INTEGER: 1, 2 or 4 */
    cmsgx_encoding encoding;
    int64_t min_value;      /* bounds of what is sent, of the field with bounds */
    int64_t max_value;
} cmsgx_wire_format;

typedef struct {
    PyObject_HEAD
    PyTypeObject *kind;     /* owned */
    int is_lasting;         /* the kind lives as long as the package: never part of garbage */
    Py_ssize_t min_size;    /* bytes of the canonical payload; negative: fields are objects */
    Py_ssize_t max_size;    /* negative: no limit */
    Py_ssize_t format_count;
    cmsgx_wire_format *formats;     /* the first has the kind's own level and type; or NULL */
    const cmsgx_wire_format *sent;  /* the first that is sent; NULL if it is only received */
    Py_ssize_t count;
    cmsgx_field **fields;   /* owned */
    const cmsgx_field *sockaddr;    /* the one that is a socket address, or NULL */
    const cmsgx_field *bounded;     /* the first that is an integer with bounds, or NULL */
    PyMemberDescrObject **slots;    /* owned: slots of the instance, for fields that are objects */
#if CMSGX_FREE_LIST
    PyObject *spare;        /* plain memory of the last instance that was freed, or NULL */
#endif
} cmsgx_codec;

/* The codec of a kind: a new reference, as Python code may remove it from its class at any time.
   NULL, without an exception, if `kind` is not a kind. */
cmsgx_codec *cmsgx_codec_of(cmsgx_state *state, PyObject *kind);

/* Whether `kind` is not supported on this system: register() has set its `_codec` to None. */
int cmsgx_is_unsupported(cmsgx_state *state, PyObject *kind);

/* For a class without a codec: NotSupportedError if this system does not support the kind, else
   TypeError.  NULL. */
PyObject *cmsgx_raise_unregistered(cmsgx_state *state, PyTypeObject *kind);

/* The wire format of this kind that is received as (level, type) from a socket of that family (-1:
   unknown); or NULL. */
static inline const cmsgx_wire_format *
cmsgx_codec_received(const cmsgx_codec *codec, int family, int level, int type)
{
    for (Py_ssize_t i = 0; i < codec->format_count; i++) {
        const cmsgx_wire_format *format = &codec->formats[i];
        if (format->type == type && format->level == level && (format->directions & CMSGX_RECEIVED)
            && (format->families == 0 || (unsigned)family >= 64
                || (format->families >> family & 1))) {
            return format;
        }
    }
    return NULL;
}

/* Whether it is received in any wire format. */
int cmsgx_codec_comes(const cmsgx_codec *codec);

/* The same over sockets of that family (-1: unknown, and so any). */
int cmsgx_codec_comes_over(const cmsgx_codec *codec, int family);

/* Whether the value of a field with bounds may be sent in that wire format.  A decoded value, or
   one that another wire format accepts, may be out of bounds. */
int cmsgx_field_may_be_sent(const cmsgx_field *field, const cmsgx_wire_format *format,
                            const unsigned char *payload, size_t size);

static inline int
cmsgx_field_may_go(const cmsgx_field *field, const cmsgx_wire_format *format,
                   const unsigned char *payload, size_t size)
{
    int32_t value;
    if (field->format != 'i' || field->offset + sizeof(value) > size) {
        return cmsgx_field_may_be_sent(field, format, payload, size);
    }
    memcpy(&value, payload + field->offset, sizeof(value));
    return value >= format->min_value && value <= format->max_value;
}

/* Adds its type to the module.  0, or -1 with an exception. */
int cmsgx_add_codec(PyObject *module);

#endif
