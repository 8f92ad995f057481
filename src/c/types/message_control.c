#include "types/message_control.h"

#include "errors.h"
#include "types/message_fds.h"
#include "types/record.h"
#include "types/struct.h"

#define SELF(object) ((cmsgx_message *)(object))

/* Whether credentials were attached to the message at all, for the record.  Pid 0 with the overflow
   ids (usually 65534: user_namespaces(7)) is also what the kernel reports when none were; only a
   pidfd that was requested distinguishes the two cases. */
static int
attached(const cmsgx_message *self, const unsigned char *ucred)
{
    uint32_t words[3];
    memcpy(words, ucred, sizeof(words));
    if (words[0] != 0 || self->buffer->received.pidfds > 0
        || memcmp(words + 1, self->config->state->overflow_ids, 2 * sizeof(words[0])) != 0) {
        return CMSGX_ATTACHED_YES;
    }
    return self->config->asked_pidfd ? CMSGX_ATTACHED_NO : CMSGX_ATTACHED_UNKNOWN;
}

static PyObject *
decode(cmsgx_message *self, cmsgx_state *state, PyObject *kind, cmsgx_codec *codec,
       const cmsgx_wire_format *format, const cmsgx_header *header)
{
    if (codec->min_size < 0) {
        return PyObject_CallMethod(kind, "unpack", "y#", header->data,
                                   (Py_ssize_t)header->size);
    }
    PyObject *record = cmsgx_struct_read(state, codec, format, header->data, header->size);
    if (record != NULL && codec->kind == state->Credentials) {
        ((cmsgx_struct *)record)->attached_state = attached(self, header->data);
    }
    return record;
}

/* The object of a kind whose payload is one or more descriptors: a new reference. */
static PyObject *
descriptor_kind(cmsgx_message *self, cmsgx_state *state, PyObject *kind)
{
    PyObject *result = NULL;
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy((PyObject *)self);
    }
    if (kind == (PyObject *)state->PidFd) {
        result = Py_XNewRef(cmsgx_message_object(self, self->buffer->received.fds));
    }
    else {
        PyObject *fds = PyTuple_New((Py_ssize_t)self->buffer->received.fds);
        for (size_t i = 0; fds != NULL && i < self->buffer->received.fds; i++) {
            PyObject *fd = cmsgx_message_object(self, i);
            if (fd == NULL) {
                Py_CLEAR(fds);
            }
            else {
                PyTuple_SET_ITEM(fds, (Py_ssize_t)i, Py_NewRef(fd));
            }
        }
        if (fds != NULL) {
            result = PyObject_CallOneArg(kind, fds);
            Py_DECREF(fds);
        }
    }
    cmsgx_leave(&self->busy);
    return result;
}

static int
is_descriptor_kind(const cmsgx_state *state, PyObject *kind)
{
    return kind == (PyObject *)state->PidFd || kind == (PyObject *)state->Rights;
}

static int
has_descriptor_kind(const cmsgx_message *self, const cmsgx_state *state, PyObject *kind)
{
    return kind == (PyObject *)state->PidFd ? self->buffer->received.pidfds > 0
                                              : self->buffer->received.fds > 0;
}

/* 1 and *codec, a new reference; 0 for a kind that this system does not support, so none can have
   been received; -1 with TypeError. */
static int
codec_or_raise(cmsgx_state *state, PyObject *kind, cmsgx_codec **codec)
{
    *codec = cmsgx_codec_of(state, kind);
    if (*codec != NULL) {
        return 1;
    }
    if (cmsgx_is_unsupported(state, kind)) {
        return 0;
    }
    if (PyObject_TypeCheck(kind, state->Record)) {
        PyErr_Format(PyExc_TypeError,
                     "%R is a control message, not a kind: pass its class, %s", kind,
                     Py_TYPE(kind)->tp_name);
    }
    else {
        PyObject *text = PyObject_CallOneArg(state->not_a_kind, kind);
        if (text != NULL) {
            PyErr_SetObject(PyExc_TypeError, text);
            Py_DECREF(text);
        }
    }
    return -1;
}

/* Finds the next control message that `codec` decodes: its wire format, or NULL at the end. */
static const cmsgx_wire_format *
find(const cmsgx_message *self, const cmsgx_codec *codec, size_t *offset, cmsgx_header *header)
{
    const cmsgx_buffer *buffer = self->buffer;
    while (cmsgx_walk(buffer->control, buffer->control_used, offset, header) == CMSGX_MESSAGE) {
        const cmsgx_wire_format *format =
            cmsgx_codec_received(codec, self->config->family, header->level, header->type);
        if (format != NULL) {
            return format;
        }
    }
    return NULL;
}

