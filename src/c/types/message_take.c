#include "types/message_take.h"

#include "arguments.h"
#include "errors.h"
#include "types/fd_ownership.h"
#include "types/message_fds.h"

#define SELF(object) ((cmsgx_message *)(object))

static int
need_open(cmsgx_message *self)
{
    if (cmsgx_flag_get(&self->closed)) {
        PyErr_SetString(PyExc_ValueError,
                        "the message is closed, and so are the descriptors that were not "
                        "taken");
        return -1;
    }
    return 0;
}

/* Moves descriptor `at`, for which `slots` exist, to an object of another class, which owns nothing
   yet.  Runs no Python code and cannot fail.  The message does not keep a reference to that object,
   which may have attributes that refer to the message. */
static void
move_to(cmsgx_message *self, size_t at, PyObject *owner)
{
    cmsgx_slot *slot = &self->slots[at];
    int error;
    if (slot->object != NULL) {
        error = ((cmsgx_fd *)slot->object)->error;
        uint64_t taken;
        if (cmsgx_fd_detach(slot->object, CMSGX_GONE_TAKEN, &taken) >= 0) {
            cmsgx_fd_leave_to(slot->object, taken, owner);
        }
        else {
            cmsgx_fd_set_gone(owner, cmsgx_fd_gone(slot->object));
        }
    }
    else {
        cmsgx_fd_set(owner, cmsgx_message_number(self, at, &error));
        self->buffer->fds[at] = -1;
        if (self->config->row != NULL) {
            /* Together with the place that is reserved for the number. */
            cmsgx_fd_set_row(owner, self->config->row);
        }
    }
    ((cmsgx_fd *)owner)->error = error;
    slot->taken = 1;
}

/* Sets *type to the class given as `fd_class=`, or to NULL if that is the usual class.  0, or -1
   with TypeError. */
static int
parse_class(cmsgx_state *state, PyObject *given, PyTypeObject *usual, PyTypeObject **type)
{
    *type = NULL;
    if (given == NULL || given == Py_None || given == (PyObject *)usual) {
        return 0;
    }
    if (!PyType_Check(given) || !PyType_IsSubtype((PyTypeObject *)given, usual)) {
        if (usual == state->PidFd) {
            cmsgx_raise_needed("fd_class", -1, "a subclass of PidFd, for a PidFd,", given);
        }
        else {
            cmsgx_raise_needed("fd_class", -1, "a subclass of Fd", given);
        }
        return -1;
    }
    *type = (PyTypeObject *)given;
    return 0;
}

/* `object` owned the descriptor, and its repr says what became of it; or NULL. */
static void
raise_not_here(const char *call, const cmsgx_message *self, size_t at, PyObject *object)
{
    if (at >= self->buffer->received.fds) {
        PyErr_Format(PyExc_ValueError, "%s: the PidFd was closed or given away: %R", call, object);
    }
    else if (object != NULL) {
        PyErr_Format(PyExc_ValueError, "%s: descriptor %zu was closed or given away: %R", call, at,
                     object);
    }
    else {
        PyErr_Format(PyExc_ValueError, "%s: descriptor %zu is gone", call, at);
    }
}

/* 0 if descriptor `at` is still owned here, or -1 with ValueError if a user of msg.fds closed it or
   gave it away.  An errno in place of a descriptor counts as owned, although there is nothing to
   own. */
static int
need_here(const char *call, const cmsgx_message *self, size_t at)
{
    PyObject *object = self->slots[at].object;
    if (object != NULL && cmsgx_fd_number(object) < 0
        && ((cmsgx_fd *)object)->error == 0) {
        raise_not_here(call, self, at, object);
        return -1;
    }
    return 0;
}

/* Takes descriptor `at` as an object of `type`, or of the usual class for NULL: a new reference. */
static PyObject *
take_at(const char *call, cmsgx_message *self, size_t at, PyTypeObject *type)
{
    if (need_open(self) < 0 || cmsgx_message_need_slots(self) < 0) {
        return NULL;
    }
    if (self->slots[at].taken) {
        if (at < self->buffer->received.fds) {
            PyErr_Format(PyExc_ValueError, "descriptor %zu was already taken", at);
        }
        else {
            PyErr_SetString(PyExc_ValueError, "the PidFd was already taken");
        }
        return NULL;
    }
    PyObject *object;
    if (type != NULL) {
        /* This may run the garbage collector, and so code that closes an Fd from msg.fds; but that
           code finds the message in use. */
        object = cmsgx_fd_new(type, -1, 0);
        if (object != NULL && need_here(call, self, at) < 0) {
            Py_CLEAR(object);
        }
        if (object != NULL) {
            move_to(self, at, object);
        }
        return object;
    }
    object = cmsgx_message_object(self, at);
    if (object == NULL || need_here(call, self, at) < 0) {
        return NULL;
    }
    self->slots[at].taken = 1;
    return Py_NewRef(object);
}

