/* What an exception says besides: notes, as of BaseException.add_note(). */

#ifndef CMSGX_NOTES_H
#define CMSGX_NOTES_H

#include "compat.h"

/* Adds a note to what is being raised, which stays as it is where that fails. */
void cmsgx_add_note(const char *format, ...);

/* An argument by its name, as the caller knows it; the value is borrowed, or NULL. */
typedef struct {
    const char *name;
    PyObject *value;
} cmsgx_argument;

/* Whether it can be read once only. */
static inline int
cmsgx_is_used_up(PyObject *value)
{
    return value != NULL && PyIter_Check(value);
}

/* The same of an argument that is called `fds`, where a file is one descriptor, and not read. */
int cmsgx_are_fds_used_up(PyObject *value);

/* For an OSError of a call that has read these arguments: names those that were iterators, as the
   same call made again would go without what they had.  Does nothing for another exception. */
void cmsgx_note_used_up(const cmsgx_argument *arguments, size_t count);

/* note_used_up(error, /, **arguments) */
PyObject *cmsgx_note_used_up_of(PyObject *module, PyObject *args, PyObject *kwargs);

#endif
