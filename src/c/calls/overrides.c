#include "calls/overrides.h"

#include "types/fd_ownership.h"

/* Classes --------------------------------------------------------------------------------- */

static PyObject *
found_in(PyTypeObject *type, PyObject *name)
{
    /* Borrowed: the caller holds the class, which holds this.  It is only compared. */
    PyObject *found = cmsgx_type_lookup(type, name);
    Py_XDECREF(found);
    return found;
}

/* Whether `type` inherits `found` from `base`. */
static int
inherits_from(PyTypeObject *base, PyTypeObject *type, PyObject *name, PyObject *found)
{
    return base != NULL && PyType_IsSubtype(type, base) && found == found_in(base, name);
}

/* Looks up the methods in `names`, a bit mask, in a subclass of _socket.socket. */
static void
examine(cmsgx_state *state, PyTypeObject *type, int names, cmsgx_class *result)
{
    result->called = result->overridden = 0;
    for (int i = 0; i < CMSGX_NAMES; i++) {
        const cmsgx_stdlib_method *stdlib_method = &state->stdlib_methods[i];
        PyObject *name = stdlib_method->name;
        PyObject *found = names >> i & 1 ? cmsgx_type_lookup(type, name) : stdlib_method->method;
        if (found == stdlib_method->method || (found != NULL && Py_IS_TYPE(found, state->Method))) {
            /* The stdlib's own method, or ours. */
        }
        else {
            result->called |= (unsigned char)(1 << i);
            /* A method that was set on socket.socket or cmsgx.socket itself is there to observe all
               sockets; it does not mean that a subclass sends in its own way. */
            if (!inherits_from(state->socket_class, type, name, found)
                && !inherits_from(state->our_socket, type, name, found)) {
                result->overridden |= (unsigned char)(1 << i);
            }
        }
        if (names >> i & 1) {
            Py_XDECREF(found);
        }
    }
}

/* The same, and caches the result if the class has a version. */
static void
look_at_class(cmsgx_state *state, PyTypeObject *type, int names, cmsgx_class *result)
{
    unsigned int version = cmsgx_type_version(type);
    examine(state, type, version != 0 ? (1 << CMSGX_NAMES) - 1 : names, result);
    /* The lookup may have assigned the version; it runs no code that could change the class. */
    if (version != 0 && version == cmsgx_type_version(type)) {
        result->type = type;
        result->version = version;
        size_t place = 0;
        while (place < CMSGX_CLASSES && state->classes[place].type != type) {
            place++;
        }
        if (place == CMSGX_CLASSES) {
            place = state->next_class++ % CMSGX_CLASSES;
        }
        state->classes[place] = *result;
    }
}

int
cmsgx_is_socket_class(cmsgx_state *state, PyTypeObject *type)
{
    if (!PyType_IsSubtype(type, state->socket)) {
        return 0;
    }
    if (cmsgx_type_version(type) != 0) {
        cmsgx_class seen;
        look_at_class(state, type, 0, &seen);
    }
    return 1;
}

/* Objects --------------------------------------------------------------------------------- */

/* Whether the object has the method, from its type or, like a proxy, by __getattr__(): 1, 0, or -1
   with an exception. */
static int
has_method(PyObject *object, PyObject *name)
{
    PyObject *found;
    int result = cmsgx_optional_attribute(object, name, &found);
    Py_XDECREF(found);
    return result;
}

int
cmsgx_look_closer(cmsgx_state *state, PyObject *object, cmsgx_name name)
{
    if (PyObject_TypeCheck(object, state->socket)) {
        cmsgx_class class;
        look_at_class(state, Py_TYPE(object), 1 << name, &class);
        return class.called >> name & 1;
    }
    if (PyLong_Check(object) || cmsgx_fd_check(state, object)) {
        return 0;
    }
    return has_method(object, state->stdlib_methods[name].name);
}

/* The first of `names` that a subclass of cmsgx.socket defines, if cmsgx.socket derives from a
   green class: its bit, or 0. */
static int
overridden_below(cmsgx_state *state, PyTypeObject *type, int names)
{
    for (int i = 0; i < CMSGX_NAMES; i++) {
        PyObject *name = state->stdlib_methods[i].name;
        if (names >> i & 1 && found_in(type, name) != found_in(state->our_socket, name)) {
            return 1 << i;
        }
    }
    return 0;
}

/* Whether it is the restricted socket that an asyncio transport exposes: 1, 0, or -1 with an
   exception. */
