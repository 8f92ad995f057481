/* Arguments of the calls that are parsed by hand, as they are made often. */

#ifndef CMSGX_ARGUMENTS_H
#define CMSGX_ARGUMENTS_H

#include "state.h"

/* As "i" and "n" of PyArg_Parse.  0, or -1 with an exception. */
int cmsgx_as_int(PyObject *object, int *value);
int cmsgx_as_size(PyObject *object, Py_ssize_t *value);

/* on_truncation: "raise" (1) or "keep" (0). */
int cmsgx_as_truncation(PyObject *object, int *raises);

/* close: "background" (1) or "now" (0). */
int cmsgx_as_close(PyObject *object, int *in_background);

/* As "n", but what Py_ssize_t has no room for, as 2**31 on 32 bits, becomes the nearest that it
   has: for whoever knows the name of the argument, and refuses it by that. */
int cmsgx_as_nearest(PyObject *object, Py_ssize_t *value);

/* bufsize: what one call can bring.  Where there is no memory for it, it is the receiving that
   fails, with MemoryError. */
int cmsgx_as_bufsize(PyObject *object, size_t *size);

/* How many descriptors may be asked for, and that they are not peeked at. */
int cmsgx_as_fds(cmsgx_state *state, PyObject *object, size_t *fds);
int cmsgx_check_peek(size_t fds, int flags);

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
