#include "calls/options.h"

#include "arguments.h"
#include "calls/sock.h"
#include "errors.h"
#include "plain/platform.h"

#include <errno.h>

/* Values are compared word by word.  So many words are on the stack; more take memory. */
#define USUAL_WORDS 8

/* A key is the family, shifted by this, and the type, which Linux gives so many bits as well
   (SOCK_TYPE_MASK).  Python need not allocate so small an int. */
#define TYPE_BITS 4

typedef struct {
    PyObject *option;       /* owned: what is noted when it is set */
    uint64_t *on;           /* owned, the memory of the other two as well: what is set */
    const uint64_t *keep;   /* the bits that the value before keeps */
    const uint64_t *sign;   /* bits, any of which shows that the option is on */
    PyObject *usual[2];     /* owned: what is noted if it was off, or on; NULL: it differs */
    size_t words;           /* of the value, the last of them filled with zeros */
    socklen_t size;         /* of the value, in bytes */
    int level;
    int name;
    char is_noted_only;     /* not set, but noted if it is on */
    char is_permanent;      /* a value that is 0 throughout must not be set back */
    char is_mask;           /* some bits are kept */
    char is_same;           /* as the one before: its value is that one's */
} one_option;

typedef struct {
    PyObject_VAR_HEAD
    PyObject *configs;      /* owned dict: states() to ReceiveConfig, filled by Python */
    Py_ssize_t watched;     /* index of the first one that is asked for rather than set */
    size_t largest;         /* words of the largest value */
    one_option each[1];
} options_object;

#define SELF(object) ((options_object *)(object))

/* The kernel or the socket lacks the option, or reports it in another size. */
static int
is_missing(int error)
{
    return error == ENOPROTOOPT || error == EOPNOTSUPP || error == EINVAL;
}

/* The number of bytes that were read, or -1 with errno, and zeros in `value`. */
static inline int
read_value(int fd, const one_option *option, uint64_t *value)
{
    socklen_t length = option->size;
    /* For some options Linux writes less than it reports: one byte for HCI_DATA_DIR. */
    value[0] = 0;
    for (size_t i = 1; i < option->words; i++) {
        value[i] = 0;
    }
    if (getsockopt(fd, option->level, option->name, value, &length) < 0) {
        return -1;
    }
    /* Some options report the length of the value rather than how much of it fitted. */
    return (int)(length < option->size ? length : option->size);
}

/* Whether a value shows that the option is on.  `length` and errno are those of read_value(): 1, 0,
   or -1 with errno. */
static inline int
shows_on(const one_option *option, const uint64_t *value, int length)
{
    if (length < 0) {
        return is_missing(errno) || errno == CMSGX_EBADFD ? 0 : -1;
    }
    uint64_t found = value[0] & option->sign[0];
    for (size_t i = 1; i < option->words; i++) {
        found |= value[i] & option->sign[i];
    }
    return found != 0;
}

/* Memory for `count` of the largest value: `usual`, or what give_words() frees; NULL with
   MemoryError. */
static uint64_t *
take_words(const options_object *self, size_t count, uint64_t usual[USUAL_WORDS])
{
    if (count * self->largest <= USUAL_WORDS) {
        return usual;
    }
    uint64_t *words = PyMem_Calloc(count * self->largest, sizeof(uint64_t));
    return words != NULL ? words : (uint64_t *)PyErr_NoMemory();
}

static void
give_words(uint64_t *words, const uint64_t usual[USUAL_WORDS])
{
    if (words != usual) {
        PyMem_Free(words);
    }
}

/* Asking ----------------------------------------------------------------------------------- */

/* Sets a bit for each option that is asked for: 0, or -1 with errno. */
static int
ask_into(const options_object *self, int fd, uint64_t *value, unsigned char *states)
{
    int length = 0;
    for (Py_ssize_t i = self->watched; i < Py_SIZE(self); i++) {
        const one_option *option = &self->each[i];
        size_t place = (size_t)(i - self->watched);
        if (!option->is_same) {
            length = read_value(fd, option, value);
        }
        int is_on = shows_on(option, value, length);
        if (is_on < 0) {
            return -1;
        }
        if (place % 8 == 0) {
            states[place / 8] = 0;
        }
        states[place / 8] |= (unsigned char)(is_on << place % 8);
        length = length < 0 ? 0 : length;
    }
    return 0;
}

