#include "calls/send.h"

#include "types/address.h"
#include "arguments.h"
#include "errors.h"
#include "calls/notes.h"
#include "calls/outgoing.h"
#include "types/struct.h"
#include "calls/route.h"

#include <errno.h>
#include <netinet/in.h>

#define NEEDED_BUFFERS "an iterable of bytes-like objects, as [data],"
#define NEEDED_CONTROL "a control message, or an iterable of them,"

/* An address that is not plain, as the socket module takes it.  1 written, 0 where it is the name
   of a host and there is no socket object, or the family is not known here; -1 raised. */
static int
convert(cmsgx_sock *sock, int family, PyObject *address, struct sockaddr_storage *name,
        socklen_t *size)
{
    cmsgx_whence whence = CMSGX_NOWHERE;
    if (cmsgx_names_need_socket(family)) {
        whence.proto = cmsgx_sock_proto(sock);
        whence.fd = cmsgx_sock_borrow(sock);
    }
    int known = cmsgx_name_from_object(family, whence, address, name, size);
    if (whence.fd >= 0) {
        cmsgx_sock_give_back(sock);
    }
    return known == 0 && sock->kind == CMSGX_SOCKET
        ? cmsgx_name_resolve(family, address, name, size) : known;
}

/* 1 ready, 0 the socket's own method must convert it, -1 raised. */
static int
set_address(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *address)
{
    socklen_t size;
    if (address == NULL || address == Py_None) {
        return 1;
    }
    int family = cmsgx_sock_family(sock);
    int error = errno;
    int known = cmsgx_address_from_object(out->state, family, address, &out->name, &size);
    if (known == 0 && family >= 0 && (out->is_typed || sock->kind != CMSGX_SOCKET)) {
        known = convert(sock, family, address, &out->name, &size);
    }
    if (known == 0 && family < 0) {
        /* Closed, or no socket at all. */
        cmsgx_raise_of_sock(error, cmsgx_sock_number(sock));
        return -1;
    }
    if (known > 0) {
        out->msg.msg_name = &out->name;
        out->msg.msg_namelen = size;
    }
    return known;
}

/* Whether it is a numeric address of the other family of IP. */
static int
is_of_other_ip(int family, PyObject *address)
{
    struct sockaddr_storage name;
    socklen_t size;
    int other = family == AF_INET ? AF_INET6 : family == AF_INET6 ? AF_INET : -1;
    int known = other < 0 ? 0
                          : cmsgx_name_from_object(other, CMSGX_NOWHERE, address, &name, &size);
    if (known < 0) {
        PyErr_Clear();
    }
    return known > 0;
}

void
cmsgx_raise_no_conversion(cmsgx_sock *sock, PyObject *address)
{
    int family = cmsgx_sock_family(sock);
    if (is_of_other_ip(family, address)) {
        PyErr_Format(PyExc_ValueError, "address: %R is of %s, and the socket is of %s", address,
                     family == AF_INET ? "AF_INET6" : "AF_INET",
                     family == AF_INET ? "AF_INET" : "AF_INET6");
        return;
    }
    PyErr_Format(PyExc_ValueError,
                 sock->kind == CMSGX_SOCKET
                     ? "address: %R is of a family that goes through the socket's own sendmsg(), "
                       "without fds= and timeout="
                     : "address: %R is a host name to resolve, or of a family that goes through a "
                       "socket object only; give that in place of its number",
                 address);
}

/* Through the type's own method ------------------------------------------------------------ */

static int
has_kinds(cmsgx_state *state, PyObject *items)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        if (PyObject_TypeCheck(PyTuple_GET_ITEM(items, i), state->Record)) {
            return 1;
        }
    }
    return 0;
}

static int add_ancdata(cmsgx_outgoing *out, PyObject *ancdata, const char *name);
static int add_plain_fds(cmsgx_outgoing *out, PyObject *fds);

