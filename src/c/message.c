#include "message.h"

#include "address.h"
#include "descriptor.h"
#include "errors.h"
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <structmember.h>
#include <unistd.h>

#define SELF(object) ((cmsgx_message *)(object))

cmsgx_request *
cmsgx_request_new(void)
{
    cmsgx_request *request = PyMem_Calloc(1, sizeof(*request));
    if (request == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    request->users = 1;
    return request;
}

void
cmsgx_request_release(cmsgx_request *request)
{
    if (request != NULL && cmsgx_count_down(&request->users)) {
        Py_XDECREF(request->want);
        PyMem_Free(request);
    }
}

void
cmsgx_close_numbers(cmsgx_state *state, int *fds, size_t count, int in_background)
{
    size_t open = 0;
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            fds[open++] = fds[i];
        }
    }
    if (open == 0) {
        return;
    }
    /* The closer too is entered without the GIL: a thread that forks holds its lock, and may
       need the GIL to go on. */
    Py_BEGIN_ALLOW_THREADS
    if (!in_background || !cmsgx_closer_submit(state->closer, fds, open)) {
        cmsgx_close_all(fds, open);
    }
    Py_END_ALLOW_THREADS
    for (size_t i = 0; i < count; i++) {
        fds[i] = -1;
    }
}

/* Life ----------------------------------------------------------------------------------- */

static cmsgx_message *
message_new(cmsgx_state *state)
{
    cmsgx_message *self;
#if CMSGX_FREE_LIST
    if (state->free_message_count > 0) {
        self = SELF(state->free_messages[--state->free_message_count]);
        (void)PyObject_INIT(self, state->Message);
    }
    else
#endif
    {
        self = PyObject_New(cmsgx_message, state->Message);
        if (self == NULL) {
            return NULL;
        }
    }
    /* One by one: gcc makes a slow `rep stos` of a memset of this size. */
    self->busy = 0;
    self->closed = 0;
    self->truncated = self->eof = self->malformed = self->is_table_full = 0;
    self->flags = 0;
    self->nbytes = self->fds = self->pidfds = 0;
    self->closed_fds = 0;
    self->buffer = NULL;
    self->request = NULL;
    self->data = self->address = NULL;
    self->slots = NULL;
    return self;
}

/* Closes everything that was not taken; without the busy flag, which the caller holds. */
static void
close_rest(cmsgx_message *self, cmsgx_state *state)
{
    size_t count = self->fds + self->pidfds;
    cmsgx_flag_set(&self->closed);
    if (count == 0) {
        return;
    }
    int *fds = self->buffer->fds;
    for (size_t i = 0; self->slots != NULL && i < count; i++) {
        cmsgx_slot *slot = &self->slots[i];
        if (slot->object != NULL && !slot->taken) {
            fds[i] = cmsgx_descriptor_take_to_close(slot->object);
        }
    }
    cmsgx_close_numbers(state, fds, count, self->request->in_background);
}

int
cmsgx_message_close(PyObject *object)
{
    cmsgx_message *self = SELF(object);
    if (cmsgx_flag_get(&self->closed)) {
        return 0;
    }
    if (!cmsgx_enter(&self->busy)) {
        cmsgx_raise_busy(object);
        return -1;
    }
    close_rest(self, cmsgx_state_of_self(object));
    cmsgx_leave(&self->busy);
    return 0;
}

/* Descriptors that are still plain numbers: objects look after themselves. */
static size_t
unclaimed(const cmsgx_message *self)
{
    size_t count = 0;
    for (size_t i = 0; !cmsgx_flag_get(&self->closed) && i < self->fds + self->pidfds; i++) {
        count += self->buffer->fds[i] >= 0;
    }
    return count;
}

static void
message_dealloc(PyObject *object)
{
    cmsgx_message *self = SELF(object);
    PyTypeObject *type = Py_TYPE(object);
    cmsgx_state *state = PyType_GetModuleState(type);

    if (self->buffer != NULL) {
        size_t count = unclaimed(self);
        if (count > 0) {
            PyObject *pending = cmsgx_save_exception();
            /* First out of harm's way, then the warning, which may run Python code. */
            cmsgx_close_numbers(state, self->buffer->fds, self->fds + self->pidfds,
                                self->request->in_background);
            if (PyErr_ResourceWarning(NULL, 1, "Message with %zu descriptors was never closed",
                                      count)) {
                PyErr_WriteUnraisable(NULL);
            }
            cmsgx_restore_exception(pending);
        }
    }
    if (self->slots != NULL) {
        for (size_t i = 0; i < self->fds + self->pidfds; i++) {
            Py_XDECREF(self->slots[i].object);
        }
        if (self->slots != self->inline_slots) {
            PyMem_Free(self->slots);
        }
    }
    Py_XDECREF(self->data);
    Py_XDECREF(self->address);
    cmsgx_buffer_release(self->buffer);
    cmsgx_request_release(self->request);
#if CMSGX_FREE_LIST
    if (state->free_message_count < CMSGX_FREE_LIST) {
        /* Plain memory from now on: it holds no reference to the type. */
        state->free_messages[state->free_message_count++] = object;
        Py_DECREF(type);
        return;
    }
#endif
    PyObject_Free(self);
    Py_DECREF(type);
}

