#include "arguments.h"

#include "errors.h"

/* After a failed conversion to an int of `bits`: makes the current exception name the argument,
   unless __index__() of the object raised it. */
static int
refuse_int(PyObject *object, const char *name, size_t bits)
{
    if (!PyIndex_Check(object)) {
        PyErr_Clear();
        cmsgx_raise_needed(name, -1, "an int", object);
    }
    else if (PyLong_Check(object) && PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        cmsgx_raise_too_large(name, object, bits);
    }
    return -1;
}

int
cmsgx_as_int(PyObject *object, const char *name, int *value)
{
    const size_t bits = 8 * sizeof(int);
    long wide = PyLong_AsLong(object);
    if (wide == -1 && PyErr_Occurred()) {
        return refuse_int(object, name, bits);
    }
    if (wide > INT_MAX || wide < INT_MIN) {
        cmsgx_raise_too_large(name, object, bits);
        return -1;
    }
    *value = (int)wide;
    return 0;
}

int
cmsgx_as_size(PyObject *object, const char *name, Py_ssize_t *value)
{
    if (PyLong_CheckExact(object)) {
        *value = PyLong_AsSsize_t(object);
    }
    else {
        PyObject *index = PyNumber_Index(object);
        *value = index == NULL ? -1 : PyLong_AsSsize_t(index);
        Py_XDECREF(index);
    }
    return *value == -1 && PyErr_Occurred() ? refuse_int(object, name, 8 * sizeof(*value)) : 0;
}

int
cmsgx_as_nearest(PyObject *object, const char *name, Py_ssize_t *value)
{
    *value = PyNumber_AsSsize_t(object, NULL);
    return *value == -1 && PyErr_Occurred() ? refuse_int(object, name, 8 * sizeof(*value)) : 0;
}