/* The socket's own method, below any that a class may have: with the control data that `out` has
   by now. */
static PyObject *
send_through_own(const cmsgx_outgoing *out, const cmsgx_sock *sock, PyObject *buffers, int flags,
                 PyObject *address)
{
    PyObject *result = NULL;
    PyObject *ancdata = cmsgx_route_tuples(out);
    PyObject *number = PyLong_FromLong(flags);
    PyObject *held = cmsgx_unchanging(buffers);
    if (ancdata != NULL && number != NULL && held != NULL) {
        PyObject *stack[] = {sock->object, held, ancdata, number, address};
        result =
            PyObject_Vectorcall(out->state->stdlib_methods[CMSGX_SENDMSG].method, stack, 5, NULL);
    }
    Py_XDECREF(held);
    Py_XDECREF(ancdata);
    Py_XDECREF(number);
    return result;
}

/* The two below are not inlined: they need much of the stack, and whoever calls them has Python
   code called next, which may come back here. */

/* Typed control messages as tuples, among others that are, as they go by that socket, or (NULL) as
   wire.build() has them: a new reference.  The caller holds `items`, and with them the
   descriptors. */
static __attribute__((noinline)) PyObject *
kinds_as_tuples(cmsgx_state *state, cmsgx_sock *sock, PyObject *items, int has_address)
{
    cmsgx_outgoing out;
    cmsgx_stack_scratch room;
    cmsgx_outgoing_init(&out, cmsgx_scratch_of(&room), state, sock);
    if (sock != NULL && has_address) {
        /* The method resolves a name to an address of the socket's own family. */
        out.peer = cmsgx_sock_family(sock);
    }
    PyObject *tuples = add_ancdata(&out, items, "ancdata") < 0 ? NULL : cmsgx_route_tuples(&out);
    cmsgx_outgoing_clear(&out);
    return tuples;
}

/* The same of descriptors, as send_fds() takes them. */
static __attribute__((noinline)) PyObject *
fds_as_tuples(cmsgx_state *state, PyObject *fds)
{
    cmsgx_outgoing out;
    cmsgx_stack_scratch room;
    PyObject *tuples = NULL;
    cmsgx_outgoing_init(&out, cmsgx_scratch_of(&room), state, NULL);
    if (add_plain_fds(&out, fds) == 0) {
        tuples = cmsgx_route_tuples(&out);
    }
    cmsgx_outgoing_clear(&out);
    return tuples;
}

/* sendmsg() by `method`, which takes the socket first; NULL for what the object has of its own. */
static PyObject *
send_through(cmsgx_state *state, PyObject *method, PyObject *const *args, Py_ssize_t nargs)
{
    /* Read once, as it may be an iterator. */
    PyObject *items = nargs > 2 ? PySequence_Tuple(args[2]) : NULL;
    if (nargs > 2 && items == NULL) {
        return NULL;
    }
    PyObject *ancdata = NULL;
    if (items != NULL && has_kinds(state, items)) {
        cmsgx_sock sock;
        int has_address = nargs > 4 && args[4] != Py_None;
        /* An object of another type may have anything for a family. */
        int is_socket = cmsgx_is_socket_class(state, Py_TYPE(args[0]));
        if (!is_socket || cmsgx_sock_resolve(state, args[0], &sock) == 0) {
            ancdata = kinds_as_tuples(state, is_socket ? &sock : NULL, items, has_address);
        }
        if (ancdata == NULL && method == NULL
            && PyErr_ExceptionMatches(state->NotSupportedError)) {
            /* What a method of a user's does with them is its own affair. */
            PyErr_Clear();
            ancdata = kinds_as_tuples(state, NULL, items, has_address);
        }
    }
    else {
        ancdata = Py_XNewRef(items);
    }
    PyObject *buffers = method != NULL ? cmsgx_unchanging(args[1]) : Py_NewRef(args[1]);
    PyObject *result = NULL;
    if (buffers != NULL && (ancdata != NULL || items == NULL)) {
        PyObject *stack[] = {args[0], buffers, ancdata, nargs > 3 ? args[3] : NULL,
                             nargs > 4 ? args[4] : NULL};
        result = method != NULL
            ? PyObject_Vectorcall(method, stack, (size_t)nargs, NULL)
            : cmsgx_call_foreign(state->stdlib_methods[CMSGX_SENDMSG].name, stack, (size_t)nargs);
    }
    if (result == NULL) {
        /* Who gets the buffers as they are tells of those. */
        cmsgx_note_used_up((const cmsgx_argument[]){{"buffers", method != NULL ? args[1] : NULL},
                                                    {"ancdata", nargs > 2 ? args[2] : NULL}},
                           2);
    }
    Py_XDECREF(buffers);
    Py_XDECREF(ancdata);
    Py_XDECREF(items);
    return result;
}

