/* All conditions on the Python version or build are in this file. */

#ifndef CMSGX_COMPAT_H
#define CMSGX_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "plain/process.h"

#include <stdatomic.h>

/* Members of a type, under the names that Python.h uses since 3.12. */
#if PY_VERSION_HEX < 0x030C0000
#  include <structmember.h>
#  define Py_T_INT T_INT
#  define Py_T_PYSSIZET T_PYSSIZET
#  define Py_T_CHAR T_CHAR
#  define Py_T_BOOL T_BOOL
#  define Py_T_ULONG T_ULONG
#  define Py_T_OBJECT_EX T_OBJECT_EX
#  define Py_READONLY READONLY
#endif

/* The attribute of a type, found through the type's own method cache, without calling descriptors:
   a new reference, or NULL without an exception. */
static inline PyObject *
cmsgx_type_lookup(PyTypeObject *type, PyObject *name)
{
#if PY_VERSION_HEX >= 0x030D0000
    return _PyType_LookupRef(type, name);
#else
    return Py_XNewRef(_PyType_Lookup(type, name));
#endif
}

/* The attribute of an object, as getattr() finds it: 1, 0 if there is none, -1 with an exception.
   *found is a new reference, or NULL. */
static inline int
cmsgx_optional_attribute(PyObject *object, PyObject *name, PyObject **found)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyObject_GetOptionalAttr(object, name, found);
#else
    return _PyObject_LookupAttr(object, name, found);
#endif
}

/* An item of a dict: 0 with *found a new reference, or NULL if there is none; -1 with an exception
   and *found NULL. */
static inline int
cmsgx_dict_get(PyObject *dict, PyObject *key, PyObject **found)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyDict_GetItemRef(dict, key, found) < 0 ? -1 : 0;
#else
    *found = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *found == NULL && PyErr_Occurred() ? -1 : 0;
#endif
}

/* A number that changes whenever an attribute of the type or of a base changes.  0: unknown, so
   look it up each time. */
static inline unsigned int
cmsgx_type_version(PyTypeObject *type)
{
#if defined(Py_GIL_DISABLED) || defined(PYPY_VERSION)
    (void)type;
    return 0;
#else
    return type->tp_version_tag;
#endif
}

/* Takes the current exception away, so that a destructor cannot disturb it: a new reference, or
   NULL. */
static inline PyObject *
cmsgx_save_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_DECREF(type);
    return value;
#endif
}

/* Makes it the current exception again, or clears that for NULL.  Steals the reference. */
static inline void
cmsgx_restore_exception(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    if (exception == NULL) {
        PyErr_Clear();
    }
    else {
        PyErr_Restore(Py_NewRef(Py_TYPE(exception)), exception,
                      PyException_GetTraceback(exception));
    }
#endif
}

/* Marks an object as in use by a call: 0, or the stamp of the thread that runs the call.  After a
   fork, the marks of threads that exist only in the parent do not count.  With a GIL a plain word
   is enough, because it is read and written only while the GIL is held. */
#ifdef Py_GIL_DISABLED
typedef _Atomic uint64_t cmsgx_busy;

static inline int
cmsgx_enter(cmsgx_busy *busy)
{
    uint64_t holder = 0;
    uint64_t mine = cmsgx_stamp();
    do {
        if (atomic_compare_exchange_strong_explicit(busy, &holder, mine, memory_order_acquire,
                                                    memory_order_relaxed)) {
            return 1;
        }
    } while (holder == 0 || !cmsgx_stamp_is_ours(holder));
    return 0;
}

static inline void
cmsgx_leave(cmsgx_busy *busy)
{
    atomic_store_explicit(busy, 0, memory_order_release);
}
#else
typedef uint64_t cmsgx_busy;

static inline int
cmsgx_enter(cmsgx_busy *busy)
{
    if (*busy != 0 && cmsgx_stamp_is_ours(*busy)) {
        return 0;
    }
    *busy = cmsgx_stamp();
    return 1;
}

static inline void
cmsgx_leave(cmsgx_busy *busy)
{
    *busy = 0;
}
#endif

/* A flag that other threads may read at any time. */
#ifdef Py_GIL_DISABLED
typedef atomic_char cmsgx_flag;
#  define cmsgx_flag_get(f) atomic_load_explicit((f), memory_order_acquire)
#  define cmsgx_flag_set(f) atomic_store_explicit((f), 1, memory_order_release)
#else
typedef char cmsgx_flag;
#  define cmsgx_flag_get(f) (*(f))
#  define cmsgx_flag_set(f) ((void)(*(f) = 1))
#endif

/* A reference count for plain C memory. */
#ifdef Py_GIL_DISABLED
typedef atomic_size_t cmsgx_count;
#  define cmsgx_count_get(c) atomic_load_explicit((c), memory_order_acquire)
#  define cmsgx_count_up(c) ((void)atomic_fetch_add_explicit((c), 1, memory_order_relaxed))
#  define cmsgx_count_down(c) (atomic_fetch_sub_explicit((c), 1, memory_order_acq_rel) == 1)
#else
typedef size_t cmsgx_count;
#  define cmsgx_count_get(c) (*(c))
#  define cmsgx_count_up(c) ((void)++*(c))
#  define cmsgx_count_down(c) (--*(c) == 0)
#endif

/* A word that is changed by compare and exchange.  On failure `expected` receives the current
   value. */
