#include "calls/sock.h"

#include "plain/platform.h"
#include "types/fd_argument.h"
#include "errors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

int
cmsgx_as_timeout(PyObject *value, int64_t unlimited, int64_t *timeout)
{
    if (value == Py_None) {
        *timeout = unlimited;
        return 0;
    }
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) {
        const PyNumberMethods *number = Py_TYPE(value)->tp_as_number;
        if (number == NULL || (number->nb_float == NULL && number->nb_index == NULL)) {
            PyErr_Clear();
            cmsgx_raise_needed("timeout", -1, "a number of seconds, or None,", value);
        }
        return -1;
    }
    if (!(seconds >= 0.0)) {
        PyErr_Format(PyExc_ValueError, "timeout: %R; seconds that are not negative, or None",
                     value);
        return -1;
    }
    /* Rounded up, so that no wait ends before the time that was asked for; and limited, so that a
       deadline, which is the clock plus this, does not overflow. */
    *timeout = seconds > 4e9 ? INT64_MAX / 2 : (int64_t)ceil(seconds * (double)SECOND);
    return 0;
}

/* What gettimeout() returns.  If it is known where the object keeps it, in nanoseconds, it is read
   there: making a float and reading it back costs about a tenth of a system call. */
static int
read_timeout(cmsgx_sock *sock)
{
    cmsgx_state *state = sock->state;
    if (state->socket_timeout_at > 0) {
        int64_t kept = cmsgx_read_int64((const char *)sock->object + state->socket_timeout_at);
        sock->timeout = kept < 0 ? CMSGX_BLOCKING : kept;
        return 0;
    }
    PyObject *timeout = state->socket_gettimeout(sock->object, NULL);
    if (timeout == NULL) {
        return -1;
    }
    int result = cmsgx_as_timeout(timeout, CMSGX_BLOCKING, &sock->timeout);
    Py_DECREF(timeout);
    return result;
}

int
cmsgx_sock_ask_number(cmsgx_sock *sock)
{
    cmsgx_state *state = sock->state;
    PyObject *number = state->socket_fileno(sock->object, NULL);
    if (number == NULL) {
        return -1;
    }
    sock->fd = (int)PyLong_AsLong(number);
    Py_DECREF(number);
    /* The place that was found is trusted once it has shown the same number as fileno(). */
    if (sock->fd >= 0 && state->socket_fd_at > 0 && cmsgx_kept_number(sock) == sock->fd) {
        cmsgx_flag_set(&state->socket_fd_known);
    }
    return 0;
}

int
cmsgx_sock_number(const cmsgx_sock *sock)
{
    cmsgx_sock now = *sock;
    if (sock->kind == CMSGX_SOCKET && cmsgx_sock_read_number(&now) < 0) {
        PyErr_Clear();
        return -1;
    }
    return now.fd;
}

int
cmsgx_sock_borrow(const cmsgx_sock *sock)
{
    return sock->owner != NULL ? cmsgx_fd_pin(sock->owner) : cmsgx_sock_number(sock);
}

void
cmsgx_sock_give_back(const cmsgx_sock *sock)
{
    cmsgx_give_back(sock->owner);
}

/* 0, or -1 with an exception.  Inline, as every call on a socket object comes here. */
static inline __attribute__((always_inline)) int
take_socket(cmsgx_state *state, PyObject *object, cmsgx_sock *sock)
{
    sock->state = state;
    sock->object = object;
    sock->owner = NULL;
    sock->kind = CMSGX_SOCKET;
    sock->timeout = CMSGX_BLOCKING;
    sock->deadline = 0;
    sock->fd = -1;
    return read_timeout(sock);
}

static int
take_number(cmsgx_state *state, PyObject *object, cmsgx_sock *sock)
{
    sock->state = state;
    sock->object = object;
    sock->owner = NULL;
    sock->kind = CMSGX_NUMBER;
    sock->timeout = CMSGX_BLOCKING;
    sock->deadline = 0;
    sock->family = sock->type = -1;
    sock->fd = cmsgx_fd_from_object(state, object, "sock", CMSGX_SOCK_INDEX, &sock->owner);
    return sock->fd < 0 ? -1 : 0;
}

int
cmsgx_sock_resolve(cmsgx_state *state, PyObject *object, cmsgx_sock *sock)
{
    return cmsgx_class_seen(state, Py_TYPE(object)) != NULL
                   || cmsgx_is_socket_class(state, Py_TYPE(object))
               ? take_socket(state, object, sock) : take_number(state, object, sock);
}

int
cmsgx_sock_resolve_typed(cmsgx_state *state, PyObject *object, int names, cmsgx_sock *sock)
{
    const cmsgx_class *seen = cmsgx_class_seen(state, Py_TYPE(object));
    if (seen != NULL && !(seen->overridden & names)) {
        return take_socket(state, object, sock);
    }
    int is_green;
    if (cmsgx_allow(state, object, names, &is_green) < 0
        || cmsgx_sock_resolve(state, object, sock) < 0) {
        return -1;
    }
    if (is_green) {
        sock->kind = CMSGX_GREEN;
        sock->family = sock->type = -1;
        sock->timeout = 0;
    }
    return 0;
}

int
cmsgx_sock_set_timeout(cmsgx_sock *sock, PyObject *timeout)
{
    if (timeout == NULL || timeout == Py_Ellipsis) {
        return 0;
    }
    if (sock->kind == CMSGX_GREEN) {
        /* Only checked for errors, as nothing waits for a green socket. */
        int64_t ignored;
        return cmsgx_as_timeout(timeout, CMSGX_FOR_EVER, &ignored);
    }
    return cmsgx_as_timeout(timeout, CMSGX_FOR_EVER, &sock->timeout);
}

/* Calls `ask` with the descriptor of the last try, pinned if it is an Fd's: its result, or -1 with
   EBADF if the socket is closed. */
static int
asked(const cmsgx_sock *sock, int (*ask)(int fd))
{
    int fd = sock->owner != NULL ? cmsgx_fd_pin(sock->owner) : sock->fd;
    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    int result = ask(fd);
    cmsgx_give_back(sock->owner);
    return result;
}

int
cmsgx_sock_family(cmsgx_sock *sock)
{
    if (sock->kind == CMSGX_SOCKET) {
        return cmsgx_sock_value(sock, sock->state->socket_family);
    }
    if (sock->family < 0) {
        sock->family = asked(sock, cmsgx_family_of);
    }
    return sock->family;
}

int
cmsgx_sock_type(cmsgx_sock *sock)
{
    if (sock->kind == CMSGX_SOCKET) {
        return cmsgx_sock_value(sock, sock->state->socket_type);
    }
    if (sock->type < 0) {
        sock->type = asked(sock, cmsgx_type_of);
    }
    return sock->type;
}

int
cmsgx_sock_proto(const cmsgx_sock *sock)
{
    return sock->kind == CMSGX_SOCKET ? cmsgx_sock_value(sock, sock->state->socket_proto)
                                      : asked(sock, cmsgx_proto_of);
}

static int
is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

int
cmsgx_sock_is_open(const cmsgx_sock *sock)
{
    return asked(sock, is_open) > 0;
}

int
cmsgx_sock_has_hung_up(const cmsgx_sock *sock)
{
    return asked(sock, cmsgx_has_hung_up);
}

static int
is_table_full(int fd)
{
    int probe = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (probe >= 0) {
        (void)close(probe);
        return 0;
    }
    return errno == EMFILE;
}

int
cmsgx_sock_is_table_full(const cmsgx_sock *sock)
{
    return asked(sock, is_table_full) > 0;
}
