#include "types/sockaddr.h"

#include "types/sockaddr_linux.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/un.h>

#define PATH_AT offsetof(struct sockaddr_un, sun_path)

/* To an object ------------------------------------------------------------------------------ */

size_t
cmsgx_ipv4_text(const unsigned char *bytes, char *text)
{
    char *to = text;
    for (int i = 0; i < 4; i++) {
        unsigned value = bytes[i];
        if (value >= 100) {
            *to++ = (char)('0' + value / 100);
        }
        if (value >= 10) {
            *to++ = (char)('0' + value / 10 % 10);
        }
        *to++ = (char)('0' + value % 10);
        *to++ = '.';
    }
    return (size_t)(to - text) - 1;
}

static PyObject *
unix_to_object(const struct sockaddr_storage *name, socklen_t size)
{
    const char *path = (const char *)name + PATH_AT;
    size_t length = size > PATH_AT ? size - PATH_AT : 0;
    if (CMSGX_HAS_ABSTRACT_NAMES && length > 0 && path[0] == 0) {
        return PyBytes_FromStringAndSize(path, (Py_ssize_t)length);
    }
    return PyUnicode_DecodeFSDefaultAndSize(path, (Py_ssize_t)strnlen(path, length));
}

static PyObject *
inet_to_object(const struct sockaddr_storage *name)
{
    struct sockaddr_in in;
    char text[CMSGX_IPV4_TEXT_SIZE];
    memcpy(&in, name, sizeof(in));
    size_t length = cmsgx_ipv4_text((const unsigned char *)&in.sin_addr, text);
    return Py_BuildValue("s#i", text, (Py_ssize_t)length, (int)ntohs(in.sin_port));
}

static PyObject *
inet6_to_object(const struct sockaddr_storage *name)
{
    struct sockaddr_in6 in;
    char text[INET6_ADDRSTRLEN];
    memcpy(&in, name, sizeof(in));
    inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof(text));
    return Py_BuildValue("siII", text, (int)ntohs(in.sin6_port),
                         (unsigned)ntohl(in.sin6_flowinfo), (unsigned)in.sin6_scope_id);
}

#if CMSGX_HAS_NETLINK_NAMES
/* Offsets in struct sockaddr_nl, on FreeBSD too. */
#  define NETLINK_PID_AT 4
#  define NETLINK_GROUPS_AT 8
#  define NETLINK_SIZE 12

static PyObject *
netlink_to_object(const struct sockaddr_storage *name)
{
    uint32_t pid, groups;
    memcpy(&pid, (const char *)name + NETLINK_PID_AT, sizeof(pid));
    memcpy(&groups, (const char *)name + NETLINK_GROUPS_AT, sizeof(groups));
    return Py_BuildValue("II", (unsigned)pid, (unsigned)groups);
}
#endif

PyObject *
cmsgx_name_to_object(const struct sockaddr_storage *name, socklen_t size, cmsgx_whence whence)
{
    struct sockaddr_storage whole;
    if (size < CMSGX_MIN_ADDRESS) {
        Py_RETURN_NONE;
    }
    if (name->ss_family == AF_UNIX) {
        return unix_to_object(name, size);
    }
    if (size < sizeof(struct sockaddr_in)
        || (name->ss_family != AF_INET && size < sizeof(*name))) {
        /* Read as the whole struct of its family; the bytes after the name are not part of it. */
        memset((char *)&whole + size, 0, sizeof(whole) - size);
        memcpy(&whole, name, size);
        name = &whole;
    }
    switch (name->ss_family) {
    case AF_INET:
        return inet_to_object(name);
    case AF_INET6:
        return inet6_to_object(name);
#if CMSGX_HAS_NETLINK_NAMES
    case AF_NETLINK:
        return netlink_to_object(name);
#endif
    default:
#if CMSGX_HAS_LINUX_NAMES
        return cmsgx_linux_name_to_object(name, size, whence);
#else
        (void)whence;
        return cmsgx_unknown_name_to_object(name, size);
#endif
    }
}

/* From the plain form ----------------------------------------------------------------------- */