/* The index in buffer->fds of the descriptor that take() is asked for; -1 with an exception. */
static Py_ssize_t
place_of(const cmsgx_message *self, PyObject *which)
{
    Py_ssize_t count = (Py_ssize_t)self->buffer->received.fds;
    if (which == (PyObject *)self->config->state->PidFd) {
        if (self->buffer->received.pidfds == 0) {
            PyErr_SetString(PyExc_KeyError,
                            "no PidFd came with this message; Receiver(want=[PidFd]) requests it");
            return -1;
        }
        return count;
    }
    Py_ssize_t index;
    if (!PyIndex_Check(which)) {
        cmsgx_raise_needed("take()", -1, "an index, or PidFd,", which);
        return -1;
    }
    if (cmsgx_as_nearest(which, "take()", &index) < 0) {
        return -1;
    }
    index += index < 0 ? count : 0;
    if (index < 0 || index >= count) {
        PyErr_Format(PyExc_IndexError, "take(%R): %zd descriptors came with this message", which,
                     count);
        return -1;
    }
    return index;
}

PyObject *
cmsgx_message_take(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const cmsgx_signature signature = {"take", 0, 0, {CMSGX_KW_FD_CLASS, -1}};
    cmsgx_message *self = SELF(object);
    cmsgx_state *state = self->config->state;
    PyObject *class_given = NULL;
    PyTypeObject *type = NULL;

    if (nargs != 1) {
        return PyErr_Format(PyExc_TypeError,
                            "take() takes one positional argument, an index of fds or PidFd "
                            "(%zd given)",
                            nargs);
    }
    if (kwnames != NULL
        && cmsgx_keywords(state, &signature, args + 1, 0, kwnames, &class_given) < 0) {
        return NULL;
    }
    Py_ssize_t at = place_of(self, args[0]);
    PyTypeObject *usual = at < (Py_ssize_t)self->buffer->received.fds ? state->Fd : state->PidFd;
    if (at < 0 || parse_class(state, class_given, usual, &type) < 0) {
        return NULL;
    }
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    PyObject *result = take_at("take", self, (size_t)at, type);
    cmsgx_leave(&self->busy);
    return result;
}

/* 0 if exactly one descriptor came, or -1 with ValueError. */
static int
need_one(const cmsgx_message *self)
{
    size_t count = self->buffer->received.fds;
    Py_ssize_t closed = self->buffer->received.closed_fds;
    if (closed < 0) {
        PyErr_Format(PyExc_ValueError,
                     "take_one: %zu %s, and the kernel dropped an unknown number of others", count,
                     count == 1 ? "descriptor came" : "descriptors came");
        return -1;
    }
    if (closed > 0) {
        PyErr_Format(PyExc_ValueError,
                     "take_one: %zu descriptor%s came, of which %zd %s closed (fds=%zu)",
                     count + (size_t)closed, count + (size_t)closed == 1 ? "" : "s", closed,
                     closed == 1 ? "was" : "were", self->config->fds);
        return -1;
    }
    if (count != 1) {
        PyErr_Format(PyExc_ValueError, "take_one: %zu descriptors came", count);
        return -1;
    }
    return 0;
}

/* Parses the arguments of a method that takes only fd_class=. */
static int
parse_just_class(const cmsgx_message *self, const cmsgx_signature *signature,
                 PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyTypeObject **type)
{
    cmsgx_state *state = self->config->state;
    PyObject *given = NULL;
    if ((nargs > 0 || kwnames != NULL)
        && cmsgx_keywords(state, signature, args, nargs, kwnames, &given) < 0) {
        return -1;
    }
    return parse_class(state, given, state->Fd, type);
}

/* The common part of take_one() and take_all(): parses the arguments, and calls `take` while the
   message is held. */
static PyObject *
take_by_class(PyObject *object, const cmsgx_signature *signature, PyObject *const *args,
              Py_ssize_t nargs, PyObject *kwnames,
              PyObject *(*take)(cmsgx_message *, PyTypeObject *))
{
    cmsgx_message *self = SELF(object);
    PyTypeObject *type;

    if (parse_just_class(self, signature, args, nargs, kwnames, &type) < 0) {
        return NULL;
    }
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    PyObject *result = take(self, type);
    cmsgx_leave(&self->busy);
    return result;
}

static PyObject *
take_only(cmsgx_message *self, PyTypeObject *type)
{
    return need_open(self) < 0 || need_one(self) < 0 ? NULL : take_at("take_one", self, 0, type);
}

PyObject *
cmsgx_message_take_one(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    static const cmsgx_signature signature = {"take_one", 0, 0, {CMSGX_KW_FD_CLASS, -1}};
    return take_by_class(object, &signature, args, nargs, kwnames, take_only);
}