static int
is_of_a_transport(cmsgx_state *state, PyObject *object)
{
    PyObject *module = PyImport_GetModule(state->str_trsock);
    if (module == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *type = PyObject_GetAttrString(module, "TransportSocket");
    int result = type == NULL ? -1 : PyObject_IsInstance(object, type);
    Py_XDECREF(type);
    Py_DECREF(module);
    return result;
}

/* The qualified name of its type, for error messages: a new reference. */
static PyObject *
import_name(PyObject *object)
{
    PyObject *type = (PyObject *)Py_TYPE(object);
    PyObject *module = PyObject_GetAttrString(type, "__module__");
    PyObject *name = module == NULL ? NULL : PyObject_GetAttrString(type, "__qualname__");
    PyObject *full = name == NULL ? NULL : PyUnicode_FromFormat("%S.%S", module, name);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return full;
}

static int
raise_has_own(cmsgx_state *state, PyObject *object, int bit)
{
    int i = 0;
    while (bit >> i != 1) {
        i++;
    }
    PyObject *type = import_name(object);
    if (type != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "sock: %U has a %U() of its own, which would be bypassed; pass the plain "
                     "socket below it, or its .fileno() if that is what you mean",
                     type, state->stdlib_methods[i].name);
        Py_DECREF(type);
    }
    return -1;
}

int
cmsgx_allow_closer(cmsgx_state *state, PyObject *object, int names, int *is_green)
{
    PyTypeObject *type = Py_TYPE(object);
    int bit = 0;

    if (PyObject_TypeCheck(object, state->socket)) {
        cmsgx_class class;
        look_at_class(state, type, names, &class);
        bit = class.overridden & names;
        bit &= -bit;
        return bit == 0 ? 0 : raise_has_own(state, object, bit);
    }
    if (PyLong_Check(object) || cmsgx_fd_check(state, object)) {
        return 0;
    }
    if (state->our_socket != NULL && PyObject_TypeCheck(object, state->our_socket)) {
        *is_green = 1;
        bit = overridden_below(state, type, names);
        return bit == 0 ? 0 : raise_has_own(state, object, bit);
    }
    for (int i = 0; i < CMSGX_NAMES; i++) {
        int has = names >> i & 1 ? has_method(object, state->stdlib_methods[i].name) : 0;
        if (has != 0) {
            return has < 0 ? -1 : raise_has_own(state, object, 1 << i);
        }
    }
    int is_transports = is_of_a_transport(state, object);
    if (is_transports > 0) {
        PyErr_SetString(PyExc_TypeError,
                        "sock: a transport reads and writes this socket; pass its fileno() if you "
                        "know that it is idle");
    }
    return is_transports == 0 ? 0 : -1;
}

PyObject *
cmsgx_check_socket(PyObject *module, PyObject *sock)
{
    int is_green;
    if (cmsgx_allow(cmsgx_state_of(module), sock, CMSGX_SENDING | CMSGX_RECEIVING, &is_green) < 0) {
        return NULL;
    }
    return PyBool_FromLong(is_green);
}

/* Calls of an object's own method ---------------------------------------------------------- */

/* Adds the note only once per method name, although every level of the recursion gets here. */
static void
note_recursion(PyObject *name)
{
    PyObject *error = cmsgx_save_exception();
    PyObject *note = PyUnicode_FromFormat(
        "a function of cmsgx called the %U() of this socket; if that calls cmsgx.%U(self, ...) "
        "in turn, have it call super().%U(...) instead",
        name, name, name);
    PyObject *notes = note == NULL ? NULL : PyObject_GetAttrString(error, "__notes__");
    if (note != NULL && (notes == NULL || PySequence_Contains(notes, note) == 0)) {
        PyErr_Clear();
        Py_XDECREF(PyObject_CallMethod(error, "add_note", "O", note));
    }
    Py_XDECREF(notes);
    Py_XDECREF(note);
    /* If no stack was left for the note, an outer call adds it. */
    PyErr_Clear();
    cmsgx_restore_exception(error);
}

/* Raises TypeError and returns NULL.  Steals `result`. */
static PyObject *
refuse_awaitable(PyObject *object, PyObject *name, PyObject *result)
{
    PyObject *type = import_name(object);
    if (PyCoro_CheckExact(result)) {
        /* Otherwise it warns that it was never awaited. */
        Py_XDECREF(PyObject_CallMethod(result, "close", NULL));
    }
    if (type != NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError,
                     "sock: the %U() of %U is a coroutine; await that, or pass its .fileno()", name,
                     type);
    }
    Py_XDECREF(type);
    Py_DECREF(result);
    return NULL;
}

PyObject *
cmsgx_call_foreign(PyObject *name, PyObject *const *args, size_t count)
{
    PyObject *result = NULL;
    if (Py_EnterRecursiveCall(" in a method of a socket") == 0) {
        result = PyObject_VectorcallMethod(name, args, count, NULL);
        Py_LeaveRecursiveCall();
    }
    if (result == NULL) {
        if (PyErr_ExceptionMatches(PyExc_RecursionError)) {
            note_recursion(name);
        }
        return NULL;
    }
    const PyAsyncMethods *async = Py_TYPE(result)->tp_as_async;
    if (async != NULL && async->am_await != NULL) {
        return refuse_awaitable(args[0], name, result);
    }
    return result;
}

PyObject *
cmsgx_call_foreign_from(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 2 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "call_foreign() takes a name and a socket");
        return NULL;
    }
    return cmsgx_call_foreign(args[0], args + 1, (size_t)nargs - 1);
}