/* 1 if written; 0 if it is not a path, or too long; -1 with an exception. */
static int
unix_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    PyObject *path;
    Py_buffer bytes;

    if (PyUnicode_Check(object)) {
        path = PyUnicode_EncodeFSDefault(object);
        if (path == NULL) {
            return -1;
        }
    }
    else if (PyObject_CheckBuffer(object)) {
        path = Py_NewRef(object);
    }
    else {
        return 0;
    }
    if (cmsgx_get_buffer(path, &bytes, PyBUF_SIMPLE) < 0) {
        Py_DECREF(path);
        return -1;
    }
    struct sockaddr_un un;
    size_t length = (size_t)bytes.len;
    int is_abstract = CMSGX_HAS_ABSTRACT_NAMES
                      && (length == 0 || ((const char *)bytes.buf)[0] == 0);
    /* A path needs a NUL, an abstract name does not. */
    int fits = length + (is_abstract ? 0 : 1) <= sizeof(un.sun_path);
    if (fits) {
        memset(&un, 0, sizeof(un));
        un.sun_family = AF_UNIX;
        memcpy(un.sun_path, bytes.buf, length);
        memcpy(name, &un, sizeof(un));
        *size = (socklen_t)(PATH_AT + length + (is_abstract ? 0 : 1));
    }
    PyBuffer_Release(&bytes);
    Py_DECREF(path);
    return fits;
}

typedef union {
    struct in_addr in;
    struct in6_addr in6;
} host_bytes;

static void
write_inet(int family, const host_bytes *host, unsigned port, uint32_t flowinfo, uint32_t scope,
           struct sockaddr_storage *name, socklen_t *size)
{
    if (family == AF_INET) {
        struct sockaddr_in in;
        memset(&in, 0, sizeof(in));
        in.sin_family = AF_INET;
        in.sin_port = htons((uint16_t)port);
        in.sin_addr = host->in;
        memcpy(name, &in, sizeof(in));
        *size = sizeof(in);
    }
    else {
        struct sockaddr_in6 in;
        memset(&in, 0, sizeof(in));
        in.sin6_family = AF_INET6;
        in.sin6_port = htons((uint16_t)port);
        in.sin6_flowinfo = htonl(flowinfo);
        in.sin6_scope_id = scope;
        in.sin6_addr = host->in6;
        memcpy(name, &in, sizeof(in));
        *size = sizeof(in);
    }
}

/* The items of an (address, port, ...) tuple as C values: 1, or 0 if one is not an int in range. */
static int
numbers_of(PyObject *tuple, long *values)
{
    static const long max_values[] = {0, 65535, 0xfffff, INT_MAX};
    for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(tuple); i++) {
        PyObject *item = PyTuple_GET_ITEM(tuple, i);
        int overflow;
        if (!PyLong_Check(item)) {
            return 0;
        }
        long value = PyLong_AsLongAndOverflow(item, &overflow);
        if (overflow != 0 || value < 0 || value > max_values[i]) {
            return 0;
        }
        values[i] = value;
    }
    return 1;
}

static int
inet_from_plain(int family, PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    long values[4] = {0, 0, 0, 0};
    Py_ssize_t max_items = family == AF_INET ? 2 : 4;
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) < 2
        || PyTuple_GET_SIZE(object) > max_items || !PyUnicode_Check(PyTuple_GET_ITEM(object, 0))
        || !numbers_of(object, values)) {
        return 0;
    }
    Py_ssize_t length;
    const char *text = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(object, 0), &length);
    if (text == NULL) {
        PyErr_Clear();
        return 0;
    }
    host_bytes host;
    if (strlen(text) != (size_t)length || inet_pton(family, text, &host) != 1) {
        return 0;
    }
    write_inet(family, &host, (unsigned)values[1], (uint32_t)values[2], (uint32_t)values[3], name,
               size);
    return 1;
}

int
cmsgx_name_from_plain(int family, PyObject *object, struct sockaddr_storage *name,
                      socklen_t *size)
{
    int known = family == AF_UNIX ? unix_from_object(object, name, size)
                : family == AF_INET || family == AF_INET6
                    ? inet_from_plain(family, object, name, size) : 0;
    if (known > 0) {
        cmsgx_set_address_length(name, *size);
    }
    return known;
}

/* From whatever the socket module takes ------------------------------------------------------- */

#define INET_FORM "(host, port), the port from 0 to 65535"
#define INET6_FORM \
    "(host, port, flowinfo=0, scope_id=0), the port from 0 to 65535, flowinfo up to 1048575"

