#include "calls/lock.h"

PyObject *
cmsgx_with_lock(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *lock, *function;
    if (!PyArg_ParseTuple(args, "OO:with_lock", &lock, &function)) {
        return NULL;
    }
    /* Both are looked up before either is called: a lookup while the lock is held could fail for
       lack of memory, and then nothing could release the lock. */
    PyObject *acquire = PyObject_GetAttrString(lock, "acquire");
    PyObject *release = acquire == NULL ? NULL : PyObject_GetAttrString(lock, "release");
    PyObject *acquired = release == NULL ? NULL : PyObject_CallNoArgs(acquire);
    PyObject *result = NULL;
    if (acquired != NULL) {
        result = PyObject_CallNoArgs(function);
        PyObject *exception = cmsgx_save_exception();
        PyObject *released = PyObject_CallNoArgs(release);
        if (exception != NULL) {
            if (released == NULL) {
                PyErr_WriteUnraisable(release);
            }
            cmsgx_restore_exception(exception);
        }
        else if (released == NULL) {
            Py_CLEAR(result);
        }
        Py_XDECREF(released);
        Py_DECREF(acquired);
    }
    Py_XDECREF(release);
    Py_XDECREF(acquire);
    return result;
}