/* sendmsg ---------------------------------------------------------------------------------- */

/* Item `index` of what `name` is given: (level, type, data). */
static int
add_raw(cmsgx_outgoing *out, PyObject *item, const char *name, Py_ssize_t index)
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

/* 1 where there are typed ones among them, 0, or -1 with an exception. */
static int
add_ancdata(cmsgx_outgoing *out, PyObject *ancdata, const char *name)
{
    PyObject *items = cmsgx_sequence(ancdata, name, "an iterable of (level, type, data)");
    if (items == NULL) {
        return -1;
    }
    int result = 0, is_typed = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, i));
        if (PyTuple_CheckExact(item) || !PyObject_TypeCheck(item, out->state->Record)) {
            result = add_raw(out, item, name, i);
        }
        else {
            size_t from = out->fd_count;
            is_typed = 1;
            result = cmsgx_outgoing_add_kind(out, item);
            if (result == 0 && out->fd_count > from) {
                result = cmsgx_outgoing_add_rights(out, from);
            }
        }
        Py_DECREF(item);
    }
    Py_DECREF(items);
    return result < 0 ? -1 : is_typed;
}

/* For a message with no byte of data: refuses control messages that the kernel would drop without a
   word, as it makes nothing of it on a stream of AF_UNIX or TCP.  One of another level may be the
   message itself: the type of an empty TLS record, the end of an association of SCTP. */
static int
check_dropped(const cmsgx_outgoing *out, cmsgx_sock *sock)
{
    cmsgx_header header;
    size_t offset = 0;
    if (out->control_used == 0 || cmsgx_sock_type(sock) != SOCK_STREAM) {
        return 0;
    }
    int family = cmsgx_sock_family(sock);
    int is_dropped = family == AF_UNIX || family == AF_INET || family == AF_INET6;
    while (is_dropped && family != AF_UNIX
           && cmsgx_walk(out->control, out->control_used, &offset, &header) == CMSGX_MESSAGE) {
        is_dropped = header.level == SOL_SOCKET || header.level == IPPROTO_IP
                     || header.level == IPPROTO_IPV6 || header.level == IPPROTO_TCP;
    }
    if (is_dropped) {
        PyErr_Format(PyExc_ValueError,
                     "%s: %s need at least one byte on a stream; with none the kernel drops them "
                     "without an error",
                     out->is_typed ? "data" : "buffers",
                     out->fd_count > 0 ? "descriptors" : "control messages");
    }
    return is_dropped ? -1 : 0;
}

/* What sendmsg() and send_fds() do once the address is set, in the order of socket: audit, buffers,
   `ancdata` (NULL where `out` has all control data, made of `fds`), the call.  How many bytes, a
   new reference.
   Inline for the reason that stands at cmsgx_call(). */
