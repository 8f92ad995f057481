#include "calls/prepared.h"

#include "calls/notes.h"
#include "calls/outgoing_send.h"
#include "errors.h"
#include "types/fd_ownership.h"

#include <errno.h>
#include <fcntl.h>

/* Letting go ------------------------------------------------------------------------------- */

/* Closes the duplicates.  Each is taken out of the array before it is closed, because the child of
   a fork that happens meanwhile closes its copies of those that are left. */
static void
close_duplicates(cmsgx_prepared *self)
{
    size_t count = self->out.fd_count, open = 0;
    for (size_t i = 0; i < count; i++) {
        open += self->duplicates[i] >= 0;
    }
    if (open > 0) {
        Py_BEGIN_ALLOW_THREADS
        for (size_t i = 0; i < count; i++) {
            int number = self->duplicates[i];
            __atomic_store_n(&self->duplicates[i], -1, __ATOMIC_RELAXED);
            cmsgx_close_all(&number, 1);
        }
        Py_END_ALLOW_THREADS
    }
}

/* Once the first byte has gone: the descriptors and the control messages went with it. */
static void
let_go_of_control(cmsgx_prepared *self)
{
    cmsgx_outgoing *out = &self->out;
    size_t count = out->fd_count;
    out->control_used = 0;
    close_duplicates(self);
    for (size_t i = 0; i < count; i++) {
        Py_CLEAR(out->fd_owners[i]);
    }
    out->fd_count = out->owned_fd_count = 0;
}

void
cmsgx_prepared_let_go(cmsgx_prepared *self)
{
    if (!self->is_empty) {
        close_duplicates(self);
        cmsgx_outgoing_clear(&self->out);
        cmsgx_outgoing_empty(&self->out);
        self->is_empty = 1;
    }
}

/* Making ----------------------------------------------------------------------------------- */

/* Leaves out empty buffers: so that a call which takes only some of the buffers never takes none of
   the bytes, and would drop the descriptors. */
static void
leave_out_empty(struct msghdr *msg)
{
    size_t count = (size_t)msg->msg_iovlen, kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (msg->msg_iov[i].iov_len > 0) {
            msg->msg_iov[kept++] = msg->msg_iov[i];
        }
    }
    msg->msg_iovlen = (__typeof__(msg->msg_iovlen))kept;
}

cmsgx_prepared *
cmsgx_prepared_new(cmsgx_outgoing *out, const cmsgx_sock *sock, PyObject *data, int flags)
{
    PyTypeObject *type = out->state->PreparedSend;
    size_t size = cmsgx_outgoing_kept_size(out);
    size_t duplicates = out->fd_count * sizeof(int);
    cmsgx_prepared *self =
        PyObject_GC_NewVar(cmsgx_prepared, type, (Py_ssize_t)(size + duplicates));
    if (self == NULL) {
        return NULL;
    }
    self->busy = 0;
    self->sock = Py_NewRef(sock->object);
    self->size = out->data_size;
    self->sent = 0;
    self->flags = flags;
    self->is_empty = self->is_done = self->is_closed = 0;
    self->duplicates = (int *)(void *)(self->arrays + size);
    memset(self->duplicates, 0xff, duplicates);
    cmsgx_outgoing_move(&self->out, out, data, self->arrays);
    self->out.sock = NULL;
    if (self->out.buffer_count > 1) {
        leave_out_empty(&self->out.msg);
    }
    PyObject_GC_Track(self);
    return self;
}

/* Trying ----------------------------------------------------------------------------------- */

void
cmsgx_prepared_count(cmsgx_prepared *self, size_t sent)
{
    /* First, since the rest runs the code of others. */
    __atomic_store_n(&self->sent, self->sent + sent, __ATOMIC_RELAXED);
    if (self->sent >= self->size) {
        cmsgx_flag_set(&self->is_done);
        cmsgx_prepared_let_go(self);
    }
    else if (sent > 0) {
        cmsgx_keep_unsent(&self->out.msg, sent);
        /* Or what a fork has left of that: a copy of the moment when another thread let go. */
        if (self->out.control_used > 0 || self->out.fd_count > 0) {
            let_go_of_control(self);
        }
    }
}

ssize_t
cmsgx_prepared_send(cmsgx_prepared *self, cmsgx_sock *sock, int flags, int *error)
{
    struct msghdr *msg = &self->out.msg;
    __typeof__(msg->msg_iovlen) buffers = msg->msg_iovlen;
    if (buffers > CMSGX_MAX_BUFFERS && cmsgx_sock_type(sock) == SOCK_STREAM) {
        msg->msg_iovlen = CMSGX_MAX_BUFFERS;
    }
    self->out.sock = sock;
    ssize_t sent = cmsgx_outgoing_send_msg(&self->out, sock, flags, error);
    self->out.sock = NULL;
    msg->msg_iovlen = buffers;
    if (sent >= 0) {
        cmsgx_prepared_count(self, (size_t)sent);
    }
    return sent;
}

/* The descriptor at that index is kept by what it is: an Fd, or a duplicate. */
static int
is_kept(const cmsgx_prepared *self, size_t i)
{
    PyObject *owner = self->out.fd_owners[i];
    return self->duplicates[i] >= 0 || (owner != NULL && cmsgx_fd_check(self->out.state, owner));
}

/* Duplicates one.  A duplicate can have the number of another one of them that is closed, which
   then would stand for this file: *index is that other one, and the result is EBADF. */
static int
duplicate(cmsgx_prepared *self, size_t *index)
{
    const cmsgx_outgoing *out = &self->out;
    int number = fcntl(out->fds[*index], F_DUPFD_CLOEXEC, 0);
    if (number < 0) {
        return errno;
    }
    self->duplicates[*index] = number;
    for (size_t i = 0; i < out->fd_count; i++) {
        if (out->fds[i] == number) {
            *index = i;
            return EBADF;
        }
    }
    return 0;
}

/* Duplicates the plain numbers that have not gone, so that each stands for the same file at the
   next try, whatever is closed meanwhile: all or none.  0; or -1, with errno and the index of the
   one that has no duplicate. */
static int
duplicate_numbers(cmsgx_prepared *self, size_t *failed)
{
    cmsgx_outgoing *out = &self->out;
    int is_changed = 0;
    for (size_t i = 0; i < out->fd_count; i++) {
        *failed = i;
        int error = is_kept(self, i) ? 0 : duplicate(self, failed);
        if (error != 0) {
            close_duplicates(self);
            errno = error;
            return -1;
        }
        is_changed |= self->duplicates[i] != out->fds[i];
    }
    for (size_t i = 0; is_changed && i < out->fd_count; i++) {
        out->fds[i] = self->duplicates[i] >= 0 ? self->duplicates[i] : out->fds[i];
    }
    if (is_changed) {
        cmsgx_outgoing_renew_rights(out);
    }
    return 0;
}

#define NO_COPY "fds[%zu]: descriptor %d could not be duplicated for the next try; nothing was sent"

int
cmsgx_prepared_keep_numbers(cmsgx_prepared *self, int error)
{
    size_t i = 0;
    if (self->out.control_used == 0 || self->out.fd_count == 0
        || duplicate_numbers(self, &i) == 0) {
        return error == EAGAIN ? 0 : -1;
    }
    if (error == EAGAIN) {
        cmsgx_raise_errno(errno, NO_COPY, i, self->out.fds[i]);
    }
    else if (error != EBADF) {
        cmsgx_add_note(NO_COPY ": %s", i, self->out.fds[i], strerror(errno));
    }
    return -1;
}
