#include "calls/recv.h"

#include "types/address.h"
#include "arguments.h"
#include "types/buffer.h"
#include "errors.h"
#include "types/message.h"
#include "plain/msghdr.h"
#include "calls/wait.h"

#include <poll.h>

#define SMALL_CONTROL 512

/* One call of the drop-in functions. */
typedef struct {
    struct msghdr msg;
    struct sockaddr_storage name;
    cmsgx_sock *sock;           /* borrowed */
    unsigned char *control;     /* `small`, or owned */
    size_t control_size;
    int flags_asked;
    unsigned char small[SMALL_CONTROL + CMSGX_EXTRA_CONTROL] __attribute__((aligned(16)));
} drop_in_call;

static ssize_t
try_recvmsg(int fd, void *context, int flags)
{
    drop_in_call *call = context;
    return cmsgx_msghdr_receive(fd, &call->msg, flags, call->control, call->control_size,
                                &call->name, sizeof(call->name), 0);
}

static size_t
control_used(const drop_in_call *call)
{
    size_t used = (size_t)call->msg.msg_controllen;
    return used <= call->control_size ? used : call->control_size;
}

static int
drop_in_init(drop_in_call *call, cmsgx_sock *sock, Py_ssize_t control_size, int flags)
{
    call->sock = sock;
    memset(&call->msg, 0, sizeof(call->msg));
    call->control = call->small;
    call->control_size = 0;
    call->flags_asked = flags;
    call->name.ss_family = AF_UNSPEC;
    if (control_size < 0 || control_size > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "ancbufsize: %zd; it is 0 to %d", control_size, INT_MAX);
        return -1;
    }
    if (control_size > SMALL_CONTROL) {
        call->control = PyMem_Malloc((size_t)control_size + CMSGX_EXTRA_CONTROL);
        if (call->control == NULL) {
            call->control = call->small;
            PyErr_NoMemory();
            return -1;
        }
    }
    call->control_size = (size_t)control_size;
    return 0;
}

static void
drop_in_clear(drop_in_call *call)
{
    if (call->control != call->small) {
        PyMem_Free(call->control);
    }
}

/* Closes each descriptor that arrived, for a call that fails after all. */
static void
drop_in_close(const drop_in_call *call)
{
    Py_BEGIN_ALLOW_THREADS
    cmsgx_close_received(call->control, control_used(call));
    Py_END_ALLOW_THREADS
}

static int
msg_flags(const drop_in_call *call)
{
    return call->flags_asked & CMSGX_MSG_CMSG_CLOEXEC
        ? call->msg.msg_flags
        : call->msg.msg_flags & ~CMSGX_MSG_CMSG_CLOEXEC;
}

static PyObject *
drop_in_address(const drop_in_call *call)
{
    socklen_t size = call->msg.msg_namelen;
    cmsgx_whence whence = CMSGX_NOWHERE;
    int borrowed = -1;
    if (size > 0 && cmsgx_names_need_socket(call->name.ss_family)) {
        borrowed = cmsgx_sock_borrow(call->sock);
        whence.fd = borrowed;
        whence.proto = cmsgx_sock_proto(call->sock);
    }
    PyObject *address = cmsgx_name_to_object(
        &call->name, size <= sizeof(call->name) ? size : (socklen_t)sizeof(call->name), whence);
    if (borrowed >= 0) {
        cmsgx_sock_give_back(call->sock);
    }
    return address;
}

