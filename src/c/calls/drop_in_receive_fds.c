#include "calls/drop_in_receive_fds.h"

#include "arguments.h"
#include "calls/drop_in_call.h"
#include "types/received.h"

#define RIGHTS_CONTROL_SIZE (CMSG_SPACE(CMSGX_MAX_FDS * sizeof(int)) + CMSGX_SMALL_CONTROL)

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

/* Steals `data`.  Closes all descriptors that are not in the returned list. */
static PyObject *
rights_result(cmsgx_drop_in *call, PyObject *data, size_t max_fds)
{
    int fds[RIGHTS_CONTROL_SIZE / sizeof(int)];
    cmsgx_found found = cmsgx_gather(call->control, cmsgx_drop_in_used(call), fds);
    size_t keep = found.rights < max_fds ? found.rights : max_fds;

    if (found.rights > keep) {
        /* As if the control buffer had had space for no more. */
        call->msg.msg_flags |= MSG_CTRUNC;
    }
    cmsgx_close_numbers(NULL, fds + keep, found.rights + found.pidfds - keep);
    if (found.malformed && cmsgx_drop_in_warn() < 0) {
        Py_CLEAR(data);
    }
    PyObject *list = data == NULL ? NULL : numbers_list(fds, keep);
    PyObject *result = cmsgx_drop_in_result(call, data, list);
    if (result == NULL) {
        cmsgx_close_numbers(NULL, fds, keep);
    }
    return result;
}

typedef struct {
    PyObject *sock;             /* borrowed */
    Py_ssize_t size, max_fds;
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
        || cmsgx_as_size(values[2], "maxfds", &asked->max_fds) < 0
        || (values[3] != NULL && cmsgx_as_int(values[3], "flags", &asked->flags) < 0)) {
        return -1;
    }
    asked->sock = values[0];
    asked->cloexec = values[4] == NULL ? 1 : PyObject_IsTrue(values[4]);
    if (asked->cloexec < 0) {
        return -1;
    }
    const Py_ssize_t max_value = (Py_ssize_t)((INT_MAX - CMSG_LEN(0)) / sizeof(int));
    if (asked->max_fds < 0 || asked->max_fds > max_value) {
        PyErr_Format(PyExc_OverflowError, "maxfds: %zd; must be 0 to %zd", asked->max_fds,
                     max_value);
        return -1;
    }
    if (asked->size < 0) {
        PyErr_Format(PyExc_ValueError, "bufsize: %zd; it cannot be negative", asked->size);
        return -1;
    }
    return 0;
}

/* Receives by `method`, whose first argument is the socket; None is the method that the object
   defines itself. */
static PyObject *
rights_through(cmsgx_state *state, PyObject *method, const rights_asked *asked)
{
    return PyObject_CallFunction(state->recv_fds_through, "OOnnii", method, asked->sock,
                                 asked->size, asked->max_fds, asked->flags, asked->cloexec);
}

/* Not inlined, as in recvmsg. */
__attribute__((noinline)) PyObject *
cmsgx_recv_fds_method(cmsgx_state *state, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    unsigned char control[RIGHTS_CONTROL_SIZE + CMSGX_EXTRA_CONTROL] __attribute__((aligned(16)));
    cmsgx_sock sock;
    cmsgx_drop_in call;
    rights_asked asked;

    if (rights_parse(state, args, nargs, kwnames, &asked) < 0
        || cmsgx_sock_resolve(state, asked.sock, &sock) < 0) {
        return NULL;
    }
    if (!cmsgx_drop_in_is_known_family(&sock)) {
        return rights_through(state, state->stdlib_methods[CMSGX_RECVMSG].method, &asked);
    }
    (void)cmsgx_drop_in_init(&call, &sock, 0, asked.flags);
    call.control = control;
    call.control_size = RIGHTS_CONTROL_SIZE;
    PyObject *data;
    if (cmsgx_drop_in_receive_bytes(&call, &sock, asked.size,
                      asked.cloexec ? asked.flags | CMSGX_MSG_CMSG_CLOEXEC : asked.flags, &data)
        < 0) {
        return NULL;
    }
    return rights_result(&call, data, (size_t)asked.max_fds);
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