/* The states as bytes, or NULL with an exception. */
static PyObject *
ask_all(const options_object *self, int fd)
{
    uint64_t usual[USUAL_WORDS];
    uint64_t *value = take_words(self, 1, usual);
    if (value == NULL) {
        return NULL;
    }
    PyObject *states = PyBytes_FromStringAndSize(NULL, (Py_SIZE(self) - self->watched + 7) / 8);
    if (states != NULL
        && ask_into(self, fd, value, (unsigned char *)PyBytes_AS_STRING(states)) < 0) {
        Py_CLEAR(states);
        cmsgx_raise_of_sock(errno, fd);
    }
    give_words(value, usual);
    return states;
}

PyDoc_STRVAR(states_doc,
"states($self, sock, /)\n--\n\n"
"Which of the watched options are on: bytes, with a bit for each, the lowest first.  An option\n"
"that the kernel or the socket lacks, or does not report, is not.  If several in a row have the\n"
"same level, name and size, the kernel is asked once.");

static PyObject *
options_states(PyObject *object, PyObject *given)
{
    cmsgx_sock sock;
    if (cmsgx_sock_resolve(cmsgx_state_of_self(object), given, &sock) < 0) {
        return NULL;
    }
    PyObject *states = ask_all(SELF(object), cmsgx_sock_borrow(&sock));
    cmsgx_sock_give_back(&sock);
    return states;
}

/* Setting ---------------------------------------------------------------------------------- */

typedef enum {
    DONE,
    REFUSED,                /* by the kernel: errno */
    FAILED,                 /* with an exception */
} outcome;

/* Appends (option, before, after) with `length` bytes of each: 0, or -1 with an exception. */
static int
note(PyObject *noted, const one_option *option, const uint64_t *before, const uint64_t *after,
     int length)
{
    PyObject *usual = option->usual[before[0] != 0];
    if (usual != NULL && option->words == 1 && length == (int)option->size
        && (before[0] == 0 || before[0] == option->on[0])) {
        return PyList_Append(noted, usual);
    }
    PyObject *was = PyBytes_FromStringAndSize((const char *)before, length);
    PyObject *set = PyBytes_FromStringAndSize((const char *)after, length);
    PyObject *entry = NULL;
    if (was != NULL && set != NULL) {
        entry = PyTuple_Pack(3, option->option, was, set);
    }
    int result = entry == NULL ? -1 : PyList_Append(noted, entry);
    Py_XDECREF(was);
    Py_XDECREF(set);
    Py_XDECREF(entry);
    return result;
}

/* Whether the option still has the value `before`; `now` is for the value. */
static int
is_unchanged(int fd, const one_option *option, const uint64_t *before, int length, uint64_t *now)
{
    int found = read_value(fd, option, now);
    return (found < 0 ? is_missing(errno) : found == length)
           && memcmp(now, before, (size_t)length) == 0;
}

/* Notes it, and then sets it.  `words` has three values, the first of them the value before. */
static outcome
set_one(int fd, const one_option *option, uint64_t *words, PyObject *noted)
{
    uint64_t *before = words, *after = words + option->words;
    int length = read_value(fd, option, before);
    int is_known = length >= 0;
    if (option->is_noted_only) {
        int is_on = shows_on(option, before, length);
        return is_on < 0 ? REFUSED
            : is_on && note(noted, option, before, before, length) < 0 ? FAILED
            : DONE;
    }
    if (!is_known) {
        if (!is_missing(errno)) {
            return REFUSED;
        }
        length = (int)option->size;     /* zeros */
    }
    uint64_t any = 0;
    for (size_t i = 0; i < option->words; i++) {
        any |= before[i];
        after[i] = (before[i] & option->keep[i]) | option->on[i];
    }
    int is_noted = any != 0 || !option->is_permanent;
    if (is_noted && note(noted, option, before, after, length) < 0) {
        return FAILED;
    }
    /* Setting a word of flags again can have an effect: SO_TIMESTAMPING switches
       SO_TIMESTAMPING_NEW off, which shares the word. */
    if (is_known && !option->is_mask && !option->is_permanent
        && memcmp(before, after, (size_t)length) == 0) {
        return DONE;
    }
    if (setsockopt(fd, option->level, option->name, after, (socklen_t)length) == 0) {
        return DONE;
    }
    int error = errno;
    if (is_noted && is_unchanged(fd, option, before, length, after + option->words)) {
        Py_ssize_t count = PyList_GET_SIZE(noted);
        if (PyList_SetSlice(noted, count - 1, count, NULL) < 0) {
            PyErr_Clear();      /* restoring it then sets what it already has */
        }
    }
    errno = error;
    return REFUSED;
}

