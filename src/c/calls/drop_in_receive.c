#include "calls/drop_in_receive.h"

#include "arguments.h"
#include "calls/drop_in_call.h"
#include "errors.h"

/* (level, type, data): a new reference. */
static PyObject *
header_tuple(const cmsgx_header *header)
{
    PyObject *level = PyLong_FromLong(header->level);
    PyObject *type = level == NULL ? NULL : PyLong_FromLong(header->type);
    PyObject *data = type == NULL ? NULL
        : PyBytes_FromStringAndSize((const char *)header->data, (Py_ssize_t)header->size);
    PyObject *tuple = data == NULL ? NULL : PyTuple_New(3);
    if (tuple == NULL) {
        Py_XDECREF(level);
        Py_XDECREF(type);
        Py_XDECREF(data);
        return NULL;
    }
    PyTuple_SET_ITEM(tuple, 0, level);
    PyTuple_SET_ITEM(tuple, 1, type);
    PyTuple_SET_ITEM(tuple, 2, data);
    return tuple;
}

/* [(level, type, data), ...]: a new reference. */
static PyObject *
drop_in_ancdata(cmsgx_drop_in *call)
{
    PyObject *list = PyList_New(0);
    cmsgx_header header;
    size_t offset = 0;
    cmsgx_step step;

    while (list != NULL
           && (step = cmsgx_walk(call->control, cmsgx_drop_in_used(call), &offset, &header))
                  != CMSGX_END) {
        if (step != CMSGX_MESSAGE && cmsgx_drop_in_warn() < 0) {
            Py_CLEAR(list);
            break;
        }
        if (step == CMSGX_BROKEN) {
            /* The caller never sees these descriptors, so they are closed here. */
            Py_BEGIN_ALLOW_THREADS
            cmsgx_close_message(&header, step);
            Py_END_ALLOW_THREADS
            /* Removed from the control data, so they are not closed again if a later step fails. */
            call->msg.msg_controllen = (__typeof__(call->msg.msg_controllen))header.offset;
            break;
        }
        PyObject *item = header_tuple(&header);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

/* Closes all received descriptors, for a call that fails after the receive. */
static void
drop_in_close(const cmsgx_drop_in *call)
{
    Py_BEGIN_ALLOW_THREADS
    cmsgx_close_received(call->control, cmsgx_drop_in_used(call));
    Py_END_ALLOW_THREADS
}

/* The result of recvmsg and recvmsg_into.  Steals `data`, its first item. */
static PyObject *
message_result(cmsgx_drop_in *call, PyObject *data)
{
    PyObject *ancdata = data == NULL ? NULL : drop_in_ancdata(call);
    PyObject *result = cmsgx_drop_in_result(call, data, ancdata);
    if (result == NULL) {
        drop_in_close(call);
    }
    return result;
}

/* Calls the method that the object defines itself, with a request for close-on-exec if the control
   buffer has space for descriptors. */
static PyObject *
receive_foreign(cmsgx_state *state, cmsgx_name name, PyObject *const *args, Py_ssize_t nargs,
                int more_flags)
{
    PyObject *text = state->stdlib_methods[name].name;
    if (nargs < 3 || more_flags == 0) {
        return cmsgx_call_foreign(text, args, (size_t)nargs);
    }
    PyObject *stack[5] = {text, args[0], args[1], args[2], nargs > 3 ? args[3] : NULL};
    return PyObject_Vectorcall(state->recvmsg_foreign, stack, (size_t)nargs + 1, NULL);
}

/* recvmsg ---------------------------------------------------------------------------------- */

static int
takes(Py_ssize_t nargs)
{
    return nargs >= 2 && nargs <= 4;
}

typedef PyObject *(*drop_in_method)(cmsgx_state *, PyObject *const *, Py_ssize_t);

/* The first step of the module functions: checks whether the object defines the method itself,
   which `method` does not do.  Inline, so that `method` is called directly. */
static inline __attribute__((always_inline)) PyObject *
receive_by_name(PyObject *module, cmsgx_name name, PyObject *const *args, Py_ssize_t nargs,
                int more_flags, drop_in_method method)
{
    cmsgx_state *state = cmsgx_state_of(module);
    int is_foreign = takes(nargs) ? cmsgx_is_foreign(state, args[0], name) : 0;
    if (is_foreign != 0) {
        return is_foreign < 0 ? NULL : receive_foreign(state, name, args, nargs, more_flags);
    }
    return method(state, args, nargs);
}

/* Parses the arguments that recvmsg and recvmsg_into share.  1; 0 if the socket's own method was
   called, with *result as its result, or NULL with its exception; -1 with an exception. */
static int
drop_in_parse(cmsgx_state *state, cmsgx_name name, const char *function, PyObject *const *args,
            Py_ssize_t nargs, cmsgx_sock *sock, Py_ssize_t *control_size, int *flags,
            PyObject **result)
{
    if (!takes(nargs)) {
        PyErr_Format(PyExc_TypeError, "%s() takes a socket and 1 to 3 arguments (%zd given)",
                     function, nargs > 0 ? nargs - 1 : 0);
        return -1;
    }
    if (cmsgx_sock_resolve(state, args[0], sock) < 0) {
        return -1;
    }
    if (!cmsgx_drop_in_is_known_family(sock)) {
        PyObject *first = cmsgx_unchanging(args[1]);
        if (first != NULL) {
            PyObject *stack[] = {args[0], first, nargs > 2 ? args[2] : NULL,
                                 nargs > 3 ? args[3] : NULL};
            *result = PyObject_Vectorcall(state->stdlib_methods[name].method, stack, (size_t)nargs,
                                          NULL);
            Py_DECREF(first);
        }
        return 0;
    }
    *control_size = 0;
    *flags = 0;
    if ((nargs > 2 && cmsgx_as_size(args[2], "ancbufsize", control_size) < 0)
        || (nargs > 3 && cmsgx_as_int(args[3], "flags", flags) < 0)) {
        return -1;
    }
    return 1;
}

static PyObject *
recvmsg_with(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs, int more_flags)
{
    cmsgx_sock sock;
    cmsgx_drop_in call;
    Py_ssize_t size, control_size;
    int flags;
    PyObject *result = NULL;

    int parsed = drop_in_parse(state, CMSGX_RECVMSG, "recvmsg", args, nargs, &sock, &control_size,
                             &flags, &result);
    if (parsed <= 0) {
        return result;
    }
    if (cmsgx_as_size(args[1], "bufsize", &size) < 0) {
        return NULL;
    }
    if (size < 0) {
        PyErr_Format(PyExc_ValueError, "bufsize: %zd; it cannot be negative", size);
        return NULL;
    }
    PyObject *data;
    if (cmsgx_drop_in_init(&call, &sock, control_size, flags) == 0
        && cmsgx_drop_in_receive_bytes(&call, &sock, size, flags | more_flags, &data) == 0) {
        result = message_result(&call, data);
    }
    cmsgx_drop_in_clear(&call);
    return result;
}

/* Not inlined, so that the functions below use little stack themselves: they may call Python code
   that calls them again. */
__attribute__((noinline)) PyObject *
cmsgx_recvmsg_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs)
{
    return recvmsg_with(state, args, nargs, CMSGX_MSG_CMSG_CLOEXEC);
}

__attribute__((noinline)) PyObject *
cmsgx_recvmsg_inheritable_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs)
{
    return recvmsg_with(state, args, nargs, 0);
}

