/* Record: the base of every kind, an immutable object whose fields are slots of its class.
   Codec: what a class is in a control message: level, type and the place of each field, so that
   C can make, pack and decode it without a call into Python. */

#ifndef CMSGX_RECORD_H
#define CMSGX_RECORD_H

#include "state.h"

typedef struct {
    PyObject *name;         /* owned */
    Py_ssize_t slot;        /* byte offset in the instance */
    size_t offset;          /* byte offset in the payload */
    char format;            /* as in the struct module: bBhHiIqQ; P: an i where 0 is None;
                               O: an object, not in the payload */
} cmsgx_field;

typedef struct {
    PyObject_HEAD
    PyTypeObject *kind;     /* owned */
    int level;
    int type;
    Py_ssize_t size;        /* of the payload; negative: the class packs and unpacks itself */
    Py_ssize_t count;
    cmsgx_field *fields;
    Py_ssize_t extra;       /* slot offset of one more attribute, None when made; or 0 */
} cmsgx_codec;

/* The codec of a kind, borrowed from the class; NULL, without an exception, where `kind` is
   none. */
cmsgx_codec *cmsgx_codec_of(cmsgx_state *state, PyObject *kind);

/* A new instance of codec->kind.  Only for a codec with a size. */
PyObject *cmsgx_codec_decode(cmsgx_state *state, const cmsgx_codec *codec,
                             const unsigned char *data, size_t size);

/* Writes the payload of `record`, codec->size bytes.  0, or -1 with an exception. */
int cmsgx_codec_encode(const cmsgx_codec *codec, PyObject *record, unsigned char *out);

/* The slot of the extra attribute, to be set once by who made the record. */
static inline PyObject **
cmsgx_codec_extra(const cmsgx_codec *codec, PyObject *record)
{
    return (PyObject **)(void *)((char *)record + codec->extra);
}

#endif
