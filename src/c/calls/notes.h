/* Notes on exceptions, as BaseException.add_note() adds them, and attributes. */

#ifndef CMSGX_NOTES_H
#define CMSGX_NOTES_H

#include "compat.h"

/* Adds a note to the current exception, which stays unchanged if that fails. */
void cmsgx_add_note(const char *format, ...);
/* Sets an attribute of the current exception, if it can; the value as for Py_BuildValue(). */
void cmsgx_set_attribute(const char *name, const char *format, ...);

/* An argument, by the name that the caller knows; the value is borrowed, or NULL. */
typedef struct {
    const char *name;
    PyObject *value;
} cmsgx_argument;

/* Whether it is an iterator, which can be read only once. */
static inline int
cmsgx_is_used_up(PyObject *value)
{
    return value != NULL && !PyBytes_CheckExact(value) && PyIter_Check(value);
}

/* The same for an argument called `fds`, where a file is one descriptor, and is not iterated. */
int cmsgx_are_fds_used_up(PyObject *value);

/* The same for any argument. */
int cmsgx_is_argument_used_up(const cmsgx_argument *argument);

/* Adds a note to an OSError of a call that has read these arguments: names those that were
   iterators, because repeating the call would send nothing from them.  Does nothing for other
   exceptions. */
void cmsgx_note_used_up(const cmsgx_argument *arguments, size_t count);

/* note_used_up(error, /, **arguments): the same for Python code. */
PyObject *cmsgx_note_used_up_of(PyObject *module, PyObject *args, PyObject *kwargs);

#endif