/* Receiving ------------------------------------------------------------------------------ */

typedef struct {
    struct msghdr msg;
    cmsgx_buffer *buffer;
    socklen_t name_size;
    struct iovec iov;
} call_context;

static ssize_t
try_recvmsg(int fd, void *context, int flags)
{
    call_context *call = context;
    cmsgx_buffer *buffer = call->buffer;

    /* The kernel shortens these, also in a call that fails: restored before every try.  All of
       the control buffer is zeroed, as what the kernel does not write must read as nothing. */
    memset(buffer->control, 0, buffer->control_size);
    call->msg.msg_name = call->name_size > 0 ? &buffer->name : NULL;
    call->msg.msg_namelen = call->name_size;
    call->msg.msg_control = buffer->control_size > 0 ? buffer->control : NULL;
    call->msg.msg_controllen = (__typeof__(call->msg.msg_controllen))buffer->control_size;
    call->msg.msg_flags = 0;
    ssize_t result = recvmsg(fd, &call->msg, flags);
    if (result < 0 && (flags & MSG_PEEK)) {
        cmsgx_close_after_failed_peek(buffer->control, buffer->control_size);
    }
    return result;
}

static int
is_fd_table_full(int fd)
{
    int probe = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (probe >= 0) {
        (void)close(probe);
        return 0;
    }
    return errno == EMFILE;
}

static size_t
room_of(const cmsgx_buffer *buffer)
{
    return buffer->into != NULL ? buffer->into->size : buffer->data_size;
}

/* For a read of no bytes. */
static void
set_eof(cmsgx_message *self, cmsgx_sock *sock)
{
    cmsgx_buffer *buffer = self->buffer;
    int type = self->request->type;
    if (type < 0) {
        socklen_t size = sizeof(type);
        (void)getsockopt(sock->fd, SOL_SOCKET, SO_TYPE, &type, &size);
    }
    if (type == SOCK_SEQPACKET) {
        self->eof = buffer->control_used > 0 ? 0 : 2;
    }
    else if (type == SOCK_STREAM) {
        self->eof = room_of(buffer) > 0 ? 1 : 2;
        if (self->eof == 1 && self->fds == 0) {
            /* The kernel invents credentials here: root, also for a peer that is nobody. */
            cmsgx_close_numbers(sock->state, buffer->fds, self->pidfds,
                                self->request->in_background);
            self->pidfds = 0;
            buffer->control_used = 0;
        }
    }
}

