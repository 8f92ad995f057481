#include "calls/outgoing.h"

#include "arguments.h"
#include "types/fd.h"
#include "errors.h"
#include "types/struct.h"
#include "calls/route.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>

void
cmsgx_outgoing_init(cmsgx_outgoing *out, cmsgx_scratch room, cmsgx_state *state,
                    cmsgx_sock *sock)
{
    out->state = state;
    out->sock = sock;
    out->is_typed = 0;
    out->peer = AF_UNSPEC;
    memset(&out->msg, 0, sizeof(out->msg));
    out->total = 0;
    out->room = room;
    out->buffers = room.buffers;
    out->iov = room.iov;
    out->buffer_count = 0;
    out->control = room.control;
    out->control_used = 0;
    out->control_capacity = room.control_size;
    out->numbers = room.numbers;
    out->owners = room.owners;
    out->fd_count = 0;
    out->fd_capacity = room.fd_count;
    out->owned_count = 0;
}

void
cmsgx_outgoing_clear(cmsgx_outgoing *out)
{
    for (Py_ssize_t i = 0; i < out->buffer_count; i++) {
        if (out->buffers[i].obj != NULL) {
            PyBuffer_Release(&out->buffers[i]);
        }
    }
    for (size_t i = 0; out->owned_count > 0 && i < out->fd_count; i++) {
        Py_XDECREF(out->owners[i]);
    }
    if (out->buffers != out->room.buffers) {
        PyMem_Free(out->buffers);
        PyMem_Free(out->iov);
    }
    if (out->control != out->room.control) {
        PyMem_Free(out->control);
    }
    if (out->numbers != out->room.numbers) {
        PyMem_Free(out->numbers);
        PyMem_Free(out->owners);
    }
}

/* Data ------------------------------------------------------------------------------------- */

int
cmsgx_outgoing_add_buffer(cmsgx_outgoing *out, PyObject *object, int is_held)
{
    Py_buffer *buffer = &out->buffers[out->buffer_count];
    if (PyBytes_CheckExact(object)) {
        /* What bytes export, without asking: they neither count nor release. */
        buffer->obj = is_held ? NULL : Py_NewRef(object);
        buffer->buf = PyBytes_AS_STRING(object);
        buffer->len = PyBytes_GET_SIZE(object);
    }
    else if (cmsgx_as_buffer(object, out->is_typed ? "data" : "buffers",
                             is_held ? -1 : out->buffer_count, buffer, PyBUF_SIMPLE)
             < 0) {
        return -1;
    }
    out->iov[out->buffer_count].iov_base = buffer->buf;
    out->iov[out->buffer_count].iov_len = (size_t)buffer->len;
    out->total += (size_t)buffer->len;
    out->buffer_count++;
    return 0;
}

int
cmsgx_outgoing_add_buffers(cmsgx_outgoing *out, PyObject *buffers, const char *name,
                           const char *needed)
{
    PyObject *sequence = out->is_typed && PyUnicode_Check(buffers)
        ? cmsgx_raise_needed(name, -1, needed, buffers)
        : cmsgx_sequence(buffers, name, needed);
    if (sequence == NULL) {
        return -1;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    int result = -1;
    if (count > INT_MAX) {
        PyErr_Format(PyExc_OSError, "%s: %zd buffers; that is too many", name, count);
        goto done;
    }
    if (count > out->room.buffer_count) {
        Py_buffer *many = PyMem_New(Py_buffer, (size_t)count);
        struct iovec *iov = PyMem_New(struct iovec, (size_t)count);
        if (many == NULL || iov == NULL) {
            PyMem_Free(many);
            PyMem_Free(iov);
            PyErr_NoMemory();
            goto done;
        }
        out->buffers = many;
        out->iov = iov;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i >= PySequence_Fast_GET_SIZE(sequence)) {
            PyErr_SetString(PyExc_RuntimeError, "the list of buffers changed while it was read");
            goto done;
        }
        /* The export holds the item from then on. */
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(sequence, i));
        int added = cmsgx_outgoing_add_buffer(out, item, 0);
        Py_DECREF(item);
        if (added < 0) {
            if (PyObject_CheckBuffer(buffers) && PyErr_ExceptionMatches(PyExc_TypeError)) {
                /* The items of bytes are ints: it is the list around them that lacks. */
                PyErr_Clear();
                cmsgx_raise_needed(name, -1, needed, buffers);
            }
            goto done;
        }
    }
    result = 0;

done:
    Py_DECREF(sequence);
    return result;
}

