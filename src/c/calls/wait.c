#include "calls/wait.h"

#include "types/fd_argument.h"
#include "errors.h"

#include <errno.h>

static int
is_pinned(const cmsgx_pins *pins, size_t i)
{
    return pins->objects[i] != NULL && PyObject_TypeCheck(pins->objects[i], pins->type);
}

static void
unpin(const cmsgx_pins *pins, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_pinned(pins, i)) {
            cmsgx_fd_unpin(pins->objects[i]);
        }
    }
}

/* How many were pinned: all, or those before the first that cannot be. */
static size_t
pin_all(const cmsgx_pins *pins)
{
    size_t i = 0;
    while (i < pins->count
           && (!is_pinned(pins, i) || cmsgx_fd_pin(pins->objects[i]) >= 0)) {
        i++;
    }
    return i;
}

/* Waits for one of `events`, and gives back what was borrowed.  1: try again; 0: time is up; -1
   with an exception. */
static int
wait_ready(int fd, PyObject *owner, int events, int64_t deadline, int *rounds, short *found)
{
    cmsgx_waited waited;
    int error;
    Py_BEGIN_ALLOW_THREADS
    waited = cmsgx_wait_for(fd, (short)events, deadline, rounds, found);
    error = errno;
    Py_END_ALLOW_THREADS
    cmsgx_give_back(owner);
    if (waited == CMSGX_CANNOT_WAIT) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    /* Also if nothing was interrupted: a loop that never sleeps must notice signals, too. */
    return PyErr_CheckSignals() < 0 ? -1 : waited != CMSGX_TIME_IS_UP;
}

PyObject *
cmsgx_wait_for_object(PyObject *module, PyObject *args)
{
    PyObject *object, *owner, *timeout;
    int64_t limit;
    int fd, events, rounds;
    short found;
    if (!PyArg_ParseTuple(args, "OiOi:wait_for", &object, &events, &timeout, &rounds)
        || cmsgx_as_timeout(timeout, CMSGX_FOR_EVER, &limit) < 0
        || cmsgx_borrow(cmsgx_state_of(module), object, &fd, &owner) < 0) {
        return NULL;
    }
    rounds = rounds < 0 ? 0 : rounds;
    if (wait_ready(fd, owner, events, cmsgx_deadline_after(limit), &rounds, &found) < 0) {
        return NULL;
    }
    return Py_BuildValue("ii", (int)found, rounds);
}

int
cmsgx_before_try(cmsgx_sock *sock, const cmsgx_pins *pins, int *error)
{
    *error = 0;
    /* Read this late, also for the first try: code that ran while the arguments were read may have
       closed the socket, and its number may be another file's by now. */
    if (sock->kind == CMSGX_SOCKET && cmsgx_sock_read_number(sock) < 0) {
        return -1;
    }
    if (sock->owner != NULL && (sock->fd = cmsgx_fd_pin(sock->owner)) < 0) {
        cmsgx_raise_unpinnable("sock", -1, sock->owner);
        return -1;
    }
    size_t pinned = pins != NULL ? pin_all(pins) : 0;
    if (pins != NULL && pinned < pins->count) {
        *error = EBADF;
        unpin(pins, pinned);
        cmsgx_give_back(sock->owner);
        cmsgx_raise_unpinnable("fds", (Py_ssize_t)pinned, pins->objects[pinned]);
        return -1;
    }
    return 0;
}

void
cmsgx_after_try(cmsgx_sock *sock, const cmsgx_pins *pins)
{
    if (pins != NULL && pins->count > 0) {
        unpin(pins, pins->count);
    }
    cmsgx_give_back(sock->owner);
}

void
cmsgx_start_clock(cmsgx_sock *sock)
{
    if (sock->deadline == 0) {
        sock->deadline = cmsgx_deadline_after(sock->timeout);
    }
}

int
cmsgx_after_failure(cmsgx_sock *sock, int events, int failed, int *rounds, int *error)
{
    if (failed == EINTR) {
        return PyErr_CheckSignals();
    }
    int must_wait = failed == EAGAIN || failed == EWOULDBLOCK;
    if (must_wait && sock->timeout == CMSGX_ONE_TRY) {
        *error = EAGAIN;
        return -1;
    }
    if (must_wait && (sock->timeout > 0 || sock->timeout == CMSGX_FOR_EVER)) {
        short found;
        cmsgx_start_clock(sock);
        if (sock->owner != NULL && (sock->fd = cmsgx_fd_pin(sock->owner)) < 0) {
            *error = 0;
            cmsgx_raise_unpinnable("sock", -1, sock->owner);
            return -1;
        }
        int ready = wait_ready(sock->fd, sock->owner, events, sock->deadline, rounds, &found);
        if (ready < 0) {
            return -1;
        }
        if (ready == 0) {
            *error = ETIMEDOUT;
            PyErr_SetString(PyExc_TimeoutError, "timed out");
            return -1;
        }
        return 0;
    }
    *error = failed;
    if (failed == ENOTSOCK || (failed == EBADF && (sock->fd < 0 || events != POLLOUT))) {
        cmsgx_raise_of_sock(failed, sock->fd);
    }
    else {
        /* EBADF of a send may be about a descriptor that it carries: the caller looks. */
        errno = failed;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return -1;
}
