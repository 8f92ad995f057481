#include "calls/drop_in_send.h"

#include "arguments.h"
#include "calls/notes.h"
#include "calls/outgoing_control.h"
#include "calls/outgoing_fill.h"
#include "calls/outgoing_send.h"
#include "errors.h"

#define NEEDED_BUFFERS "an iterable of bytes-like objects, as [data],"

/* Through the type's own method ------------------------------------------------------------ */

static int
has_typed(cmsgx_state *state, PyObject *items)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items); i++) {
        if (PyObject_TypeCheck(PyTuple_GET_ITEM(items, i), state->Record)) {
            return 1;
        }
    }
    return 0;
}

static int add_drop_in_fds(cmsgx_outgoing *out, PyObject *fds);

/* The next two are not inlined: they need much stack, and their caller goes on to call Python code,
   which may come back here. */

/* The control messages, typed ones as well, as a list of tuples: in the wire format for that
   socket, or, without one, as wire.build() writes them.  A new reference.  The caller keeps `items`
   alive, and so the descriptors in them. */
static __attribute__((noinline)) PyObject *
typed_as_tuples(cmsgx_state *state, cmsgx_sock *sock, PyObject *items, int has_address)
{
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, sock);
    if (sock != NULL && has_address) {
        /* The method resolves a host name to an address of the socket's own family. */
        out.packet_family = cmsgx_sock_family(sock);
    }
    PyObject *tuples = cmsgx_outgoing_add_ancdata(&out, items, "ancdata") < 0
        ? NULL : cmsgx_outgoing_tuples(&out);
    cmsgx_outgoing_clear(&out);
    return tuples;
}

/* The same for the descriptors of send_fds(). */
static __attribute__((noinline)) PyObject *
fds_as_tuples(cmsgx_state *state, PyObject *fds)
{
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
    PyObject *tuples = NULL;
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, NULL);
    if (add_drop_in_fds(&out, fds) == 0) {
        tuples = cmsgx_outgoing_tuples(&out);
    }
    cmsgx_outgoing_clear(&out);
    return tuples;
}

/* sendmsg() by `method`, whose first argument is the socket; NULL is the method that the object
   itself has. */