/* (level, type, data): a new reference. */
static PyObject *
as_tuple(const cmsgx_header *header)
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
drop_in_ancdata(drop_in_call *call)
{
    PyObject *list = PyList_New(0);
    cmsgx_header header;
    size_t offset = 0;
    cmsgx_step step;

    while (list != NULL
           && (step = cmsgx_walk(call->control, control_used(call), &offset, &header))
                  != CMSGX_END) {
        if (step != CMSGX_MESSAGE
            && PyErr_WarnEx(PyExc_RuntimeWarning,
                            "received malformed or improperly-truncated ancillary data", 1)
                   < 0) {
            Py_CLEAR(list);
            break;
        }
        if (step == CMSGX_BROKEN) {
            /* The caller never sees these, so they are closed here. */
            Py_BEGIN_ALLOW_THREADS
            cmsgx_close_message(&header, step);
            Py_END_ALLOW_THREADS
            /* And no longer there, should what follows fail. */
            call->msg.msg_controllen = (__typeof__(call->msg.msg_controllen))header.offset;
            break;
        }
        PyObject *item = as_tuple(&header);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

/* One message whose data, `size` bytes at most, become a bytes object.  0, and then the descriptors
   that arrived are the caller's to pass on or to close, and *data is a new reference, or NULL where
   that raised; -1 where nothing was received, with an exception.

   Inline, for the reason that stands at cmsgx_call(). */
static inline __attribute__((always_inline)) int
receive_bytes(drop_in_call *call, cmsgx_sock *sock, Py_ssize_t size, int flags, PyObject **data)
{
    struct iovec iov;
    *data = PyBytes_FromStringAndSize(NULL, size);
    if (*data == NULL) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Clear();
            cmsgx_raise_no_room((size_t)size);
        }
        return -1;
    }
    cmsgx_msghdr_set_data(&call->msg, &iov, PyBytes_AS_STRING(*data), (size_t)size, flags);
    ssize_t received = cmsgx_call(sock, POLLIN, try_recvmsg, call, flags, NULL, NULL);
    call->msg.msg_iov = NULL;
    if (received < 0) {
        Py_CLEAR(*data);
        return -1;
    }
    if (received < size) {
        (void)_PyBytes_Resize(data, received);
    }
    return 0;
}

/* (data, second, msg_flags, address): a new reference.  Steals `data` and `second`, also where it
   fails, and takes NULL for either where that raised.  The descriptors that arrived stay the
   caller's: after NULL it closes them. */
static PyObject *
result_of(const drop_in_call *call, PyObject *data, PyObject *second)
{
    PyObject *address = data == NULL || second == NULL ? NULL : drop_in_address(call);
    PyObject *flags = address == NULL ? NULL : PyLong_FromLong(msg_flags(call));
    PyObject *result = flags == NULL ? NULL : PyTuple_New(4);
    if (result == NULL) {
        Py_XDECREF(data);
        Py_XDECREF(second);
        Py_XDECREF(address);
        Py_XDECREF(flags);
        return NULL;
    }
    PyTuple_SET_ITEM(result, 0, data);
    PyTuple_SET_ITEM(result, 1, second);
    PyTuple_SET_ITEM(result, 2, flags);
    PyTuple_SET_ITEM(result, 3, address);
    return result;
}

/* Steals `data`, the first item of the result. */
static PyObject *
drop_in_result(drop_in_call *call, PyObject *data)
{
    PyObject *ancdata = data == NULL ? NULL : drop_in_ancdata(call);
    PyObject *result = result_of(call, data, ancdata);
    if (result == NULL) {
        drop_in_close(call);
    }
    return result;
}

/* Whether C converts the addresses of that family; otherwise the socket's own method is called,
   which knows them all. */
static int
is_known_family(cmsgx_sock *sock)
{
    if (sock->kind != CMSGX_SOCKET) {
        return 1;
    }
    int family = cmsgx_sock_family(sock);
    return family == AF_UNIX || family == AF_INET || family == AF_INET6;
}

/* By the method that the object has of its own, which is asked for close-on-exec too where there is
   room for descriptors. */
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

/* What both have after the first argument.  1, 0 where *result has the answer (or the exception)
   of the socket's own method, -1 with an exception. */
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
    if (!is_known_family(sock)) {
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
    drop_in_call call;
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
    if (drop_in_init(&call, &sock, control_size, flags) == 0
        && receive_bytes(&call, &sock, size, flags | more_flags, &data) == 0) {
        result = drop_in_result(&call, data);
    }
    drop_in_clear(&call);
    return result;
}

