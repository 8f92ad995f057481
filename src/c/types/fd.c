#include "types/fd.h"

#include "arguments.h"
#include "errors.h"
#include "types/fd_argument.h"
#include "types/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static PyObject *
raise_not_owned(PyObject *self)
{
    int error = ((cmsgx_fd *)self)->error;
    return error != 0
        ? PyErr_Format(PyExc_ValueError,
                       "%s owns no descriptor: the kernel could not create one: %s",
                       Py_TYPE(self)->tp_name, strerror(error))
        : PyErr_Format(PyExc_ValueError, "%s owns no descriptor: %s", Py_TYPE(self)->tp_name,
                       cmsgx_gone_texts[cmsgx_fd_gone(self)].sentence);
}

static PyObject *
raise_not_pinned(PyObject *self)
{
    return cmsgx_fd_number(self) < 0 ? raise_not_owned(self)
                                             : cmsgx_raise_unpinnable("pin", -1, self);
}

static PyObject *
descriptor_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"number", NULL};
    PyObject *object;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Fd", (char **)(void *)names, &object)) {
        return NULL;
    }
    if (PyBool_Check(object) || !PyLong_Check(object)) {
        return PyErr_Format(PyExc_TypeError,
                            "%s() takes over a descriptor number (an int), not %.200s; use "
                            "detach() of an object that owns one",
                            type->tp_name, Py_TYPE(object)->tp_name);
    }
    int overflow;
    long number = PyLong_AsLongAndOverflow(object, &overflow);
    if (overflow != 0 || number < 0 || number > INT_MAX) {
        return PyErr_Format(PyExc_ValueError, "number: %R is not a file descriptor", object);
    }
    if (fcntl((int)number, F_GETFD) < 0) {
        return cmsgx_raise_errno(errno, "number: %ld is not open", number);
    }
    return cmsgx_fd_new(type, (int)number, 0);
}

PyDoc_STRVAR(fileno_doc,
"fileno($self, /)\n--\n\n"
"The number, which this object still owns.  ValueError once it was closed or given away; the text\n"
"says how.");

static PyObject *
descriptor_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    int number = cmsgx_fd_number(self);
    return number < 0 ? raise_not_owned(self) : PyLong_FromLong(number);
}

PyDoc_STRVAR(descriptor_close_doc,
"close($self, /, *, now=False)\n--\n\n"
"Closes the descriptor; does nothing if there is none.  Of several threads exactly one closes it.\n"
"Releases the GIL, and is never retried: close(2).  While another thread sends it, it is closed\n"
"at the end of that system call.  A descriptor from a receiver that closes in the background is\n"
"closed there, unless `now` is true.");

