#include "calls/outgoing_send.h"

#include "calls/outgoing_control.h"
#include "errors.h"
#include "plain/msghdr.h"
#include "types/fd_argument.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

/* One try, as cmsgx_call() makes it: without the GIL, and inlined there.  send(2) is faster than
   sendmsg(2), and enough for one buffer. */
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
cmsgx_outgoing_name_closed_fd(const cmsgx_outgoing *out, const cmsgx_sock *sock)
{
    if (!cmsgx_sock_is_open(sock)) {
        if (sock->owner == NULL) {
            PyErr_Clear();
            cmsgx_raise_of_sock(EBADF, sock->fd);
        }
        return;
    }
    for (size_t i = 0; i < out->fd_count; i++) {
        PyObject *owner = out->fd_owners[i];
        if (owner != NULL && cmsgx_fd_check(out->state, owner)) {
            /* Its number says nothing: it was closed before it could be pinned, or not at all. */
            if (cmsgx_fd_number(owner) < 0) {
                PyErr_Clear();
                cmsgx_raise_unpinnable("fds", (Py_ssize_t)i, owner);
                return;
            }
        }
        else if (fcntl(out->fds[i], F_GETFD) < 0) {
            PyErr_Clear();
            cmsgx_raise_errno(EBADF, "fds[%zu]: descriptor %d is not open", i, out->fds[i]);
            return;
        }
    }
}

void
cmsgx_outgoing_note_needs(const cmsgx_outgoing *out, int *error)
{
    if (out->control_used == 0
        || (*error != EINVAL && *error != EPERM && *error != EIO && *error != ENODEV
            && *error != ENETUNREACH)) {
        return;
    }
    PyObject *raised = cmsgx_save_exception();
    PyObject *items = raised == NULL ? NULL : cmsgx_outgoing_tuples(out);
    PyObject *result = items == NULL
        ? NULL : PyObject_CallFunction(out->state->note_needs, "OOi", raised, items,
                                       cmsgx_sock_family(out->sock));
    Py_XDECREF(items);
    if (result == NULL && raised != NULL && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        /* A signal handler ran meanwhile, and raised. */
        PyObject *other = cmsgx_save_exception();
        PyException_SetContext(other, raised);
        cmsgx_restore_exception(other);
        *error = 0;
        return;
    }
    if (result == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
    cmsgx_restore_exception(raised);
}

void
cmsgx_keep_unsent(struct msghdr *msg, size_t sent)
{
    msg->msg_control = NULL;
    msg->msg_controllen = 0;
    while (sent >= msg->msg_iov->iov_len) {
        sent -= msg->msg_iov->iov_len;
        msg->msg_iov++;
        msg->msg_iovlen--;
    }
    msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + sent;
    msg->msg_iov->iov_len -= sent;
}

/* Makes the exception of a failed call say which of the arguments it is about. */
static __attribute__((noinline)) void
explain_failure(const cmsgx_outgoing *out, const cmsgx_sock *sock, int *error)
{
    if (*error == EBADF) {
        cmsgx_outgoing_name_closed_fd(out, sock);
    }
    else if (*error == EMSGSIZE && out->msg.msg_iovlen > CMSGX_MAX_BUFFERS) {
        PyErr_Clear();
        cmsgx_raise_errno(EMSGSIZE, "%s: %zd buffers; one call takes %d at most",
                          out->is_typed ? "data" : "buffers", (Py_ssize_t)out->msg.msg_iovlen,
                          CMSGX_MAX_BUFFERS);
    }
    else {
        cmsgx_outgoing_note_needs(out, error);
    }
}

static inline __attribute__((always_inline)) ssize_t
send_msg(cmsgx_outgoing *out, cmsgx_sock *sock, int flags, int *error)
{
    cmsgx_pins pins = {out->state->FdBase, out->fd_owners,
                       out->owned_fd_count > 0 ? out->fd_count : 0};
    return cmsgx_call(sock, POLLOUT, try_sendmsg, out, flags, &pins, error);
}

ssize_t
cmsgx_outgoing_send(cmsgx_outgoing *out, cmsgx_sock *sock, int flags, int *error)
{
    ssize_t result;

    if (out->control_used == 0 && out->buffer_count == 1 && out->msg.msg_name == NULL) {
        result = cmsgx_call(sock, POLLOUT, try_send, out, flags, NULL, error);
    }
    else {
        cmsgx_outgoing_finish(out);
        result = send_msg(out, sock, flags, error);
    }
    if (result < 0) {
        explain_failure(out, sock, error);
    }
    return result;
}

ssize_t
cmsgx_outgoing_send_msg(cmsgx_outgoing *out, cmsgx_sock *sock, int flags, int *error)
{
    ssize_t result = send_msg(out, sock, flags, error);
    if (result < 0) {
        explain_failure(out, sock, error);
    }
    return result;
}

PyObject *
cmsgx_outgoing_send_by_method(const cmsgx_outgoing *out, const cmsgx_sock *sock,
                              PyObject *buffers, int flags, PyObject *address)
{
    PyObject *result = NULL;
    PyObject *ancdata = cmsgx_outgoing_tuples(out);
    PyObject *number = PyLong_FromLong(flags);
    PyObject *held = cmsgx_unchanging(buffers);
    if (ancdata != NULL && number != NULL && held != NULL) {
        PyObject *stack[] = {sock->object, held, ancdata, number, address};
        PyObject *method = out->state->stdlib_methods[CMSGX_SENDMSG].method;
        result = PyObject_Vectorcall(method, stack, 5, NULL);
    }
    Py_XDECREF(held);
    Py_XDECREF(ancdata);
    Py_XDECREF(number);
    return result;
}