/* The control messages without a registered kind: a new list. */
static PyObject *
unknown_ones(cmsgx_message *self, cmsgx_state *state)
{
    PyObject *control = cmsgx_message_control((PyObject *)self, NULL);
    PyObject *list = control == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PyTuple_GET_SIZE(control); i++) {
        PyObject *item = PyTuple_GET_ITEM(control, i);
        if (Py_IS_TYPE(item, state->Unknown) && PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
    }
    Py_XDECREF(control);
    return list;
}

/* The first control message of that kind: 1 and *result, 0 if there is none, -1 with an
   exception. */
static int
look_up(cmsgx_message *self, PyObject *kind, PyObject **result)
{
    cmsgx_state *state = self->config->state;
    cmsgx_header header;
    size_t offset = 0;

    *result = NULL;
    if (is_descriptor_kind(state, kind)) {
        if (!has_descriptor_kind(self, state, kind)) {
            return 0;
        }
        *result = descriptor_kind(self, state, kind);
        return *result != NULL ? 1 : -1;
    }
    if (kind == (PyObject *)state->Unknown) {
        PyObject *list = unknown_ones(self, state);
        int found = list == NULL ? -1 : PyList_GET_SIZE(list) > 0;
        if (found > 0) {
            *result = Py_NewRef(PyList_GET_ITEM(list, 0));
        }
        Py_XDECREF(list);
        return found;
    }
    cmsgx_codec *codec;
    int is_kind = codec_or_raise(state, kind, &codec);
    if (is_kind <= 0) {
        return is_kind;
    }
    const cmsgx_wire_format *format = find(self, codec, &offset, &header);
    if (format != NULL) {
        *result = decode(self, state, kind, codec, format, &header);
    }
    Py_DECREF(codec);
    return format == NULL ? 0 : *result != NULL ? 1 : -1;
}

PyObject *
cmsgx_message_subscript(PyObject *object, PyObject *kind)
{
    PyObject *result;
    int found = look_up(SELF(object), kind, &result);
    if (found != 0) {
        return result;
    }
    if (kind == (PyObject *)SELF(object)->config->state->Rights) {
        return PyErr_Format(PyExc_KeyError,
                            "no descriptors came with this message; fds=%zu was requested",
                            SELF(object)->config->fds);
    }
    PyObject *want = SELF(object)->config->want;
    cmsgx_codec *codec = cmsgx_codec_of(SELF(object)->config->state, kind);
    int is_only_sent = codec != NULL && codec->format_count > 0 && !cmsgx_codec_comes(codec);
    int is_elsewhere = codec != NULL && codec->format_count > 0
        && !cmsgx_codec_comes_over(codec, SELF(object)->config->family);
    Py_XDECREF(codec);
    if (kind == (PyObject *)SELF(object)->config->state->PidFd) {
        is_elsewhere = SELF(object)->config->family != AF_UNIX;
    }
    const char *reason = ": receive() does not enable options";
    int is_to_be_wanted = 1;
    if (cmsgx_is_unsupported(SELF(object)->config->state, kind)) {
        reason = ": not supported on this system";
        is_to_be_wanted = 0;
    }
    else if (is_only_sent) {
        reason = ": it is only sent, never received";
        is_to_be_wanted = 0;
    }
    else if (is_elsewhere) {
        reason = ": sockets of this family never deliver it";
        is_to_be_wanted = 0;
    }
    else if (want != NULL) {
        int is_wanted = PySequence_Contains(want, kind);
        if (is_wanted < 0) {
            return NULL;
        }
        reason = is_wanted ? ", although it is enabled" : ": it was not enabled";
        is_to_be_wanted = !is_wanted;
    }
    /* Read only now, because the code that ran before may have renamed the class. */
    const char *name = ((PyTypeObject *)kind)->tp_name;
    return is_to_be_wanted
        ? PyErr_Format(PyExc_KeyError,
                       "no %s came with this message%s; Receiver(want=[%s]) or "
                       "enable(sock, %s) enables it",
                       name, reason, name, name)
        : PyErr_Format(PyExc_KeyError, "no %s came with this message%s", name, reason);
}

PyObject *
cmsgx_message_get(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result;
    if (nargs < 1 || nargs > 2) {
        return PyErr_Format(PyExc_TypeError, "get() takes 1 or 2 arguments (%zd given)", nargs);
    }
    int found = look_up(SELF(object), args[0], &result);
    return found != 0 ? result : Py_NewRef(nargs == 2 ? args[1] : Py_None);
}

