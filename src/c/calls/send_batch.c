#include "calls/send_batch.h"

#include "arguments.h"
#include "calls/notes.h"
#include "calls/outgoing_fill.h"
#include "calls/outgoing_send.h"
#include "calls/send.h"
#include "plain/msghdr.h"
#include "plain/refusal.h"
#include "types/fd_ownership.h"

#include <errno.h>
#include <poll.h>

/* Messages of one system call; Linux takes up to 1024 (UIO_MAXIOV). */
#define CHUNK 256

/* The initial arrays of each message: large enough for most. */
#define ENTRY_FDS 2
#define ENTRY_CONTROL_SIZE (CMSG_SPACE(sizeof(int) * ENTRY_FDS) + 3 * CMSG_SPACE(20))

typedef struct {
    cmsgx_outgoing out;
    size_t owners_at;           /* where its own begin in batch.owners */
    Py_buffer buffer;
    struct iovec iov;
    int fds[ENTRY_FDS];
    PyObject *fd_owners[ENTRY_FDS];
    unsigned char control[ENTRY_CONTROL_SIZE] __attribute__((aligned(16)));
} batch_entry;

typedef struct {
    cmsgx_state *state;
    cmsgx_sock sock;
    int flags;
    size_t count;               /* entries that are filled */
    size_t done;                /* of those, sent or skipped */
    size_t part_sent;           /* bytes of entries[done] that a stream has taken */
    int is_last_chunk;          /* no other message follows, or one that cannot be sent */
    PyObject *pending;          /* owned: raised once these are sent, or NULL */
    PyObject *messages;         /* borrowed: a tuple of all messages */
    int is_iterator;            /* the caller gave them as an iterator */
    int is_tracked;             /* of a caller that counts by itself: errors do not call them
                                   `messages`, and none is left for the next call */
    int is_one_try;             /* it does not wait */
    int is_full;                /* such a call ended because the socket takes no more now */
    Py_ssize_t first_unread;    /* the first message of which nothing was read yet */
    Py_ssize_t sent;            /* messages of this call */
    int error;                  /* after an exception: as of send_chunk() */
    batch_entry *entries;
    struct cmsgx_mmsg *headers;
    PyObject **owners;          /* of all entries; NULL if there are none */
    size_t owner_count;
    PyObject *skipped;          /* owned: a list of (index, error); NULL: never skip */
    Py_ssize_t retried;         /* the last message that was tried twice, -1 for none */
} batch;

/* Filling ---------------------------------------------------------------------------------- */

/* Whether the caller cannot send that message again: it came from an iterator, or has one in it. */
static int
is_message_used_up(const batch *self, Py_ssize_t index)
{
    PyObject *message = PyTuple_GET_ITEM(self->messages, index);
    int found = self->is_iterator || cmsgx_is_used_up(message);
    for (Py_ssize_t i = 0; PyTuple_Check(message) && i < PyTuple_GET_SIZE(message); i++) {
        PyObject *part = PyTuple_GET_ITEM(message, i);
        found |= i == 1 ? cmsgx_are_fds_used_up(part) : cmsgx_is_used_up(part);
    }
    return found;
}

/* How many of the messages read so far, starting at `index`, are used up; *first is the first. */
static Py_ssize_t
count_used_up(const batch *self, Py_ssize_t index, Py_ssize_t *first)
{
    Py_ssize_t count = 0;
    for (Py_ssize_t i = index; i < self->first_unread; i++) {
        if (is_message_used_up(self, i)) {
            *first = count == 0 ? i : *first;
            count++;
        }
    }
    return count;
}

static void
note_iterator(Py_ssize_t first, Py_ssize_t count)
{
    cmsgx_add_note("messages[%zd]%s had an iterator, which is used up now: the same message again "
                   "would go without what was in it; give a list or a tuple",
                   first, count > 1 ? " and others" : "");
}

/* Adds a note to the current exception if messages from `index` on are used up. */
static void
note_used_up(const batch *self, Py_ssize_t index)
{
    Py_ssize_t first = index;
    Py_ssize_t count = count_used_up(self, index, &first);
    if (self->is_iterator && index < PyTuple_GET_SIZE(self->messages)) {
        cmsgx_add_note("messages was an iterator, which is used up now, with all that was not "
                       "sent; give a list or a tuple");
    }
    else if (count > 0) {
        note_iterator(first, count);
    }
}