/* Takes all descriptors that are left: a new list. */
static PyObject *
take_rest(cmsgx_message *self, PyTypeObject *type)
{
    if (need_open(self) < 0 || cmsgx_message_need_slots(self) < 0) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    /* All objects are created before any descriptor is taken, so a failure leaves all with the
       message. */
    for (size_t i = 0; list != NULL && i < self->buffer->received.fds; i++) {
        if (self->slots[i].taken) {
            continue;
        }
        PyObject *fd = type == NULL ? Py_XNewRef(cmsgx_message_object(self, i))
                                    : cmsgx_fd_new(type, -1, 0);
        if (fd == NULL || PyList_Append(list, fd) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(fd);
    }
    for (size_t i = 0; list != NULL && i < self->buffer->received.fds; i++) {
        if (!self->slots[i].taken && need_here("take_all", self, i) < 0) {
            Py_CLEAR(list);
        }
    }
    Py_ssize_t next = 0;
    for (size_t i = 0; list != NULL && i < self->buffer->received.fds; i++) {
        if (type != NULL && !self->slots[i].taken) {
            move_to(self, i, PyList_GET_ITEM(list, next++));
        }
        self->slots[i].taken = 1;
    }
    return list;
}

PyObject *
cmsgx_message_take_all(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    static const cmsgx_signature signature = {"take_all", 0, 0, {CMSGX_KW_FD_CLASS, -1}};
    return take_by_class(object, &signature, args, nargs, kwnames, take_rest);
}

/* The number of descriptor `at`, which is still owned here; -1 with an exception if there is
   none. */
static int
number_to_detach(const cmsgx_message *self, size_t at)
{
    PyObject *object = self->slots[at].object;
    int error = object != NULL ? ((cmsgx_fd *)object)->error : 0;
    int number = object != NULL ? cmsgx_fd_number(object)
                                : cmsgx_message_number(self, at, &error);
    if (number < 0 && error != 0) {
        cmsgx_raise_errno(error, "detach_all: the kernel did not deliver descriptor %zu", at);
    }
    else if (number < 0) {
        raise_not_here("detach_all", self, at, object);
    }
    return number;
}

/* Takes the numbers in `list` away from the objects that own them: all of them and 0, or none and
   -1 with ValueError if another thread was faster. */
static int
detach_from_objects(cmsgx_message *self, PyObject *list)
{
    uint64_t taken[CMSGX_MAX_FDS];
    Py_ssize_t count = PyList_GET_SIZE(list), next = 0;
    size_t at[CMSGX_MAX_FDS];

    for (size_t i = 0; i < self->buffer->received.fds && next < count; i++) {
        if (self->slots[i].taken) {
            continue;
        }
        at[next] = i;
        PyObject *object = self->slots[i].object;
        taken[next] = 0;
        if (object != NULL && cmsgx_fd_detach(object, CMSGX_GONE_TAKEN, &taken[next]) < 0) {
            while (next-- > 0) {
                if (self->slots[at[next]].object != NULL) {
                    cmsgx_fd_take_back(self->slots[at[next]].object, taken[next]);
                }
            }
            raise_not_here("detach_all", self, i, object);
            return -1;
        }
        next++;
    }
    for (Py_ssize_t i = 0; i < next; i++) {
        PyObject *object = self->slots[at[i]].object;
        if (object != NULL) {
            cmsgx_fd_gave_away(object, taken[i]);
        }
        else if (self->config->row != NULL) {
            cmsgx_row_unreserve(self->config->row, 1);
        }
        self->buffer->fds[at[i]] = -1;
        self->slots[at[i]].taken = 1;
    }
    return 0;
}

PyObject *
cmsgx_message_detach_all(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    cmsgx_message *self = SELF(object);
    if (!cmsgx_enter(&self->busy)) {
        return cmsgx_raise_busy(object);
    }
    PyObject *list = NULL;
    if (need_open(self) == 0 && cmsgx_message_need_slots(self) == 0) {
        Py_ssize_t count = 0, next = 0;
        for (size_t i = 0; i < self->buffer->received.fds; i++) {
            count += !self->slots[i].taken;
        }
        /* All memory is allocated first.  After the list, no Python code runs. */
        list = PyList_New(count);
        for (size_t i = 0; list != NULL && i < self->buffer->received.fds; i++) {
            if (!self->slots[i].taken) {
                int number = number_to_detach(self, i);
                PyObject *item = number < 0 ? NULL : PyLong_FromLong(number);
                if (item == NULL) {
                    Py_CLEAR(list);
                }
                else {
                    PyList_SET_ITEM(list, next++, item);
                }
            }
        }
        if (list != NULL && detach_from_objects(self, list) < 0) {
            Py_CLEAR(list);
        }
    }
    cmsgx_leave(&self->busy);
    return list;
}