/* Not inlined: the functions below may call Python code that comes back, and need little of the
   stack themselves. */
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
    cmsgx_state *state = cmsgx_state_of(module);
    int is_foreign = takes(nargs) ? cmsgx_is_foreign(state, args[0], CMSGX_RECVMSG) : 0;
    if (is_foreign != 0) {
        return is_foreign < 0 ? NULL : receive_foreign(state, CMSGX_RECVMSG, args, nargs,
                                                       CMSGX_MSG_CMSG_CLOEXEC);
    }
    return cmsgx_recvmsg_method(state, args, nargs);
}

PyObject *
cmsgx_recvmsg_inheritable(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    cmsgx_state *state = cmsgx_state_of(module);
    int is_foreign = takes(nargs) ? cmsgx_is_foreign(state, args[0], CMSGX_RECVMSG) : 0;
    if (is_foreign != 0) {
        return is_foreign < 0 ? NULL : receive_foreign(state, CMSGX_RECVMSG, args, nargs, 0);
    }
    return cmsgx_recvmsg_inheritable_method(state, args, nargs);
}

/* recvmsg_into ----------------------------------------------------------------------------- */

#define NEEDED_BUFFERS "an iterable of writable buffers, as [memory],"

static PyObject *
recvmsg_into_with(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs, int more_flags)
{
    enum {FEW = 8};
    cmsgx_sock sock;
    drop_in_call call;
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
    if (drop_in_init(&call, &sock, control_size, flags) == 0) {
        call.msg.msg_iov = iov;
        call.msg.msg_iovlen = (__typeof__(call.msg.msg_iovlen))count;
        ssize_t received = cmsgx_call(&sock, POLLIN, try_recvmsg, &call, flags | more_flags,
                                      NULL, NULL);
        if (received >= 0) {
            result = drop_in_result(&call, PyLong_FromSsize_t(received));
        }
    }

done:
    drop_in_clear(&call);
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
    cmsgx_state *state = cmsgx_state_of(module);
    int is_foreign = takes(nargs) ? cmsgx_is_foreign(state, args[0], CMSGX_RECVMSG_INTO) : 0;
    if (is_foreign != 0) {
        return is_foreign < 0 ? NULL : receive_foreign(state, CMSGX_RECVMSG_INTO, args, nargs,
                                                       CMSGX_MSG_CMSG_CLOEXEC);
    }
    return cmsgx_recvmsg_into_method(state, args, nargs);
}

PyObject *
cmsgx_recvmsg_into_inheritable(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    cmsgx_state *state = cmsgx_state_of(module);
    int is_foreign = takes(nargs) ? cmsgx_is_foreign(state, args[0], CMSGX_RECVMSG_INTO) : 0;
    if (is_foreign != 0) {
        return is_foreign < 0 ? NULL : receive_foreign(state, CMSGX_RECVMSG_INTO, args, nargs, 0);
    }
    return cmsgx_recvmsg_into_inheritable_method(state, args, nargs);
}

/* recv_fds --------------------------------------------------------------------------------- */

#define RIGHTS_CONTROL_SIZE (CMSG_SPACE(CMSGX_MAX_FDS * sizeof(int)) + SMALL_CONTROL)

/* [number, ...]: a new reference. */
static PyObject *
numbers_list(const int *fds, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyLong_FromLong(fds[i]);
        if (number == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, number);
        }
    }
    return list;
}