static PyObject *
close_it(int number)
{
    if (number >= 0) {
        int result;
        Py_BEGIN_ALLOW_THREADS
        result = close(number);
        Py_END_ALLOW_THREADS
        if (result != 0 && errno != EINTR) {
            return cmsgx_raise_errno(errno, "close of descriptor %d", number);
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
descriptor_close(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const cmsgx_signature signature = {"close", 0, 0, {CMSGX_KW_NOW, -1}};
    PyObject *given = NULL;
    int now = 0;

    if ((nargs > 0 || kwnames != NULL)
        && (cmsgx_keywords(cmsgx_state_of_type(Py_TYPE(self)), &signature, args, nargs, kwnames,
                           &given) < 0
            || (given != NULL && (now = PyObject_IsTrue(given)) < 0))) {
        return NULL;
    }
    return close_it(now ? cmsgx_fd_take_to_close_now(self)
                        : cmsgx_fd_take_to_close(self, CMSGX_GONE_CLOSED));
}

PyDoc_STRVAR(detach_doc,
"detach($self, /)\n--\n\n"
"Gives the number away: the caller owns it from now on.  ValueError if there is none.");

static PyObject *
detach_as(PyObject *self, cmsgx_gone how)
{
    /* The int is made before the number is taken, so that nothing can fail after that. */
    PyObject *number = PyLong_FromLong(cmsgx_fd_number(self));
    uint64_t taken = 0;
    if (number != NULL && cmsgx_fd_detach(self, how, &taken) < 0) {
        Py_DECREF(number);
        return raise_not_owned(self);
    }
    cmsgx_fd_gave_away(self, taken);
    return number;
}

static PyObject *
descriptor_detach(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return detach_as(self, CMSGX_GONE_DETACHED);
}

PyDoc_STRVAR(detach_to_socket_doc,
"_detach_to_socket($self, /)\n--\n\n"
"detach(), for a number that a socket object already has.");

static PyObject *
descriptor_detach_to_socket(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return detach_as(self, CMSGX_GONE_TO_SOCKET);
}

PyDoc_STRVAR(dup_doc,
"dup($self, /)\n--\n\n"
"A new object that owns a close-on-exec duplicate: the same open file description, and so the\n"
"same offset and status flags.  Closed in the background if this one is.  fcntl(2),\n"
"F_DUPFD_CLOEXEC.");

static PyObject *
descriptor_dup(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    /* Memory first: nothing may fail once there is a new descriptor, and no Python code may run
       while this one is pinned. */
    PyObject *copy = cmsgx_fd_new(Py_TYPE(self), -1, 0);
    cmsgx_row *row = cmsgx_fd_row(self);
    if (copy == NULL || (row != NULL && cmsgx_row_reserve(row, 1) < 0)) {
        Py_XDECREF(copy);
        return copy == NULL ? NULL : PyErr_NoMemory();
    }
    int number = cmsgx_fd_pin(self);
    int duplicate = number < 0 ? -1 : fcntl(number, F_DUPFD_CLOEXEC, 0);
    int failed = errno;
    if (duplicate >= 0) {
        cmsgx_fd_set(copy, duplicate);
    }
    if (row != NULL) {
        cmsgx_fd_set_row(copy, row);
        cmsgx_row_unreserve(row, duplicate < 0);
    }
    if (number >= 0) {
        cmsgx_fd_unpin(self);
    }
    if (duplicate < 0) {
        Py_DECREF(copy);
        return number < 0 ? raise_not_pinned(self)
                          : cmsgx_raise_errno(failed, "dup of descriptor %d", number);
    }
    return copy;
}

PyDoc_STRVAR(pinned_doc,
"_pinned($self, /)\n--\n\n"
"The number for system calls, as a context manager: no close() takes effect before it ends.  A\n"
"pin belongs to the process that made it: a child of fork has to make its own.");

static PyObject *
descriptor_pinned(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *pin = cmsgx_pin_new(cmsgx_state_of_type(Py_TYPE(self)), self);
    return pin == NULL && !PyErr_Occurred() ? raise_not_pinned(self) : pin;
}

int
cmsgx_fd_give_to(PyObject *self, PyObject *heir, initproc init, PyObject *arguments,
                 cmsgx_gone how)
{
    if (arguments == NULL) {
        return -1;
    }
    uint64_t taken = 0;
    int number = cmsgx_fd_detach(self, how, &taken);
    int failed = number < 0 || init(heir, arguments, NULL) < 0;
    if (failed && number >= 0) {
        cmsgx_fd_take_back(self, taken);
    }
    else {
        cmsgx_fd_gave_away(self, taken);
    }
    Py_DECREF(arguments);
    if (number < 0) {
        raise_not_owned(self);
    }
    return failed ? -1 : 0;
}

PyDoc_STRVAR(give_to_file_doc,
"_give_to_file($self, raw, mode, /)\n--\n\n"
"Makes `raw`, an io.FileIO of this number with closefd=False, the owner, in one step: it is\n"
"initialised again, with closefd=True.");

static PyObject *
descriptor_give_to_file(PyObject *self, PyObject *args)
{
    PyObject *raw, *mode;

    if (!PyArg_ParseTuple(args, "OU:_give_to_file", &raw, &mode)) {
        return NULL;
    }
    int number = cmsgx_fd_number(self);
    if (number < 0) {
        return raise_not_owned(self);
    }
    PyObject *arguments = Py_BuildValue("(iOO)", number, mode, Py_True);
    int result = cmsgx_fd_give_to(self, raw, Py_TYPE(raw)->tp_init, arguments,
                                  CMSGX_GONE_TO_FILE);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
descriptor_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    if (cmsgx_fd_number(self) < 0) {
        return raise_not_owned(self);
    }
    return Py_NewRef(self);
}

static PyObject *
descriptor_exit(PyObject *self, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(nargs))
{
    return close_it(cmsgx_fd_take_to_close(self, CMSGX_GONE_CLOSED));
}

static PyObject *
descriptor_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(cmsgx_fd_number(self) < 0);
}

static PyObject *
descriptor_repr(PyObject *self)
{
    const char *name = strrchr(Py_TYPE(self)->tp_name, '.');
    name = name != NULL ? name + 1 : Py_TYPE(self)->tp_name;
    int number = cmsgx_fd_number(self);
    if (number < 0) {
        int error = ((cmsgx_fd *)self)->error;
        return error != 0 ? PyUnicode_FromFormat("<%s unavailable: %s>", name, strerror(error))
                          : PyUnicode_FromFormat("<%s %s>", name,
                                                 cmsgx_gone_texts[cmsgx_fd_gone(self)].word);
    }
    return PyUnicode_FromFormat("<%s %d>", name, number);
}

/* Closes the number if it is still owned; if a send has it pinned, the end of that send closes it.
   Keeps the exception that is set, as an object may die while one is raised. */
static void
close_left(PyObject *self)
{
    int number = cmsgx_fd_take_to_close(self, CMSGX_GONE_CLOSED);
    if (number >= 0) {
        PyObject *pending = cmsgx_save_exception();
        Py_BEGIN_ALLOW_THREADS
        cmsgx_close_all(&number, 1);
        Py_END_ALLOW_THREADS
        cmsgx_restore_exception(pending);
    }
}

static void
descriptor_finalize(PyObject *self)
{
    if (cmsgx_fd_number(self) < 0) {
        return;
    }
    PyObject *pending = cmsgx_save_exception();
    if (PyErr_ResourceWarning(self, 1, "%R was never closed", self) != 0) {
        PyErr_WriteUnraisable(self);
    }
    cmsgx_restore_exception(pending);
    close_left(self);
}

static void
descriptor_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (!cmsgx_fd_is_empty(self)) {
        /* The finalizer of a subclass in Python was called before this. */
        if (cmsgx_fd_number(self) >= 0 && type->tp_finalize == descriptor_finalize
            && PyObject_CallFinalizerFromDealloc(self) < 0) {
            return;
        }
        close_left(self);
    }
    cmsgx_row_drop(cmsgx_fd_row(self));
    if (((cmsgx_fd *)self)->weakrefs != NULL) {
        PyObject_ClearWeakRefs(self);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(own_all_doc,
"_own_all($type, numbers, tickets, /)\n--\n\n"
"Owners for all of the numbers, a tuple, or for none.  Takes a ticket from the list; ValueError\n"
"if none is left.");

static PyObject *
raise_owned(void)
{
    PyErr_SetString(PyExc_ValueError,
                    "own() was already called: the descriptors have an owner");
    return NULL;
}

static PyObject *
descriptor_own_all(PyObject *type, PyObject *args)
{
    PyObject *numbers, *tickets;
    if (!PyArg_ParseTuple(args, "O!O!:_own_all", &PyTuple_Type, &numbers, &PyList_Type,
                          &tickets)) {
        return NULL;
    }
    if (PyList_GET_SIZE(tickets) == 0) {
        return raise_owned();
    }
    Py_ssize_t count = PyTuple_GET_SIZE(numbers);
    PyObject *owners = PyTuple_New(count);
    for (Py_ssize_t i = 0; owners != NULL && i < count; i++) {
        int number;
        PyObject *owner = NULL;
        if (cmsgx_as_int(PyTuple_GET_ITEM(numbers, i), "numbers", &number) == 0) {
            owner = fcntl(number, F_GETFD) < 0
                ? cmsgx_raise_errno(errno, "number %zd: %d is not open", i, number)
                : cmsgx_fd_new((PyTypeObject *)type, -1, 0);
        }
        if (owner == NULL) {
            Py_CLEAR(owners);
        }
        else {
            PyTuple_SET_ITEM(owners, i, owner);
        }
    }
    PyObject *ticket = owners == NULL ? NULL : PyObject_CallMethod(tickets, "pop", NULL);
    if (ticket == NULL) {
        /* Another thread was faster. */
        if (owners != NULL && PyErr_ExceptionMatches(PyExc_IndexError)) {
            raise_owned();
        }
        Py_XDECREF(owners);
        return NULL;
    }
    Py_DECREF(ticket);
    for (Py_ssize_t i = 0; i < count; i++) {
        cmsgx_fd_set(PyTuple_GET_ITEM(owners, i),
                             (int)PyLong_AsLong(PyTuple_GET_ITEM(numbers, i)));
    }
    return owners;
}

PyDoc_STRVAR(descriptor_enter_doc,
"__enter__($self, /)\n--\n\n"
"Returns itself, for `as`.  ValueError if it owns no descriptor.");

PyDoc_STRVAR(descriptor_exit_doc,
"__exit__($self, /, *exc_info)\n--\n\n"
"Closes the descriptor like close(), if it is still owned.");

/* Detaches all in a tuple of FdBase, or none: a new array of what cmsgx_fd_detach() sets, or NULL
   with ValueError. */
static uint64_t *
detach_each(PyObject *fds, cmsgx_gone how)
{
    Py_ssize_t count = PyTuple_GET_SIZE(fds), done = 0;
    uint64_t *taken = PyMem_Calloc((size_t)count + 1, sizeof(*taken));
    if (taken == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    while (done < count && cmsgx_fd_detach(PyTuple_GET_ITEM(fds, done), how, &taken[done]) >= 0) {
        done++;
    }
    if (done < count) {
        raise_not_owned(PyTuple_GET_ITEM(fds, done));
        while (done-- > 0) {
            cmsgx_fd_take_back(PyTuple_GET_ITEM(fds, done), taken[done]);
        }
        PyMem_Free(taken);
        return NULL;
    }
    return taken;
}

static int
need_tuple_of_fds(PyObject *type, PyObject *fds)
{
    cmsgx_state *state = cmsgx_state_of_type((PyTypeObject *)type);
    if (!PyTuple_Check(fds)) {
        cmsgx_raise_needed("fds", -1, "a tuple of Fds", fds);
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(fds); i++) {
        if (!cmsgx_fd_check(state, PyTuple_GET_ITEM(fds, i))) {
            cmsgx_raise_needed("fds", i, "an Fd", PyTuple_GET_ITEM(fds, i));
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(move_each_doc,
"_move_each($type, fds, /)\n--\n\n"
"A list of new objects of this type, whose __init__() is not called, in place of those in a\n"
"tuple.  They own the descriptors from now on, and close them in the same way.  ValueError if one\n"
"owns none, and then all are owned as before.");

static PyObject *
descriptor_move_each(PyObject *type, PyObject *fds)
{
    /* Memory first, so that nothing fails once a number has no owner.  The same below. */
    Py_ssize_t count = need_tuple_of_fds(type, fds) < 0 ? -1 : PyTuple_GET_SIZE(fds);
    PyObject *heirs = count < 0 ? NULL : PyList_New(count);
    for (Py_ssize_t i = 0; heirs != NULL && i < count; i++) {
        PyObject *heir = cmsgx_fd_new((PyTypeObject *)type, -1, 0);
        if (heir == NULL) {
            Py_CLEAR(heirs);
            break;
        }
        PyList_SET_ITEM(heirs, i, heir);
    }
    uint64_t *taken = heirs == NULL ? NULL : detach_each(fds, CMSGX_GONE_TAKEN);
    if (taken == NULL) {
        Py_XDECREF(heirs);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        cmsgx_fd_leave_to(PyTuple_GET_ITEM(fds, i), taken[i], PyList_GET_ITEM(heirs, i));
    }
    PyMem_Free(taken);
    return heirs;
}

PyDoc_STRVAR(detach_each_doc,
"_detach_each($type, fds, /)\n--\n\n"
"detach() of each object in a tuple: a list of their numbers.  ValueError if one owns none, and\n"
"then all are owned as before.");

static PyObject *
descriptor_detach_each(PyObject *type, PyObject *fds)
{
    Py_ssize_t count = need_tuple_of_fds(type, fds) < 0 ? -1 : PyTuple_GET_SIZE(fds);
    PyObject *numbers = count < 0 ? NULL : PyList_New(count);
    for (Py_ssize_t i = 0; numbers != NULL && i < count; i++) {
        PyObject *number = PyLong_FromLong(cmsgx_fd_number(PyTuple_GET_ITEM(fds, i)));
        if (number == NULL) {
            Py_CLEAR(numbers);
            break;
        }
        PyList_SET_ITEM(numbers, i, number);
    }
    uint64_t *taken = numbers == NULL ? NULL : detach_each(fds, CMSGX_GONE_DETACHED);
    if (taken == NULL) {
        Py_XDECREF(numbers);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        cmsgx_fd_gave_away(PyTuple_GET_ITEM(fds, i), taken[i]);
    }
    PyMem_Free(taken);
    return numbers;
}

static PyMethodDef fd_base_methods[] = {
    {"_move_each", descriptor_move_each, METH_O | METH_CLASS, move_each_doc},
    {"_detach_each", descriptor_detach_each, METH_O | METH_CLASS, detach_each_doc},
    {"_own_all", descriptor_own_all, METH_VARARGS | METH_CLASS, own_all_doc},
    {"fileno", descriptor_fileno, METH_NOARGS, fileno_doc},
    {"close", (PyCFunction)(void (*)(void))descriptor_close, METH_FASTCALL | METH_KEYWORDS,
     descriptor_close_doc},
    {"detach", descriptor_detach, METH_NOARGS, detach_doc},
    {"dup", descriptor_dup, METH_NOARGS, dup_doc},
    {"_pinned", descriptor_pinned, METH_NOARGS, pinned_doc},
    {"_detach_to_socket", descriptor_detach_to_socket, METH_NOARGS, detach_to_socket_doc},
    {"_give_to_file", descriptor_give_to_file, METH_VARARGS, give_to_file_doc},
    {"__enter__", descriptor_enter, METH_NOARGS, descriptor_enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))descriptor_exit, METH_FASTCALL, descriptor_exit_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef descriptor_members[] = {
    {"_error", Py_T_INT, offsetof(cmsgx_fd, error), Py_READONLY, NULL},
    {"__weaklistoffset__", Py_T_PYSSIZET, offsetof(cmsgx_fd, weakrefs), Py_READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef descriptor_getset[] = {
    {"closed", descriptor_closed, NULL, "Whether it owns no descriptor, or no longer does.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(fd_base_doc,
"FdBase(number)\n--\n\nOwns one file descriptor; takes over the number that it is given.");

static PyType_Slot fd_base_slots[] = {
    {Py_tp_new, descriptor_make},
    {Py_tp_dealloc, descriptor_dealloc},
    {Py_tp_finalize, descriptor_finalize},
    {Py_tp_repr, descriptor_repr},
    {Py_tp_methods, fd_base_methods},
    {Py_tp_members, descriptor_members},
    {Py_tp_getset, descriptor_getset},
    {Py_tp_doc, (void *)fd_base_doc},
    {0, NULL},
};

static PyType_Spec fd_base_spec = {
    .name = "cmsgx._cmsg.FdBase",
    .basicsize = sizeof(cmsgx_fd),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = fd_base_slots,
};

int
cmsgx_add_fd(PyObject *module)
{
    return cmsgx_add_type(module, &fd_base_spec, &cmsgx_state_of(module)->FdBase);
}