static inline __attribute__((always_inline)) PyObject *
send_plain(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *buffers, PyObject *ancdata,
           PyObject *fds, int flags, PyObject *address)
{
    if (cmsgx_audit("socket.sendmsg", "OO", sock->object, address) < 0
        || cmsgx_outgoing_add_buffers(out, buffers, "buffers", NEEDED_BUFFERS) < 0) {
        return NULL;
    }
    int is_typed = ancdata != NULL ? add_ancdata(out, ancdata, "ancdata") : 0;
    if (is_typed < 0 || (is_typed && out->total == 0 && check_dropped(out, sock) < 0)) {
        return NULL;
    }
    int error;
    ssize_t sent = cmsgx_outgoing_send(out, sock, flags, &error);
    if (sent < 0) {
        cmsgx_note_used_up(
            (const cmsgx_argument[]){{"buffers", buffers}, {"ancdata", ancdata}, {"fds", fds}}, 3);
        return NULL;
    }
    return PyLong_FromSsize_t(sent);
}

/* Not inlined: see send_through(). */
__attribute__((noinline)) PyObject *
cmsgx_sendmsg_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs)
{
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_stack_scratch room;
    PyObject *result = NULL;
    int flags = 0;

    if (nargs < 2 || nargs > 5) {
        return PyErr_Format(PyExc_TypeError,
                            "sendmsg() takes a socket and 1 to 4 arguments (%zd given)",
                            nargs > 0 ? nargs - 1 : 0);
    }
    if (cmsgx_sock_resolve(state, args[0], &sock) < 0
        || (nargs > 3 && cmsgx_as_int(args[3], "flags", &flags) < 0)) {
        return NULL;
    }
    cmsgx_outgoing_init(&out, cmsgx_scratch_of(&room), state, &sock);
    PyObject *address = nargs > 4 ? args[4] : Py_None;
    int known = set_address(&out, &sock, address);
    if (known < 0) {
        goto done;
    }
    if (known == 0) {
        if (sock.kind == CMSGX_SOCKET) {
            result = send_through(state, state->stdlib_methods[CMSGX_SENDMSG].method, args, nargs);
        }
        else {
            cmsgx_raise_no_conversion(&sock, address);
        }
        goto done;
    }
    result = send_plain(&out, &sock, args[1], nargs > 2 ? args[2] : NULL, NULL, flags, address);

done:
    cmsgx_outgoing_clear(&out);
    return result;
}

PyObject *
cmsgx_sendmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    cmsgx_state *state = cmsgx_state_of(module);
    int is_foreign = nargs >= 2 && nargs <= 5
        ? cmsgx_is_foreign(state, args[0], CMSGX_SENDMSG) : 0;
    if (is_foreign != 0) {
        return is_foreign < 0 ? NULL : send_through(state, NULL, args, nargs);
    }
    return cmsgx_sendmsg_method(state, args, nargs);
}

/* send_fds --------------------------------------------------------------------------------- */

static const cmsgx_signature send_fds_signature = {
    "send_fds", 5, 3,
    {CMSGX_KW_SOCK, CMSGX_KW_BUFFERS, CMSGX_KW_FDS, CMSGX_KW_FLAGS, CMSGX_KW_ADDRESS, -1},
};

/* Descriptors as the socket module takes them, also as the bytes of an array. */
static int
add_plain_fds(cmsgx_outgoing *out, PyObject *fds)
{
    int added = PyBytes_Check(fds) || PyByteArray_Check(fds) ? cmsgx_outgoing_add_fd_bytes(out, fds)
                                                             : cmsgx_outgoing_add_fds(out, fds, 0);
    /* Also where there are none: socket sends an empty SCM_RIGHTS then. */
    return added < 0 || cmsgx_outgoing_add_rights(out, 0) < 0 ? -1 : 0;
}

