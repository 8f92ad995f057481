#include "calls/notes.h"

#include "arguments.h"

static void
add_note(PyObject *error, PyObject *note)
{
    PyObject *result =
        note == NULL ? NULL : PyObject_CallMethod(error, "add_note", "O", note);
    if (result == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
}

void
cmsgx_add_note(const char *format, ...)
{
    PyObject *error = cmsgx_save_exception();
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        PyObject *note = PyUnicode_FromFormatV(format, arguments);
        va_end(arguments);
        add_note(error, note);
        Py_XDECREF(note);
    }
    cmsgx_restore_exception(error);
}

void
cmsgx_set_attribute(const char *name, const char *format, ...)
{
    PyObject *error = cmsgx_save_exception();
    va_list arguments;
    va_start(arguments, format);
    PyObject *value = Py_VaBuildValue(format, arguments);
    va_end(arguments);
    if (value == NULL || error == NULL || PyObject_SetAttrString(error, name, value) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(value);
    cmsgx_restore_exception(error);
}

int
cmsgx_are_fds_used_up(PyObject *value)
{
    return cmsgx_is_used_up(value) && !cmsgx_is_one_descriptor(value);
}

int
cmsgx_is_argument_used_up(const cmsgx_argument *argument)
{
    return cmsgx_is_used_up(argument->value)
           && (strcmp(argument->name, "fds") != 0 || !cmsgx_is_one_descriptor(argument->value));
}

/* Appends a name to `names`, which is stolen, and NULL at first: a new reference, or NULL with an
   exception. */
static PyObject *
append(PyObject *names, PyObject *name)
{
    PyObject *more = names == NULL ? Py_NewRef(name) : PyUnicode_FromFormat("%U, %U", names, name);
    Py_XDECREF(names);
    return more;
}

/* To be called with no exception set.  Steals `names`; does nothing if it is NULL. */
static void
note_names(PyObject *error, PyObject *names, size_t count)
{
    if (count > 0) {
        PyObject *note = names == NULL ? NULL : PyUnicode_FromFormat(
            count == 1 ? "%U was an iterator, which is used up now: the same call again would send "
                         "nothing from it; give a list or a tuple"
                       : "%U were iterators, which are used up now: the same call again would send "
                         "nothing from them; give lists or tuples",
            names);
        add_note(error, note);
        Py_XDECREF(note);
    }
    Py_XDECREF(names);
}

void
cmsgx_note_used_up(const cmsgx_argument *arguments, size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += (size_t)cmsgx_is_argument_used_up(&arguments[i]);
    }
    if (found == 0 || !PyErr_ExceptionMatches(PyExc_OSError)) {
        return;
    }
    PyObject *error = cmsgx_save_exception();
    PyObject *names = NULL;
    for (size_t i = 0; i < count; i++) {
        if (cmsgx_is_argument_used_up(&arguments[i])) {
            PyObject *name = PyUnicode_FromString(arguments[i].name);
            names = name == NULL ? NULL : append(names, name);
            Py_XDECREF(name);
        }
    }
    note_names(error, names, found);
    cmsgx_restore_exception(error);
}

PyObject *
cmsgx_note_used_up_of(PyObject *Py_UNUSED(module), PyObject *args, PyObject *kwargs)
{
    PyObject *error, *name, *value, *names = NULL;
    Py_ssize_t position = 0;
    size_t found = 0;
    if (!PyArg_ParseTuple(args, "O!:note_used_up", (PyTypeObject *)PyExc_OSError, &error)) {
        return NULL;
    }
    while (kwargs != NULL && PyDict_Next(kwargs, &position, &name, &value)) {
        cmsgx_argument argument = {PyUnicode_AsUTF8(name), value};
        if (argument.name == NULL) {
            Py_XDECREF(names);
            return NULL;
        }
        if (cmsgx_is_argument_used_up(&argument)) {
            found++;
            names = append(names, name);
            if (names == NULL) {
                return NULL;
            }
        }
    }
    note_names(error, names, found);
    Py_RETURN_NONE;
}