/* The host as text without a NUL in it: a new reference to bytes. */
static PyObject *
host_text(PyObject *host, PyObject *address, const char *family, const char *format)
{
    PyObject *text = NULL;
    if (PyBytes_Check(host)) {
        text = Py_NewRef(host);
    }
    else if (PyByteArray_Check(host)) {
        text = PyBytes_FromObject(host);
    }
    else if (PyUnicode_Check(host)) {
        text = PyUnicode_IS_ASCII(host) ? PyUnicode_AsASCIIString(host)
                                        : PyUnicode_AsEncodedString(host, "idna", NULL);
        if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeError)) {
            PyErr_Format(PyExc_TypeError, "address: %R; %R is not the name of a host", address,
                         host);
        }
    }
    else {
        (void)cmsgx_raise_name_form(PyExc_TypeError, address, family, format);
    }
    if (text != NULL && strlen(PyBytes_AS_STRING(text)) != (size_t)PyBytes_GET_SIZE(text)) {
        PyErr_Format(PyExc_TypeError, "address: %R; a host cannot contain NUL", address);
        Py_CLEAR(text);
    }
    return text;
}

/* 1 if written; 0 if it has to be resolved; -1 with an exception. */
static int
numeric_host(int family, const char *text, host_bytes *host)
{
    struct addrinfo hints, *found;
    if (text[0] == 0) {
        memset(host, 0, sizeof(*host));
        return 1;
    }
    if (strcmp(text, "<broadcast>") == 0 || strcmp(text, "255.255.255.255") == 0) {
        if (family != AF_INET) {
            PyErr_SetString(PyExc_OSError, "address: IPv6 has no broadcast");
            return -1;
        }
        host->in.s_addr = htonl(INADDR_BROADCAST);
        return 1;
    }
    if (inet_pton(family, text, host) == 1) {
        return 1;
    }
    /* With an interface after it, or a short form of IPv4.  Looks nothing up. */
    memset(&hints, 0, sizeof(hints));
    hints.ai_family = family;
    hints.ai_socktype = SOCK_DGRAM;
    hints.ai_flags = AI_NUMERICHOST;
    if (getaddrinfo(text, NULL, &hints, &found) != 0) {
        return 0;
    }
    int is_there = found->ai_family == family;
    if (is_there) {
        size_t at = family == AF_INET ? offsetof(struct sockaddr_in, sin_addr)
                                      : offsetof(struct sockaddr_in6, sin6_addr);
        memcpy(host, (const char *)found->ai_addr + at,
               family == AF_INET ? sizeof(host->in) : sizeof(host->in6));
    }
    freeaddrinfo(found);
    return is_there;
}

/* With `given` that is the host, whatever the tuple says. */
static int
inet_from_object(int family, PyObject *object, const host_bytes *given,
                 struct sockaddr_storage *name, socklen_t *size)
{
    const char *family_name = family == AF_INET ? "AF_INET" : "AF_INET6";
    const char *format = family == AF_INET ? INET_FORM : INET6_FORM;
    PyObject *host;
    host_bytes bytes;
    int port;
    unsigned flowinfo = 0, scope = 0;

    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, family_name, format);
    }
    if (family == AF_INET ? !PyArg_ParseTuple(object, "Oi", &host, &port)
                          : !PyArg_ParseTuple(object, "Oi|II", &host, &port, &flowinfo, &scope)) {
        return cmsgx_raise_name_items(object, family_name, format);
    }
    PyObject *text = host_text(host, object, family_name, format);
    if (text == NULL) {
        return -1;
    }
    int known = given != NULL ? 1 : numeric_host(family, PyBytes_AS_STRING(text), &bytes);
    Py_DECREF(text);
    if (known >= 0 && (port < 0 || port > 65535 || flowinfo > 0xfffff)) {
        return cmsgx_raise_name_form(PyExc_OverflowError, object, family_name, format);
    }
    if (known > 0) {
        write_inet(family, given != NULL ? given : &bytes, (unsigned)port, flowinfo, scope, name,
                   size);
    }
    return known;
}

