/* Headers and buffers are allocated once.  A buffer that is still in use elsewhere is replaced
   before the next call.  A call makes ready only what the call before has used: one that finds
   little, or nothing, costs little, however many messages it could take. */

#include "calls/batch_receiver.h"

#include "arguments.h"
#include "calls/background.h"
#include "calls/receive.h"
#include "calls/receiver_base.h"
#include "errors.h"
#include "plain/msghdr.h"
#include "types/batch.h"

#include <errno.h>
#include <poll.h>
#include <sys/resource.h>

/* Linux does not limit the count of recvmmsg(2), as it does for sendmmsg(2).  Memory is kept for
   each message, so a larger count is a mistake. */
#define MAX_MESSAGES (1 << 20)

typedef struct {
    cmsgx_receiver_base base;
    size_t count;
    cmsgx_buffer **buffers;     /* owned uses, filled next; NULL until the first call */
    cmsgx_buffer **spares;      /* owned uses, or NULL: usually held by the previous batch */
    struct cmsgx_mmsg *headers;
    struct iovec *iov;
    size_t used;                /* the kernel may have written to that many of the headers and
                                   buffers; the others are prepared, and nobody else's */
    socklen_t name_size;        /* that the others are prepared for */
} batch_receiver;

#define SELF(object) ((batch_receiver *)(object))

static void
drop_batch_buffers(batch_receiver *self)
{
    for (size_t i = 0; i < self->count; i++) {
        cmsgx_buffer_release(self->buffers[i]);
        cmsgx_buffer_release(self->spares[i]);
        self->buffers[i] = self->spares[i] = NULL;
    }
    self->used = self->count;
}

static int
is_free(const cmsgx_buffer *buffer)
{
    return buffer != NULL && cmsgx_count_get(&buffer->users) == 1;
}

/* Ensures that nobody else uses the buffers that a call with these flags will fill.  0, or -1 with
   MemoryError. */
static int
free_buffers(batch_receiver *self, int flags)
{
    socklen_t name_size = cmsgx_name_size(self->base.config->type, flags);
    if (name_size != self->name_size || (flags & CMSGX_MSG_NOT_WRITTEN)) {
        self->used = self->count;
        self->name_size = name_size;
    }
    size_t used = self->used;
    for (size_t i = 0; i < used; i++) {
        cmsgx_buffer *buffer = self->buffers[i];
        int is_set = is_free(buffer);
        if (!is_set) {
            buffer = self->spares[i];
            if (!is_free(buffer)) {
                buffer = cmsgx_buffer_new(self->base.size, self->base.config->control_size, NULL);
                if (buffer == NULL) {
                    return -1;
                }
                cmsgx_buffer_release(self->spares[i]);
            }
            self->spares[i] = self->buffers[i];
            self->buffers[i] = buffer;
        }
        if (buffer->is_taken) {
            if (cmsgx_buffer_renew(buffer) < 0) {
                return -1;
            }
            is_set = 0;
        }
        if (!is_set || (flags & CMSGX_MSG_NOT_WRITTEN)) {
            cmsgx_msghdr_set_data(&self->headers[i].msg_hdr, &self->iov[i], buffer->data,
                                  buffer->capacity, flags);
        }
        buffer->received.fds = buffer->received.pidfds = 0;
    }
    return 0;
}

/* How many descriptors a message may carry, including a surplus, which is closed only after all
   messages have been received. */
static size_t
max_fds_each(const batch_receiver *self)
{
    const cmsgx_receive_config *config = self->base.config;
    if (config->row != NULL) {
        return CMSGX_MAX_PLACES;
    }
    size_t control_size = config->fds > 0 || config->takes_pidfd ? config->control_size : 0;
    if (config->family == AF_UNIX) {
        control_size += CMSGX_EXTRA_CONTROL;
    }
    return control_size > CMSG_LEN(0) ? (control_size - CMSG_LEN(0)) / sizeof(int) : 0;
}

/* How many messages may be received before their descriptors could fill the descriptor table: when
   it is full, the kernel continues, and drops descriptors: unix(7), SCM_RIGHTS. */
static size_t
bounded(size_t count, size_t each)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return 1;
    }
    if (limit.rlim_cur == RLIM_INFINITY) {
        return count;
    }
    size_t open = cmsgx_count_open();
    size_t max_open = (size_t)limit.rlim_cur;
    size_t left = (open == SIZE_MAX ? cmsgx_count_free(max_open, count * each)
                   : open < max_open ? max_open - open : 0) / each;
    return left == 0 ? 1 : left < count ? left : count;
}