/* Not inlined: see send_through(). */
__attribute__((noinline)) PyObject *
cmsgx_send_fds_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    PyObject *values[5] = {NULL};
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_stack_scratch room;
    PyObject *result = NULL;
    int flags = 0;

    if (cmsgx_keywords(state, &send_fds_signature, args, nargs, kwnames, values) < 0
        || cmsgx_sock_resolve(state, values[0], &sock) < 0
        || (values[3] != NULL && cmsgx_as_int(values[3], "flags", &flags) < 0)) {
        return NULL;
    }
    cmsgx_outgoing_init(&out, cmsgx_scratch_of(&room), state, &sock);
    PyObject *address = values[4] != NULL ? values[4] : Py_None;
    /* Before the buffers, which may be an iterator: they are read once, by whom it takes. */
    int known = set_address(&out, &sock, address);
    if (known < 0 || add_plain_fds(&out, values[2]) < 0) {
        goto done;
    }
    if (known == 0) {
        if (sock.kind != CMSGX_SOCKET) {
            cmsgx_raise_no_conversion(&sock, address);
            goto done;
        }
        result = send_through_own(&out, &sock, values[1], flags, address);
        if (result == NULL) {
            cmsgx_note_used_up(
                (const cmsgx_argument[]){{"buffers", values[1]}, {"fds", values[2]}}, 2);
        }
        goto done;
    }
    result = send_plain(&out, &sock, values[1], NULL, values[2], flags, address);

done:
    cmsgx_outgoing_clear(&out);
    return result;
}

/* By the method that the object has of its own, which gets no more than was given, as in socket. */
static PyObject *
send_fds_foreign(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *values[5] = {NULL};
    if (cmsgx_keywords(state, &send_fds_signature, args, nargs, kwnames, values) < 0) {
        return NULL;
    }
    /* Held until the call is over: what an iterator made would close its file otherwise. */
    PyObject *fds = PyBytes_Check(values[2]) || PyByteArray_Check(values[2])
        ? Py_NewRef(values[2]) : cmsgx_listed_fds(state, values[2], 0);
    if (fds != NULL && PyList_Check(fds)) {
        Py_SETREF(fds, PyList_AsTuple(fds));
    }
    PyObject *ancdata = fds == NULL ? NULL : fds_as_tuples(state, fds);
    PyObject *flags = values[3] != NULL ? Py_NewRef(values[3]) : PyLong_FromLong(0);
    PyObject *result = NULL;
    if (ancdata != NULL && flags != NULL) {
        PyObject *stack[] = {values[0], values[1], ancdata, flags, values[4]};
        result = cmsgx_call_foreign(state->stdlib_methods[CMSGX_SENDMSG].name, stack,
                                    values[4] != NULL ? 5 : values[3] != NULL ? 4 : 3);
    }
    if (result == NULL) {
        cmsgx_note_used_up((const cmsgx_argument[]){{"fds", values[2]}}, 1);
    }
    Py_XDECREF(flags);
    Py_XDECREF(ancdata);
    Py_XDECREF(fds);
    return result;
}

PyObject *
cmsgx_send_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *sock = cmsgx_first_argument(state, CMSGX_KW_SOCK, args, nargs, kwnames);
    int is_foreign = sock != NULL ? cmsgx_is_foreign(state, sock, CMSGX_SENDMSG) : 0;
    if (is_foreign != 0) {
        return is_foreign < 0 ? NULL : send_fds_foreign(state, args, nargs, kwnames);
    }
    return cmsgx_send_fds_method(state, args, nargs, kwnames);
}

/* send ------------------------------------------------------------------------------------- */

/* `control`: one typed control message, or an iterable of typed ones and (level, type, data). */
static int
add_control(cmsgx_outgoing *out, PyObject *control)
{
    if (!PyTuple_CheckExact(control) && !PyList_CheckExact(control)
        && PyObject_TypeCheck(control, out->state->Record)) {
        return cmsgx_outgoing_add_kind(out, control);
    }
    PyObject *items = cmsgx_sequence(control, "control", NEEDED_CONTROL);
    if (items == NULL) {
        return -1;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PySequence_Fast_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(items, i));
        result = PyTuple_CheckExact(item) ? add_raw(out, item, "control", i)
                                          : cmsgx_outgoing_add_kind(out, item);
        Py_DECREF(item);
    }
    Py_DECREF(items);
    return result;
}

