/* The typed send, and sends that are tracked. */

#ifndef CMSGX_SEND_H
#define CMSGX_SEND_H

#include "state.h"

PyObject *cmsgx_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames);

/* The same, which counts what it sends, for callers in Python that a signal handler may interrupt
   between any two steps of theirs: adds it to the number in args[0], a list of one.  None, or the
   OSError that the system call was refused with, which is not raised; so what is raised is
   somebody else's.  NULL with an exception. */
PyObject *cmsgx_send_tracked(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);

/* Its parts.  Whether args[0] is such a list; 0 with TypeError.  And what it returns: with the
   exception of a call that failed, of which `error` is the errno, or 0. */
int cmsgx_is_progress(const char *function, PyObject *const *args, Py_ssize_t nargs);
PyObject *cmsgx_tell_progress(PyObject *progress, ssize_t sent, int error);

#endif