/* Steals `data`.  Whatever is not in the list that is returned is closed. */
static PyObject *
rights_result(drop_in_call *call, PyObject *data, size_t most)
{
    int fds[RIGHTS_CONTROL_SIZE / sizeof(int)];
    cmsgx_found found = cmsgx_gather(call->control, control_used(call), fds);
    size_t keep = found.rights < most ? found.rights : most;

    if (found.rights > keep) {
        /* As if the room had been for no more. */
        call->msg.msg_flags |= MSG_CTRUNC;
    }
    cmsgx_close_numbers(NULL, fds + keep, found.rights + found.pidfds - keep);
    if (found.malformed
        && PyErr_WarnEx(PyExc_RuntimeWarning,
                        "received malformed or improperly-truncated ancillary data", 1)
               < 0) {
        Py_CLEAR(data);
    }
    PyObject *list = data == NULL ? NULL : numbers_list(fds, keep);
    PyObject *result = result_of(call, data, list);
    if (result == NULL) {
        cmsgx_close_numbers(NULL, fds, keep);
    }
    return result;
}

typedef struct {
    PyObject *sock;             /* borrowed */
    Py_ssize_t size, most;
    int flags, cloexec;
} rights_asked;

static inline __attribute__((always_inline)) int
rights_parse(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             rights_asked *asked)
{
    static const cmsgx_signature signature = {
        "recv_fds", 4, 3,
        {CMSGX_KW_SOCK, CMSGX_KW_BUFSIZE, CMSGX_KW_MAXFDS, CMSGX_KW_FLAGS, CMSGX_KW_CLOEXEC, -1},
    };
    PyObject *values[5] = {NULL};

    asked->flags = 0;
    if (cmsgx_keywords(state, &signature, args, nargs, kwnames, values) < 0
        || cmsgx_as_size(values[1], "bufsize", &asked->size) < 0
        || cmsgx_as_size(values[2], "maxfds", &asked->most) < 0
        || (values[3] != NULL && cmsgx_as_int(values[3], "flags", &asked->flags) < 0)) {
        return -1;
    }
    asked->sock = values[0];
    asked->cloexec = values[4] == NULL ? 1 : PyObject_IsTrue(values[4]);
    if (asked->cloexec < 0) {
        return -1;
    }
    const Py_ssize_t most = (Py_ssize_t)((INT_MAX - CMSG_LEN(0)) / sizeof(int));
    if (asked->most < 0 || asked->most > most) {
        PyErr_Format(PyExc_OverflowError, "maxfds: %zd; it is 0 to %zd", asked->most, most);
        return -1;
    }
    if (asked->size < 0) {
        PyErr_Format(PyExc_ValueError, "bufsize: %zd; it cannot be negative", asked->size);
        return -1;
    }
    return 0;
}

/* `method` takes the socket first; None for the one that the object has of its own. */
static PyObject *
rights_through(cmsgx_state *state, PyObject *method, const rights_asked *asked)
{
    return PyObject_CallFunction(state->recv_fds_through, "OOnnii", method, asked->sock,
                                 asked->size, asked->most, asked->flags, asked->cloexec);
}

/* Not inlined, as in recvmsg. */
__attribute__((noinline)) PyObject *
cmsgx_recv_fds_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    unsigned char room[RIGHTS_CONTROL_SIZE + CMSGX_EXTRA_CONTROL] __attribute__((aligned(16)));
    cmsgx_sock sock;
    drop_in_call call;
    rights_asked asked;

    if (rights_parse(state, args, nargs, kwnames, &asked) < 0
        || cmsgx_sock_resolve(state, asked.sock, &sock) < 0) {
        return NULL;
    }
    if (!is_known_family(&sock)) {
        return rights_through(state, state->stdlib_methods[CMSGX_RECVMSG].method, &asked);
    }
    (void)drop_in_init(&call, &sock, 0, asked.flags);
    call.control = room;
    call.control_size = RIGHTS_CONTROL_SIZE;
    PyObject *data;
    if (receive_bytes(&call, &sock, asked.size,
                      asked.cloexec ? asked.flags | CMSGX_MSG_CMSG_CLOEXEC : asked.flags, &data)
        < 0) {
        return NULL;
    }
    return rights_result(&call, data, (size_t)asked.most);
}

