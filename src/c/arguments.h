/* Arguments of the calls that are parsed by hand, as they are made often. */

#ifndef CMSGX_ARGUMENTS_H
#define CMSGX_ARGUMENTS_H

#include "state.h"

/* As "i" and "n" of PyArg_Parse, with errors that begin with the name of the argument.  0, or -1
   with an exception. */
int cmsgx_as_int(PyObject *object, const char *name, int *value);
int cmsgx_as_size(PyObject *object, const char *name, Py_ssize_t *value);

/* An index of a sequence that takes slices too: IndexError where Py_ssize_t has no room for it. */
int cmsgx_as_index(PyObject *object, Py_ssize_t *value);

/* As "y*" where flags are PyBUF_SIMPLE; `index`, where it is not negative, is that in a sequence of
   that name. */
int cmsgx_as_buffer(PyObject *object, const char *name, Py_ssize_t index, Py_buffer *view,
                    int flags);

/* A list or tuple of the items of an iterable, whose items stay while it is read: without a
   GIL a list is copied, as another thread may change it.  TypeError for what is none, which says
   what is `needed`, in words.  A new reference. */
PyObject *cmsgx_sequence(PyObject *iterable, const char *name, const char *needed);

/* A tuple of the messages that an iterable gives: a new reference.  TypeError for one message, of
   which the parts would be taken for messages. */
PyObject *cmsgx_as_messages(cmsgx_state *state, PyObject *object);

/* on_truncation: "raise" (1) or "keep" (0). */
int cmsgx_as_truncation(PyObject *object, int *raises);

/* close: "background" (1) or "now" (0). */
int cmsgx_as_close(PyObject *object, int *in_background);

/* on_error: "skip" (1) or "raise" (0). */
int cmsgx_as_on_error(PyObject *object, int *skips);

/* As "n", but what Py_ssize_t has no room for, as 2**31 on 32 bits, becomes the nearest that it
   has: for whoever refuses that with words of its own. */
int cmsgx_as_nearest(PyObject *object, const char *name, Py_ssize_t *value);

/* bufsize: what one call can bring.  Where there is no memory for it, it is the receiving that
   fails, with MemoryError. */
int cmsgx_as_bufsize(PyObject *object, size_t *size);

/* How many descriptors may be asked for, and that they are not peeked at. */
int cmsgx_as_fds(cmsgx_state *state, PyObject *object, size_t *fds);
int cmsgx_check_peek(size_t fds, int flags);

/* Its fileno(): 1, and a new reference in *method; 0 where it has none that can be called, as by
   `fileno = None` in its class; -1 with an exception. */
int cmsgx_fileno_method(cmsgx_state *state, PyObject *object, PyObject **method);

/* What `fds` of a call that sends stands for, as a list or a tuple: one thing that has fileno() is
   one descriptor, and is not iterated, as a file would give its lines.  A new reference, or NULL
   with an exception: TypeError for a number, which may be a count as well as a descriptor, and,
   where it is strict, for bytes. */
PyObject *cmsgx_listed_fds(cmsgx_state *state, PyObject *fds, int strict);

/* listed_fds(fds, /): the same, strictly, as a tuple. */
PyObject *cmsgx_listed_fds_of(PyObject *module, PyObject *fds);

/* Whether it would be read as one descriptor.  Keeps the exception that is being raised. */
int cmsgx_is_one_descriptor(PyObject *fds);

typedef struct {
    const char *function;
    Py_ssize_t max_positional;
    Py_ssize_t required;
    signed char keywords[8];    /* places in state->keywords, -1 at the end */
} cmsgx_signature;

/* Writes each argument, borrowed, to values[i], in the order of the signature's keywords.
   0, or -1 with TypeError. */
int cmsgx_keywords(cmsgx_state *state, const cmsgx_signature *signature, PyObject *const *args,
                   Py_ssize_t nargs, PyObject *kwnames, PyObject **values);

/* The first of them, borrowed, wherever it stands; NULL where it is missing. */
static inline PyObject *
cmsgx_first_argument(const cmsgx_state *state, int keyword, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    if (nargs > 0) {
        return args[0];
    }
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        if (PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, i), state->keywords[keyword]) == 0) {
            return args[i];
        }
    }
    return NULL;
}

#endif
