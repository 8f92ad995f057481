#include "calls/background.h"

#include "types/received.h"
#include "types/fd_argument.h"
#include "errors.h"
#include "plain/process.h"

#include <errno.h>
#include <fcntl.h>

/* Nanoseconds.  A wait is cut into slices, because a signal does not end it. */
#define SLICE INT64_C(20000000)

/* Before a receive --------------------------------------------------------------------------- */

/* Whether the receive would wait for a message, in cmsgx_call() or in the kernel. */
static int
would_wait(cmsgx_sock *sock, int flags)
{
    if (flags & MSG_DONTWAIT || sock->timeout == 0) {
        return 0;
    }
    if (sock->timeout != CMSGX_BLOCKING) {
        return 1;
    }
    int number = cmsgx_sock_borrow(sock);
    int status = -1;
    if (number >= 0) {
        status = fcntl(number, F_GETFL);
        cmsgx_sock_give_back(sock);
    }
    /* For a closed socket the receive itself fails. */
    return status >= 0 && !(status & O_NONBLOCK);
}

static int
wait_for_room(cmsgx_sock *sock, cmsgx_row *row, int flags)
{
    /* Usually the row is below its limit at once.  The GIL is released because this may have to
       close descriptors itself. */
    size_t waiting;
    Py_BEGIN_ALLOW_THREADS
    waiting = cmsgx_row_wait(row, 0);
    Py_END_ALLOW_THREADS
    if (waiting == 0) {
        return 0;
    }
    if (sock->timeout == CMSGX_ONE_TRY) {
        return -1;
    }
    if (!would_wait(sock, flags)) {
        cmsgx_raise_errno(EAGAIN,
                          "%zu descriptors are waiting for the background closer, too many to "
                          "receive more",
                          waiting);
        return -1;
    }
    /* What is left of the time is for the message. */
    cmsgx_start_clock(sock);
    do {
        int64_t left = cmsgx_left(sock->deadline, SLICE);
        if (left <= 0) {
            PyErr_Format(PyExc_TimeoutError,
                         "timed out: %zu descriptors are waiting for the background closer",
                         waiting);
            return -1;
        }
        Py_BEGIN_ALLOW_THREADS
        waiting = cmsgx_row_wait(row, left);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) {
            return -1;
        }
    } while (waiting > 0);
    return 0;
}

int
cmsgx_received_begin(cmsgx_sock *sock, const cmsgx_receive_config *config, size_t count, int flags)
{
    cmsgx_row *row = config->row;
    if (!cmsgx_row_has_room(row) && wait_for_room(sock, row, flags) < 0) {
        return -1;
    }
    if (cmsgx_row_reserve(row, count * CMSGX_MAX_PLACES) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* Functions ---------------------------------------------------------------------------------- */

/* Takes the descriptor of a socket object and hands it over; 0, or -1 with an exception. */
static int
submit_socket(cmsgx_state *state, PyObject *sock)
{
    PyObject *number = state->socket_fileno(sock, NULL);
    if (number == NULL) {
        return -1;
    }
    cmsgx_row *row = cmsgx_row_shared(state->closer, (int)PyLong_AsLong(number));
    Py_DECREF(number);
    if (cmsgx_row_reserve(row, 1) < 0) {
        cmsgx_row_drop(row);
        PyErr_NoMemory();
        return -1;
    }
    /* The detach() of the C type, which runs no Python code, so nothing can raise while the number
       has no owner. */
    number = PyObject_CallMethod((PyObject *)state->socket, "detach", "O", sock);
    int fd = number == NULL ? -1 : (int)PyLong_AsLong(number);
    if (fd >= 0) {
        cmsgx_row_submit(row, &fd, 1);
    }
    else {
        cmsgx_row_unreserve(row, 1);
    }
    cmsgx_row_drop(row);
    Py_XDECREF(number);
    if (number == NULL) {
        return -1;
    }
    /* As the detach() of socket.socket does. */
    if (PyObject_SetAttrString(sock, "_closed", Py_True) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}

PyObject *
cmsgx_closer_submit(PyObject *module, PyObject *descriptor)
{
    cmsgx_state *state = cmsgx_state_of(module);
    PyObject *owner;

    if (cmsgx_fd_check(state, descriptor)) {
        if (cmsgx_fd_close_in_background(descriptor, state->closer) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    if (PyObject_TypeCheck(descriptor, state->socket)) {
        if (submit_socket(state, descriptor) < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    if (!PyLong_Check(descriptor)) {
        return PyErr_Format(PyExc_TypeError,
                            "descriptor: an Fd, a socket object or an int is needed, not %.200s",
                            Py_TYPE(descriptor)->tp_name);
    }
    int fd = cmsgx_fd_from_object(state, descriptor, "descriptor", CMSGX_NO_INDEX, &owner);
    if (fd < 0) {
        return NULL;
    }
    if (fcntl(fd, F_GETFD) < 0) {
        /* Refused now, because later the number may refer to another file. */
        return cmsgx_raise_errno(errno, "descriptor: %d is not open", fd);
    }
    cmsgx_row *row = cmsgx_row_shared(state->closer, fd);
    if (cmsgx_row_reserve(row, 1) < 0) {
        cmsgx_row_drop(row);
        return PyErr_NoMemory();
    }
    cmsgx_row_submit(row, &fd, 1);
    cmsgx_row_drop(row);
    Py_RETURN_NONE;
}

PyObject *
cmsgx_closer_wait_for(PyObject *module, PyObject *seconds)
{
    cmsgx_closer *closer = cmsgx_state_of(module)->closer;
    int64_t timeout;
    size_t left;

    if (cmsgx_as_timeout(seconds, CMSGX_FOR_EVER, &timeout) < 0) {
        return NULL;
    }
    int64_t deadline = cmsgx_deadline_after(timeout), rest;
    do {
        rest = cmsgx_left(deadline, SLICE);
        Py_BEGIN_ALLOW_THREADS
        left = cmsgx_closer_wait(closer, rest > 0 ? rest : 0);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    } while (left > 0 && rest > 0);
    return PyLong_FromSize_t(left);
}

PyObject *
cmsgx_closer_counts(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    const cmsgx_closer *closer = cmsgx_state_of(module)->closer;
    return Py_BuildValue("nn", (Py_ssize_t)cmsgx_get(&closer->backlog),
                         (Py_ssize_t)cmsgx_get(&closer->reserved));
}

PyObject *
cmsgx_closer_resume_all(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    cmsgx_process_resume();
    Py_RETURN_NONE;
}
