/* Who owns the number of an FdBase, who uses it now, and where it is closed: one atomic word. */

#ifndef CMSGX_FD_OWNERSHIP_H
#define CMSGX_FD_OWNERSHIP_H

#include "state.h"

/* How an object that owns no number lost it.  3 bits of its word. */
typedef enum {
    CMSGX_GONE_CLOSED,          /* by close() or the end of its own `with`; or it never had one */
    CMSGX_GONE_WITH_MESSAGE,    /* closed with the message that brought it */
    CMSGX_GONE_TAKEN,           /* from its message, by detach_all() or with fd_class= */
    CMSGX_GONE_TO_BACKGROUND,   /* close_in_background() */
    CMSGX_GONE_DETACHED,        /* detach() */
    CMSGX_GONE_TO_FILE,         /* open() */
    CMSGX_GONE_TO_SOCKET,       /* socket() */
} cmsgx_gone;

/* The same in words, by cmsgx_gone: for repr(), and for an error. */
typedef struct {
    const char *word;
    const char *sentence;
} cmsgx_gone_text;
extern const cmsgx_gone_text cmsgx_gone_texts[];

typedef struct {
    PyObject_HEAD
    cmsgx_word word;        /* number + 1, how it went, pins, whether the last unpin closes */
    int error;              /* errno that the kernel sent in place of a number, or 0 */
    PyObject *weakrefs;
    /* A use, or NULL.  Set once at most: by whom it is closed in the background. */
    _Atomic(cmsgx_row *) row;
} cmsgx_fd;

static inline int
cmsgx_fd_check(cmsgx_state *state, PyObject *object)
{
    return PyObject_TypeCheck(object, state->FdBase);
}

/* A new reference to an object of `type` that owns `number`, -1 for none.  NULL with an exception,
   and then the number is still the caller's. */
PyObject *cmsgx_fd_new(PyTypeObject *type, int number, int error);

/* Gives a number to an object that owns none and that no other thread has seen; steals it. */
void cmsgx_fd_set(PyObject *self, int number);

/* For such an object that never gets a number, as its message is gone already. */
void cmsgx_fd_set_gone(PyObject *self, cmsgx_gone how);

/* How it lost its number; only for one that owns none. */
cmsgx_gone cmsgx_fd_gone(PyObject *self);

/* The bits of the word that are number + 1. */
#define CMSGX_NUMBER_MASK UINT64_C(0x7fffffff)

/* Whether there is nothing left to close, not even a number that the last unpin will close. */
static inline int
cmsgx_fd_is_empty(PyObject *self)
{
    return (cmsgx_word_get(&((cmsgx_fd *)self)->word) & CMSGX_NUMBER_MASK) == 0;
}

/* The number, borrowed; -1 if it owns none. */
int cmsgx_fd_number(PyObject *self);

/* Pins the number for one system call: until it is unpinned it cannot be closed, and so cannot
   become another file's.  -1 if it owns none, or already has as many pins as can be counted.

   No Python code may run between pin and unpin, as it could fork.  In the child of a fork no pin
   counts: neither those of threads that do not exist there, nor one of the thread that forked, such
   as a Pin, which keeps the number from being closed in the parent only. */
int cmsgx_fd_pin(PyObject *self);

/* May close, and releases the GIL for that.  Does nothing if a fork has removed the pin. */
void cmsgx_fd_unpin(PyObject *self);

/* Has its number closed in the background, whatever closes it.  For an object that no other thread
   has seen; takes over the place in the row that was reserved for the number. */
void cmsgx_fd_set_row(PyObject *self, cmsgx_row *row);

/* Borrowed, or NULL. */
cmsgx_row *cmsgx_fd_row(PyObject *self);

/* Takes the number away: the caller owns it now; -1 if there is none.  The caller then calls
   exactly one of the other three, with what *taken was set to: the number has a new owner; or the
   new owner is `heir`, which owns none and which no other thread has seen, and which closes it in
   the same way; or it could not be given away after all and is owned here again. */
int cmsgx_fd_detach(PyObject *self, cmsgx_gone how, uint64_t *taken);
void cmsgx_fd_gave_away(PyObject *self, uint64_t taken);
void cmsgx_fd_leave_to(PyObject *self, uint64_t taken, PyObject *heir);
void cmsgx_fd_take_back(PyObject *self, uint64_t taken);

/* Takes the number away in order to close it.  -1 if there is nothing to do: there is no number, or
   the last unpin will close it, or it went to the background closer. */
int cmsgx_fd_take_to_close(PyObject *self, cmsgx_gone how);

/* The same, but also for a number that the background closer would have closed. */
int cmsgx_fd_take_to_close_now(PyObject *self);

/* Hands the number to the background closer, however it was received.  0, or -1 with MemoryError,
   and then it is owned as before. */
int cmsgx_fd_close_in_background(PyObject *self, cmsgx_closer *closer);

#endif