/* Refuses what would lose descriptors without a word. */
static int
check_fds(const cmsgx_outgoing *out, cmsgx_sock *sock)
{
    int family = cmsgx_sock_family(sock);
    if (family < 0) {
        cmsgx_raise_of_sock(errno, cmsgx_sock_number(sock));
        return -1;
    }
    if (family != AF_UNIX) {
        cmsgx_raise_not_supported(out->state->NotSupportedError, EOPNOTSUPP,
                                  "fds: descriptors travel over AF_UNIX sockets only; over another "
                                  "family the kernel drops them without an error");
        return -1;
    }
    if (CMSGX_RIGHTS_ALONE && out->control_used > CMSG_SPACE(out->fd_count * sizeof(int))) {
        cmsgx_raise_not_supported(out->state->NotSupportedError, EOPNOTSUPP,
                                  "control: this system takes no other control message beside "
                                  "descriptors; send it with another message");
        return -1;
    }
    return 0;
}

int
cmsgx_fill_head(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *fds, PyObject *control,
                PyObject *address)
{
    /* The address first: what goes to IPv4 has its form in the control data. */
    int known = set_address(out, sock, address);
    if (known < 0 || (fds != NULL && cmsgx_outgoing_add_fds(out, fds, 1) < 0)
        || (control != NULL && add_control(out, control) < 0)
        || (out->fd_count > 0 && cmsgx_outgoing_add_rights(out, 0) < 0)) {
        return -1;
    }
    return known;
}

int
cmsgx_fill_data(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *data, PyObject *address)
{
    if (cmsgx_audit("socket.sendmsg", "OO", sock->object, address) < 0) {
        return -1;
    }
    int added = PyBytes_CheckExact(data) || PyObject_CheckBuffer(data)
        ? cmsgx_outgoing_add_buffer(out, data, 1)
        : cmsgx_outgoing_add_buffers(out, data, "data",
                                     "a bytes-like object, or an iterable of them,");
    return added < 0 || (out->fd_count > 0 && check_fds(out, sock) < 0)
        || (out->total == 0 && check_dropped(out, sock) < 0) ? -1 : 0;
}

/* Bytes sent, or -1 with an exception; *error then has the errno of the system call, or 0.

   Inline, for the reason that stands at cmsgx_call(). */
static inline __attribute__((always_inline)) ssize_t
send_typed(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
           int *error)
{
    enum {SOCK, DATA, FDS, CONTROL, FLAGS, ADDRESS, TIMEOUT, COUNT};
    static const cmsgx_signature signature = {
        "send", 2, 2,
        {CMSGX_KW_SOCK, CMSGX_KW_DATA, CMSGX_KW_FDS, CMSGX_KW_CONTROL, CMSGX_KW_FLAGS,
         CMSGX_KW_ADDRESS, CMSGX_KW_TIMEOUT, -1},
    };
    PyObject *values[COUNT] = {NULL};
    cmsgx_state *state = cmsgx_state_of(module);
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_stack_scratch room;
    ssize_t sent = -1;
    int flags = 0;

    *error = 0;
    if (cmsgx_keywords(state, &signature, args, nargs, kwnames, values) < 0
        || cmsgx_sock_resolve_typed(state, values[SOCK], CMSGX_SENDING, &sock) < 0
        || cmsgx_sock_set_timeout(&sock, values[TIMEOUT]) < 0
        || (values[FLAGS] != NULL && cmsgx_as_int(values[FLAGS], "flags", &flags) < 0)) {
        return -1;
    }
    flags |= CMSGX_MSG_NOSIGNAL;
    cmsgx_outgoing_init(&out, cmsgx_scratch_of(&room), state, &sock);
    out.is_typed = 1;

    PyObject *address = values[ADDRESS] != NULL ? values[ADDRESS] : Py_None;
    int known = cmsgx_fill_head(&out, &sock, values[FDS], values[CONTROL], address);
    if (known < 0) {
        goto done;
    }
    if (known == 0) {
        if (sock.kind != CMSGX_SOCKET || out.fd_count > 0
            || (values[TIMEOUT] != NULL && values[TIMEOUT] != Py_Ellipsis)) {
            cmsgx_raise_no_conversion(&sock, address);
            goto done;
        }
        PyObject *buffers = PyObject_CheckBuffer(values[DATA]) ? PyTuple_Pack(1, values[DATA])
                                                               : Py_NewRef(values[DATA]);
        PyObject *result = buffers == NULL
            ? NULL : send_through_own(&out, &sock, buffers, flags, address);
        sent = result == NULL ? -1 : PyLong_AsSsize_t(result);
        Py_XDECREF(result);
        Py_XDECREF(buffers);
    }
    else if (cmsgx_fill_data(&out, &sock, values[DATA], address) < 0) {
        goto done;
    }
    else {
        sent = cmsgx_outgoing_send(&out, &sock, flags, error);
    }
    if (sent < 0) {
        cmsgx_note_used_up((const cmsgx_argument[]){{"data", values[DATA]},
                                                    {"fds", values[FDS]},
                                                    {"control", values[CONTROL]}},
                           3);
    }

done:
    cmsgx_outgoing_clear(&out);
    return sent;
}