/* Control data ----------------------------------------------------------------------------- */

static const char *
control_of(const cmsgx_outgoing *out)
{
    return out->is_typed ? "control" : "ancdata";
}

static unsigned char *
reserve(cmsgx_outgoing *out, size_t size)
{
    /* The bound of the socket module, below what CMSG_SPACE could wrap at. */
    if (size > INT_MAX - CMSG_SPACE(0) - sizeof(size_t)) {
        PyErr_Format(PyExc_OSError, "%s: an item of %zu bytes is too large", control_of(out), size);
        return NULL;
    }
    size_t space = CMSG_SPACE(size);
    if (out->control_used + space > INT_MAX) {
        PyErr_Format(PyExc_OSError, "%s: the items are too large together", control_of(out));
        return NULL;
    }
    size_t need = out->control_used + space;
    if (need > out->control_capacity) {
        size_t capacity = need < 2 * out->control_capacity ? 2 * out->control_capacity : need;
        unsigned char *larger = PyMem_Malloc(capacity);
        if (larger == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        memcpy(larger, out->control, out->control_used);
        if (out->control != out->room.control) {
            PyMem_Free(out->control);
        }
        out->control = larger;
        out->control_capacity = capacity;
    }
    return out->control + out->control_used;
}

int
cmsgx_outgoing_add_control(cmsgx_outgoing *out, int level, int type, const void *data,
                           size_t size)
{
    unsigned char *to = reserve(out, size);
    if (to == NULL) {
        return -1;
    }
    out->control_used += cmsgx_put(to, level, type, data, size);
    return 0;
}

int
cmsgx_outgoing_add_rights(cmsgx_outgoing *out, size_t from)
{
    return cmsgx_outgoing_add_control(out, SOL_SOCKET, SCM_RIGHTS, out->numbers + from,
                                      (out->fd_count - from) * sizeof(int));
}

/* Descriptors ------------------------------------------------------------------------------ */

static int
grow_fds(cmsgx_outgoing *out, size_t more)
{
    size_t need = out->fd_count + more;
    if (need <= out->fd_capacity) {
        return 0;
    }
    int *numbers = PyMem_New(int, need);
    PyObject **owners = PyMem_New(PyObject *, need);
    if (numbers == NULL || owners == NULL) {
        PyMem_Free(numbers);
        PyMem_Free(owners);
        PyErr_NoMemory();
        return -1;
    }
    memcpy(numbers, out->numbers, out->fd_count * sizeof(*numbers));
    memcpy(owners, out->owners, out->fd_count * sizeof(*owners));
    if (out->numbers != out->room.numbers) {
        PyMem_Free(out->numbers);
        PyMem_Free(out->owners);
    }
    out->numbers = numbers;
    out->owners = owners;
    out->fd_capacity = need;
    return 0;
}

/* As array('i') would take it, besides objects that own a descriptor. */
static int
lenient_number(cmsgx_state *state, PyObject *object, Py_ssize_t index, PyObject **owner)
{
    *owner = NULL;
    if (PyIndex_Check(object)) {
        int overflow;
        PyObject *whole = PyNumber_Index(object);
        if (whole == NULL) {
            return -1;
        }
        long number = PyLong_AsLongAndOverflow(whole, &overflow);
        Py_DECREF(whole);
        if (overflow != 0 || number > INT_MAX || number < INT_MIN) {
            PyErr_Format(PyExc_OverflowError, "fds[%zd]: %R is not a file descriptor", index,
                         object);
            return -1;
        }
        return (int)number;
    }
    return cmsgx_fd_from_object(state, object, "fds", index, owner);
}

static int
add_fd(cmsgx_outgoing *out, PyObject *object, int strict)
{
    PyObject *owner;
    Py_ssize_t index = (Py_ssize_t)out->fd_count;
    int number = strict ? cmsgx_fd_from_object(out->state, object, "fds", index, &owner)
                        : lenient_number(out->state, object, index, &owner);
    if (number < 0 && PyErr_Occurred()) {
        return -1;
    }
    out->numbers[index] = number;
    /* Held until the call is over: what a generator made would close its file otherwise. */
    out->owners[index] = PyLong_Check(object) ? NULL : Py_NewRef(object);
    out->owned_count += !PyLong_Check(object);
    out->fd_count++;
    return 0;
}

/* The common case, which runs no code and cannot fail: 1, or 0 where it is something else. */
static int
add_plain_number(cmsgx_outgoing *out, PyObject *object)
{
    int overflow;
    if (!PyLong_CheckExact(object)) {
        return 0;
    }
    long number = PyLong_AsLongAndOverflow(object, &overflow);
    if (overflow != 0 || number < 0 || number > INT_MAX) {
        return 0;
    }
    out->numbers[out->fd_count] = (int)number;
    out->owners[out->fd_count] = NULL;
    out->fd_count++;
    return 1;
}

/* Whether one message carries so many: 0, or -1 with an exception. */
static int
check_count(const cmsgx_outgoing *out, size_t count)
{
    if (count + out->fd_count > CMSGX_MAX_FDS) {
        PyErr_Format(out->state->TooManyFdsError,
                     "fds: %zu descriptors; one message carries %d at most, so send several",
                     count + out->fd_count, CMSGX_MAX_FDS);
        return -1;
    }
    return 0;
}

static int
add_numbers(cmsgx_outgoing *out, const Py_buffer *view)
{
    size_t count = (size_t)view->len / sizeof(int);
    if (count * sizeof(int) != (size_t)view->len) {
        PyErr_Format(PyExc_ValueError, "fds: %zd bytes; that is not a multiple of %zu", view->len,
                     sizeof(int));
        return -1;
    }
    if ((out->is_typed && check_count(out, count) < 0) || grow_fds(out, count) < 0) {
        return -1;
    }
    memcpy(out->numbers + out->fd_count, view->buf, (size_t)view->len);
    memset(out->owners + out->fd_count, 0, count * sizeof(*out->owners));
    out->fd_count += count;
    return 0;
}

int
cmsgx_outgoing_add_fd_bytes(cmsgx_outgoing *out, PyObject *bytes)
{
    Py_buffer view;
    if (cmsgx_as_buffer(bytes, "fds", -1, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int result = add_numbers(out, &view);
    PyBuffer_Release(&view);
    return result;
}

int
cmsgx_outgoing_add_payload(cmsgx_outgoing *out, int level, int type, const Py_buffer *payload)
{
    if (out->is_typed && level == SOL_SOCKET && type == SCM_RIGHTS) {
        return add_numbers(out, payload);
    }
    return cmsgx_outgoing_add_control(out, level, type, payload->buf, (size_t)payload->len);
}

/* From a list or a tuple, whose reference it steals, or NULL with an exception. */
static int
add_listed(cmsgx_outgoing *out, PyObject *sequence, int strict)
{
    if (sequence == NULL) {
        return -1;
    }
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sequence);
    int result = -1;
    if ((strict && check_count(out, (size_t)count) < 0) || grow_fds(out, (size_t)count) < 0) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i >= PySequence_Fast_GET_SIZE(sequence)) {
            PyErr_SetString(PyExc_RuntimeError, "the list of fds changed while it was read");
            goto done;
        }
        PyObject *item = PySequence_Fast_GET_ITEM(sequence, i);
        int added = add_plain_number(out, item);
        if (added) {
            continue;
        }
        Py_INCREF(item);
        added = add_fd(out, item, strict);
        Py_DECREF(item);
        if (added < 0) {
            goto done;
        }
    }
    result = 0;

done:
    Py_DECREF(sequence);
    return result;
}

