#include "types/ip.h"

#include "bind.h"
#include "types/struct.h"

#include <stdio.h>
#include <string.h>

PyObject *
cmsgx_ip_new(cmsgx_state *state, const unsigned char *data, size_t size)
{
    if (cmsgx_need_bound(state) < 0) {
        return NULL;
    }
    cmsgx_codec *codec = cmsgx_codec_of(state, (PyObject *)state->IPAddress);
    cmsgx_struct *self = NULL;
    if (codec == NULL || codec->kind != state->IPAddress) {
        PyErr_SetString(PyExc_TypeError, "IPAddress has no codec of its own");
    }
    else if ((self = cmsgx_struct_new(codec, size)) != NULL) {
        memcpy(self->payload, data, size);
    }
    Py_XDECREF(codec);
    return (PyObject *)self;
}

/* Whether `other` is an instance of that class of the module ipaddress: 1, 0, or -1 with an
   exception.  If the module was not imported no instance exists; importing it would take time and
   descriptors. */
static int
is_of_ipaddress(PyObject *other, const char *kind)
{
    PyObject *name = PyUnicode_FromString("ipaddress");
    PyObject *module = name == NULL ? NULL : PyImport_GetModule(name);
    PyObject *type = NULL;
    int is_one = module != NULL || PyErr_Occurred() == NULL ? 0 : -1;
    if (module != NULL && module != Py_None) {
        type = PyObject_GetAttrString(module, kind);
        is_one = type == NULL ? -1 : PyObject_IsInstance(other, type);
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
    Py_XDECREF(name);
    return is_one;
}

static PyObject *
ip_compare(PyObject *self, PyObject *other, int operation)
{
    if ((operation != Py_EQ && operation != Py_NE) || Py_IS_TYPE(other, Py_TYPE(self))) {
        return cmsgx_struct_compare(self, other, operation);
    }
    int is_one = is_of_ipaddress(other, Py_SIZE(self) == 4 ? "IPv4Address" : "IPv6Address");
    if (is_one <= 0) {
        return is_one < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    /* It knows what else to compare: a scope, the network of an interface. */
    PyObject *ip = PyObject_GetAttrString(self, "ip");
    PyObject *result = ip == NULL ? NULL : PyObject_RichCompare(ip, other, operation);
    Py_XDECREF(ip);
    return result;
}

/* As __hash__() in Lib/ipaddress.py, Python 3.11 to 3.15: hash(hex(int(ip))); for IPv6
   hash((int(ip), None)), the None for the scope, which an IPAddress lacks. */
static Py_hash_t
ip_hash(PyObject *self)
{
    const unsigned char *payload = ((const cmsgx_struct *)self)->payload;
    PyObject *hashed = NULL;
    if (Py_SIZE(self) == 4) {
        unsigned ip = (unsigned)payload[0] << 24 | (unsigned)payload[1] << 16
                      | (unsigned)payload[2] << 8 | (unsigned)payload[3];
        char text[sizeof("0x12345678")];
        (void)snprintf(text, sizeof(text), "0x%x", ip);
        hashed = PyUnicode_FromString(text);
    }
    else if (Py_SIZE(self) == 16) {
        static const char digits[] = "0123456789abcdef";
        char text[2 * 16 + 1];
        for (size_t i = 0; i < 16; i++) {
            text[2 * i] = digits[payload[i] >> 4];
            text[2 * i + 1] = digits[payload[i] & 15];
        }
        text[sizeof(text) - 1] = '\0';
        PyObject *ip = PyLong_FromString(text, NULL, 16);
        hashed = ip == NULL ? NULL : PyTuple_Pack(2, ip, Py_None);
        Py_XDECREF(ip);
    }
    else {
        return cmsgx_struct_hash(self);
    }
    Py_hash_t hash = hashed == NULL ? -1 : PyObject_Hash(hashed);
    Py_XDECREF(hashed);
    return hash;
}

PyDoc_STRVAR(ip_doc,
"A Struct of 4 or 16 bytes that equals and hashes like the same address of the module ipaddress.");

static PyType_Slot ip_slots[] = {
    {Py_tp_richcompare, ip_compare},
    {Py_tp_hash, ip_hash},
    {Py_tp_doc, (void *)ip_doc},
    {0, NULL},
};

static PyType_Spec ip_spec = {
    .name = "cmsgx._cmsg.IP",
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ip_slots,
};

int
cmsgx_add_ip(PyObject *module)
{
    PyObject *base = (PyObject *)cmsgx_state_of(module)->Struct;
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ip_spec, base);
    int added = type == NULL ? -1 : PyModule_AddType(module, type);
    Py_XDECREF(type);
    return added;
}
