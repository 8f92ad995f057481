#include "state.h"

cmsgx_state *
cmsgx_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &cmsgx_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

int
cmsgx_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *slot == NULL ? -1 : PyModule_AddType(module, *slot);
}