static PyObject *
send_by_method(cmsgx_state *state, PyObject *method, PyObject *const *args, Py_ssize_t nargs)
{
    /* Read once, as it may be an iterator. */
    PyObject *items = nargs > 2 ? PySequence_Tuple(args[2]) : NULL;
    if (nargs > 2 && items == NULL) {
        return NULL;
    }
    PyObject *ancdata = NULL;
    if (items != NULL && has_typed(state, items)) {
        cmsgx_sock sock;
        int has_address = nargs > 4 && args[4] != Py_None;
        /* An object of another type may be of any family. */
        int is_socket = cmsgx_is_socket_class(state, Py_TYPE(args[0]));
        if (!is_socket || cmsgx_sock_resolve(state, args[0], &sock) == 0) {
            ancdata = typed_as_tuples(state, is_socket ? &sock : NULL, items, has_address);
        }
        if (ancdata == NULL && method == NULL
            && PyErr_ExceptionMatches(state->NotSupportedError)) {
            /* The user's own method may do anything with them. */
            PyErr_Clear();
            ancdata = typed_as_tuples(state, NULL, items, has_address);
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
        /* A method that gets the buffers unchanged reports on those itself. */
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

/* What sendmsg() and send_fds() do once the address is set, in the order of the socket module: the
   audit event, the buffers, `ancdata` (NULL if `out` already has the control data, made of `fds`),
   the system call.  The number of bytes, a new reference, or NULL with an exception.

   Inline, for the reason given at cmsgx_call(). */
static inline __attribute__((always_inline)) PyObject *
send_drop_in(cmsgx_outgoing *out, cmsgx_sock *sock, PyObject *buffers, PyObject *ancdata,
           PyObject *fds, int flags, PyObject *address)
{
    if (cmsgx_audit("socket.sendmsg", "OO", sock->object, address) < 0
        || cmsgx_outgoing_add_buffers(out, buffers, "buffers", NEEDED_BUFFERS) < 0) {
        return NULL;
    }
    int is_typed = ancdata != NULL ? cmsgx_outgoing_add_ancdata(out, ancdata, "ancdata") : 0;
    if (is_typed < 0
        || (is_typed && out->data_size == 0 && cmsgx_outgoing_check_dropped(out, sock) < 0)) {
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

/* Not inlined, as it needs much stack: see above typed_as_tuples(). */
__attribute__((noinline)) PyObject *
cmsgx_sendmsg_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs)
{
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
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
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, &sock);
    PyObject *address = nargs > 4 ? args[4] : Py_None;
    int known = cmsgx_outgoing_set_address(&out, &sock, address);
    if (known < 0) {
        goto done;
    }
    if (known == 0) {
        if (sock.kind == CMSGX_SOCKET) {
            PyObject *method = state->stdlib_methods[CMSGX_SENDMSG].method;
            result = send_by_method(state, method, args, nargs);
        }
        else {
            cmsgx_raise_no_conversion(&out, &sock, address);
        }
        goto done;
    }
    result = send_drop_in(&out, &sock, args[1], nargs > 2 ? args[2] : NULL, NULL, flags, address);

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
        return is_foreign < 0 ? NULL : send_by_method(state, NULL, args, nargs);
    }
    return cmsgx_sendmsg_method(state, args, nargs);
}

/* send_fds --------------------------------------------------------------------------------- */

static const cmsgx_signature send_fds_signature = {
    "send_fds", 5, 3,
    {CMSGX_KW_SOCK, CMSGX_KW_BUFFERS, CMSGX_KW_FDS, CMSGX_KW_FLAGS, CMSGX_KW_ADDRESS, -1},
};

/* Descriptors as the socket module takes them, also as the bytes of an int[n]. */
static int
add_drop_in_fds(cmsgx_outgoing *out, PyObject *fds)
{
    int added = PyBytes_Check(fds) || PyByteArray_Check(fds) ? cmsgx_outgoing_add_fd_bytes(out, fds)
                                                             : cmsgx_outgoing_add_fds(out, fds, 0);
    /* Also without descriptors: the socket module then sends an empty SCM_RIGHTS. */
    return added < 0 || cmsgx_outgoing_add_rights(out, 0) < 0 ? -1 : 0;
}

/* Not inlined, as it needs much stack: see above typed_as_tuples(). */
__attribute__((noinline)) PyObject *
cmsgx_send_fds_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    PyObject *values[5] = {NULL};
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
    PyObject *result = NULL;
    int flags = 0;

    if (cmsgx_keywords(state, &send_fds_signature, args, nargs, kwnames, values) < 0
        || cmsgx_sock_resolve(state, values[0], &sock) < 0
        || (values[3] != NULL && cmsgx_as_int(values[3], "flags", &flags) < 0)) {
        return NULL;
    }
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, &sock);
    PyObject *address = values[4] != NULL ? values[4] : Py_None;
    /* Before the buffers, which may be an iterator: whoever sends them is to read them, once. */
    int known = cmsgx_outgoing_set_address(&out, &sock, address);
    if (known < 0 || add_drop_in_fds(&out, values[2]) < 0) {
        goto done;
    }
    if (known == 0) {
        if (sock.kind != CMSGX_SOCKET) {
            cmsgx_raise_no_conversion(&out, &sock, address);
            goto done;
        }
        result = cmsgx_outgoing_send_by_method(&out, &sock, values[1], flags, address);
        if (result == NULL) {
            cmsgx_note_used_up(
                (const cmsgx_argument[]){{"buffers", values[1]}, {"fds", values[2]}}, 2);
        }
        goto done;
    }
    result = send_drop_in(&out, &sock, values[1], NULL, values[2], flags, address);

done:
    cmsgx_outgoing_clear(&out);
    return result;
}

/* By the method that the object itself has, with no more arguments than were given, as in the
   socket module. */
static PyObject *
send_fds_foreign(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *values[5] = {NULL};
    if (cmsgx_keywords(state, &send_fds_signature, args, nargs, kwnames, values) < 0) {
        return NULL;
    }
    /* Kept alive until the call is over: nothing else may refer to what an iterator made, and its
       file would be closed. */
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
