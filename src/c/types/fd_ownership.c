#include "types/fd_ownership.h"

/* The word: bits 0-30 number + 1 (0: none; Linux has no number INT_MAX); bit 31: the last unpin
   closes; bits 32-42: the generation of the process that made the pins; bits 43-45: how the number
   was lost; bit 46: it has a place in the background closer; bits 47 and up: the number of pins. */
#define NUMBER_MASK CMSGX_NUMBER_MASK
#define CLOSING (UINT64_C(1) << 31)
#define GENERATION_AT 32
#define GENERATION_MASK (UINT64_C(0x7ff) << GENERATION_AT)
#define GONE_AT 43
#define GONE_MASK (UINT64_C(7) << GONE_AT)
#define GONE(how) ((uint64_t)(how) << GONE_AT)
#define PLACE (UINT64_C(1) << 46)
#define PIN (UINT64_C(1) << 47)
#define ALL_PINS (~(PIN - 1))

/* The word as it counts in this process: a fork copies the pins, but not the threads that would
   remove them, nor the system calls that they are for. */
static uint64_t
here(uint64_t word)
{
    uint64_t now = (uint64_t)cmsgx_generation() << GENERATION_AT & GENERATION_MASK;
    return (word & GENERATION_MASK) == now
        ? word : (word & (NUMBER_MASK | CLOSING | GONE_MASK | PLACE)) | now;
}

static int
number_in(uint64_t word)
{
    return word & CLOSING ? -1 : (int)(word & NUMBER_MASK) - 1;
}

static cmsgx_word *
word_of(PyObject *self)
{
    return &((cmsgx_fd *)self)->word;
}

const cmsgx_gone_text cmsgx_gone_texts[] = {
    [CMSGX_GONE_CLOSED] = {"closed", "it was closed"},
    [CMSGX_GONE_WITH_MESSAGE] = {
        "closed with its message",
        "it was closed with its message, by the end of a `with`, the next step of a loop, or "
        "close(); take() it from the message before that",
    },
    [CMSGX_GONE_TAKEN] = {
        "taken",
        "it was taken from its message, as a number or with fd_class=, and is owned there",
    },
    [CMSGX_GONE_TO_BACKGROUND] = {
        "closed in the background",
        "close_in_background() took it",
    },
    [CMSGX_GONE_DETACHED] = {"detached", "detach() gave it away, as a number"},
    [CMSGX_GONE_TO_FILE] = {
        "opened",
        "open() gave it to a file object; use that, or dup() before open()",
    },
    [CMSGX_GONE_TO_SOCKET] = {
        "made a socket",
        "socket() gave it to a socket; use that, or dup() before socket()",
    },
};

PyObject *
cmsgx_fd_new(PyTypeObject *type, int number, int error)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        cmsgx_fd_set(self, number);
        ((cmsgx_fd *)self)->error = error;
    }
    return self;
}

void
cmsgx_fd_set(PyObject *self, int number)
{
    ((cmsgx_fd *)self)->word = (uint64_t)((int64_t)number + 1);
}

void
cmsgx_fd_set_gone(PyObject *self, cmsgx_gone how)
{
    ((cmsgx_fd *)self)->word = GONE(how);
}

cmsgx_gone
cmsgx_fd_gone(PyObject *self)
{
    return (cmsgx_gone)((cmsgx_word_get(word_of(self)) & GONE_MASK) >> GONE_AT);
}

cmsgx_row *
cmsgx_fd_row(PyObject *self)
{
    return atomic_load_explicit(&((cmsgx_fd *)self)->row, memory_order_acquire);
}

void
cmsgx_fd_set_row(PyObject *self, cmsgx_row *row)
{
    cmsgx_fd *fd = (cmsgx_fd *)self;
    uint64_t word = cmsgx_word_get(&fd->word);
    atomic_store_explicit(&fd->row, cmsgx_row_hold(row), memory_order_relaxed);
    fd->word = number_in(word) >= 0 ? word | PLACE : word;
}

/* Closes a number that was taken away: in its row, if `word` says that it has a place there, else
   here, without the GIL.  Keeps errno. */
static void
close_taken(PyObject *self, uint64_t word, int number)
{
    if (word & PLACE) {
        /* With the GIL, so that a fork in Python finds the number here or there, never in between.
           */
        cmsgx_row_submit(cmsgx_fd_row(self), &number, 1);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        cmsgx_close_all(&number, 1);
        Py_END_ALLOW_THREADS
    }
}

int
cmsgx_fd_number(PyObject *self)
{
    return number_in(cmsgx_word_get(word_of(self)));
}

