#include "calls/outgoing_control.h"

#include "arguments.h"
#include "calls/route.h"
#include "errors.h"
#include "types/struct.h"

static int
number_attribute(PyObject *object, PyObject *attribute, const char *name, int *value)
{
    PyObject *number = PyObject_GetAttr(object, attribute);
    if (number == NULL) {
        return -1;
    }
    int result = cmsgx_as_int(number, name, value);
    Py_DECREF(number);
    return result;
}

/* A control message of a class of the user's, or one of variable size: it packs itself. */
static int
add_packed(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *kind)
{
    cmsgx_state *state = out->state;
    Py_buffer payload;
    int level, type;

    if (number_attribute(kind, state->str_level, "level", &level) < 0
        || number_attribute(kind, state->str_type, "type", &type) < 0
        || cmsgx_route_check_packed(out, codec, kind, level, type) < 0) {
        return -1;
    }
    PyObject *packed = PyObject_CallMethodNoArgs(kind, state->str_pack);
    if (packed == NULL) {
        return -1;
    }
    int result = -1;
    if (cmsgx_as_buffer(packed, "pack()", -1, &payload, PyBUF_SIMPLE) == 0) {
        result = cmsgx_outgoing_add_payload(out, level, type, &payload);
        PyBuffer_Release(&payload);
    }
    Py_DECREF(packed);
    return result;
}

/* A record that holds its payload, which is sent by the codec that it was made with. */
static int
add_struct(cmsgx_outgoing *out, PyObject *kind)
{
    const cmsgx_codec *codec = ((const cmsgx_struct *)kind)->codec;
    if (!cmsgx_struct_is_own(kind)) {
        (void)cmsgx_raise_class_changed(kind);
        return -1;
    }
    const cmsgx_wire_format *format = cmsgx_route_format(out, codec, kind);
    if (format == NULL) {
        return -1;
    }
    const unsigned char *payload = ((const cmsgx_struct *)kind)->payload;
    if (codec->bounded != NULL && out->sock != NULL
        && !cmsgx_field_may_go(codec->bounded, format, payload, (size_t)Py_SIZE(kind))) {
        int is_ipv4 = (format->directions & CMSGX_SENT_BY_PEER) && format->level == IPPROTO_IP;
        PyErr_Format(PyExc_ValueError, "control: %R is not sent%s: %U is %lld to %lld there", kind,
                     is_ipv4 ? " with IPv4 packets" : "", codec->bounded->name,
                     (long long)format->min_value, (long long)format->max_value);
        return -1;
    }
    if (format->encoding == CMSGX_PKTINFO
        && !cmsgx_encoding_has(format->encoding, payload, (size_t)Py_SIZE(kind))) {
        PyErr_Format(PyExc_ValueError, "control: %R goes over IPv4, but its address is IPv6", kind);
        return -1;
    }
    if (format->encoding == CMSGX_AS_IT_IS) {
        return cmsgx_outgoing_add_cmsg(out, format->level, format->type, payload,
                                          (size_t)Py_SIZE(kind));
    }
    size_t size = cmsgx_struct_wire_size(kind, format);
    unsigned char *to = cmsgx_outgoing_reserve(out, size);
    if (to == NULL) {
        return -1;
    }
    out->control_used += cmsgx_put(to, format->level, format->type, NULL, size);
    cmsgx_struct_write(kind, format, to + CMSG_LEN(0));
    return 0;
}

/* One typed control message.  Its descriptors are only collected. */
static int
add_record(cmsgx_outgoing *out, PyObject *kind)
{
    cmsgx_state *state = out->state;
    cmsgx_codec *codec = cmsgx_codec_of(state, (PyObject *)Py_TYPE(kind));
    if (codec == NULL) {
        cmsgx_raise_needed("control", -1, "a control message or (level, type, data)", kind);
        return -1;
    }
    int is_rights = codec->kind == state->Rights;
    int is_packed = codec->min_size < 0 || codec->kind != Py_TYPE(kind);
    int result;
    if (is_rights) {
        /* A typed call checks later, in check_fds(), which also knows whether there is data.  Only
           the items count, whatever else a subclass of the user's has. */
        result = !out->is_typed
                && cmsgx_route_check_packed(out, codec, kind, SOL_SOCKET, SCM_RIGHTS) < 0
            ? -1
            : cmsgx_outgoing_add_listed_fds(
                  out, cmsgx_sequence(kind, "control", "Rights with its descriptors"),
                  out->is_typed);
    }
    else {
        result = is_packed ? add_packed(out, codec, kind) : add_struct(out, kind);
    }
    Py_DECREF(codec);
    return result;
}