/* How many messages may be received before their descriptors could exceed the limit of the
   closer. */
static size_t
within_closer(const batch_receiver *self, size_t count)
{
    size_t max_messages = cmsgx_row_max(self->base.config->row) / CMSGX_MAX_PLACES;
    return max_messages == 0 ? 1 : max_messages < count ? max_messages : count;
}

typedef struct {
    batch_receiver *self;
    size_t count;               /* maximum number of messages */
    size_t asked;               /* of those, requested in the last try */
    int once;                   /* it makes only one try */
} batch_call;

static inline __attribute__((always_inline)) int
receive_some(int fd, batch_call *call, size_t count, int flags)
{
    batch_receiver *self = call->self;
    struct cmsgx_mmsg *headers = self->headers;
    size_t used = self->used;
    socklen_t name_size = self->name_size;
    call->asked = count;
    for (size_t i = 0; i < used; i++) {
        cmsgx_buffer *buffer = self->buffers[i];
        cmsgx_msghdr_prepare(&headers[i].msg_hdr, buffer->control, buffer->control_size,
                             &buffer->name, name_size, 0);
    }
    /* Before the call: a fork in another thread may copy the buffers right after it. */
    self->used = count;
    /* Waits only for the first message.  The timeout of recvmmsg(2) is not used: it is checked only
       after a message was received, so the call could wait for ever (recvmmsg(2), BUGS). */
    int result =
        cmsgx_recvmmsg(fd, headers, (unsigned)count, flags | CMSGX_MSG_WAITFORONE);
    /* The next message, which did not come, was tried too. */
    used = result > 0 ? (size_t)result + 1 : 1;
    self->used = used < count ? used : count;
    for (int i = 0; CMSGX_EXTRA_CONTROL > 0 && i < result; i++) {
        cmsgx_msghdr_finish(&headers[i].msg_hdr, self->buffers[i]->control_size);
    }
    if (result < 0) {
        cmsgx_msghdr_failed(self->buffers[0]->control, self->buffers[0]->control_size, flags);
    }
    return result;
}

/* Whether a try is worth its bound, which costs several times as much as to find nothing. */
static int
may_find(int fd, int flags)
{
    struct pollfd ready = {.fd = fd, .events = (short)cmsgx_events_of(flags)};
    return cmsgx_poll(&ready, 1, 0) != 0;
}

static ssize_t
try_recvmmsg(int fd, void *context, int flags)
{
    batch_call *call = context;
    size_t count = call->count;
    size_t each = count > 1 ? max_fds_each(call->self) : 0;
    if (each > 0) {
        count = call->once && !may_find(fd, flags) ? 1 : bounded(count, each);
        if (count > 1 && !(flags & MSG_DONTWAIT)) {
            int result = receive_some(fd, call, count, flags | MSG_DONTWAIT);
            if (result >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
                return result;
            }
            /* The bound holds only now: the table may be fuller at the end of the wait. */
            count = 1;
        }
    }
    return receive_some(fd, call, count, flags);
}

/* A malformed message is not an error of the batch, but nothing in it can be trusted. */
static void
disown_malformed(cmsgx_buffer *buffer, const cmsgx_receive_config *config)
{
    cmsgx_received_close(buffer, config);
    buffer->received.truncated = 1;
    buffer->received.closed_fds = -1;
}

/* The number of messages without the end of a stream.  The end can be received many times, each
   time as an empty message: all of these count as one, which is omitted after other messages.
   Empty messages that cannot be distinguished from it are taken for it if the peer has hung up. */
static size_t
without_end(const batch_receiver *self, size_t count, int has_hung_up)
{
    size_t last = count;
    while (last > 1) {
        int eof = self->buffers[last - 1]->received.eof;
        if (eof == 0 || (eof == 2 && has_hung_up != 1)) {
            break;
        }
        last--;
    }
    return last;
}