/* Fills an entry from (data, fds, control, address), or just data.  The tuple of all messages keeps
   them alive.  0, or -1 with an exception. */
static int
fill_entry(batch *self, batch_entry *entry, PyObject *message)
{
    PyObject *parts[4] = {message, NULL, NULL, Py_None};
    cmsgx_outgoing_arrays arrays = {
        &entry->buffer, &entry->iov, 1, entry->fds, entry->fd_owners, ENTRY_FDS,
        entry->control, ENTRY_CONTROL_SIZE,
    };

    cmsgx_outgoing_init(&entry->out, arrays, self->state, &self->sock);
    entry->out.is_typed = 1;
    if (PyTuple_Check(message)) {
        Py_ssize_t size = PyTuple_GET_SIZE(message);
        if (size < 1 || size > 4) {
            PyErr_Format(PyExc_ValueError,
                         "a message is (data, fds, control, address), the last three optional, "
                         "not a tuple of %zd",
                         size);
            return -1;
        }
        for (Py_ssize_t i = 0; i < size; i++) {
            parts[i] = PyTuple_GET_ITEM(message, i);
        }
    }
    if (cmsgx_outgoing_fill(&entry->out, &self->sock, parts[0], parts[1], parts[2], parts[3]) < 0) {
        return -1;
    }
    cmsgx_outgoing_finish(&entry->out);
    return 0;
}

/* Whether the current exception came from Python code, such as a fileno(), an iterator or a signal
   handler: one that C raised has no traceback yet. */
static int
was_raised_by_python(void)
{
    PyObject *error = cmsgx_save_exception();
    PyObject *traceback = error == NULL ? NULL : PyException_GetTraceback(error);
    int result = traceback != NULL;
    Py_XDECREF(traceback);
    cmsgx_restore_exception(error);
    return result;
}

/* Fills as many entries as fit, up to the first invalid message, which must not be retried because
   its iterators are consumed.  0, or -1 with an exception if that is the very first message, or if
   the exception must be raised at once. */
static int
fill_chunk(batch *self, Py_ssize_t from)
{
    Py_ssize_t rest = PyTuple_GET_SIZE(self->messages) - from;
    size_t count = rest < CHUNK ? (size_t)rest : CHUNK;

    self->count = self->done = self->part_sent = 0;
    self->is_last_chunk = (size_t)rest == count;
    while (self->count < count) {
        batch_entry *entry = &self->entries[self->count];
        Py_ssize_t index = from + (Py_ssize_t)self->count;
        if (fill_entry(self, entry, PyTuple_GET_ITEM(self->messages, index)) < 0) {
            cmsgx_outgoing_clear(&entry->out);
            if (!self->is_tracked) {
                cmsgx_add_note("in messages[%zd]", index);
            }
            self->first_unread = index;
            if (index == 0 || !PyErr_ExceptionMatches(PyExc_Exception)) {
                return -1;
            }
            if (was_raised_by_python() || is_message_used_up(self, index)) {
                /* The next call would not raise it again. */
                self->pending = cmsgx_save_exception();
            }
            else {
                /* The next call starts with this message, and raises it. */
                PyErr_Clear();
            }
            self->is_last_chunk = 1;
            return 0;
        }
        self->headers[self->count++].msg_hdr = entry->out.msg;
    }
    self->first_unread = from + (Py_ssize_t)count;
    return 0;
}

/* Releases the entries from `first` on. */
static void
clear_from(batch *self, size_t first)
{
    for (size_t i = first; i < self->count; i++) {
        cmsgx_outgoing_clear(&self->entries[i].out);
    }
    self->count = first;
}

/* Collects the owners of all descriptors in one array, to be pinned.  0, or -1 with an
   exception. */
