/* The word of an FdBase: who owns the number, who uses it now, and where it is closed. */

#ifndef CMSGX_FD_OWNERSHIP_H
#define CMSGX_FD_OWNERSHIP_H

#include "state.h"

/* How the number of one that owns none went.  3 bits of its word. */
typedef enum {
    CMSGX_GONE_CLOSED,          /* close(), the end of its own `with`; or it never had one */
    CMSGX_GONE_WITH_MESSAGE,    /* closed with the message that brought it */
    CMSGX_GONE_TAKEN,           /* from its message, by detach_all() or as of another class */
    CMSGX_GONE_TO_BACKGROUND,   /* close_in_background() */
    CMSGX_GONE_DETACHED,        /* detach() */
    CMSGX_GONE_TO_FILE,         /* open() */
    CMSGX_GONE_TO_SOCKET,       /* socket() */
} cmsgx_gone;

/* By cmsgx_gone: for repr(), and for an error. */
typedef struct {
    const char *word;
    const char *sentence;
} cmsgx_gone_text;
extern const cmsgx_gone_text cmsgx_gone_texts[];

typedef struct {
    PyObject_HEAD
    cmsgx_word word;        /* number + 1, how it went, pins, whether a close waits for the last */
    int error;              /* errno that came in place of a number, or 0 */
    PyObject *weakrefs;
    /* A use, or NULL.  Set once at most: where it is closed in the background. */
    _Atomic(cmsgx_row *) row;
} cmsgx_fd;

static inline int
cmsgx_fd_check(cmsgx_state *state, PyObject *object)
{
    return PyObject_TypeCheck(object, state->FdBase);
}

/* A new reference to an object of `type` that owns `number`; NULL with an exception, and then
   the number is still the caller's. */
PyObject *cmsgx_fd_new(PyTypeObject *type, int number, int error);

/* Gives a number to an object that owns none and that no other thread has seen. */
void cmsgx_fd_set(PyObject *self, int number);

/* The same of one that never gets one, but belongs to what is gone already. */
void cmsgx_fd_set_gone(PyObject *self, cmsgx_gone how);

/* Of one that owns none. */
cmsgx_gone cmsgx_fd_gone(PyObject *self);

/* The bits of its word that are number + 1. */
#define CMSGX_NUMBER_MASK UINT64_C(0x7fffffff)

/* Whether nothing is to be closed any more: also no number whose close waits. */
static inline int
cmsgx_fd_is_empty(PyObject *self)
{
    return (cmsgx_word_get(&((cmsgx_fd *)self)->word) & CMSGX_NUMBER_MASK) == 0;
}

/* The number, borrowed, or -1 where it owns none. */
int cmsgx_fd_number(PyObject *self);

/* Pins it for one system call: the number cannot be closed, and so not be given to another
   file, until it is unpinned.  -1 where it owns none, or where it has as many pins as can be
   counted.

   No Python code runs between the two, as it could fork.  In the child of a fork no pin counts: not
   those of threads that are not there, and not one of the thread that forked (a Pin can be such),
   which keeps the number from being closed in the parent only. */
int cmsgx_fd_pin(PyObject *self);

/* May close, and then gives up the GIL for it.  Does nothing where a fork took the pin off. */
void cmsgx_fd_unpin(PyObject *self);

/* Has what it owns closed in the background, wherever that happens.  For an object that no other
   thread has seen; the place that was reserved for its number goes with it. */
void cmsgx_fd_set_row(PyObject *self, cmsgx_row *row);

cmsgx_row *cmsgx_fd_row(PyObject *self);

/* Takes the number away: it is the caller's, -1 where there is none.  Then exactly one of the other
   two, with what *taken was set to: it stays away, or could not be given away after all. */
int cmsgx_fd_detach(PyObject *self, cmsgx_gone how, uint64_t *taken);
void cmsgx_fd_gave_away(PyObject *self, uint64_t taken);
void cmsgx_fd_take_back(PyObject *self, uint64_t taken);

/* Takes the number away in order to close it.  -1 where nothing is to be done: there is none, or
   the last unpin will close it, or it was handed to the background closer, in its row. */
int cmsgx_fd_take_to_close(PyObject *self, cmsgx_gone how);

/* The same to close it here, also where it has a row. */
int cmsgx_fd_take_to_close_now(PyObject *self);

/* Hands it to the background closer, whatever it was received by.  0, or -1 with MemoryError, and
   then it is owned as before. */
int cmsgx_fd_close_in_background(PyObject *self, cmsgx_closer *closer);

#endif