PyObject *
cmsgx_message_get_all(PyObject *object, PyObject *kind)
{
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = SELF(object)->config->state;
    cmsgx_header header;
    size_t offset = 0;

    if (is_descriptor_kind(state, kind)) {
        PyObject *one;
        int found = look_up(self, kind, &one);
        if (found <= 0) {
            return found < 0 ? NULL : PyTuple_New(0);
        }
        PyObject *tuple = PyTuple_Pack(1, one);
        Py_DECREF(one);
        return tuple;
    }
    int is_unknown = kind == (PyObject *)state->Unknown;
    cmsgx_codec *codec = NULL;
    if (!is_unknown && codec_or_raise(state, kind, &codec) < 0) {
        return NULL;
    }
    PyObject *list = is_unknown ? unknown_ones(self, state) : PyList_New(0);
    const cmsgx_wire_format *format;
    while (list != NULL && codec != NULL
           && (format = find(self, codec, &offset, &header)) != NULL) {
        PyObject *record = decode(self, state, kind, codec, format, &header);
        if (record == NULL || PyList_Append(list, record) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(record);
    }
    Py_XDECREF(codec);
    PyObject *tuple = list == NULL ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

int
cmsgx_message_contains(PyObject *object, PyObject *kind)
{
    cmsgx_state *state = SELF(object)->config->state;
    cmsgx_header header;
    size_t offset = 0;
    if (is_descriptor_kind(state, kind)) {
        return has_descriptor_kind(SELF(object), state, kind);
    }
    if (kind == (PyObject *)state->Unknown) {
        PyObject *one;
        int found = look_up(SELF(object), kind, &one);
        Py_XDECREF(one);
        return found;
    }
    cmsgx_codec *codec;
    int found = codec_or_raise(state, kind, &codec);
    if (found > 0) {
        found = find(SELF(object), codec, &offset, &header) != NULL;
        Py_DECREF(codec);
    }
    return found;
}

static PyObject *
unknown(cmsgx_state *state, const cmsgx_header *header)
{
    return PyObject_CallFunction((PyObject *)state->Unknown, "iiy#", header->level, header->type,
                                 header->data, (Py_ssize_t)header->size);
}

PyObject *
cmsgx_message_control(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = SELF(object)->config->state;
    const cmsgx_buffer *buffer = self->buffer;
    PyObject *list = PyList_New(0);
    int has_shown[2] = {0, 0};
    cmsgx_header header;
    size_t offset = 0;

    while (list != NULL
           && cmsgx_walk(buffer->control, buffer->control_used, &offset, &header)
                  == CMSGX_MESSAGE) {
        PyObject *record = NULL;
        PyObject *kind = PyObject_CallFunction(state->decode, "iii", self->config->family,
                                               header.level, header.type);
        if (kind == NULL) {
            Py_CLEAR(list);
            break;
        }
        if (is_descriptor_kind(state, kind)) {
            /* Descriptors from several control messages are shown as one; those that were closed at
               once are not shown. */
            int *shown = &has_shown[kind == (PyObject *)state->PidFd];
            if (*shown || !has_descriptor_kind(self, state, kind)) {
                Py_DECREF(kind);
                continue;
            }
            *shown = 1;
            record = descriptor_kind(self, state, kind);
        }
        else {
            cmsgx_codec *codec = cmsgx_codec_of(state, kind);
            const cmsgx_wire_format *format = codec == NULL || codec->kind != (PyTypeObject *)kind
                ? NULL
                : cmsgx_codec_received(codec, self->config->family, header.level, header.type);
            record = format != NULL ? decode(self, state, kind, codec, format, &header)
                                  : unknown(state, &header);
            Py_XDECREF(codec);
        }
        Py_DECREF(kind);
        if (record == NULL && (self->buffer->received.flags & MSG_CTRUNC)
            && PyErr_ExceptionMatches(state->MalformedControlError)) {
            /* The one that was truncated: it must not hide those that are complete. */
            PyErr_Clear();
            record = unknown(state, &header);
        }
        if (record == NULL || PyList_Append(list, record) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(record);
    }
    PyObject *tuple = list == NULL ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

PyObject *
cmsgx_message_iter(PyObject *object)
{
    PyObject *control = cmsgx_message_control(object, NULL);
    PyObject *iterator = control == NULL ? NULL : PyObject_GetIter(control);
    Py_XDECREF(control);
    return iterator;
}