static int
gather_owners(batch *self)
{
    size_t count = 0;
    self->owner_count = 0;
    for (size_t i = 0; i < self->count; i++) {
        const cmsgx_outgoing *out = &self->entries[i].out;
        self->entries[i].owners_at = 0;
        count += out->owned_fd_count > 0 ? out->fd_count : 0;
    }
    if (count == 0) {
        return 0;
    }
    PyObject **owners = PyMem_Realloc(self->owners, count * sizeof(*owners));
    if (owners == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->owners = owners;
    for (size_t i = 0; i < self->count; i++) {
        const cmsgx_outgoing *out = &self->entries[i].out;
        self->entries[i].owners_at = self->owner_count;
        if (out->owned_fd_count > 0) {
            memcpy(owners + self->owner_count, out->fd_owners, out->fd_count * sizeof(*owners));
            self->owner_count += out->fd_count;
        }
    }
    return 0;
}

/* Sending ---------------------------------------------------------------------------------- */

static ssize_t
try_sendmmsg(int fd, void *context, int flags)
{
    batch *self = context;
    struct cmsgx_mmsg *headers = self->headers + self->done;
    unsigned count = (unsigned)(self->count - self->done);
    int sent = cmsgx_sendmmsg(fd, headers, count, flags);
    if (sent < 0 && cmsgx_refuses_nosignal(fd, flags)) {
        sent = cmsgx_sendmmsg(fd, headers, count, flags & ~CMSGX_MSG_NOSIGNAL);
    }
    return sent;
}

/* After `count` messages were sent, the last of them perhaps only in part. */
static void
count_sent(batch *self, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t sent = self->headers[self->done].msg_len;
        if (self->part_sent + sent < self->entries[self->done].out.data_size) {
            self->part_sent += sent;
            cmsgx_keep_unsent(&self->headers[self->done].msg_hdr, sent);
            return;
        }
        self->part_sent = 0;
        self->done++;
    }
}

/* The first entry whose descriptors are still to be sent: they go with the first byte. */
static size_t
first_with_descriptors(const batch *self)
{
    return self->done + (self->part_sent > 0);
}

/* The first of those entries with a descriptor that was closed meanwhile, or self->count. */
static size_t
find_closed(const batch *self)
{
    size_t i = first_with_descriptors(self);
    for (; i < self->count; i++) {
        const cmsgx_outgoing *out = &self->entries[i].out;
        for (size_t at = 0; out->owned_fd_count > 0 && at < out->fd_count; at++) {
            PyObject *owner = out->fd_owners[at];
            if (owner == NULL || !PyObject_TypeCheck(owner, self->state->FdBase)) {
                continue;
            }
            if (cmsgx_fd_pin(owner) < 0) {
                return i;
            }
            cmsgx_fd_unpin(owner);
        }
    }
    return i;
}

/* After a system call that failed with `error`, and an exception.  1: go on, with the same message
   once more, or, as that is skipped, with the next one; 0: raise the exception; -1: raise another
   one, which is current now. */
static int
skip_failed(batch *self, Py_ssize_t from, int error)
{
    cmsgx_refusal refusal = CMSGX_OF_ALL;
    if (self->skipped != NULL && self->part_sent == 0) {
        refusal = cmsgx_refusal_of(error, cmsgx_sock_type(&self->sock),
                                   cmsgx_sock_family(&self->sock));
    }
    if (refusal == CMSGX_OF_ALL) {
        return 0;
    }
    Py_ssize_t index = from + (Py_ssize_t)self->done;
    if (refusal == CMSGX_OF_MESSAGE_OR_BEFORE && self->retried != index) {
        self->retried = index;
        PyErr_Clear();
        return 1;
    }
    if (is_message_used_up(self, index) && !self->is_iterator) {
        note_iterator(index, 1);
    }
    PyObject *raised = cmsgx_save_exception();
    PyObject *entry = raised == NULL ? NULL : Py_BuildValue("(nO)", index, raised);
    Py_XDECREF(raised);
    int failed = entry == NULL || PyList_Append(self->skipped, entry) < 0;
    Py_XDECREF(entry);
    if (failed) {
        return -1;
    }
    self->done++;
    return 1;
}

/* Sends the chunk that begins at messages[from], all of it unless one message fails.  0, or -1 with
   an exception; self->error is 0 if that is not about the next message, but, for instance, from a
   signal handler. */