PyObject *
cmsgx_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    int error;
    ssize_t sent = send_typed(module, args, nargs, kwnames, &error);
    return sent < 0 ? NULL : PyLong_FromSsize_t(sent);
}

int
cmsgx_is_progress(const char *function, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || !PyList_CheckExact(args[0]) || PyList_GET_SIZE(args[0]) != 1) {
        PyErr_Format(PyExc_TypeError, "%s(): the first argument is a list of one int", function);
        return 0;
    }
    return 1;
}

PyObject *
cmsgx_tell_progress(PyObject *progress, ssize_t sent, int error)
{
    PyObject *raised = cmsgx_save_exception();
    if (sent > 0) {
        PyObject *before = Py_XNewRef(PyList_GetItem(progress, 0));
        PyObject *more = before == NULL ? NULL : PyLong_FromSsize_t(sent);
        PyObject *total = more == NULL ? NULL : PyNumber_Add(before, more);
        Py_XDECREF(more);
        Py_XDECREF(before);
        if (total == NULL || PyList_SetItem(progress, 0, total) < 0) {
            Py_XDECREF(raised);
            return NULL;
        }
    }
    if (raised != NULL && error == 0) {
        cmsgx_restore_exception(raised);
        return NULL;
    }
    return raised != NULL ? raised : Py_NewRef(Py_None);
}

PyObject *
cmsgx_send_tracked(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    int error;
    if (!cmsgx_is_progress("send_tracked", args, nargs)) {
        return NULL;
    }
    ssize_t sent = send_typed(module, args + 1, nargs - 1, kwnames, &error);
    return cmsgx_tell_progress(args[0], sent, error);
}

PyObject *
cmsgx_build(PyObject *module, PyObject *control)
{
    cmsgx_outgoing out;
    cmsgx_stack_scratch room;
    PyObject *bytes = NULL;
    cmsgx_outgoing_init(&out, cmsgx_scratch_of(&room), cmsgx_state_of(module), NULL);
    PyObject *items = PyObject_TypeCheck(control, out.state->Record)
        ? PyTuple_Pack(1, control)
        : cmsgx_sequence(control, "control", NEEDED_CONTROL);
    if (items != NULL && add_ancdata(&out, items, "control") >= 0) {
        bytes = PyBytes_FromStringAndSize((const char *)out.control,
                                          (Py_ssize_t)out.control_used);
    }
    Py_XDECREF(items);
    cmsgx_outgoing_clear(&out);
    return bytes;
}
