/* Parsing of arguments, by hand for the functions that are called often. */

#ifndef CMSGX_ARGUMENTS_H
#define CMSGX_ARGUMENTS_H

#include "state.h"

/* As "i" and "n" of PyArg_Parse, with errors that begin with the name of the argument.  0, or -1
   with an exception. */
int cmsgx_as_int(PyObject *object, const char *name, int *value);
int cmsgx_as_size(PyObject *object, const char *name, Py_ssize_t *value);

/* The index of a sequence that takes slices too: IndexError if it does not fit in Py_ssize_t. */
int cmsgx_as_index(PyObject *object, Py_ssize_t *value);

/* As "y*" if flags are PyBUF_SIMPLE.  An `index` that is not negative is the position in a sequence
   called `name`. */
int cmsgx_as_buffer(PyObject *object, const char *name, Py_ssize_t index, Py_buffer *view,
                    int flags);

/* The items of an iterable as a list or tuple, a new reference, or NULL with an exception.  Without
   a GIL it is always a tuple, as another thread may change a list while it is read.  The TypeError
   for anything else says what is `needed`, in words. */
PyObject *cmsgx_sequence(PyObject *iterable, const char *name, const char *needed);

/* The messages of an iterable as a tuple, a new reference, or NULL with an exception: TypeError for
   a single message, whose parts would be taken for messages. */
PyObject *cmsgx_as_messages(cmsgx_state *state, PyObject *object);
/* as_messages(messages, /): the same for Python code. */
PyObject *cmsgx_as_messages_of(PyObject *module, PyObject *object);

/* on_truncation: "raise" (1) or "keep" (0). */
int cmsgx_as_truncation(PyObject *object, int *raises);

/* close: "background" (1) or "now" (0). */
int cmsgx_as_close(PyObject *object, int *in_background);

/* on_error: "skip" (1) or "raise" (0). */
int cmsgx_as_on_error(PyObject *object, int *skips);

/* As "n", but an int that does not fit in Py_ssize_t, such as 2**31 on 32 bits, becomes the nearest
   one that does: for callers that refuse it with an error of their own. */
int cmsgx_as_nearest(PyObject *object, const char *name, Py_ssize_t *value);

/* bufsize: at most what one system call can receive.  Whether there is memory for it shows later:
   then the call that receives raises MemoryError. */
int cmsgx_as_bufsize(PyObject *object, size_t *size);

/* The `fds` of a call that receives: how many descriptors it accepts. */
int cmsgx_as_fds(cmsgx_state *state, PyObject *object, size_t *fds);
/* Refuses MSG_PEEK with descriptors: 0, or -1 with ValueError. */
int cmsgx_check_peek(size_t fds, int flags);

/* The object's fileno method: 1, and a new reference in *method; 0 if it has none, or one that is
   not callable, such as `fileno = None` in its class; -1 with an exception. */
int cmsgx_fileno_method(cmsgx_state *state, PyObject *object, PyObject **method);

/* The descriptors that `fds` of a sending call stands for, as a list or tuple: one object with
   fileno() is one descriptor, and is not iterated, as a file would give its lines.  A new
   reference, or NULL with an exception: TypeError for an int, which could be meant as a count, and,
   if `strict`, for bytes. */
PyObject *cmsgx_listed_fds(cmsgx_state *state, PyObject *fds, int strict);

/* listed_fds(fds, /): the same, strictly, as a tuple. */
PyObject *cmsgx_listed_fds_of(PyObject *module, PyObject *fds);

/* Whether `fds` stands for one descriptor.  Keeps the current exception. */
int cmsgx_is_one_descriptor(PyObject *fds);

typedef struct {
    const char *function;
    Py_ssize_t max_positional;
    Py_ssize_t required;
    signed char keywords[8];    /* places in state->keywords, -1 at the end */
} cmsgx_signature;

/* Writes each argument, a borrowed reference, to values[i], in the order of the signature's
   keywords.  0, or -1 with TypeError. */
int cmsgx_keywords(cmsgx_state *state, const cmsgx_signature *signature, PyObject *const *args,
                   Py_ssize_t nargs, PyObject *kwnames, PyObject **values);

/* The first argument, positional or by its keyword, a borrowed reference; NULL if it is missing. */
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