PyObject *
cmsgx_recv_fds(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *sock = cmsgx_first_argument(state, CMSGX_KW_SOCK, args, nargs, kwnames);
    int is_foreign = sock != NULL ? cmsgx_is_foreign(state, sock, CMSGX_RECVMSG) : 0;
    if (is_foreign != 0) {
        rights_asked asked;
        return is_foreign < 0 || rights_parse(state, args, nargs, kwnames, &asked) < 0
            ? NULL : rights_through(state, Py_None, &asked);
    }
    return cmsgx_recv_fds_method(state, args, nargs, kwnames);
}

/* receive ---------------------------------------------------------------------------------- */

PyObject *
cmsgx_receive_once(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    enum {SOCK, BUFSIZE, FDS, FLAGS, TIMEOUT, TRUNCATION, CLOSE, COUNT};
    static const cmsgx_signature signature = {
        "receive", 2, 2,
        {CMSGX_KW_SOCK, CMSGX_KW_BUFSIZE, CMSGX_KW_FDS, CMSGX_KW_FLAGS, CMSGX_KW_TIMEOUT,
         CMSGX_KW_ON_TRUNCATION, CMSGX_KW_CLOSE, -1},
    };
    PyObject *values[COUNT] = {NULL};
    cmsgx_state *state = cmsgx_state_of(module);
    cmsgx_sock sock;
    size_t size, fds = 0;
    int flags = 0, raise_truncated = 1, in_background = 0;

    if (cmsgx_keywords(state, &signature, args, nargs, kwnames, values) < 0
        || cmsgx_sock_resolve_typed(state, values[SOCK], CMSGX_RECEIVING, &sock) < 0
        || cmsgx_sock_set_timeout(&sock, values[TIMEOUT]) < 0
        || cmsgx_as_bufsize(values[BUFSIZE], &size) < 0
        || (values[FDS] != NULL && cmsgx_as_fds(state, values[FDS], &fds) < 0)
        || (values[FLAGS] != NULL && cmsgx_as_int(values[FLAGS], "flags", &flags) < 0)
        || (values[TRUNCATION] != NULL
            && cmsgx_as_truncation(values[TRUNCATION], &raise_truncated) < 0)
        || (values[CLOSE] != NULL && cmsgx_as_close(values[CLOSE], &in_background) < 0)) {
        return NULL;
    }
    int family = sock.kind == CMSGX_SOCKET ? cmsgx_sock_family(&sock) : -1;
    int type = sock.kind == CMSGX_SOCKET ? cmsgx_sock_type(&sock) : -1;
    if (!cmsgx_may_bring_fds(family)) {
        if (fds > 0 && fds < CMSGX_MAX_FDS) {
            /* As a Receiver has it.  The family of a number is not asked for with each message. */
            PyObject *name = PyObject_CallFunction(state->family_name, "i", family);
            if (name != NULL) {
                cmsgx_raise_not_supported(state->NotSupportedError, EOPNOTSUPP,
                                          "fds=%zu: what brings descriptors is of AF_UNIX "
                                          "sockets; this one's family is %U",
                                          fds, name);
                Py_DECREF(name);
            }
            return NULL;
        }
        fds = 0;
    }
    if (cmsgx_check_peek(fds, flags) < 0) {
        return NULL;
    }
    PyObject *message = NULL;
    cmsgx_row *row = in_background && cmsgx_may_bring_fds(family)
        ? cmsgx_row_shared(state->closer, cmsgx_sock_number(&sock)) : NULL;
    cmsgx_receive_config *config =
        cmsgx_receive_config_once(state, fds, family, type, raise_truncated, row);
    cmsgx_buffer *buffer = config == NULL ? NULL : cmsgx_buffer_once(state, size);
    if (buffer != NULL) {
        message = cmsgx_receive(&sock, buffer, config, flags);
    }
    cmsgx_buffer_release(buffer);
    cmsgx_receive_config_release(config);
    return message;
}