static int
send_chunk(batch *self, Py_ssize_t from)
{
    int *error = &self->error;
    while (self->done < self->count) {
        cmsgx_pins pins = {self->state->FdBase, NULL, 0};
        size_t first = first_with_descriptors(self);
        if (self->owner_count > 0 && first < self->count) {
            /* What was sent may be closed by now. */
            size_t owners_at = self->entries[first].owners_at;
            pins.objects = self->owners + owners_at;
            pins.count = self->owner_count - owners_at;
        }
        ssize_t result =
            cmsgx_call(&self->sock, POLLOUT, try_sendmmsg, self, self->flags, &pins, error);
        if (result < 0 && self->is_one_try && *error == EAGAIN) {
            self->is_full = self->is_last_chunk = 1;
            return 0;
        }
        if (result < 0) {
            if (*error != EBADF) {
                if (self->part_sent == 0) {
                    cmsgx_outgoing_note_needs(&self->entries[self->done].out, error);
                }
                int goes_on = skip_failed(self, from, *error);
                if (goes_on > 0) {
                    goto next;
                }
                *error = goes_on == 0 ? *error : 0;
                return -1;
            }
            size_t closed = find_closed(self);
            if (closed > self->done && closed < self->count) {
                /* The messages before it can be sent. */
                Py_ssize_t at;
                if (count_used_up(self, from + (Py_ssize_t)closed, &at) > 0) {
                    Py_XSETREF(self->pending, cmsgx_save_exception());
                }
                PyErr_Clear();
                self->owner_count = self->entries[closed].owners_at;
                clear_from(self, closed);
                self->is_last_chunk = 1;
                continue;
            }
            if (closed == self->count) {
                cmsgx_outgoing_name_closed_fd(&self->entries[self->done].out, &self->sock);
            }
            return -1;
        }
        count_sent(self, (size_t)result);
    next:
        if (self->done < self->count && PyErr_CheckSignals() < 0) {
            /* The signal may be why the kernel stopped, and the next call could wait forever. */
            *error = 0;
            return -1;
        }
    }
    return 0;
}

static PyObject *
as_tuple(void *list)
{
    return PyList_AsTuple(list);
}

/* Sets the attributes of the current exception that say what was sent, and what was skipped. */
static void
attach_progress(const batch *self)
{
    cmsgx_set_attribute("sent", "n", self->sent);
    cmsgx_set_attribute("sent_bytes", "n", (Py_ssize_t)self->part_sent);
    if (self->skipped != NULL) {
        cmsgx_set_attribute("skipped", "O&", as_tuple, self->skipped);
    }
}

/* Sends all messages, chunk by chunk: 0, or -1 with an exception, and self->error as of
   send_chunk().  Either way, self->sent is the number of messages sent. */
static int
send_all(batch *self)
{
    Py_ssize_t count = PyTuple_GET_SIZE(self->messages), done = 0;

    cmsgx_start_clock(&self->sock);

    while (done < count) {
        self->error = 0;
        int failed = fill_chunk(self, done) < 0 || gather_owners(self) < 0
                     || send_chunk(self, done) < 0;
        done += (Py_ssize_t)self->done;
        self->sent = done - (self->skipped != NULL ? PyList_GET_SIZE(self->skipped) : 0);
        clear_from(self, 0);
        if (!failed && !self->is_last_chunk && PyErr_CheckSignals() < 0) {
            /* Otherwise no handler would run before everything is sent. */
            failed = 1;
        }
        if (self->pending != NULL && !(failed && self->error == 0)) {
            cmsgx_restore_exception(self->pending);
            self->pending = NULL;
            self->error = 0;
            failed = 1;
        }
        Py_ssize_t first;
        if (failed && (done == 0 || self->part_sent > 0 || self->error == 0
                       || self->is_tracked || count_used_up(self, done, &first) > 0)) {
            note_used_up(self, done);
            attach_progress(self);
            return -1;
        }
        if (failed) {
            /* The rest is left to the next call, which meets the error again. */
            PyErr_Clear();
            break;
        }
        if (self->is_last_chunk) {
            break;
        }
    }
    return 0;
}

/* The BatchResult of a call with on_error="skip": a new reference, or NULL with an exception. */
static PyObject *
batch_result(const batch *self)
{
    PyObject *skipped = PyList_AsTuple(self->skipped);
    PyObject *result = skipped == NULL
        ? NULL : PyObject_CallFunction(self->state->BatchResult, "nO", self->sent, skipped);
    Py_XDECREF(skipped);
    if (result == NULL) {
        attach_progress(self);
    }
    return result;
}

/* Parses the arguments and calls send_all(), with the same results.  *result (unless `result` is
   NULL) is what the Python function returns: a new reference, or NULL with an exception. */
