#include "calls/send.h"

#include "arguments.h"
#include "calls/notes.h"
#include "calls/outgoing_fill.h"
#include "calls/outgoing_send.h"

#include <errno.h>

/* The number of bytes sent, or -1 with an exception; *error is then the errno of the system call,
   or 0.

   Inline, for the reason given at cmsgx_call(). */
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
    cmsgx_outgoing_stack stack;
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
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, &sock);
    out.is_typed = 1;

    PyObject *address = values[ADDRESS] != NULL ? values[ADDRESS] : Py_None;
    int known = cmsgx_outgoing_fill_head(&out, &sock, values[FDS], values[CONTROL], address);
    if (known < 0) {
        goto done;
    }
    if (known == 0) {
        if (sock.kind != CMSGX_SOCKET || out.fd_count > 0
            || (values[TIMEOUT] != NULL && values[TIMEOUT] != Py_Ellipsis)) {
            cmsgx_raise_no_conversion(&out, &sock, address);
            goto done;
        }
        PyObject *buffers = PyObject_CheckBuffer(values[DATA]) ? PyTuple_Pack(1, values[DATA])
                                                               : Py_NewRef(values[DATA]);
        PyObject *result = buffers == NULL
            ? NULL : cmsgx_outgoing_send_by_method(&out, &sock, buffers, flags, address);
        sent = result == NULL ? -1 : PyLong_AsSsize_t(result);
        Py_XDECREF(result);
        Py_XDECREF(buffers);
    }
    else if (cmsgx_outgoing_fill_data(&out, &sock, values[DATA], address) < 0) {
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

/* Whether each argument can be read again by the next try: 1, or 0 with TypeError. */
static int
are_repeatable(const cmsgx_argument *arguments, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (cmsgx_is_used_up(arguments[i].value) && cmsgx_is_argument_used_up(&arguments[i])) {
            PyErr_Format(PyExc_TypeError,
                         "%s: a list or a tuple is needed, not %.200s, which a try that sends "
                         "nothing would use up; PreparedSend reads it once",
                         arguments[i].name, Py_TYPE(arguments[i].value)->tp_name);
            return 0;
        }
    }
    return 1;
}

PyObject *
cmsgx_try_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    enum {SOCK, DATA, FDS, CONTROL, ADDRESS, COUNT};
    static const cmsgx_signature signature = {
        "try_send", 2, 2,
        {CMSGX_KW_SOCK, CMSGX_KW_DATA, CMSGX_KW_FDS, CMSGX_KW_CONTROL, CMSGX_KW_ADDRESS, -1},
    };
    PyObject *values[COUNT] = {NULL};
    cmsgx_state *state = cmsgx_state_of(module);
    cmsgx_sock sock;
    cmsgx_outgoing out;
    cmsgx_outgoing_stack stack;
    ssize_t sent = -1;
    int error = 0;

    if (cmsgx_keywords(state, &signature, args, nargs, kwnames, values) < 0
        || !are_repeatable((const cmsgx_argument[]){{"data", values[DATA]},
                                                    {"fds", values[FDS]},
                                                    {"control", values[CONTROL]}},
                           3)
        || cmsgx_sock_resolve_typed(state, values[SOCK], CMSGX_SENDING, &sock) < 0) {
        return NULL;
    }
    sock.timeout = CMSGX_ONE_TRY;
    cmsgx_outgoing_init(&out, cmsgx_stack_arrays(&stack), state, &sock);
    out.is_typed = out.never_waits = 1;
    if (cmsgx_outgoing_fill(&out, &sock, values[DATA], values[FDS], values[CONTROL],
                            values[ADDRESS] != NULL ? values[ADDRESS] : Py_None)
        == 0) {
        sent = cmsgx_outgoing_send(&out, &sock, CMSGX_MSG_NOSIGNAL | MSG_DONTWAIT, &error);
    }
    cmsgx_outgoing_clear(&out);
    return sent >= 0 ? PyLong_FromSsize_t(sent) : error == EAGAIN ? Py_NewRef(Py_None) : NULL;
}

int
cmsgx_is_progress(const char *function, PyObject *const *args, Py_ssize_t nargs, int count)
{
    if (nargs < 1 || !PyList_CheckExact(args[0]) || PyList_GET_SIZE(args[0]) != count) {
        PyErr_Format(PyExc_TypeError, "%s(): the first argument is a list of %s", function,
                     count == 1 ? "one int" : "two ints");
        return 0;
    }
    return 1;
}

/* Adds to one of the numbers: 0, or -1 with an exception. */
static int
add_progress(PyObject *progress, Py_ssize_t at, Py_ssize_t amount)
{
    PyObject *before = Py_XNewRef(PyList_GetItem(progress, at));
    PyObject *more = before == NULL ? NULL : PyLong_FromSsize_t(amount);
    PyObject *total = more == NULL ? NULL : PyNumber_Add(before, more);
    Py_XDECREF(more);
    Py_XDECREF(before);
    return total == NULL ? -1 : PyList_SetItem(progress, at, total);
}

PyObject *
cmsgx_tell_progress(PyObject *progress, ssize_t sent, ssize_t part_sent, int error)
{
    PyObject *raised = cmsgx_save_exception();
    int has_part = PyList_Size(progress) > 1;
    if ((sent > 0 && (add_progress(progress, 0, sent) < 0
                      || (has_part && PyList_SetItem(progress, 1, PyLong_FromLong(0)) < 0)))
        || (part_sent > 0 && add_progress(progress, 1, part_sent) < 0)) {
        Py_XDECREF(raised);
        return NULL;
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
    if (!cmsgx_is_progress("send_tracked", args, nargs, 1)) {
        return NULL;
    }
    ssize_t sent = send_typed(module, args + 1, nargs - 1, kwnames, &error);
    return cmsgx_tell_progress(args[0], sent, 0, error);
}
