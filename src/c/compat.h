/* Every condition on a Python version or build stands here. */

#ifndef CMSGX_COMPAT_H
#define CMSGX_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "plain/process.h"

#include <stdatomic.h>

/* Members of a type: the names that Python.h has since 3.12. */
#if PY_VERSION_HEX < 0x030C0000
#  include <structmember.h>
#  define Py_T_INT T_INT
#  define Py_T_PYSSIZET T_PYSSIZET
#  define Py_T_CHAR T_CHAR
#  define Py_T_BOOL T_BOOL
#  define Py_T_OBJECT_EX T_OBJECT_EX
#  define Py_READONLY READONLY
#endif

/* The attribute of a type, through the type's own method cache, without descriptors being
   asked: a new reference, or NULL without an exception. */
static inline PyObject *
cmsgx_type_lookup(PyTypeObject *type, PyObject *name)
{
#if PY_VERSION_HEX >= 0x030D0000
    return _PyType_LookupRef(type, name);
#else
    return Py_XNewRef(_PyType_Lookup(type, name));
#endif
}

/* The attribute of an object, by whatever way it has: 1, 0 where there is none, -1 with an
   exception.  *found is a new reference, or NULL. */
static inline int
cmsgx_optional_attribute(PyObject *object, PyObject *name, PyObject **found)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyObject_GetOptionalAttr(object, name, found);
#else
    return _PyObject_LookupAttr(object, name, found);
#endif
}

/* A number that changes whenever an attribute of the type or of a base does; 0: look each time. */
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

/* What is being raised, put aside where a destructor must not disturb it. */
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

/* Steals the reference; for NULL nothing is being raised afterwards. */
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

/* A mark that an object is in use by a call: 0, or the stamp of the thread that makes it.  What a
   thread holds that a fork left behind in the parent, nobody holds here.  With a GIL a plain word
   does: it is read and written only while the GIL is held. */
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

/* A flag that others may read at any time. */
#ifdef Py_GIL_DISABLED
typedef atomic_char cmsgx_flag;
#  define cmsgx_flag_get(f) atomic_load_explicit((f), memory_order_acquire)
#  define cmsgx_flag_set(f) atomic_store_explicit((f), 1, memory_order_release)
#else
typedef char cmsgx_flag;
#  define cmsgx_flag_get(f) (*(f))
#  define cmsgx_flag_set(f) ((void)(*(f) = 1))
#endif

/* A count of references to plain C memory. */
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

/* A word that changes by compare and exchange: `expected` is loaded anew where it fails. */
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

/* For C that is not ours and reads an argument item by item while the caller's code runs, as the
   __buffer__() of an item: a list as a tuple, which nobody can change meanwhile.  A new
   reference. */
static inline PyObject *
cmsgx_unchanging(PyObject *sequence)
{
    return PyList_Check(sequence) ? PyList_AsTuple(sequence) : Py_NewRef(sequence);
}

/* PyObject_GetBuffer(), which always raises where it fails: an object that another thread changes
   at the same time was seen not to. */
static inline int
cmsgx_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    if (PyObject_GetBuffer(object, view, flags) == 0) {
        return 0;
    }
    if (!PyErr_Occurred()) {
        PyErr_Format(PyExc_BufferError, "the bytes of this %.200s cannot be had; does another "
                     "thread change it?", Py_TYPE(object)->tp_name);
    }
    return -1;
}

/* 64 bits of an object that is not ours.  With a GIL they change only while it is held; and where
   they are aligned to 4, as on i386, an atomic read of them would be a call. */
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

/* Statistics: no atomic read-modify-write, which threads would pay for. */
static inline void
cmsgx_relaxed_increment(Py_ssize_t *count)
{
#ifdef Py_GIL_DISABLED
    _Py_atomic_store_ssize_relaxed(count, _Py_atomic_load_ssize_relaxed(count) + 1);
#else
    ++*count;
#endif
}

/* Whether a list stays as it is while no Python code runs; without a GIL another thread may change
   it at any time. */
#ifdef Py_GIL_DISABLED
#  define CMSGX_HAS_GIL 0
#else
#  define CMSGX_HAS_GIL 1
#endif

/* Objects kept for the next use.  Without a GIL the allocator's own per-thread lists do. */
#ifdef Py_GIL_DISABLED
#  define CMSGX_FREE_LIST 0
#else
#  define CMSGX_FREE_LIST 256
#endif

/* Slots of the module definition that older interpreters do not know. */
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

/* A tuple that PyObject_GC_NewVar() made: its hash is not known yet. */
static inline void
cmsgx_tuple_begin(PyObject *tuple)
{
#if PY_VERSION_HEX >= 0x030E0000 && !defined(PYPY_VERSION)
    ((PyTupleObject *)tuple)->ob_hash = -1;
#else
    (void)tuple;
#endif
}

/* The hash of bytes, as hash(b"...") has it: keyed, where Python's is. */
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

/* Whether names of Bluetooth have all their parts in the socket module: since 3.14. */
#define CMSGX_WHOLE_BLUETOOTH_NAMES (PY_VERSION_HEX >= 0x030E0000)

#ifdef PYPY_VERSION
#  define cmsgx_audit(event, format, ...) 0
#else
#  define cmsgx_audit PySys_Audit
#endif

#endif