#ifdef Py_GIL_DISABLED
typedef _Atomic uint64_t cmsgx_word;
#  define cmsgx_word_get(w) atomic_load_explicit((w), memory_order_acquire)
#  define cmsgx_word_swap(w, expected, desired) \
      atomic_compare_exchange_weak_explicit((w), (expected), (desired), \
                                            memory_order_acq_rel, memory_order_acquire)
#else
typedef uint64_t cmsgx_word;
#  define cmsgx_word_get(w) (*(w))
#  define cmsgx_word_swap(w, expected, desired) (*(w) = (desired), (void)(expected), 1)
#endif

/* For foreign C code that reads an argument item by item and may run the caller's code in between,
   such as the __buffer__() of an item.  Turns a list into a tuple, which nobody can change
   meanwhile.  A new reference. */
static inline PyObject *
cmsgx_unchanging(PyObject *sequence)
{
    return PyList_Check(sequence) ? PyList_AsTuple(sequence) : Py_NewRef(sequence);
}

/* PyObject_GetBuffer(), but every failure sets an exception.  The original was seen to fail without
   one for an object that another thread changed at the same time. */
static inline int
cmsgx_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    if (PyObject_GetBuffer(object, view, flags) == 0) {
        return 0;
    }
    if (!PyErr_Occurred()) {
        PyErr_Format(PyExc_BufferError, "cannot read the bytes of this %.200s; is another thread "
                     "changing it?", Py_TYPE(object)->tp_name);
    }
    return -1;
}

/* 64 bits of a foreign object.  With a GIL they change only while it is held, so a plain read is
   enough.  An atomic read would be a function call where they are aligned to 4, as on i386. */
static inline int64_t
cmsgx_read_int64(const char *at)
{
#ifdef Py_GIL_DISABLED
    return __atomic_load_n((const int64_t *)(const void *)at, __ATOMIC_RELAXED);
#else
    int64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
#endif
}

/* For statistics: without an atomic read-modify-write, which would slow threads down. */
static inline void
cmsgx_relaxed_increment(Py_ssize_t *count)
{
#ifdef Py_GIL_DISABLED
    _Py_atomic_store_ssize_relaxed(count, _Py_atomic_load_ssize_relaxed(count) + 1);
#else
    ++*count;
#endif
}

/* Whether a list cannot change while this thread runs no Python code.  Without a GIL another thread
   may change it at any time. */
#ifdef Py_GIL_DISABLED
#  define CMSGX_HAS_GIL 0
#else
#  define CMSGX_HAS_GIL 1
#endif

/* How many freed objects are kept for reuse.  Without a GIL the allocator's per-thread lists serve
   that purpose. */
#ifdef Py_GIL_DISABLED
#  define CMSGX_FREE_LIST 0
#else
#  define CMSGX_FREE_LIST 256
#endif

/* Module slots that older interpreters do not support. */
#ifdef Py_mod_multiple_interpreters
#  define CMSGX_SLOT_INTERPRETERS \
      {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#else
#  define CMSGX_SLOT_INTERPRETERS
#endif
#ifdef Py_mod_gil
#  define CMSGX_SLOT_GIL {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#else
#  define CMSGX_SLOT_GIL
#endif

/* Initialises a tuple made by PyObject_GC_NewVar(): its hash is not computed yet. */
static inline void
cmsgx_tuple_begin(PyObject *tuple)
{
#if PY_VERSION_HEX >= 0x030E0000 && !defined(PYPY_VERSION)
    ((PyTupleObject *)tuple)->ob_hash = -1;
#else
    (void)tuple;
#endif
}

/* The hash of bytes, the same as hash(b"..."): keyed if Python's is. */
static inline Py_hash_t
cmsgx_hash_bytes(const void *bytes, Py_ssize_t size)
{
#if PY_VERSION_HEX >= 0x030E0000
    return Py_HashBuffer(bytes, size);
#else
    Py_hash_t hash = PyHash_GetFuncDef()->hash(bytes, size);
    return hash == -1 ? -2 : hash;
#endif
}

/* Makes bytes of memory that has their content already: CMSGX_BYTES_HEAD bytes, the data, and one
   more, from PyObject_Malloc() or PyObject_Realloc().  A new reference, which owns the memory.
   Cannot fail.  PyBytes_FromStringAndSize() does the same with memory of its own. */
#if defined(Py_LIMITED_API) || defined(PYPY_VERSION)
#  define CMSGX_BYTES_HEAD 0     /* they cannot be made */
#  define cmsgx_bytes_in(memory, size) ((PyObject *)NULL)
#else
#  define CMSGX_BYTES_HEAD offsetof(PyBytesObject, ob_sval)

static inline PyObject *
cmsgx_bytes_in(void *memory, size_t size)
{
    PyBytesObject *bytes = memory;
    (void)PyObject_InitVar((PyVarObject *)bytes, &PyBytes_Type, (Py_ssize_t)size);
    _Py_COMP_DIAG_PUSH
    _Py_COMP_DIAG_IGNORE_DEPR_DECLS
    bytes->ob_shash = -1;
    _Py_COMP_DIAG_POP
    bytes->ob_sval[size] = '\0';
    return (PyObject *)bytes;
}
#endif

/* Whether the socket module supports all parts of Bluetooth addresses: since 3.14, see
   https://github.com/python/cpython/issues/70145. */
#define CMSGX_WHOLE_BLUETOOTH_NAMES (PY_VERSION_HEX >= 0x030E0000)

#ifdef PYPY_VERSION
#  define cmsgx_audit(event, format, ...) 0
#else
#  define cmsgx_audit PySys_Audit
#endif

#endif