/* Sets all from index `start` on: 1; 0 with *refused set to (index, OSError); -1 with an
   exception. */
static int
set_all(const options_object *self, int fd, PyObject *noted, Py_ssize_t start, PyObject **refused)
{
    uint64_t usual[USUAL_WORDS];
    uint64_t *words = take_words(self, 3, usual);
    if (words == NULL) {
        return -1;
    }
    outcome result = DONE;
    Py_ssize_t i = start;
    while (i < self->watched && (result = set_one(fd, &self->each[i], words, noted)) == DONE) {
        i++;
    }
    int error_number = errno;
    give_words(words, usual);
    if (result != REFUSED) {
        return result == DONE ? 1 : -1;
    }
    cmsgx_raise_of_sock(error_number, fd);
    PyObject *error = cmsgx_save_exception();
    if (!PyErr_GivenExceptionMatches(error, PyExc_OSError)) {
        cmsgx_restore_exception(error);     /* MemoryError */
        return -1;
    }
    *refused = Py_BuildValue("(nN)", i, error);
    return *refused == NULL ? -1 : 0;
}

/* Parses (noted, start): 0, or -1 with an exception. */
static int
parse_noted(PyObject *const *args, Py_ssize_t *start)
{
    int number;
    if (!PyList_Check(args[0])) {
        cmsgx_raise_needed("noted", -1, "a list", args[0]);
        return -1;
    }
    if (cmsgx_as_int(args[1], "start", &number) < 0) {
        return -1;
    }
    if (number < 0) {
        PyErr_Format(PyExc_ValueError, "start: %d; it cannot be negative", number);
        return -1;
    }
    *start = number;
    return 0;
}

PyDoc_STRVAR(set_doc,
"set($self, sock, noted, start, /)\n--\n\n"
"Sets the options from index `start` on.  Before each one it appends (option, the value before,\n"
"the value that is set) to the list `noted`, so whatever interrupts the caller, all that may have\n"
"changed is there.  It does not append a permanent option that was off, nor keep one that the\n"
"kernel refused.  An option that already has the value is not set.  An option whose `on` is empty\n"
"is appended if it is on.\n\n"
"Returns None, or (index, OSError) of the first one that the kernel refused.");

static PyObject *
options_set(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *refused;
    Py_ssize_t start;
    cmsgx_sock sock;

    if (nargs != 3) {
        return PyErr_Format(PyExc_TypeError, "set() takes 3 arguments, not %zd", nargs);
    }
    if (parse_noted(&args[1], &start) < 0
        || cmsgx_sock_resolve(cmsgx_state_of_self(object), args[0], &sock) < 0) {
        return NULL;
    }
    int result = set_all(SELF(object), cmsgx_sock_borrow(&sock), args[1], start, &refused);
    cmsgx_sock_give_back(&sock);
    return result < 0 ? NULL : result > 0 ? Py_NewRef(Py_None) : refused;
}

/* Both ------------------------------------------------------------------------------------- */

static PyObject *
key_of(int fd)
{
    int family = cmsgx_family_of(fd), type = cmsgx_type_of(fd);
    return family < 0 || type < 0 ? cmsgx_raise_of_sock(errno, fd)
                                  : PyLong_FromLong((long)family << TYPE_BITS | type);
}

PyDoc_STRVAR(key_doc,
"key(sock, /)\n--\n\n"
"The address family and the type of the socket in one int, as the kernel reports them:\n"
"family << 4 | type.");

static PyObject *
options_key(PyObject *type, PyObject *given)
{
    cmsgx_sock sock;
    if (cmsgx_sock_resolve(cmsgx_state_of_type((PyTypeObject *)type), given, &sock) < 0) {
        return NULL;
    }
    PyObject *key = key_of(cmsgx_sock_borrow(&sock));
    cmsgx_sock_give_back(&sock);
    return key;
}