static int
send_batch(batch *self, PyObject *module, const cmsgx_signature *signature, PyObject *const *args,
           Py_ssize_t nargs, PyObject *kwnames, PyObject **result)
{
    enum {SOCK, MESSAGES, FLAGS, TIMEOUT, ON_ERROR, COUNT};
    PyObject *values[COUNT] = {NULL};
    cmsgx_state *state = cmsgx_state_of(module);
    int flags = 0, skips = 0, failed = -1;

    if (cmsgx_keywords(state, signature, args, nargs, kwnames, values) < 0
        || cmsgx_sock_resolve_typed(state, values[SOCK], CMSGX_SENDING, &self->sock) < 0
        || cmsgx_sock_set_timeout(&self->sock, values[TIMEOUT]) < 0
        || (values[FLAGS] != NULL && cmsgx_as_int(values[FLAGS], "flags", &flags) < 0)
        || (values[ON_ERROR] != NULL && cmsgx_as_on_error(values[ON_ERROR], &skips) < 0)) {
        return -1;
    }
    if (self->is_one_try) {
        self->sock.timeout = CMSGX_ONE_TRY;
        flags |= MSG_DONTWAIT;
    }
    /* A tuple of our own, as a list could be changed while the GIL is released. */
    PyObject *messages = cmsgx_as_messages(state, values[MESSAGES]);
    if (messages == NULL) {
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(messages);
    size_t max_entries = count < CHUNK ? (size_t)count : CHUNK;

    self->state = state;
    self->flags = flags | CMSGX_MSG_NOSIGNAL;
    self->messages = messages;
    self->is_iterator = PyIter_Check(values[MESSAGES]);
    self->retried = -1;
    size_t entry_size = sizeof(batch_entry) + sizeof(*self->headers);
    self->entries = PyMem_Malloc((max_entries + 1) * entry_size);
    if (self->entries == NULL) {
        PyErr_NoMemory();
    }
    else if (!skips || (self->skipped = PyList_New(0)) != NULL) {
        self->headers = (struct cmsgx_mmsg *)(void *)(self->entries + max_entries + 1);
        failed = send_all(self);
    }
    if (result != NULL && failed == 0) {
        *result = skips ? batch_result(self) : PyLong_FromSsize_t(self->sent);
    }
    Py_XDECREF(self->skipped);
    Py_XDECREF(self->pending);
    PyMem_Free(self->owners);
    PyMem_Free(self->entries);
    Py_DECREF(messages);
    return failed;
}

PyObject *
cmsgx_send_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "send_batch", 2, 2,
        {CMSGX_KW_SOCK, CMSGX_KW_MESSAGES, CMSGX_KW_FLAGS, CMSGX_KW_TIMEOUT, CMSGX_KW_ON_ERROR, -1},
    };
    batch self = {0};
    PyObject *result = NULL;
    (void)send_batch(&self, module, &signature, args, nargs, kwnames, &result);
    return result;
}

static PyObject *
track_batch(batch *self, PyObject *module, const cmsgx_signature *signature, PyObject *const *args,
            Py_ssize_t nargs, PyObject *kwnames)
{
    if (!cmsgx_is_progress(signature->function, args, nargs, 2)) {
        return NULL;
    }
    self->is_tracked = 1;
    (void)send_batch(self, module, signature, args + 1, nargs - 1, kwnames, NULL);
    return cmsgx_tell_progress(args[0], self->sent, (Py_ssize_t)self->part_sent, self->error);
}

PyObject *
cmsgx_send_batch_tracked(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "send_batch_tracked", 2, 2,
        {CMSGX_KW_SOCK, CMSGX_KW_MESSAGES, CMSGX_KW_FLAGS, CMSGX_KW_TIMEOUT, -1},
    };
    batch self = {0};
    return track_batch(&self, module, &signature, args, nargs, kwnames);
}

PyObject *
cmsgx_try_send_batch(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const cmsgx_signature signature = {
        "try_send_batch", 2, 2, {CMSGX_KW_SOCK, CMSGX_KW_MESSAGES, CMSGX_KW_FLAGS, -1},
    };
    batch self = {.is_one_try = 1};
    PyObject *refusal = track_batch(&self, module, &signature, args, nargs, kwnames);
    if (refusal != Py_None) {
        return refusal;
    }
    Py_DECREF(refusal);
    return PyBool_FromLong(!self.is_full);
}
