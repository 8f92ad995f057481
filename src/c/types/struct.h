/* Struct: a record that is its payload, as it lies in a control message, and whose fields are
   windows into it (field.h): made and sent by one copy, each value made when it is read. */

#ifndef CMSGX_STRUCT_H
#define CMSGX_STRUCT_H

#include "types/codec.h"

/* An extra fact that the receiving Message sets.  Of Credentials: whether the sender's were
   attached to the message. */
enum {
    CMSGX_ATTACHED_UNKNOWN, CMSGX_ATTACHED_NO, CMSGX_ATTACHED_YES,
    CMSGX_ATTACHED_STATES,
};

typedef struct {
    PyObject_VAR_HEAD               /* ob_size: bytes of the payload */
    cmsgx_codec *codec;             /* owned: what it was made with */
    int attached_state;             /* CMSGX_ATTACHED_* */
    unsigned char payload[];
} cmsgx_struct;

/* Whether its class is still the one that it was created as.  Assigning to `__class__` may have set
   another one, whose instances have the same layout, but not the same payload. */
static inline int
cmsgx_struct_is_own(const PyObject *record)
{
    const cmsgx_codec *codec = ((const cmsgx_struct *)record)->codec;
    return codec != NULL && Py_IS_TYPE(record, codec->kind);
}

/* Raises TypeError for a record whose class was changed.  NULL. */
PyObject *cmsgx_raise_class_changed(PyObject *record);

/* A new instance of codec->kind with room for a payload of `size` bytes, which the caller fills;
   NULL with MemoryError. */
cmsgx_struct *cmsgx_struct_new(cmsgx_codec *codec, size_t size);

/* A new instance of codec->kind from the payload of a control message; NULL with
   MalformedControlError if the kind cannot have that length. */
PyObject *cmsgx_struct_read(cmsgx_state *state, cmsgx_codec *codec,
                            const cmsgx_wire_format *format,
                            const unsigned char *data, size_t size);

/* tp_richcompare and tp_hash of Struct: by class and payload. */
PyObject *cmsgx_struct_compare(PyObject *self, PyObject *other, int operation);
Py_hash_t cmsgx_struct_hash(PyObject *self);

/* The hash of a record of that class with that content, which is stolen; -1 with an exception, also
   where `content` is NULL. */
Py_hash_t cmsgx_hash_with_class(PyObject *self, PyObject *content);

/* Size in bytes of the payload that `record` is sent as. */
size_t cmsgx_struct_wire_size(const PyObject *record, const cmsgx_wire_format *format);

/* Writes that payload to `out`. */
void cmsgx_struct_write(const PyObject *record, const cmsgx_wire_format *format,
                        unsigned char *out);

/* Adds its type to the module, below Record.  0, or -1 with an exception. */
int cmsgx_add_struct(PyObject *module);

#endif