static PyObject *
configure_fd(cmsgx_state *state, int fd, PyObject *plans, PyObject *noted, Py_ssize_t start)
{
    PyObject *options, *states, *config, *refused;
    PyObject *key = key_of(fd);
    if (key == NULL || cmsgx_dict_get(plans, key, &options) < 0) {
        Py_XDECREF(key);
        return NULL;
    }
    if (options == NULL) {
        return key;
    }
    Py_DECREF(key);
    if (!Py_IS_TYPE(options, state->Options)) {
        cmsgx_raise_needed("plans", -1, "a dict of Options", options);
        Py_DECREF(options);
        return NULL;
    }
    options_object *self = SELF(options);
    int result = set_all(self, fd, noted, start, &refused);
    if (result <= 0) {
        Py_DECREF(options);
        return result < 0 ? NULL : refused;
    }
    states = ask_all(self, fd);
    if (states != NULL && cmsgx_dict_get(self->configs, states, &config) < 0) {
        Py_CLEAR(states);
    }
    Py_DECREF(options);
    if (states == NULL || config == NULL) {
        return states;
    }
    Py_DECREF(states);
    return config;
}

PyObject *
cmsgx_configuration(cmsgx_state *state, PyObject *given, PyObject *plans, PyObject *noted,
                    Py_ssize_t start)
{
    cmsgx_sock sock;
    if (cmsgx_sock_resolve(state, given, &sock) < 0) {
        return NULL;
    }
    PyObject *result = configure_fd(state, cmsgx_sock_borrow(&sock), plans, noted, start);
    cmsgx_sock_give_back(&sock);
    return result;
}

PyDoc_STRVAR(configuration_doc,
"configuration(sock, plans, noted, start, /)\n--\n\n"
"What a receiver of `sock` needs, in one call: finds the Options in the dict `plans` by\n"
"key(sock); sets them, as their set() does; asks what is on, as their states() does; and returns\n"
"the ReceiveConfig in their `configs`.\n\n"
"Otherwise returns what is missing: the key, an int, if `plans` lacks it; what set() returns, a\n"
"tuple; or the states, bytes, if `configs` lacks them.");

static PyObject *
options_configuration(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    Py_ssize_t start;
    if (nargs != 4) {
        return PyErr_Format(PyExc_TypeError, "configuration() takes 4 arguments, not %zd", nargs);
    }
    if (!PyDict_Check(args[1])) {
        return cmsgx_raise_needed("plans", -1, "a dict of Options", args[1]);
    }
    if (parse_noted(&args[2], &start) < 0) {
        return NULL;
    }
    return cmsgx_configuration(cmsgx_state_of_type((PyTypeObject *)type), args[0], args[1],
                               args[2], start);
}

/* The type --------------------------------------------------------------------------------- */