int
cmsgx_as_index(PyObject *object, Py_ssize_t *value)
{
    if (!PyIndex_Check(object)) {
        cmsgx_raise_needed("index", -1, "an int or a slice", object);
        return -1;
    }
    *value = PyNumber_AsSsize_t(object, PyExc_IndexError);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

int
cmsgx_as_buffer(PyObject *object, const char *name, Py_ssize_t index, Py_buffer *view, int flags)
{
    if (cmsgx_get_buffer(object, view, flags) == 0) {
        return 0;
    }
    if (!PyObject_CheckBuffer(object)) {
        PyErr_Clear();
        cmsgx_raise_needed(name, index,
                           flags & PyBUF_WRITABLE ? "a writable bytes-like object"
                                                  : "a bytes-like object",
                           object);
    }
    else {
        cmsgx_name_argument(name, index);
    }
    return -1;
}

PyObject *
cmsgx_sequence(PyObject *iterable, const char *name, const char *needed)
{
    PyObject *fast = NULL;
    if (PyList_CheckExact(iterable) || PyTuple_CheckExact(iterable)) {
        fast = Py_NewRef(iterable);
    }
    else if (Py_TYPE(iterable)->tp_iter == NULL && !PySequence_Check(iterable)) {
        cmsgx_raise_needed(name, -1, needed, iterable);
    }
    else {
        fast = PySequence_List(iterable);
    }
    if (!CMSGX_HAS_GIL && fast != NULL && PyList_Check(fast)) {
        Py_SETREF(fast, PyList_AsTuple(fast));
    }
    return fast;
}

/* Whether `part` can only be the `fds` or the `control` of a message, and not a message itself: an
   Fd, a control message, an empty tuple, or a list or tuple of ints or of those. */
static int
is_no_message(const cmsgx_state *state, PyObject *part)
{
    if (!PyTuple_CheckExact(part) && !PyList_CheckExact(part)) {
        return PyObject_TypeCheck(part, state->FdBase)
               || PyObject_TypeCheck(part, state->Record);
    }
    PyObject *first = PySequence_Size(part) == 0 ? NULL : PySequence_GetItem(part, 0);
    int result = first == NULL ? PyTuple_CheckExact(part)
                               : PyLong_Check(first)
                                     || PyObject_TypeCheck(first, state->FdBase)
                                     || PyObject_TypeCheck(first, state->Record);
    if (first == NULL) {
        /* Another thread emptied the list. */
        PyErr_Clear();
    }
    Py_XDECREF(first);
    return result;
}

/* Whether it is certainly one message rather than an iterable of them: (b"a", [b"b"]) could be
   two. */
static int
is_one_message(const cmsgx_state *state, PyObject *object)
{
    if (!PyTuple_CheckExact(object)) {
        return PyObject_TypeCheck(object, state->Outgoing);
    }
    Py_ssize_t size = PyTuple_GET_SIZE(object);
    if (size < 2 || size > 4 || !PyObject_CheckBuffer(PyTuple_GET_ITEM(object, 0))) {
        return 0;
    }
    return is_no_message(state, PyTuple_GET_ITEM(object, 1))
           || (size > 2 && is_no_message(state, PyTuple_GET_ITEM(object, 2)));
}

PyObject *
cmsgx_as_messages(cmsgx_state *state, PyObject *object)
{
    static const char needed[] = "a list of messages";
    if (PyList_CheckExact(object)) {
        return PySequence_Tuple(object);
    }
    if (PyUnicode_Check(object)) {
        return PyErr_Format(PyExc_TypeError,
                            "messages: %s is needed, not str; encode it, and give it in a list: "
                            "[text.encode()]",
                            needed);
    }
    if (PyBytes_Check(object) || PyByteArray_Check(object) || PyMemoryView_Check(object)) {
        return PyErr_Format(PyExc_TypeError,
                            "messages: %s is needed, not %.200s; give it in a list: [data]", needed,
                            Py_TYPE(object)->tp_name);
    }
    if (is_one_message(state, object)) {
        return PyErr_Format(PyExc_TypeError,
                            "messages: %s is needed, not one message, %.200s; give it in a list: "
                            "[message]",
                            needed, PyTuple_CheckExact(object) ? "a tuple" : "an Outgoing");
    }
    if (Py_TYPE(object)->tp_iter == NULL && !PySequence_Check(object)) {
        return cmsgx_raise_needed("messages", -1, needed, object);
    }
    return PySequence_Tuple(object);
}

PyObject *
cmsgx_as_messages_of(PyObject *module, PyObject *object)
{
    return cmsgx_as_messages(cmsgx_state_of(module), object);
}

int
cmsgx_as_truncation(PyObject *object, int *raises)
{
    if (PyUnicode_Check(object)) {
        if (PyUnicode_CompareWithASCIIString(object, "raise") == 0) {
            *raises = 1;
            return 0;
        }
        if (PyUnicode_CompareWithASCIIString(object, "keep") == 0) {
            *raises = 0;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "on_truncation: %R; must be 'raise' or 'keep'", object);
    return -1;
}

int
cmsgx_as_close(PyObject *object, int *in_background)
{
    if (PyUnicode_Check(object)) {
        *in_background = PyUnicode_CompareWithASCIIString(object, "background") == 0;
        if (*in_background || PyUnicode_CompareWithASCIIString(object, "now") == 0) {
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "close: %R; must be 'now' or 'background'", object);
    return -1;
}

int
cmsgx_as_on_error(PyObject *object, int *skips)
{
    if (PyUnicode_Check(object)) {
        *skips = PyUnicode_CompareWithASCIIString(object, "skip") == 0;
        if (*skips || PyUnicode_CompareWithASCIIString(object, "raise") == 0) {
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "on_error: %R; must be 'raise' or 'skip'", object);
    return -1;
}

/* A size; ValueError if it is negative. */
static int
as_not_negative(PyObject *object, const char *name, size_t *value)
{
    Py_ssize_t nearest;
    if (cmsgx_as_nearest(object, name, &nearest) < 0) {
        return -1;
    }
    if (nearest < 0) {
        PyErr_Format(PyExc_ValueError, "%s: %R; it cannot be negative", name, object);
        return -1;
    }
    *value = (size_t)nearest;
    return 0;
}

int
cmsgx_as_bufsize(PyObject *object, size_t *size)
{
    /* MAX_RW_COUNT of Linux, with the smallest page size. */
    const int max_size = INT_MAX - 4095;
    if (as_not_negative(object, "bufsize", size) < 0) {
        return -1;
    }
    if (*size > (size_t)max_size) {
        PyErr_Format(PyExc_ValueError, "bufsize: %R; one call brings %d bytes at most", object,
                     max_size);
        return -1;
    }
    return 0;
}

int
cmsgx_as_fds(cmsgx_state *state, PyObject *object, size_t *fds)
{
    if (PyBool_Check(object)) {
        cmsgx_raise_needed("fds", -1, "the number of descriptors to accept", object);
        return -1;
    }
    if (as_not_negative(object, "fds", fds) < 0) {
        return -1;
    }
    if (*fds > CMSGX_MAX_FDS) {
        PyErr_Format(state->TooManyFdsError, "fds: %R; one message carries %d at most", object,
                     CMSGX_MAX_FDS);
        return -1;
    }
    return 0;
}

int
cmsgx_check_peek(size_t fds, int flags)
{
    if (fds > 0 && (flags & MSG_PEEK)) {
        PyErr_SetString(PyExc_ValueError,
                        "flags: each MSG_PEEK installs new descriptors; peek with fds=0");
        return -1;
    }
    return 0;
}

int
cmsgx_fileno_method(cmsgx_state *state, PyObject *object, PyObject **method)
{
    int has = cmsgx_optional_attribute(object, state->str_fileno, method);
    if (has > 0 && !PyCallable_Check(*method)) {
        Py_CLEAR(*method);
        has = 0;
    }
    return has;
}

/* Whether it is bytes, whose items are ints: those are not the descriptors that are packed in
   them. */
static int
are_bytes(PyObject *fds)
{
    return PyBytes_Check(fds) || PyByteArray_Check(fds)
           || (PyMemoryView_Check(fds) && PyMemoryView_GET_BUFFER(fds)->itemsize == 1);
}

PyObject *
cmsgx_listed_fds(cmsgx_state *state, PyObject *fds, int strict)
{
    if (!PyTuple_CheckExact(fds) && !PyList_CheckExact(fds)) {
        PyObject *method;
        int has = cmsgx_fileno_method(state, fds, &method);
        if (has != 0) {
            Py_XDECREF(method);
            return has < 0 ? NULL : PyTuple_Pack(1, fds);
        }
        if (strict && are_bytes(fds)) {
            return PyErr_Format(PyExc_TypeError,
                                "fds: an iterable of descriptors, or an object with fileno(), is "
                                "needed, not %.200s; give packed numbers as "
                                "memoryview(data).cast('i')",
                                Py_TYPE(fds)->tp_name);
        }
        if (PyBool_Check(fds)) {
            return PyErr_Format(PyExc_TypeError,
                                "fds: %R is not a descriptor; descriptors are given in a list: "
                                "fds=[number]",
                                fds);
        }
        if (PyIndex_Check(fds) && Py_TYPE(fds)->tp_iter == NULL && !PySequence_Check(fds)) {
            return PyErr_Format(PyExc_TypeError,
                                "fds: %R; a descriptor that is a number is given in a list: "
                                "fds=[%R]",
                                fds, fds);
        }
    }
    return cmsgx_sequence(fds, "fds", "an iterable of descriptors, or an object with fileno(),");
}

PyObject *
cmsgx_listed_fds_of(PyObject *module, PyObject *fds)
{
    PyObject *list = cmsgx_listed_fds(cmsgx_state_of(module), fds, 1);
    if (list != NULL && !PyTuple_CheckExact(list)) {
        Py_SETREF(list, PySequence_Tuple(list));
    }
    return list;
}

int
cmsgx_is_one_descriptor(PyObject *fds)
{
    PyObject *raised = cmsgx_save_exception();
    PyObject *method = PyObject_GetAttrString(fds, "fileno");
    int result = method != NULL && PyCallable_Check(method);
    Py_XDECREF(method);
    PyErr_Clear();
    cmsgx_restore_exception(raised);
    return result;
}

static Py_ssize_t
position_of(cmsgx_state *state, const cmsgx_signature *signature, PyObject *name)
{
    const signed char *keywords = signature->keywords;
    for (Py_ssize_t i = 0; keywords[i] >= 0; i++) {
        if (state->keywords[keywords[i]] == name) {
            return i;
        }
    }
    /* Nearly all keywords are interned; one that was made at run time may not be. */
    for (Py_ssize_t i = 0; keywords[i] >= 0; i++) {
        if (PyUnicode_Compare(state->keywords[keywords[i]], name) == 0) {
            return i;
        }
    }
    return -1;
}

/* TypeError for too many positional arguments: names those that are keyword-only. */
static void
raise_too_many(const cmsgx_state *state, const cmsgx_signature *signature, Py_ssize_t nargs)
{
    const signed char *keywords = signature->keywords + signature->max_positional;
    PyObject *names = PyUnicode_FromString("");
    for (size_t i = 0; names != NULL && keywords[i] >= 0; i++) {
        Py_SETREF(names, PyUnicode_FromFormat("%U%s%U=", names, i > 0 ? ", " : "",
                                              state->keywords[keywords[i]]));
    }
    if (names != NULL) {
        const int has_names = PyUnicode_GET_LENGTH(names) > 0;
        const char *by_name = has_names ? "; by name: " : "";
        if (signature->max_positional == 0) {
            PyErr_Format(PyExc_TypeError, "%s() takes no positional arguments (%zd given)%s%U",
                         signature->function, nargs, by_name, names);
        }
        else {
            PyErr_Format(PyExc_TypeError,
                         "%s() takes at most %zd positional arguments (%zd given)%s%U",
                         signature->function, signature->max_positional, nargs, by_name, names);
        }
        Py_DECREF(names);
    }
}

int
cmsgx_keywords(cmsgx_state *state, const cmsgx_signature *signature, PyObject *const *args,
               Py_ssize_t nargs, PyObject *kwnames, PyObject **values)
{
    const char *function = signature->function;
    if (nargs > signature->max_positional) {
        raise_too_many(state, signature, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        values[i] = args[i];
    }
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        Py_ssize_t at = position_of(state, signature, name);
        if (at < 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function,
                         name);
            return -1;
        }
        if (values[at] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R", function,
                         name);
            return -1;
        }
        values[at] = args[nargs + i];
    }
    for (Py_ssize_t i = 0; i < signature->required; i++) {
        if (values[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument %R (pos %zd)", function,
                         /* NOLINTNEXTLINE(*-security.ArrayBound): CMSGX_KW_..., all positive */
                         state->keywords[signature->keywords[i]], i + 1);
            return -1;
        }
    }
    return 0;
}