/* Whether only the end was received, as cmsgx_batch_is_end() says it. */
static int
is_just_end(const batch_receiver *self, size_t count, size_t kept, int has_hung_up, int error)
{
    if (has_hung_up >= 0) {
        int eof = self->buffers[0]->received.eof;
        return has_hung_up == CMSGX_BYTES_LEFT ? has_hung_up
            : kept == 1 && (eof == 1 || (eof == 2 && has_hung_up));
    }
    for (size_t i = 0; i < count; i++) {
        if (self->buffers[i]->received.eof != 2) {
            return 0;
        }
    }
    return -error;
}

/* Receives one batch; the receiver is marked as in use.  With `once` it makes only one try, and
   returns NULL without an exception if no message has arrived. */
static PyObject *
receive_batch(batch_receiver *self, int flags, PyObject *timeout, int once)
{
    cmsgx_sock sock;

    if (cmsgx_receiver_begin(&self->base, "BatchReceiver", timeout, once, &flags, &sock) < 0
        || free_buffers(self, flags) < 0) {
        return NULL;
    }
    PyObject *batch = cmsgx_batch_new(self->base.config, self->count);
    if (batch == NULL) {
        return NULL;
    }
    /* Peeking returns the same message each time. */
    batch_call call = {self, flags & MSG_PEEK ? 1 : self->count, 0, once};
    if (self->base.config->row != NULL) {
        call.count = within_closer(self, call.count);
        if (cmsgx_received_begin(&sock, self->base.config, call.count, flags) < 0) {
            Py_DECREF(batch);
            return NULL;
        }
    }
    ssize_t count = cmsgx_call(&sock, cmsgx_events_of(flags), try_recvmmsg, &call,
                               flags | cmsgx_cloexec_flag(self->base.config->family), NULL, NULL);
    cmsgx_received_end(self->base.config, call.count - (size_t)(count > 0 ? count : 0));
    if (count < 0) {
        Py_DECREF(batch);
        return NULL;
    }
    for (size_t i = 0; i < (size_t)count; i++) {
        cmsgx_receive_take(&sock, self->buffers[i], self->base.config, &self->headers[i].msg_hdr,
                           self->headers[i].msg_len, flags);
        if (self->buffers[i]->received.malformed) {
            disown_malformed(self->buffers[i], self->base.config);
        }
    }
    /* The end can be received again and again, so a call that reaches it returns as many messages
       as were requested. */
    int is_full = (size_t)count == call.asked;
    int has_hung_up = count > 0 && is_full && self->buffers[count - 1]->received.eof == 2
        ? cmsgx_sock_has_hung_up(&sock) : 0;
    int error = errno;
    size_t kept = without_end(self, (size_t)count, has_hung_up);
    for (size_t i = 0; i < (size_t)count; i++) {
        if (i < kept) {
            cmsgx_batch_add(batch, self->buffers[i]);
        }
        else {
            cmsgx_received_close(self->buffers[i], self->base.config);
        }
    }
    cmsgx_batch_set_end(batch, is_just_end(self, (size_t)count, kept, has_hung_up, error));
    return batch;
}

/* receive(), and with `once` try_receive(), which has no timeout=. */
static inline __attribute__((always_inline)) PyObject *
receive_batch_as_called(PyObject *object, const cmsgx_signature *signature,
                        PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        int once)
{
    batch_receiver *self = SELF(object);
    PyObject *values[2] = {NULL};
    int flags = 0;

    if ((nargs > 0 || kwnames != NULL)
        && (cmsgx_keywords(self->base.state, signature, args, nargs, kwnames, values) < 0
            || (values[0] != NULL && cmsgx_as_int(values[0], "flags", &flags) < 0))) {
        return NULL;
    }
    if (!cmsgx_enter(&self->base.busy)) {
        return cmsgx_raise_receiver_busy(object);
    }
    PyObject *batch = receive_batch(self, flags, values[1], once);
    cmsgx_leave(&self->base.busy);
    return batch != NULL || !once || PyErr_Occurred() ? batch : Py_NewRef(Py_None);
}

PyDoc_STRVAR(batch_receiver_receive_doc,
"receive($self, /, *, flags=0, timeout=...)\n--\n\n"
"Receives the messages that have arrived, and waits for the first one: recvmmsg(2).  `flags` are\n"
"MSG_* bits.  `timeout` is in seconds, or None for no limit; by default it is the timeout of the\n"
"socket.  It is for the first message; the call does not wait for more.  Returns a Batch.\n"
"Raises OSError for errors that the kernel reports for the first message, and TimeoutError, but\n"
"never because a message is incomplete: see its `truncated`.  With MSG_PEEK the batch has one\n"
"message.");