/* Item `index` of the argument `name`: (level, type, data). */
static int
add_tuple(cmsgx_outgoing *out, PyObject *item, const char *name, Py_ssize_t index)
{
    Py_buffer data;
    int level, type, result = -1;
    PyObject *parts = NULL;

    if (PyTuple_CheckExact(item)) {
        parts = Py_NewRef(item);
    }
    else if (PySequence_Check(item) && !PyBytes_Check(item)) {
        parts = PySequence_Tuple(item);
        if (parts == NULL) {
            return -1;
        }
    }
    if (parts == NULL) {
        cmsgx_raise_needed(name, index,
                           out->is_typed ? "a control message or (level, type, data)"
                                         : "(level, type, data) or a control message",
                           item);
    }
    else if (PyTuple_GET_SIZE(parts) != 3) {
        PyErr_Format(PyExc_TypeError, "%s[%zd]: (level, type, data) has 3 items, and this has %zd",
                     name, index, PyTuple_GET_SIZE(parts));
    }
    else if (cmsgx_as_int(PyTuple_GET_ITEM(parts, 0), "level", &level) < 0
             || cmsgx_as_int(PyTuple_GET_ITEM(parts, 1), "type", &type) < 0
             || cmsgx_as_buffer(PyTuple_GET_ITEM(parts, 2), "data", -1, &data, PyBUF_SIMPLE) < 0) {
        cmsgx_name_argument(name, index);
    }
    else {
        result = cmsgx_outgoing_add_payload(out, level, type, &data);
        PyBuffer_Release(&data);
    }
    Py_XDECREF(parts);
    return result;
}

int
cmsgx_outgoing_add_ancdata(cmsgx_outgoing *out, PyObject *ancdata, const char *name)
{
    PyObject *items = cmsgx_sequence(ancdata, name, "an iterable of (level, type, data)");
    if (items == NULL) {
        return -1;
    }
    int result = 0, is_typed = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, i));
        if (PyTuple_CheckExact(item) || !PyObject_TypeCheck(item, out->state->Record)) {
            result = add_tuple(out, item, name, i);
        }
        else {
            size_t from = out->fd_count;
            is_typed = 1;
            result = add_record(out, item);
            if (result == 0 && out->fd_count > from) {
                result = cmsgx_outgoing_add_rights(out, from);
            }
        }
        Py_DECREF(item);
    }
    Py_DECREF(items);
    return result < 0 ? -1 : is_typed;
}

int
cmsgx_outgoing_add_control(cmsgx_outgoing *out, PyObject *control)
{
    if (!PyTuple_CheckExact(control) && !PyList_CheckExact(control)
        && PyObject_TypeCheck(control, out->state->Record)) {
        return add_record(out, control);
    }
    PyObject *items = cmsgx_sequence(control, "control", CMSGX_NEEDED_CONTROL);
    if (items == NULL) {
        return -1;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, i));
        result = PyTuple_CheckExact(item) ? add_tuple(out, item, "control", i)
                                          : add_record(out, item);
        Py_DECREF(item);
    }
    Py_DECREF(items);
    return result;
}

PyObject *
cmsgx_outgoing_tuples(const cmsgx_outgoing *out)
{
    PyObject *list = PyList_New(0);
    cmsgx_header header;
    size_t offset = 0;
    while (list != NULL
           && cmsgx_walk(out->control, out->control_used, &offset, &header) == CMSGX_MESSAGE) {
        PyObject *item = Py_BuildValue("iiy#", header.level, header.type, header.data,
                                       (Py_ssize_t)header.size);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}