PyObject *
cmsgx_recvmsg(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return receive_by_name(module, CMSGX_RECVMSG, args, nargs, CMSGX_MSG_CMSG_CLOEXEC,
                           cmsgx_recvmsg_method);
}

PyObject *
cmsgx_recvmsg_inheritable(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return receive_by_name(module, CMSGX_RECVMSG, args, nargs, 0, cmsgx_recvmsg_inheritable_method);
}

/* recvmsg_into ----------------------------------------------------------------------------- */

#define NEEDED_BUFFERS "an iterable of writable buffers, as [memory],"

static PyObject *
recvmsg_into_with(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs, int more_flags)
{
    enum {FEW = 8};
    cmsgx_sock sock;
    cmsgx_drop_in call;
    Py_ssize_t control_size, count = 0;
    int flags;
    Py_buffer few_buffers[FEW], *buffers = few_buffers;
    struct iovec few_iov[FEW], *iov = few_iov;
    PyObject *result = NULL;

    int parsed = drop_in_parse(state, CMSGX_RECVMSG_INTO, "recvmsg_into", args, nargs, &sock,
                             &control_size, &flags, &result);
    if (parsed <= 0) {
        return result;
    }
    PyObject *sequence = cmsgx_sequence(args[1], "buffers", NEEDED_BUFFERS);
    if (sequence == NULL) {
        return NULL;
    }
    call.control = call.small;
    Py_ssize_t items = PySequence_Fast_GET_SIZE(sequence);
    if (items > INT_MAX) {
        PyErr_Format(PyExc_OSError, "buffers: %zd; that is too many", items);
        goto done;
    }
    if (items > FEW) {
        buffers = PyMem_New(Py_buffer, (size_t)items);
        iov = PyMem_New(struct iovec, (size_t)items);
        if (buffers == NULL || iov == NULL) {
            PyErr_NoMemory();
            goto done;
        }
    }
    for (; count < items; count++) {
        if (count >= PySequence_Fast_GET_SIZE(sequence)) {
            PyErr_SetString(PyExc_RuntimeError, "the list of buffers changed while it was read");
            goto done;
        }
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(sequence, count));
        int parsed_one = PyArg_Parse(item, "w*", &buffers[count]);
        if (!parsed_one && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            cmsgx_raise_needed("buffers", count, "a writable bytes-like object, contiguous,", item);
            if (PyObject_CheckBuffer(args[1])) {
                PyErr_Clear();
                cmsgx_raise_needed("buffers", -1, NEEDED_BUFFERS, args[1]);
            }
        }
        Py_DECREF(item);
        if (!parsed_one) {
            goto done;
        }
        iov[count].iov_base = buffers[count].buf;
        iov[count].iov_len = (size_t)buffers[count].len;
    }
    if (cmsgx_drop_in_init(&call, &sock, control_size, flags) == 0) {
        call.msg.msg_iov = iov;
        call.msg.msg_iovlen = (__typeof__(call.msg.msg_iovlen))count;
        ssize_t received = cmsgx_call(&sock, POLLIN, cmsgx_drop_in_try, &call, flags | more_flags,
                                      NULL, NULL);
        if (received >= 0) {
            result = message_result(&call, PyLong_FromSsize_t(received));
        }
    }

done:
    cmsgx_drop_in_clear(&call);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyBuffer_Release(&buffers[i]);
    }
    if (buffers != few_buffers) {
        PyMem_Free(buffers);
    }
    if (iov != few_iov) {
        PyMem_Free(iov);
    }
    Py_DECREF(sequence);
    return result;
}

/* Not inlined, as in recvmsg. */
__attribute__((noinline)) PyObject *
cmsgx_recvmsg_into_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs)
{
    return recvmsg_into_with(state, args, nargs, CMSGX_MSG_CMSG_CLOEXEC);
}

__attribute__((noinline)) PyObject *
cmsgx_recvmsg_into_inheritable_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs)
{
    return recvmsg_into_with(state, args, nargs, 0);
}

PyObject *
cmsgx_recvmsg_into(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return receive_by_name(module, CMSGX_RECVMSG_INTO, args, nargs, CMSGX_MSG_CMSG_CLOEXEC,
                           cmsgx_recvmsg_into_method);
}

PyObject *
cmsgx_recvmsg_into_inheritable(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return receive_by_name(module, CMSGX_RECVMSG_INTO, args, nargs, 0,
                           cmsgx_recvmsg_into_inheritable_method);
}