static PyObject *
batch_receiver_receive(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "receive", 0, 0, {CMSGX_KW_FLAGS, CMSGX_KW_TIMEOUT, -1},
    };
    return receive_batch_as_called(object, &signature, args, nargs, kwnames, 0);
}

PyDoc_STRVAR(batch_receiver_try_receive_doc,
"try_receive($self, /, *, flags=0)\n--\n\n"
"Receives the messages that have arrived, as receive() does, or returns None if there are none.\n"
"Never waits, whatever the timeout and the mode of the socket, and raises nothing because there\n"
"are no messages.  With close=\"background\" it also returns None, and receives nothing, while\n"
"too many descriptors wait to be closed.  At the end of a stream it returns a batch of one empty\n"
"message, each time: see is_end().");

static PyObject *
batch_receiver_try_receive(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "try_receive", 0, 0, {CMSGX_KW_FLAGS, -1},
    };
    return receive_batch_as_called(object, &signature, args, nargs, kwnames, 1);
}

PyDoc_STRVAR(batch_receiver_is_end_doc,
"is_end($self, /, batch)\n--\n\n"
"Whether `batch` is only the end of the stream, after which a `for` loop stops: True or False.\n"
"This was determined when the batch was received, by whichever receiver, so it can be asked at\n"
"any time.  An empty message of SOCK_SEQPACKET counts as the end if the peer had hung up by then\n"
"and nothing more was queued.\n\n"
"Raises OSError if it could not be determined, because poll(2) failed; TypeError for anything but\n"
"a Batch.");

static PyObject *
batch_receiver_is_end(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                      PyObject *kwnames)
{
    static const cmsgx_signature signature = {"is_end", 1, 1, {CMSGX_KW_BATCH, -1}};
    cmsgx_state *state = SELF(object)->base.state;
    PyObject *batch = NULL;

    if (cmsgx_keywords(state, &signature, args, nargs, kwnames, &batch) < 0) {
        return NULL;
    }
    if (!Py_IS_TYPE(batch, state->Batch)) {
        return cmsgx_raise_needed("batch", -1, "a Batch", batch);
    }
    return cmsgx_receiver_tell(cmsgx_batch_is_end(batch));
}

/* One step of a loop. */
static PyObject *
receive_next_batch(PyObject *object, int *is_end)
{
    PyObject *batch = receive_batch(SELF(object), 0, NULL, 0);
    if (batch != NULL) {
        *is_end = cmsgx_batch_is_end(batch);
    }
    return batch;
}

static PyObject *
batch_receiver_next(PyObject *object)
{
    return cmsgx_receiver_next(object, cmsgx_batch_close, receive_next_batch);
}

PyDoc_STRVAR(batch_receiver_configure_doc,
"_configure($self, config, /)\n--\n\n"
"Applies a ReceiveConfig to all calls from now on.");

static void
renew_batch_receiver(PyObject *object)
{
    drop_batch_buffers(SELF(object));
}

static PyObject *
batch_receiver_configure(PyObject *object, PyObject *config)
{
    return cmsgx_receiver_configure(object, config, renew_batch_receiver);
}

static void
free_arrays(batch_receiver *self)
{
    PyMem_Free(self->buffers);
    PyMem_Free(self->spares);
    PyMem_Free(self->headers);
    PyMem_Free(self->iov);
    self->buffers = self->spares = NULL;
    self->headers = NULL;
    self->iov = NULL;
}

static int
allocate(batch_receiver *self, size_t count)
{
    self->buffers = PyMem_Calloc(count, sizeof(*self->buffers));
    self->spares = PyMem_Calloc(count, sizeof(*self->spares));
    self->headers = PyMem_Calloc(count, sizeof(*self->headers));
    self->iov = PyMem_Calloc(count, sizeof(*self->iov));
    if (self->buffers == NULL || self->spares == NULL || self->headers == NULL
        || self->iov == NULL) {
        free_arrays(self);
        PyErr_NoMemory();
        return -1;
    }
    self->count = self->used = count;
    return 0;
}