int
cmsgx_outgoing_add_fds(cmsgx_outgoing *out, PyObject *fds, int strict)
{
    /* What it mostly is, without a call. */
    int is_listed = PyTuple_CheckExact(fds);
#ifndef Py_GIL_DISABLED
    is_listed |= PyList_CheckExact(fds);
#endif
    return add_listed(out,
                      is_listed ? Py_NewRef(fds) : cmsgx_listed_fds(out->state, fds, strict),
                      strict);
}

/* Typed control messages ------------------------------------------------------------------- */

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

static int
add_packed(cmsgx_outgoing *out, const cmsgx_codec *codec, PyObject *kind)
{
    cmsgx_state *state = out->state;
    Py_buffer payload;
    int level, type;

    if (number_attribute(kind, state->str_level, "level", &level) < 0
        || number_attribute(kind, state->str_type, "type", &type) < 0
        || cmsgx_route_packed(out, codec, kind, level, type) < 0) {
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

/* A record that is its payload goes by the codec that it was made with. */
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
        PyErr_Format(PyExc_ValueError, "control: %R goes over IPv4, its address is of IPv6", kind);
        return -1;
    }
    if (format->encoding == CMSGX_AS_IT_IS) {
        return cmsgx_outgoing_add_control(out, format->level, format->type, payload,
                                          (size_t)Py_SIZE(kind));
    }
    size_t size = cmsgx_struct_wire_size(kind, format);
    unsigned char *to = reserve(out, size);
    if (to == NULL) {
        return -1;
    }
    out->control_used += cmsgx_put(to, format->level, format->type, NULL, size);
    cmsgx_struct_write(kind, format, to + CMSG_LEN(0));
    return 0;
}