/* Parses (option, level, name, on, keep, sign, is_permanent): 0, or -1 with an exception. */
static int
parse_option(PyObject *entry, one_option *option)
{
    PyObject *what, *on, *keep, *sign;
    int level, name, is_permanent;
    if (!PyTuple_Check(entry)) {
        cmsgx_raise_needed("an option", -1, "a tuple", entry);
        return -1;
    }
    if (!PyArg_ParseTuple(entry, "OiiSSSp:Options", &what, &level, &name, &on, &keep, &sign,
                          &is_permanent)) {
        return -1;
    }
    if (PyBytes_GET_SIZE(keep) != PyBytes_GET_SIZE(sign)
        || (PyBytes_GET_SIZE(on) != 0 && PyBytes_GET_SIZE(on) != PyBytes_GET_SIZE(sign))) {
        PyErr_Format(PyExc_ValueError, "%R: its values must have the same size", entry);
        return -1;
    }
    option->option = Py_NewRef(what);
    option->size = (socklen_t)PyBytes_GET_SIZE(sign);
    /* At least one, so that the first can be looked at. */
    size_t words = ((size_t)option->size + sizeof(uint64_t)) / sizeof(uint64_t);
    option->words = words;
    if ((option->on = PyMem_Calloc(3 * words, sizeof(uint64_t))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    option->keep = option->on + words;
    option->sign = option->on + 2 * words;
    memcpy(option->on, PyBytes_AS_STRING(on), (size_t)PyBytes_GET_SIZE(on));
    memcpy(option->on + words, PyBytes_AS_STRING(keep), option->size);
    memcpy(option->on + 2 * words, PyBytes_AS_STRING(sign), option->size);
    option->level = level;
    option->name = name;
    option->is_noted_only = PyBytes_GET_SIZE(on) == 0;
    option->is_permanent = is_permanent != 0;
    for (size_t i = 0; i < words; i++) {
        option->is_mask |= option->keep[i] != 0;
    }
    if (option->is_noted_only || option->is_mask) {
        return 0;
    }
    /* `keep` is all zeros: the value of an option that is off. */
    option->usual[0] = PyTuple_Pack(3, what, keep, on);
    option->usual[1] = PyTuple_Pack(3, what, on, on);
    return option->usual[0] == NULL || option->usual[1] == NULL ? -1 : 0;
}

static PyObject *
options_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"", "", NULL};
    PyObject *given[2];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!:Options", (char **)(void *)names,
                                     &PyTuple_Type, &given[0], &PyTuple_Type, &given[1])) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(given[0]);
    PyObject *object = type->tp_alloc(type, count + PyTuple_GET_SIZE(given[1]));
    if (object == NULL) {
        return NULL;
    }
    options_object *self = SELF(object);
    self->watched = count;
    int result = (self->configs = PyDict_New()) == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; result == 0 && i < Py_SIZE(self); i++) {
        PyObject *entry = PyTuple_GET_ITEM(given[i >= count], i < count ? i : i - count);
        one_option *option = &self->each[i];
        result = parse_option(entry, option);
        const one_option *before = i > count && i > 0 ? &self->each[i - 1] : NULL;
        option->is_same = before != NULL && option->name == before->name
                          && option->level == before->level && option->size == before->size;
        if (result == 0 && self->largest < self->each[i].words) {
            self->largest = self->each[i].words;
        }
    }
    if (result < 0) {
        Py_CLEAR(object);
    }
    return object;
}

static int
options_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(SELF(object)->configs);
    for (Py_ssize_t i = 0; i < Py_SIZE(object); i++) {
        Py_VISIT(SELF(object)->each[i].option);
        Py_VISIT(SELF(object)->each[i].usual[0]);
        Py_VISIT(SELF(object)->each[i].usual[1]);
    }
    return 0;
}

static int
options_clear(PyObject *object)
{
    Py_CLEAR(SELF(object)->configs);
    return 0;
}

static void
options_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)options_clear(object);
    for (Py_ssize_t i = 0; i < Py_SIZE(object); i++) {
        one_option *option = &SELF(object)->each[i];
        Py_XDECREF(option->option);
        Py_XDECREF(option->usual[0]);
        Py_XDECREF(option->usual[1]);
        PyMem_Free(option->on);
    }
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef options_methods[] = {
    {"key", options_key, METH_O | METH_CLASS, key_doc},
    {"configuration", (PyCFunction)(void (*)(void))options_configuration,
     METH_FASTCALL | METH_CLASS, configuration_doc},
    {"set", (PyCFunction)(void (*)(void))options_set, METH_FASTCALL, set_doc},
    {"states", options_states, METH_O, states_doc},
    CMSGX_NO_COPY,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef options_members[] = {
    {"configs", Py_T_OBJECT_EX, offsetof(options_object, configs), Py_READONLY,
     "The ReceiveConfig for each result of states() so far, a dict."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(options_doc,
"Options(setting, watched, /)\n--\n\n"
"Several socket options, which one call sets, or asks for.  It holds no socket.\n"
"Each option is a tuple (option, level, name, on, keep, sign, is_permanent): `option` is what\n"
"set() notes; `on` the value to set, or b'' if the option is only noted; `keep` the bits that\n"
"stay as they are; `sign` the bits of which any shows that it is on; all as long as the value.");

static PyType_Slot options_slots[] = {
    {Py_tp_new, options_make},
    {Py_tp_dealloc, options_dealloc},
    {Py_tp_traverse, options_traverse},
    {Py_tp_clear, options_clear},
    {Py_tp_methods, options_methods},
    {Py_tp_members, options_members},
    {Py_tp_doc, (void *)options_doc},
    {0, NULL},
};

static PyType_Spec options_spec = {
    .name = "cmsgx._cmsg.Options",
    .basicsize = offsetof(options_object, each),
    .itemsize = sizeof(one_option),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = options_slots,
};

int
cmsgx_add_options(PyObject *module)
{
    return cmsgx_add_type(module, &options_spec, &cmsgx_state_of(module)->Options);
}