/* Gives it its socket and its memory, once: 0, or -1 with an exception. */
static int
begin_batches(PyObject *object, PyObject *sock, PyObject *count_given, PyObject *size_given)
{
    batch_receiver *self = SELF(object);
    Py_ssize_t count;
    size_t size;
    int is_green;

    if (cmsgx_as_nearest(count_given, "count", &count) < 0
        || cmsgx_as_bufsize(size_given, &size) < 0
        || cmsgx_allow(self->base.state, sock, CMSGX_RECEIVING, &is_green) < 0) {
        return -1;
    }
    if (count < 1 || count > MAX_MESSAGES) {
        PyErr_Format(PyExc_ValueError, "count: %R; must be 1 to %d", count_given,
                     MAX_MESSAGES);
        return -1;
    }
    /* From here on no Python code runs that could call __init__() again, but another thread can. */
    if (!cmsgx_enter(&self->base.busy)) {
        cmsgx_raise_receiver_busy(object);
        return -1;
    }
    int result = -1;
    if (self->base.sock != NULL) {
        PyErr_SetString(PyExc_TypeError, "a BatchReceiver can be initialised only once");
    }
    else if (allocate(self, (size_t)count) == 0) {
        self->base.size = size;
        self->base.sock = Py_NewRef(sock);
        result = 0;
    }
    cmsgx_leave(&self->base.busy);
    return result;
}

static int
batch_receiver_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"sock", "count", "bufsize", NULL};
    PyObject *sock, *count, *size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:BatchReceiver", (char **)(void *)names,
                                     &sock, &count, &size)) {
        return -1;
    }
    return begin_batches(object, sock, count, size);
}

PyDoc_STRVAR(batch_receiver_open_doc,
"_open($self, sock, count, bufsize, known, want, fds, on_truncation, close, /)\n--\n\n"
"As Receiver._open().");

static PyObject *
batch_receiver_open(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 + CMSGX_OPEN_ARGS) {
        return PyErr_Format(PyExc_TypeError, "_open() takes 8 arguments, not %zd", nargs);
    }
    return begin_batches(object, args[0], args[1], args[2]) < 0
        ? NULL : cmsgx_receiver_open(object, &args[3], renew_batch_receiver);
}

static int
batch_receiver_clear(PyObject *object)
{
    cmsgx_receiver_clear(&SELF(object)->base);
    return 0;
}

static void
batch_receiver_dealloc(PyObject *object)
{
    batch_receiver *self = SELF(object);
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)batch_receiver_clear(object);
    drop_batch_buffers(self);
    free_arrays(self);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef batch_receiver_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))batch_receiver_receive,
     METH_FASTCALL | METH_KEYWORDS, batch_receiver_receive_doc},
    {"try_receive", (PyCFunction)(void (*)(void))batch_receiver_try_receive,
     METH_FASTCALL | METH_KEYWORDS, batch_receiver_try_receive_doc},
    {"is_end", (PyCFunction)(void (*)(void))batch_receiver_is_end,
     METH_FASTCALL | METH_KEYWORDS, batch_receiver_is_end_doc},
    {"_open", (PyCFunction)(void (*)(void))batch_receiver_open, METH_FASTCALL,
     batch_receiver_open_doc},
    {"_configure", batch_receiver_configure, METH_O, batch_receiver_configure_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef batch_receiver_members[] = {
    {"sock", Py_T_OBJECT_EX, offsetof(batch_receiver, base.sock), Py_READONLY,
     "The socket that it receives from."},
    {"count", Py_T_PYSSIZET, offsetof(batch_receiver, count), Py_READONLY,
     "The maximum number of messages for each call."},
    CMSGX_RECEIVER_MEMBERS(batch_receiver),
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot batch_receiver_slots[] = {
    {Py_tp_new, cmsgx_receiver_make},
    {Py_tp_init, batch_receiver_init},
    {Py_tp_dealloc, batch_receiver_dealloc},
    {Py_tp_traverse, cmsgx_receiver_traverse},
    {Py_tp_clear, batch_receiver_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, batch_receiver_next},
    {Py_tp_methods, batch_receiver_methods},
    {Py_tp_members, batch_receiver_members},
    {0, NULL},
};

static PyType_Spec batch_receiver_spec = {
    .name = "cmsgx._cmsg.BatchReceiver",
    .basicsize = sizeof(batch_receiver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = batch_receiver_slots,
};

int
cmsgx_add_batch_receiver(PyObject *module)
{
    return cmsgx_add_type(module, &batch_receiver_spec,
                          &cmsgx_state_of(module)->BatchReceiver);
}