int
cmsgx_outgoing_add_kind(cmsgx_outgoing *out, PyObject *kind)
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
        /* A typed call asks later: it has a word for what is lost with no byte of data, too.  Of
           its items, whatever else a class of the caller's has. */
        result = !out->is_typed && cmsgx_route_packed(out, codec, kind, SOL_SOCKET, SCM_RIGHTS) < 0
            ? -1
            : add_listed(out, cmsgx_sequence(kind, "control", "Rights with its descriptors"),
                         out->is_typed);
    }
    else {
        result = is_packed ? add_packed(out, codec, kind) : add_struct(out, kind);
    }
    Py_DECREF(codec);
    return result;
}

/* Sending ---------------------------------------------------------------------------------- */

static ssize_t
try_send(int fd, void *context, int flags)
{
    cmsgx_outgoing *out = context;
    ssize_t sent = send(fd, out->iov[0].iov_base, out->iov[0].iov_len, flags);
    if (sent < 0 && out->is_typed && cmsgx_refuses_nosignal(fd, flags)) {
        sent = send(fd, out->iov[0].iov_base, out->iov[0].iov_len, flags & ~CMSGX_MSG_NOSIGNAL);
    }
    return sent;
}

static ssize_t
try_sendmsg(int fd, void *context, int flags)
{
    cmsgx_outgoing *out = context;
    ssize_t sent = cmsgx_sys_sendmsg(fd, &out->msg, flags);
    if (sent < 0 && out->is_typed && cmsgx_refuses_nosignal(fd, flags)) {
        sent = cmsgx_sys_sendmsg(fd, &out->msg, flags & ~CMSGX_MSG_NOSIGNAL);
    }
    return sent;
}

void
cmsgx_outgoing_finish(cmsgx_outgoing *out)
{
    out->msg.msg_iov = out->iov;
    out->msg.msg_iovlen = (__typeof__(out->msg.msg_iovlen))out->buffer_count;
    if (out->control_used > 0) {
        out->msg.msg_control = out->control;
        out->msg.msg_controllen = (__typeof__(out->msg.msg_controllen))out->control_used;
    }
}

void
cmsgx_outgoing_name_bad(const cmsgx_outgoing *out, const cmsgx_sock *sock)
{
    if (!cmsgx_sock_is_open(sock)) {
        if (sock->owner == NULL) {
            PyErr_Clear();
            cmsgx_raise_of_sock(EBADF, sock->fd);
        }
        return;
    }
    for (size_t i = 0; i < out->fd_count; i++) {
        if (fcntl(out->numbers[i], F_GETFD) < 0) {
            PyErr_Clear();
            cmsgx_raise_errno(EBADF, "fds[%zu]: descriptor %d is not open", i, out->numbers[i]);
            return;
        }
    }
}

/* IOV_MAX, UIO_MAXIOV: on each system. */
#define MOST_BUFFERS 1024

ssize_t
cmsgx_outgoing_send(cmsgx_outgoing *out, cmsgx_sock *sock, int flags, int *error)
{
    ssize_t result;

    if (out->control_used == 0 && out->buffer_count == 1 && out->msg.msg_name == NULL) {
        result = cmsgx_call(sock, POLLOUT, try_send, out, flags, NULL, error);
    }
    else {
        cmsgx_pins pins = {out->state->Descriptor, out->owners,
                           out->owned_count > 0 ? out->fd_count : 0};
        cmsgx_outgoing_finish(out);
        result = cmsgx_call(sock, POLLOUT, try_sendmsg, out, flags, &pins, error);
    }
    if (result < 0 && *error == EBADF) {
        cmsgx_outgoing_name_bad(out, sock);
    }
    else if (result < 0 && *error == EMSGSIZE && out->buffer_count > MOST_BUFFERS) {
        PyErr_Clear();
        cmsgx_raise_errno(EMSGSIZE, "%s: %zd buffers; one call takes %d at most",
                          out->is_typed ? "data" : "buffers", out->buffer_count, MOST_BUFFERS);
    }
    else if (result < 0) {
        cmsgx_route_note(out, error);
    }
    return result;
}
