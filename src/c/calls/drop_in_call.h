/* One call of recvmsg, recvmsg_into or recv_fds: its buffers, the system call, the result. */

#ifndef CMSGX_DROP_IN_CALL_H
#define CMSGX_DROP_IN_CALL_H

#include "calls/wait.h"
#include "errors.h"
#include "plain/msghdr.h"

#include <poll.h>

#define CMSGX_SMALL_CONTROL 512

/* One call of the drop-in functions. */
typedef struct {
    struct msghdr msg;
    struct sockaddr_storage name;
    cmsgx_sock *sock;           /* borrowed */
    unsigned char *control;     /* `small`, or owned */
    size_t control_size;
    int flags_asked;
    unsigned char small[CMSGX_SMALL_CONTROL + CMSGX_EXTRA_CONTROL] __attribute__((aligned(16)));
} cmsgx_drop_in;

/* For cmsgx_drop_in_init(): allocates a control buffer that does not fit in `small`.  0, or -1 with
   an exception. */
int cmsgx_drop_in_allocate(cmsgx_drop_in *call, Py_ssize_t control_size);

/* Prepares a call with a control buffer of that size: 0, or -1 with an exception.
   cmsgx_drop_in_clear() frees it, and must be called even after a failure. */
static inline int
cmsgx_drop_in_init(cmsgx_drop_in *call, cmsgx_sock *sock, Py_ssize_t control_size, int flags)
{
    call->sock = sock;
    memset(&call->msg, 0, sizeof(call->msg));
    call->control = call->small;
    call->control_size = 0;
    call->flags_asked = flags;
    call->name.ss_family = AF_UNSPEC;
    if (control_size < 0 || control_size > CMSGX_SMALL_CONTROL) {
        return cmsgx_drop_in_allocate(call, control_size);
    }
    call->control_size = (size_t)control_size;
    return 0;
}

static inline void
cmsgx_drop_in_clear(cmsgx_drop_in *call)
{
    if (call->control != call->small) {
        PyMem_Free(call->control);
    }
}

/* Whether C converts the addresses of the socket's family.  If not, the socket's own method is
   called, which converts all of them. */
static inline int
cmsgx_drop_in_is_known_family(cmsgx_sock *sock)
{
    if (sock->kind != CMSGX_SOCKET) {
        return 1;
    }
    int family = cmsgx_sock_family(sock);
    return family == AF_UNIX || family == AF_INET || family == AF_INET6;
}

/* Warns about malformed control data, as the socket module does: 0, or -1 if the warning was turned
   into an exception. */
int cmsgx_drop_in_warn(void);

/* (data, second, msg_flags, address): a new reference.  Steals `data` and `second`, even on
   failure; either may be NULL with an exception set.  The caller keeps the received descriptors,
   and closes them if this returns NULL. */
PyObject *cmsgx_drop_in_result(const cmsgx_drop_in *call, PyObject *data, PyObject *second);

static inline size_t
cmsgx_drop_in_used(const cmsgx_drop_in *call)
{
    size_t used = (size_t)call->msg.msg_controllen;
    return used <= call->control_size ? used : call->control_size;
}

static inline ssize_t
cmsgx_drop_in_try(int fd, void *context, int flags)
{
    cmsgx_drop_in *call = context;
    return cmsgx_msghdr_receive(fd, &call->msg, flags, call->control, call->control_size,
                                &call->name, sizeof(call->name), 0);
}

/* Receives one message of at most `size` bytes into a new bytes object.  Returns 0 if a message was
   received: the caller then owns its descriptors, and *data is a new reference, or NULL with an
   exception.  Returns -1 with an exception if nothing was received.

   Inline, for the reason given at cmsgx_call(). */
static inline __attribute__((always_inline)) int
cmsgx_drop_in_receive_bytes(cmsgx_drop_in *call, cmsgx_sock *sock, Py_ssize_t size, int flags,
                            PyObject **data)
{
    struct iovec iov;
    *data = PyBytes_FromStringAndSize(NULL, size);
    if (*data == NULL) {
        if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
            PyErr_Clear();
            cmsgx_raise_memory_error((size_t)size);
        }
        return -1;
    }
    cmsgx_msghdr_set_data(&call->msg, &iov, PyBytes_AS_STRING(*data), (size_t)size, flags);
    ssize_t received = cmsgx_call(sock, POLLIN, cmsgx_drop_in_try, call, flags, NULL, NULL);
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

#endif