/* Takes possession: nothing in here can fail, collect garbage or run Python code. */
static void
own(cmsgx_message *self, cmsgx_sock *sock, call_context *call, size_t nbytes, int asked_flags)
{
    cmsgx_buffer *buffer = self->buffer;
    const cmsgx_request *request = self->request;
    size_t used = (size_t)call->msg.msg_controllen;

    buffer->control_used = used <= buffer->control_size ? used : buffer->control_size;
    buffer->name_size = call->msg.msg_namelen;
    if (buffer->name_size > sizeof(buffer->name)) {
        buffer->name_size = sizeof(buffer->name);
    }
    self->nbytes = nbytes;
    self->flags = call->msg.msg_flags;
    if (!(asked_flags & CMSGX_MSG_CMSG_CLOEXEC)) {
        self->flags &= ~CMSGX_MSG_CMSG_CLOEXEC;
    }

    cmsgx_found found = cmsgx_gather(buffer->control, buffer->control_used, buffer->fds);
    int *fds = buffer->fds;
    self->malformed = (char)found.malformed;
    self->truncated = (call->msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0;

    size_t keep = found.rights < request->fds ? found.rights : request->fds;
    size_t surplus = found.rights - keep;
    size_t keep_pidfds = request->takes_pidfd && found.pidfds > 0 ? 1 : 0;
    self->fds = keep;
    self->pidfds = keep_pidfds;
    self->closed_fds = (Py_ssize_t)surplus;
    if (surplus > 0) {
        self->truncated = 1;
    }
    if (call->msg.msg_flags & MSG_CTRUNC) {
        self->closed_fds = -1;
        /* Before anything is closed: the probe tells the truth only now. */
        self->is_table_full = (char)(keep < request->fds && is_fd_table_full(sock->fd));
    }
    /* What is kept stays in front, the rest is closed. */
    if (surplus + found.pidfds > keep_pidfds) {
        int pidfd = -1;
        if (keep_pidfds) {
            pidfd = fds[found.rights];
            fds[found.rights] = -1;
        }
        cmsgx_close_numbers(sock->state, fds + keep, found.rights + found.pidfds - keep,
                            request->in_background);
        fds[keep] = pidfd;
    }

    if (nbytes == 0 && !(asked_flags & CMSGX_MSG_ERRQUEUE)) {
        set_eof(self, sock);
    }
}

/* Whether the kernel had room for a descriptor more than it gave: then something else kept it
   back. */
static int
had_room(const cmsgx_message *self)
{
    const cmsgx_buffer *buffer = self->buffer;
    cmsgx_header header;
    size_t offset = 0;
    size_t at = buffer->control_used;

    while (cmsgx_walk(buffer->control, buffer->control_used, &offset, &header)
           == CMSGX_MESSAGE) {
        if (header.level == SOL_SOCKET && header.type == SCM_RIGHTS) {
            at = header.offset;
        }
    }
    return at + CMSG_LEN((self->fds + 1) * sizeof(int)) <= buffer->control_size;
}

static int
check(cmsgx_message *self, cmsgx_sock *sock)
{
    const cmsgx_request *request = self->request;
    cmsgx_state *state = sock->state;

    if (self->malformed) {
        close_rest(self, state);
        PyErr_SetString(state->MalformedControlError,
                        "the control data that arrived is malformed: a length in it does not "
                        "fit; what it carried was closed");
        return -1;
    }
    if (!request->raise_truncated) {
        return 0;
    }
    int misses = (self->flags & MSG_CTRUNC) && self->fds < request->fds;
    int cut = (self->flags & MSG_TRUNC) != 0;
    if (!misses && !cut) {
        return 0;
    }
    Py_ssize_t delivered = (Py_ssize_t)self->fds;
    int withheld = had_room(self);
    close_rest(self, state);
    PyObject *result = PyObject_CallFunction(state->raise_truncated, "Onniii", self,
                                             (Py_ssize_t)request->fds, delivered, misses,
                                             (int)self->is_table_full, withheld);
    Py_XDECREF(result);
    return -1;
}

PyObject *
cmsgx_receive(cmsgx_sock *sock, cmsgx_buffer *buffer, cmsgx_request *request, int flags)
{
    cmsgx_message *self = message_new(sock->state);
    if (self == NULL) {
        return NULL;
    }
    self->buffer = cmsgx_buffer_share(buffer);
    self->request = request;
    cmsgx_count_up(&request->users);

    call_context call;
    memset(&call.msg, 0, sizeof(call.msg));
    call.buffer = buffer;
    call.name_size = request->type == SOCK_STREAM ? 0 : sizeof(buffer->name);
    if (buffer->into != NULL) {
        call.msg.msg_iov = buffer->into->iov;
        call.msg.msg_iovlen = (__typeof__(call.msg.msg_iovlen))buffer->into->count;
    }
    else {
        call.iov.iov_base = buffer->data;
        call.iov.iov_len = buffer->data_size;
        call.msg.msg_iov = &call.iov;
        call.msg.msg_iovlen = 1;
    }
    if (flags & MSG_TRUNC) {
        /* On TCP it throws the bytes away: what was here before must not show instead. */
        memset(buffer->data, 0, buffer->data_size);
    }
    ssize_t nbytes = cmsgx_call(sock, POLLIN, try_recvmsg, &call, flags | CMSGX_MSG_CMSG_CLOEXEC,
                                NULL, NULL);
    if (nbytes < 0) {
        Py_DECREF(self);
        return NULL;
    }
    own(self, sock, &call, (size_t)nbytes, flags);
    if ((self->malformed | self->truncated) && check(self, sock) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Descriptors ---------------------------------------------------------------------------- */

static int
need_open(cmsgx_message *self)
{
    if (cmsgx_flag_get(&self->closed)) {
        PyErr_SetString(PyExc_ValueError,
                        "the message was closed, and with it what was not taken");
        return -1;
    }
    return 0;
}

/* Makes the object for descriptor `at`, which owns the number from then on: borrowed. */
static PyObject *
object_at(cmsgx_message *self, size_t at)
{
    cmsgx_state *state = cmsgx_state_of_self((PyObject *)self);
    size_t count = self->fds + self->pidfds;
    if (self->slots == NULL) {
        if (count <= CMSGX_INLINE_SLOTS + 1) {
            self->slots = memset(self->inline_slots, 0, sizeof(self->inline_slots));
        }
        else if ((self->slots = PyMem_Calloc(count, sizeof(cmsgx_slot))) == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    cmsgx_slot *slot = &self->slots[at];
    if (slot->object == NULL) {
        /* In a message that was closed the number is -1, and the object owns none. */
        int is_pidfd = at >= self->fds;
        int number = self->buffer->fds[at];
        int has_error = is_pidfd && number < 0 && number > INT_MIN
                        && !cmsgx_flag_get(&self->closed);
        slot->object = cmsgx_descriptor_new(is_pidfd ? state->PidFd : state->Fd,
                                            number >= 0 ? number : -1, has_error ? -number : 0);
        if (slot->object != NULL) {
            self->buffer->fds[at] = -1;
        }
    }
    return slot->object;
}

static PyObject *
take_at(cmsgx_message *self, size_t at)
{
    if (need_open(self) < 0) {
        return NULL;
    }
    PyObject *object = object_at(self, at);
    if (object == NULL) {
        return NULL;
    }
    if (self->slots[at].taken) {
        if (at < self->fds) {
            PyErr_Format(PyExc_ValueError, "descriptor %zu was taken before", at);
        }
        else {
            PyErr_SetString(PyExc_ValueError, "the PidFd was taken before");
        }
        return NULL;
    }
    self->slots[at].taken = 1;
    return Py_NewRef(object);
}

PyDoc_STRVAR(take_doc,
"take($self, which, /)\n--\n\n"
"Moves one descriptor out: `which` is an index of `fds`, or the class PidFd.  The caller owns\n"
"the Fd that is returned; closing the message leaves it open.  IndexError or KeyError where\n"
"there is none; ValueError where it was taken before or the message is closed.");

static PyObject *
message_take(PyObject *object, PyObject *which)
{
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = cmsgx_state_of_self(object);
    PyObject *result = NULL;
    size_t at;

    if (which == (PyObject *)state->PidFd) {
        if (self->pidfds == 0) {
            return PyErr_Format(PyExc_KeyError, "no PidFd came with this message");
        }
        at = self->fds;
    }
    else {
        Py_ssize_t index = PyNumber_AsSsize_t(which, PyExc_IndexError);
        if (index == -1 && PyErr_Occurred()) {
            return NULL;
        }
        Py_ssize_t count = (Py_ssize_t)self->fds;
        index += index < 0 ? count : 0;
        if (index < 0 || index >= count) {
            return PyErr_Format(PyExc_IndexError, "%R: the message has %zd descriptors", which,
                                count);
        }
        at = (size_t)index;
    }
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    result = take_at(self, at);
    cmsgx_leave(&self->busy);
    return result;
}

PyDoc_STRVAR(take_all_doc,
"take_all($self, /)\n--\n\n"
"Moves each descriptor of `fds` that was not taken yet out, as a list of Fd that the caller\n"
"owns.  ValueError where the message is closed.");

static PyObject *
message_take_all(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    cmsgx_message *self = SELF(object);
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    PyObject *list = need_open(self) < 0 ? NULL : PyList_New(0);
    /* Objects first, taken second: what fails half way leaves all with the message. */
    for (size_t i = 0; list != NULL && i < self->fds; i++) {
        PyObject *fd = object_at(self, i);
        if (fd == NULL || (!self->slots[i].taken && PyList_Append(list, fd) < 0)) {
            Py_CLEAR(list);
        }
    }
    for (size_t i = 0; list != NULL && i < self->fds; i++) {
        self->slots[i].taken = 1;
    }
    cmsgx_leave(&self->busy);
    return list;
}

/* Descriptors: the read-only sequence that is msg.fds. */

typedef struct {
    PyObject_HEAD
    PyObject *message;      /* owned */
} cmsgx_descriptors;

static PyObject *
descriptors_new(PyObject *message)
{
    cmsgx_state *state = cmsgx_state_of_self(message);
    cmsgx_descriptors *self = PyObject_New(cmsgx_descriptors, state->Descriptors);
    if (self != NULL) {
        self->message = Py_NewRef(message);
    }
    return (PyObject *)self;
}

static void
descriptors_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(((cmsgx_descriptors *)self)->message);
    PyObject_Free(self);
    Py_DECREF(type);
}

static Py_ssize_t
descriptors_length(PyObject *self)
{
    return (Py_ssize_t)SELF(((cmsgx_descriptors *)self)->message)->fds;
}

static PyObject *
descriptors_item(PyObject *self, Py_ssize_t index)
{
    PyObject *message = ((cmsgx_descriptors *)self)->message;
    if (index < 0 || index >= (Py_ssize_t)SELF(message)->fds) {
        return PyErr_Format(PyExc_IndexError, "the message has %zu descriptors",
                            SELF(message)->fds);
    }
    if (!cmsgx_enter(&SELF(message)->busy)) {
        return cmsgx_raise_busy(message);
    }
    PyObject *item = Py_XNewRef(object_at(SELF(message), (size_t)index));
    cmsgx_leave(&SELF(message)->busy);
    return item;
}

static PyObject *
descriptors_subscript(PyObject *self, PyObject *key)
{
    if (PySlice_Check(key)) {
        PyObject *tuple = PySequence_Tuple(self);
        PyObject *slice = tuple == NULL ? NULL : PyObject_GetItem(tuple, key);
        Py_XDECREF(tuple);
        return slice;
    }
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return descriptors_item(self, index < 0 ? index + descriptors_length(self) : index);
}

static PyObject *
descriptors_compare(PyObject *self, PyObject *other, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || !PySequence_Check(other)
        || PyUnicode_Check(other) || PyBytes_Check(other)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *a = PySequence_Tuple(self);
    PyObject *b = a == NULL ? NULL : PySequence_Tuple(other);
    PyObject *result = b == NULL ? NULL : PyObject_RichCompare(a, b, operation);
    Py_XDECREF(a);
    Py_XDECREF(b);
    return result;
}

static PyObject *
descriptors_repr(PyObject *self)
{
    PyObject *tuple = PySequence_Tuple(self);
    PyObject *text = tuple == NULL ? NULL : PyUnicode_FromFormat("<Descriptors %R>", tuple);
    Py_XDECREF(tuple);
    return text;
}

PyDoc_STRVAR(descriptors_doc,
"The descriptors that came with a message, in order, as Fd objects: a read-only sequence.  The\n"
"message owns them until they are taken.");

static PyType_Slot descriptors_slots[] = {
    {Py_tp_dealloc, descriptors_dealloc},
    {Py_tp_repr, descriptors_repr},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_richcompare, descriptors_compare},
    {Py_tp_iter, PySeqIter_New},
    {Py_tp_doc, (void *)descriptors_doc},
    {Py_sq_length, descriptors_length},
    {Py_sq_item, descriptors_item},
    {Py_mp_length, descriptors_length},
    {Py_mp_subscript, descriptors_subscript},
    {0, NULL},
};

static PyType_Spec descriptors_spec = {
    .name = "cmsgx._cmsg.Descriptors",
    .basicsize = sizeof(cmsgx_descriptors),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION
             | Py_TPFLAGS_SEQUENCE,
    .slots = descriptors_slots,
};

/* Control messages ----------------------------------------------------------------------- */

/* Whether credentials were attached at all: (0, 65534, 65534) is also what was never sent, and
   only a pidfd that was asked for tells.  Borrowed True, False or None. */
static PyObject *
attached(const cmsgx_message *self, const unsigned char *ucred)
{
    uint32_t words[3];
    memcpy(words, ucred, sizeof(words));
    if (words[0] != 0 || words[1] != 65534 || words[2] != 65534 || self->pidfds > 0) {
        return Py_True;
    }
    return self->request->asked_pidfd ? Py_False : Py_None;
}

static PyObject *
decode(cmsgx_message *self, cmsgx_state *state, PyObject *kind, const cmsgx_codec *codec,
       const cmsgx_header *header)
{
    if (codec->size < 0) {
        return PyObject_CallMethod(kind, "unpack", "y#", header->data,
                                   (Py_ssize_t)header->size);
    }
    PyObject *record = cmsgx_codec_decode(state, codec, header->data, header->size);
    if (record != NULL && codec->kind == state->Credentials && codec->extra != 0) {
        Py_SETREF(*cmsgx_codec_extra(codec, record), Py_NewRef(attached(self, header->data)));
    }
    return record;
}

/* The object of a kind whose payload is descriptors: a new reference. */
static PyObject *
descriptor_kind(cmsgx_message *self, cmsgx_state *state, PyObject *kind)
{
    PyObject *result = NULL;
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy((PyObject *)self);
    }
    if (kind == (PyObject *)state->PidFd) {
        result = Py_XNewRef(object_at(self, self->fds));
    }
    else {
        PyObject *fds = PyTuple_New((Py_ssize_t)self->fds);
        for (size_t i = 0; fds != NULL && i < self->fds; i++) {
            PyObject *fd = object_at(self, i);
            if (fd == NULL) {
                Py_CLEAR(fds);
            }
            else {
                PyTuple_SET_ITEM(fds, (Py_ssize_t)i, Py_NewRef(fd));
            }
        }
        if (fds != NULL) {
            result = PyObject_CallOneArg(kind, fds);
            Py_DECREF(fds);
        }
    }
    cmsgx_leave(&self->busy);
    return result;
}

static int
is_descriptor_kind(const cmsgx_state *state, PyObject *kind)
{
    return kind == (PyObject *)state->PidFd || kind == (PyObject *)state->Rights;
}

static int
has_descriptor_kind(const cmsgx_message *self, const cmsgx_state *state, PyObject *kind)
{
    return kind == (PyObject *)state->PidFd ? self->pidfds > 0 : self->fds > 0;
}

static cmsgx_codec *
codec_or_raise(cmsgx_state *state, PyObject *kind)
{
    cmsgx_codec *codec = cmsgx_codec_of(state, kind);
    if (codec == NULL) {
        PyErr_Format(PyExc_TypeError, "%R is not a kind of control message", kind);
    }
    return codec;
}

/* Finds the next message that `codec` stands for: 1, or 0 at the end. */
static int
find(const cmsgx_message *self, const cmsgx_codec *codec, size_t *offset, cmsgx_header *header)
{
    const cmsgx_buffer *buffer = self->buffer;
    while (cmsgx_walk(buffer->control, buffer->control_used, offset, header) == CMSGX_MESSAGE) {
        if (header->level == codec->level && header->type == codec->type) {
            return 1;
        }
    }
    return 0;
}

static PyObject *message_control(PyObject *object, void *closure);

/* Those of no registered kind: a new list. */
static PyObject *
unknown_ones(cmsgx_message *self, cmsgx_state *state)
{
    PyObject *control = message_control((PyObject *)self, NULL);
    PyObject *list = control == NULL ? NULL : PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < PyTuple_GET_SIZE(control); i++) {
        PyObject *item = PyTuple_GET_ITEM(control, i);
        if (Py_IS_TYPE(item, state->Unknown) && PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
    }
    Py_XDECREF(control);
    return list;
}

/* The first of its kind: 1 and *result, 0 where there is none, -1 with an exception. */
static int
look_up(cmsgx_message *self, PyObject *kind, PyObject **result)
{
    cmsgx_state *state = cmsgx_state_of_self((PyObject *)self);
    cmsgx_header header;
    size_t offset = 0;

    *result = NULL;
    if (is_descriptor_kind(state, kind)) {
        if (!has_descriptor_kind(self, state, kind)) {
            return 0;
        }
        *result = descriptor_kind(self, state, kind);
        return *result != NULL ? 1 : -1;
    }
    if (kind == (PyObject *)state->Unknown) {
        PyObject *list = unknown_ones(self, state);
        int found = list == NULL ? -1 : PyList_GET_SIZE(list) > 0;
        if (found > 0) {
            *result = Py_NewRef(PyList_GET_ITEM(list, 0));
        }
        Py_XDECREF(list);
        return found;
    }
    cmsgx_codec *codec = codec_or_raise(state, kind);
    if (codec == NULL) {
        return -1;
    }
    if (!find(self, codec, &offset, &header)) {
        return 0;
    }
    *result = decode(self, state, kind, codec, &header);
    return *result != NULL ? 1 : -1;
}

static PyObject *
message_subscript(PyObject *object, PyObject *kind)
{
    PyObject *result;
    int found = look_up(SELF(object), kind, &result);
    if (found != 0) {
        return result;
    }
    const char *name = ((PyTypeObject *)kind)->tp_name;
    PyObject *want = SELF(object)->request->want;
    const char *reason = ": whether it is switched on was not asked";
    if (want != NULL) {
        int is_wanted = PySequence_Contains(want, kind);
        if (is_wanted < 0) {
            return NULL;
        }
        reason = is_wanted ? ", though it is switched on" : ": it was not switched on (want=)";
    }
    return PyErr_Format(PyExc_KeyError, "no %s came with this message%s", name, reason);
}

PyDoc_STRVAR(get_doc,
"get($self, kind, default=None, /)\n--\n\n"
"The first control message of that kind, or `default`.");

static PyObject *
message_get(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result;
    if (nargs < 1 || nargs > 2) {
        return PyErr_Format(PyExc_TypeError, "get() takes 1 or 2 arguments (%zd given)", nargs);
    }
    int found = look_up(SELF(object), args[0], &result);
    return found != 0 ? result : Py_NewRef(nargs == 2 ? args[1] : Py_None);
}

PyDoc_STRVAR(get_all_doc,
"get_all($self, kind, /)\n--\n\n"
"Each control message of that kind, as a tuple in the order of arrival.");

static PyObject *
message_get_all(PyObject *object, PyObject *kind)
{
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = cmsgx_state_of_self(object);
    cmsgx_header header;
    size_t offset = 0;

    if (is_descriptor_kind(state, kind)) {
        PyObject *one;
        int found = look_up(self, kind, &one);
        if (found <= 0) {
            return found < 0 ? NULL : PyTuple_New(0);
        }
        PyObject *tuple = PyTuple_Pack(1, one);
        Py_DECREF(one);
        return tuple;
    }
    int is_unknown = kind == (PyObject *)state->Unknown;
    cmsgx_codec *codec = is_unknown ? NULL : codec_or_raise(state, kind);
    PyObject *list = is_unknown ? unknown_ones(self, state) : codec == NULL ? NULL : PyList_New(0);
    while (list != NULL && codec != NULL && find(self, codec, &offset, &header)) {
        PyObject *record = decode(self, state, kind, codec, &header);
        if (record == NULL || PyList_Append(list, record) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(record);
    }
    PyObject *tuple = list == NULL ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

static int
message_contains(PyObject *object, PyObject *kind)
{
    cmsgx_state *state = cmsgx_state_of_self(object);
    cmsgx_header header;
    size_t offset = 0;
    if (is_descriptor_kind(state, kind)) {
        return has_descriptor_kind(SELF(object), state, kind);
    }
    if (kind == (PyObject *)state->Unknown) {
        PyObject *one;
        int found = look_up(SELF(object), kind, &one);
        Py_XDECREF(one);
        return found;
    }
    cmsgx_codec *codec = codec_or_raise(state, kind);
    return codec == NULL ? -1 : find(SELF(object), codec, &offset, &header);
}

static PyObject *
unknown(cmsgx_state *state, const cmsgx_header *header)
{
    return PyObject_CallFunction((PyObject *)state->Unknown, "iiy#", header->level, header->type,
                                 header->data, (Py_ssize_t)header->size);
}

static PyObject *
message_control(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = cmsgx_state_of_self(object);
    const cmsgx_buffer *buffer = self->buffer;
    PyObject *list = PyList_New(0);
    int has_shown[2] = {0, 0};
    cmsgx_header header;
    size_t offset = 0;

    while (list != NULL
           && cmsgx_walk(buffer->control, buffer->control_used, &offset, &header)
                  == CMSGX_MESSAGE) {
        PyObject *record = NULL;
        PyObject *kind = PyObject_CallFunction(state->decode, "iii", self->request->family,
                                               header.level, header.type);
        if (kind == NULL) {
            Py_CLEAR(list);
            break;
        }
        if (is_descriptor_kind(state, kind)) {
            /* What came in several is shown as one; what was closed at once, not at all. */
            int *shown = &has_shown[kind == (PyObject *)state->PidFd];
            if (*shown || !has_descriptor_kind(self, state, kind)) {
                Py_DECREF(kind);
                continue;
            }
            *shown = 1;
            record = descriptor_kind(self, state, kind);
        }
        else {
            cmsgx_codec *codec = cmsgx_codec_of(state, kind);
            record = codec != NULL && codec->kind == (PyTypeObject *)kind
                             && codec->level == header.level && codec->type == header.type
                ? decode(self, state, kind, codec, &header)
                : unknown(state, &header);
        }
        Py_DECREF(kind);
        if (record == NULL && (self->flags & MSG_CTRUNC)
            && PyErr_ExceptionMatches(state->MalformedControlError)) {
            /* The one that was cut: it must not hide those that arrived whole. */
            PyErr_Clear();
            record = unknown(state, &header);
        }
        if (record == NULL || PyList_Append(list, record) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(record);
    }
    PyObject *tuple = list == NULL ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return tuple;
}

static PyObject *
message_iter(PyObject *object)
{
    PyObject *control = message_control(object, NULL);
    PyObject *iterator = control == NULL ? NULL : PyObject_GetIter(control);
    Py_XDECREF(control);
    return iterator;
}

/* Data and the rest ------------------------------------------------------------------------ */

static PyObject *
joined(const cmsgx_into *into, size_t nbytes)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)nbytes);
    char *to = bytes == NULL ? NULL : PyBytes_AS_STRING(bytes);
    for (Py_ssize_t i = 0; to != NULL && i < into->count && nbytes > 0; i++) {
        size_t part = into->iov[i].iov_len < nbytes ? into->iov[i].iov_len : nbytes;
        memcpy(to, into->iov[i].iov_base, part);
        to += part;
        nbytes -= part;
    }
    return bytes;
}

/* With MSG_TRUNC passed, the kernel returns more than there is. */
static size_t
bytes_here(const cmsgx_message *self)
{
    size_t room = room_of(self->buffer);
    return self->nbytes < room ? self->nbytes : room;
}

static PyObject *
message_data(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    const cmsgx_into *into = self->buffer->into;
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    if (self->data == NULL) {
        self->data = into != NULL
            ? joined(into, bytes_here(self))
            : PyBytes_FromStringAndSize((const char *)self->buffer->data,
                                        (Py_ssize_t)bytes_here(self));
    }
    PyObject *data = Py_XNewRef(self->data);
    cmsgx_leave(&self->busy);
    return data;
}

static PyObject *
message_view(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = cmsgx_state_of_self(object);
    const cmsgx_into *into = self->buffer->into;
    const unsigned char *start = self->buffer->data;
    if (into != NULL) {
        /* What lies in several buffers has no view; one buffer of the caller's has. */
        if (into->count != 1) {
            return message_data(object, NULL);
        }
        start = into->iov[0].iov_base;
    }
    return cmsgx_view_new(state, self->buffer, start, bytes_here(self));
}

static PyObject *
message_address(PyObject *object, void *Py_UNUSED(closure))
{
    cmsgx_message *self = SELF(object);
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    if (self->address == NULL) {
        self->address = cmsgx_address_new(cmsgx_state_of_self(object), &self->buffer->name,
                                          self->buffer->name_size);
    }
    PyObject *address = Py_XNewRef(self->address);
    cmsgx_leave(&self->busy);
    return address;
}

static PyObject *
message_fds(PyObject *object, void *Py_UNUSED(closure))
{
    return descriptors_new(object);
}

static PyObject *
message_nbytes(PyObject *object, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(SELF(object)->nbytes);
}

static PyObject *
message_truncated(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(SELF(object)->truncated);
}

static PyObject *
message_closed(PyObject *object, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(cmsgx_flag_get(&SELF(object)->closed));
}

static PyObject *
message_eof(PyObject *object, void *Py_UNUSED(closure))
{
    return SELF(object)->eof == 2 ? Py_NewRef(Py_None) : PyBool_FromLong(SELF(object)->eof);
}

static PyObject *
message_closed_fds(PyObject *object, void *Py_UNUSED(closure))
{
    Py_ssize_t count = SELF(object)->closed_fds;
    return count < 0 ? Py_NewRef(Py_None) : PyLong_FromSsize_t(count);
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Closes each descriptor that was not taken; what `with` does at its end.  The data and the\n"
"control messages stay.");

static PyObject *
message_close_method(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return cmsgx_message_close(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
message_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self);
}

static PyObject *
message_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return cmsgx_message_close(self) < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
message_repr(PyObject *object)
{
    const cmsgx_message *self = SELF(object);
    return PyUnicode_FromFormat("<Message %zu bytes, %zu descriptors%s%s%s>", self->nbytes,
                                self->fds, self->truncated ? ", truncated" : "",
                                self->eof == 1 ? ", end of stream" : "",
                                cmsgx_flag_get(&self->closed) ? ", closed" : "");
}

static PyMethodDef message_methods[] = {
    {"take", message_take, METH_O, take_doc},
    {"take_all", message_take_all, METH_NOARGS, take_all_doc},
    {"get", (PyCFunction)(void (*)(void))message_get, METH_FASTCALL, get_doc},
    {"get_all", message_get_all, METH_O, get_all_doc},
    {"close", message_close_method, METH_NOARGS, close_doc},
    {"__enter__", message_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))message_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef message_members[] = {
    {"flags", T_INT, offsetof(cmsgx_message, flags), READONLY,
     "msg_flags of recvmsg(2): MSG_CTRUNC, MSG_TRUNC, MSG_EOR, ..."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef message_getset[] = {
    {"data", message_data, NULL, "The bytes, copied out on first use.", NULL},
    {"view", message_view, NULL,
     "The bytes without a copy: a read-only bytes-like object that keeps them as they are.",
     NULL},
    {"nbytes", message_nbytes, NULL, "What recvmsg(2) returned.", NULL},
    {"fds", message_fds, NULL, "The descriptors, a read-only sequence of Fd.", NULL},
    {"control", message_control, NULL, "The control messages, a tuple, decoded now.", NULL},
    {"address", message_address, NULL, "Where it came from: an Address.  None where it has none, and on a stream, which has one peer:\n"
     "getpeername().", NULL},
    {"truncated", message_truncated, NULL,
     "Whether data, control data or surplus descriptors were cut off.", NULL},
    {"eof", message_eof, NULL,
     "Whether this is the end of the stream; None where an empty message looks the same.", NULL},
    {"closed_fds", message_closed_fds, NULL,
     "How many descriptors beyond those asked for were closed; None where the kernel dropped\n"
     "some, which it does not count.",
     NULL},
    {"closed", message_closed, NULL, "Whether close() was called, or `with` ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(message_doc,
"What one receive brought: data, descriptors, control messages, address.  It owns the\n"
"descriptors that are not taken, and closes them at the end of its `with`.\n\n"
"msg[K] is the first control message of kind K, K in msg whether there is one, and iterating\n"
"yields them all.");

static PyType_Slot message_slots[] = {
    {Py_tp_dealloc, message_dealloc},
    {Py_tp_repr, message_repr},
    {Py_tp_iter, message_iter},
    {Py_tp_methods, message_methods},
    {Py_tp_members, message_members},
    {Py_tp_getset, message_getset},
    {Py_tp_doc, (void *)message_doc},
    {Py_mp_subscript, message_subscript},
    {Py_sq_contains, message_contains},
    {0, NULL},
};

static PyType_Spec message_spec = {
    .name = "cmsgx.Message",
    .basicsize = sizeof(cmsgx_message),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = message_slots,
};

int
cmsgx_add_message(PyObject *module)
{
    cmsgx_state *state = cmsgx_state_of(module);
    if (cmsgx_add_type(module, &descriptors_spec, &state->Descriptors) < 0) {
        return -1;
    }
    return cmsgx_add_type(module, &message_spec, &state->Message);
}