int
cmsgx_fd_pin(PyObject *self)
{
    uint64_t word = cmsgx_word_get(word_of(self));
    uint64_t next;
    do {
        next = here(word);
        if (number_in(next) < 0 || next >= ALL_PINS) {
            return -1;
        }
    } while (!cmsgx_word_swap(word_of(self), &word, next + PIN));
    return number_in(next);
}

void
cmsgx_fd_unpin(PyObject *self)
{
    uint64_t word = cmsgx_word_get(word_of(self));
    uint64_t next;
    int last;

    do {
        next = here(word);
        if (next < PIN) {
            return;
        }
        next -= PIN;
        last = next < PIN && (next & CLOSING);
    } while (!cmsgx_word_swap(word_of(self), &word, last ? next & GONE_MASK : next));
    if (last) {
        close_taken(self, next, (int)(next & NUMBER_MASK) - 1);
    }
}

int
cmsgx_fd_detach(PyObject *self, cmsgx_gone how, uint64_t *taken)
{
    uint64_t word = cmsgx_word_get(word_of(self));
    do {
        if (number_in(word) < 0) {
            return -1;
        }
    } while (!cmsgx_word_swap(word_of(self), &word, (word & ~(NUMBER_MASK | PLACE)) | GONE(how)));
    *taken = word;
    return number_in(word);
}

void
cmsgx_fd_gave_away(PyObject *self, uint64_t taken)
{
    if (taken & PLACE) {
        cmsgx_row_unreserve(cmsgx_fd_row(self), 1);
    }
}

void
cmsgx_fd_leave_to(PyObject *self, uint64_t taken, PyObject *heir)
{
    cmsgx_fd_set(heir, number_in(taken));
    if (taken & PLACE) {
        cmsgx_fd_set_row(heir, cmsgx_fd_row(self));
    }
}

void
cmsgx_fd_take_back(PyObject *self, uint64_t taken)
{
    /* Keeps the pins that other threads may have on it. */
    uint64_t word = cmsgx_word_get(word_of(self));
    while (!cmsgx_word_swap(word_of(self), &word,
                            (word & ~GONE_MASK) | (taken & (NUMBER_MASK | PLACE)))) {
    }
}

/* Takes the number away in order to close it; *taken is the word as it was.  -1 if there is none,
   or if it is pinned: then the last unpin will close it, and the bits `more` are set and the bits
   `less` cleared. */
static int
take(PyObject *self, cmsgx_gone how, uint64_t more, uint64_t less, uint64_t *taken)
{
    uint64_t word = cmsgx_word_get(word_of(self));
    int number, is_pinned;
    do {
        *taken = here(word);
        number = (int)(*taken & NUMBER_MASK) - 1;
        is_pinned = *taken >= PIN;
        /* CLOSING without a pin is the copy, made by a fork, of a close that waited for a thread
           which does not exist in this process. */
        if (number < 0 || (is_pinned && (*taken & CLOSING))) {
            *taken = 0;
            return -1;
        }
    } while (!cmsgx_word_swap(word_of(self), &word,
                              (is_pinned ? ((*taken | CLOSING) & ~less) | more : 0)
                              | GONE(how)));
    return is_pinned ? -1 : number;
}

int
cmsgx_fd_take_to_close(PyObject *self, cmsgx_gone how)
{
    uint64_t taken;
    int number = take(self, how, 0, 0, &taken);
    if (number >= 0 && (taken & PLACE)) {
        close_taken(self, taken, number);
        return -1;
    }
    return number;
}

int
cmsgx_fd_take_to_close_now(PyObject *self)
{
    uint64_t taken;
    int number = take(self, CMSGX_GONE_CLOSED, 0, PLACE, &taken);
    cmsgx_fd_gave_away(self, taken);
    return number;
}

int
cmsgx_fd_close_in_background(PyObject *self, cmsgx_closer *closer)
{
    cmsgx_row *row = cmsgx_fd_row(self);
    if (row == NULL) {
        cmsgx_row *mine = cmsgx_row_shared(closer, cmsgx_fd_number(self));
        if (atomic_compare_exchange_strong(&((cmsgx_fd *)self)->row, &row, mine)) {
            row = mine;
        }
        else {
            cmsgx_row_drop(mine);   /* another thread was faster */
        }
    }
    if (cmsgx_row_reserve(row, 1) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    uint64_t taken;
    int number = take(self, CMSGX_GONE_TO_BACKGROUND, PLACE, 0, &taken);
    if (taken == 0 || (taken & PLACE)) {
        cmsgx_row_unreserve(row, 1);
    }
    if (number >= 0) {
        close_taken(self, PLACE, number);
    }
    return 0;
}