/* Raises for an invalid name of AF_UNIX.  -1. */
static int
raise_unix(PyObject *object)
{
    struct sockaddr_un un;
    if (PyUnicode_Check(object) || PyObject_CheckBuffer(object)) {
        PyErr_Format(PyExc_OSError, "address: %R; AF_UNIX path too long: at most %d bytes",
                     object, (int)sizeof(un.sun_path) - 1);
    }
    else {
        PyErr_Format(PyExc_TypeError, "address: an AF_UNIX path is str or bytes-like, not %.200s",
                     Py_TYPE(object)->tp_name);
    }
    return -1;
}

#if CMSGX_HAS_NETLINK_NAMES
static int
netlink_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    unsigned pid, groups;
    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_NETLINK", "(pid, groups)");
    }
    if (!PyArg_ParseTuple(object, "II", &pid, &groups)) {
        return cmsgx_raise_name_items(object, "AF_NETLINK", "(pid, groups)");
    }
    memset(name, 0, NETLINK_SIZE);
    name->ss_family = AF_NETLINK;
    memcpy((char *)name + NETLINK_PID_AT, &(uint32_t){pid}, sizeof(uint32_t));
    memcpy((char *)name + NETLINK_GROUPS_AT, &(uint32_t){groups}, sizeof(uint32_t));
    *size = NETLINK_SIZE;
    return 1;
}
#endif

/* AF_RDS uses the names of AF_INET. */
static int
family_of_names(int family)
{
#if CMSGX_HAS_LINUX_NAMES
    return family == AF_RDS ? AF_INET : family;
#else
    return family;
#endif
}

int
cmsgx_name_from_object(int family, cmsgx_whence whence, PyObject *object,
                       struct sockaddr_storage *name, socklen_t *size)
{
    int known;
    family = family_of_names(family);
    switch (family) {
    case AF_UNIX:
        known = unix_from_object(object, name, size);
        known = known == 0 ? raise_unix(object) : known;
        break;
    case AF_INET:
    case AF_INET6:
        known = inet_from_object(family, object, NULL, name, size);
        break;
#if CMSGX_HAS_NETLINK_NAMES
    case AF_NETLINK:
        known = netlink_from_object(object, name, size);
        break;
#endif
    default:
#if CMSGX_HAS_LINUX_NAMES
        known = cmsgx_linux_name_from_object(family, whence, object, name, size);
#else
        (void)whence;
        known = 0;
#endif
        if (known == 0) {
            known = cmsgx_unknown_name_from_object(family, object, name, size);
        }
    }
    if (known > 0) {
        cmsgx_set_address_length(name, *size);
    }
    return known;
}

/* Writes the first address that _socket.getaddrinfo() finds: 1, or -1 with an exception. */
static int
resolve(int family, PyObject *text, host_bytes *host)
{
    PyObject *module = PyImport_ImportModule("_socket");
    PyObject *found = module == NULL
        ? NULL : PyObject_CallMethod(module, "getaddrinfo", "OOi", text, Py_None, family);
    PyObject *first = found == NULL ? NULL : PySequence_GetItem(found, 0);
    PyObject *address = first == NULL ? NULL : PySequence_GetItem(first, 4);
    PyObject *numeric = address == NULL ? NULL : PySequence_GetItem(address, 0);
    const char *digits = numeric == NULL ? NULL : PyUnicode_AsUTF8(numeric);
    int result = digits == NULL ? -1 : inet_pton(family, digits, host);
    if (result == 0) {
        PyErr_Format(PyExc_OSError, "address: %R was resolved to %R", text, numeric);
        result = -1;
    }
    Py_XDECREF(numeric);
    Py_XDECREF(address);
    Py_XDECREF(first);
    Py_XDECREF(found);
    Py_XDECREF(module);
    return result;
}

int
cmsgx_name_resolve(int family, PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    host_bytes host;
    family = family_of_names(family);
    if ((family != AF_INET && family != AF_INET6) || !PyTuple_Check(object)
        || PyTuple_GET_SIZE(object) < 1) {
        return 0;
    }
    PyObject *text = host_text(PyTuple_GET_ITEM(object, 0), object, "AF_INET", INET_FORM);
    int known = text == NULL ? -1 : resolve(family, text, &host);
    Py_XDECREF(text);
    known = known < 0 ? -1 : inet_from_object(family, object, &host, name, size);
    if (known > 0) {
        cmsgx_set_address_length(name, *size);
    }
    return known;
}
