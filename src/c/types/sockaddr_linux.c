#include "types/sockaddr_linux.h"

#if CMSGX_HAS_LINUX_NAMES
#include "errors.h"
#include "plain/uapi.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

/* To an object ------------------------------------------------------------------------------ */

/* Writes the name of an interface in the network namespace of the socket; "" if there is none. */
static void
interface_text(int index, int fd, char text[IF_NAMESIZE])
{
    struct ifreq config;
    text[0] = 0;
    if (index == 0) {
        return;
    }
    if (fd >= 0) {
        memset(&config, 0, sizeof(config));
        config.ifr_ifindex = index;
        if (ioctl(fd, SIOCGIFNAME, &config) == 0) {
            memcpy(text, config.ifr_name, IF_NAMESIZE);
            text[IF_NAMESIZE - 1] = 0;
        }
    }
    else if (if_indextoname((unsigned)index, text) == NULL) {
        text[0] = 0;
    }
}

static PyObject *
packet_to_object(const struct sockaddr_storage *name, socklen_t size, int fd)
{
    struct cmsgx_sockaddr_ll ll;
    char interface[IF_NAMESIZE];
    memcpy(&ll, name, sizeof(ll));
    interface_text(ll.sll_ifindex, fd, interface);
    /* May be longer than the field of the struct. */
    size_t at = offsetof(struct cmsgx_sockaddr_ll, sll_addr);
    size_t length = ll.sll_halen <= sizeof(*name) - at ? ll.sll_halen : sizeof(*name) - at;
    (void)size;
    return Py_BuildValue("siiiy#", interface, (int)ntohs(ll.sll_protocol), (int)ll.sll_pkttype,
                         (int)ll.sll_hatype, (const char *)name + at, (Py_ssize_t)length);
}

static PyObject *
can_to_object(const struct sockaddr_storage *name, cmsgx_whence whence)
{
    struct cmsgx_sockaddr_can can;
    char interface[IF_NAMESIZE];
    memcpy(&can, name, sizeof(can));
    interface_text(can.can_ifindex, whence.fd, interface);
    PyObject *text = PyUnicode_DecodeFSDefault(interface);
    if (text == NULL) {
        return NULL;
    }
    switch (whence.proto) {
    case CMSGX_CAN_ISOTP:
        return Py_BuildValue("NII", text, (unsigned)can.can_addr.tp.rx_id,
                             (unsigned)can.can_addr.tp.tx_id);
    case CMSGX_CAN_J1939:
        return Py_BuildValue("NKIB", text, (unsigned long long)can.can_addr.j1939.name,
                             (unsigned)can.can_addr.j1939.pgn, (int)can.can_addr.j1939.addr);
    default:
        return Py_BuildValue("(N)", text);
    }
}

static PyObject *
tipc_to_object(const struct sockaddr_storage *name, socklen_t size)
{
    struct cmsgx_sockaddr_tipc tipc;
    memcpy(&tipc, name, sizeof(tipc));
    unsigned v1 = tipc.addr[0], v2 = tipc.addr[1], v3 = tipc.addr[2];
    switch (tipc.addrtype) {
    case CMSGX_TIPC_ADDR_NAMESEQ:
        break;
    case CMSGX_TIPC_ADDR_NAME:
        v3 = v2;
        break;
    case CMSGX_TIPC_ADDR_ID:
        v1 = tipc.addr[1];
        v2 = tipc.addr[0];
        v3 = 0;
        break;
    default:
        return cmsgx_unknown_name_to_object(name, size);
    }
    return Py_BuildValue("IIIII", (unsigned)tipc.addrtype, v1, v2, v3,
                         (unsigned)(int)tipc.scope);
}

static PyObject *
alg_to_object(const struct sockaddr_storage *name)
{
    struct cmsgx_sockaddr_alg alg;
    memcpy(&alg, name, sizeof(alg));
    return Py_BuildValue("s#s#II", (const char *)alg.salg_type,
                         (Py_ssize_t)strnlen((const char *)alg.salg_type, sizeof(alg.salg_type)),
                         (const char *)alg.salg_name,
                         (Py_ssize_t)strnlen((const char *)alg.salg_name, sizeof(alg.salg_name)),
                         (unsigned)alg.salg_feat, (unsigned)alg.salg_mask);
}

static PyObject *
bluetooth_text(const uint8_t *bytes)
{
    char text[sizeof("XX:XX:XX:XX:XX:XX")];
    (void)snprintf(text, sizeof(text), "%02X:%02X:%02X:%02X:%02X:%02X", bytes[5], bytes[4],
                   bytes[3], bytes[2], bytes[1], bytes[0]);
    return PyUnicode_FromString(text);
}

static PyObject *
l2cap_to_object(const struct sockaddr_storage *name)
{
    struct cmsgx_sockaddr_l2 l2;
    memcpy(&l2, name, sizeof(l2));
    PyObject *text = bluetooth_text(l2.l2_bdaddr);
    if (text == NULL) {
        return NULL;
    }
    if (CMSGX_WHOLE_BLUETOOTH_NAMES && l2.l2_bdaddr_type != 0) {
        return Py_BuildValue("Niii", text, (int)l2.l2_psm, (int)l2.l2_cid,
                             (int)l2.l2_bdaddr_type);
    }
    if (CMSGX_WHOLE_BLUETOOTH_NAMES && l2.l2_cid != 0) {
        return Py_BuildValue("Nii", text, (int)l2.l2_psm, (int)l2.l2_cid);
    }
    return Py_BuildValue("Ni", text, (int)l2.l2_psm);
}

static PyObject *
bluetooth_to_object(const struct sockaddr_storage *name, socklen_t size, int proto)
{
    switch (proto) {
    case CMSGX_BTPROTO_L2CAP:
        return l2cap_to_object(name);
    case CMSGX_BTPROTO_RFCOMM: {
        struct cmsgx_sockaddr_rc rc;
        memcpy(&rc, name, sizeof(rc));
        PyObject *text = bluetooth_text(rc.rc_bdaddr);
        return text == NULL ? NULL : Py_BuildValue("Ni", text, (int)rc.rc_channel);
    }
    case CMSGX_BTPROTO_HCI: {
        struct cmsgx_sockaddr_hci hci;
        memcpy(&hci, name, sizeof(hci));
        return CMSGX_WHOLE_BLUETOOTH_NAMES && hci.hci_channel != 0
            ? Py_BuildValue("ii", (int)hci.hci_dev, (int)hci.hci_channel)
            : PyLong_FromLong(hci.hci_dev);
    }
    case CMSGX_BTPROTO_SCO: {
        struct cmsgx_sockaddr_sco sco;
        memcpy(&sco, name, sizeof(sco));
        return bluetooth_text(sco.sco_bdaddr);
    }
    default:
        return cmsgx_unknown_name_to_object(name, size);
    }
}

PyObject *
cmsgx_linux_name_to_object(const struct sockaddr_storage *name, socklen_t size, cmsgx_whence whence)
{
    struct cmsgx_sockaddr_vm vm;
    struct cmsgx_sockaddr_qrtr qrtr;
    switch (name->ss_family) {
    case AF_PACKET:
        return packet_to_object(name, size, whence.fd);
    case AF_CAN:
        return can_to_object(name, whence);
    case AF_TIPC:
        return tipc_to_object(name, size);
    case AF_ALG:
        return alg_to_object(name);
    case AF_VSOCK:
        memcpy(&vm, name, sizeof(vm));
        return Py_BuildValue("II", (unsigned)vm.svm_cid, (unsigned)vm.svm_port);
    case AF_QRTR:
        memcpy(&qrtr, name, sizeof(qrtr));
        return Py_BuildValue("II", (unsigned)qrtr.sq_node, (unsigned)qrtr.sq_port);
    case AF_BLUETOOTH:
        return bluetooth_to_object(name, size, whence.proto);
    default:
        return cmsgx_unknown_name_to_object(name, size);
    }
}

/* From an object ---------------------------------------------------------------------------- */

static int
put(struct sockaddr_storage *name, socklen_t *size, const void *from, size_t bytes)
{
    memcpy(name, from, bytes);
    *size = (socklen_t)bytes;
    return 1;
}

/* 0, or -1 with the kernel's error. */
static int
interface_index(const char *text, int fd, PyObject *object, int32_t *index)
{
    struct ifreq config;
    if (fd >= 0) {
        memset(&config, 0, sizeof(config));
        /* A longer name is truncated, as in socket. */
        for (size_t i = 0; i < sizeof(config.ifr_name) - 1 && text[i] != 0; i++) {
            config.ifr_name[i] = text[i];
        }
        if (ioctl(fd, SIOCGIFINDEX, &config) == 0) {
            *index = config.ifr_ifindex;
            return 0;
        }
    }
    else {
        errno = ENODEV;
        *index = (int32_t)if_nametoindex(text);
        if (*index != 0) {
            return 0;
        }
    }
    cmsgx_raise_errno(errno, "address: %R; there is no such interface", object);
    return -1;
}

static int
packet_from_object(PyObject *object, int fd, struct sockaddr_storage *name, socklen_t *size)
{
    static const char *const format =
        "(interface, proto, pkttype=0, hatype=0, address=b\"\"), proto from 0 to 65535";
    const char *interface;
    int proto, pkttype = 0, hatype = 0;
    Py_buffer address = {0};
    struct cmsgx_sockaddr_ll ll;
    memset(&ll, 0, sizeof(ll));

    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_PACKET", format);
    }
    if (!PyArg_ParseTuple(object, "si|iiy*", &interface, &proto, &pkttype, &hatype, &address)) {
        return cmsgx_raise_name_items(object, "AF_PACKET", format);
    }
    int result = interface_index(interface, fd, object, &ll.sll_ifindex);
    if (result == 0 && (size_t)address.len > sizeof(ll.sll_addr)) {
        result = -1;
        PyErr_Format(PyExc_ValueError, "address: %R; a hardware address has at most 8 bytes",
                     object);
    }
    if (result == 0 && (proto < 0 || proto > 65535)) {
        result = cmsgx_raise_name_form(PyExc_OverflowError, object, "AF_PACKET", format);
    }
    if (result == 0) {
        ll.sll_family = AF_PACKET;
        ll.sll_protocol = htons((uint16_t)proto);
        ll.sll_hatype = (uint16_t)hatype;
        ll.sll_pkttype = (uint8_t)pkttype;
        ll.sll_halen = (uint8_t)address.len;
        if (address.len > 0) {
            memcpy(ll.sll_addr, address.buf, (size_t)address.len);
        }
        result = put(name, size, &ll, sizeof(ll));
    }
    if (address.obj != NULL) {
        PyBuffer_Release(&address);
    }
    return result;
}

static int
can_from_object(PyObject *object, cmsgx_whence whence, struct sockaddr_storage *name,
                socklen_t *size)
{
    struct cmsgx_sockaddr_can can;
    PyObject *interface = NULL;
    unsigned long rx_id, tx_id;
    unsigned long long j1939_name;
    unsigned pgn;
    unsigned char address;
    int is_read;
    const char *format = "(interface,)";
    memset(&can, 0, sizeof(can));
    can.can_family = AF_CAN;

    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_CAN", "a tuple");
    }
    if (whence.proto < 0) {
        whence.proto = PyTuple_GET_SIZE(object) == 3 ? CMSGX_CAN_ISOTP
                       : PyTuple_GET_SIZE(object) == 4 ? CMSGX_CAN_J1939 : CMSGX_CAN_RAW;
    }
    switch (whence.proto) {
    case CMSGX_CAN_RAW:
    case CMSGX_CAN_BCM:
        is_read = PyArg_ParseTuple(object, "O&", PyUnicode_FSConverter, &interface);
        break;
    case CMSGX_CAN_ISOTP:
        format = "(interface, rx_id, tx_id)";
        is_read = PyArg_ParseTuple(object, "O&kk", PyUnicode_FSConverter, &interface, &rx_id,
                                   &tx_id);
        if (is_read) {
            can.can_addr.tp.rx_id = (uint32_t)rx_id;
            can.can_addr.tp.tx_id = (uint32_t)tx_id;
        }
        break;
    case CMSGX_CAN_J1939:
        format = "(interface, name, pgn, address)";
        is_read = PyArg_ParseTuple(object, "O&KIB", PyUnicode_FSConverter, &interface,
                                   &j1939_name, &pgn, &address);
        if (is_read) {
            can.can_addr.j1939.name = j1939_name;
            can.can_addr.j1939.pgn = pgn;
            can.can_addr.j1939.addr = address;
        }
        break;
    default:
        PyErr_Format(PyExc_OSError, "address: CAN protocol %d has no addresses", whence.proto);
        return -1;
    }
    if (!is_read) {
        return cmsgx_raise_name_items(object, "AF_CAN", format);
    }
    int result = 0;
    if (PyBytes_GET_SIZE(interface) >= IF_NAMESIZE) {
        result = -1;
        PyErr_Format(PyExc_OSError, "address: %R; an interface name has at most %d bytes",
                     object, IF_NAMESIZE - 1);
    }
    else if (PyBytes_GET_SIZE(interface) > 0) {
        result = interface_index(PyBytes_AS_STRING(interface), whence.fd, object,
                                 &can.can_ifindex);
    }
    Py_DECREF(interface);
    return result < 0 ? -1 : put(name, size, &can, sizeof(can));
}

static int
tipc_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    static const char *const format = "(TIPC_ADDR_*, v1, v2, v3, scope=TIPC_CLUSTER_SCOPE)";
    struct cmsgx_sockaddr_tipc tipc;
    unsigned type, v1, v2, v3, scope = CMSGX_TIPC_CLUSTER_SCOPE;
    memset(&tipc, 0, sizeof(tipc));

    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_TIPC", format);
    }
    if (!PyArg_ParseTuple(object, "IIII|I", &type, &v1, &v2, &v3, &scope)) {
        return cmsgx_raise_name_items(object, "AF_TIPC", format);
    }
    tipc.family = AF_TIPC;
    tipc.addrtype = (uint8_t)type;
    tipc.scope = (int8_t)(uint8_t)scope;
    tipc.addr[0] = type == CMSGX_TIPC_ADDR_ID ? v2 : v1;
    tipc.addr[1] = type == CMSGX_TIPC_ADDR_ID ? v1 : v2;
    tipc.addr[2] = type == CMSGX_TIPC_ADDR_NAMESEQ ? v3 : 0;
    if (type < CMSGX_TIPC_ADDR_NAMESEQ || type > CMSGX_TIPC_ADDR_ID) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_TIPC", format);
    }
    return put(name, size, &tipc, sizeof(tipc));
}

static int
alg_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    static const char *const format =
        "(type, name, feat=0, mask=0), the type of 13 bytes at most, the name of 63";
    struct cmsgx_sockaddr_alg alg;
    const char *type, *algorithm;
    unsigned short feat = 0, mask = 0;
    memset(&alg, 0, sizeof(alg));

    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_ALG", format);
    }
    if (!PyArg_ParseTuple(object, "ss|HH", &type, &algorithm, &feat, &mask)) {
        return cmsgx_raise_name_items(object, "AF_ALG", format);
    }
    if (strlen(type) >= sizeof(alg.salg_type) || strlen(algorithm) >= sizeof(alg.salg_name)) {
        return cmsgx_raise_name_form(PyExc_ValueError, object, "AF_ALG", format);
    }
    alg.salg_family = AF_ALG;
    alg.salg_feat = feat;
    alg.salg_mask = mask;
    memcpy(alg.salg_type, type, strlen(type));
    memcpy(alg.salg_name, algorithm, strlen(algorithm));
    return put(name, size, &alg, sizeof(alg));
}

static int
vsock_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    struct cmsgx_sockaddr_vm vm;
    unsigned cid, port;
    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_VSOCK", "(cid, port)");
    }
    if (!PyArg_ParseTuple(object, "II", &cid, &port)) {
        return cmsgx_raise_name_items(object, "AF_VSOCK", "(cid, port)");
    }
    memset(&vm, 0, sizeof(vm));
    vm.svm_family = AF_VSOCK;
    vm.svm_cid = cid;
    vm.svm_port = port;
    return put(name, size, &vm, sizeof(vm));
}

static int
qrtr_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    struct cmsgx_sockaddr_qrtr qrtr;
    unsigned node, port;
    if (!PyTuple_Check(object)) {
        return cmsgx_raise_name_form(PyExc_TypeError, object, "AF_QIPCRTR", "(node, port)");
    }
    if (!PyArg_ParseTuple(object, "II", &node, &port)) {
        return cmsgx_raise_name_items(object, "AF_QIPCRTR", "(node, port)");
    }
    memset(&qrtr, 0, sizeof(qrtr));
    qrtr.sq_family = AF_QRTR;
    qrtr.sq_node = node;
    qrtr.sq_port = port;
    return put(name, size, &qrtr, sizeof(qrtr));
}

/* 0, or -1 with an exception. */
static int
bluetooth_bytes(const char *text, PyObject *object, uint8_t *bytes)
{
    for (int i = 5; i >= 0; i--) {
        char *end;
        unsigned long part = strtoul(text, &end, 16);
        if (end == text || part > 255 || *end != (i > 0 ? ':' : '\0')) {
            PyErr_Format(PyExc_OSError,
                         "address: %R; a Bluetooth address is \"XX:XX:XX:XX:XX:XX\"", object);
            return -1;
        }
        bytes[i] = (uint8_t)part;
        text = end + 1;
    }
    return 0;
}

/* Raises what socket raises for an invalid one.  -1. */
static int
raise_bluetooth(PyObject *object, const char *format)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyErr_Clear();
    return cmsgx_raise_name_form(PyExc_OSError, object, "AF_BLUETOOTH", format);
}

static int
l2cap_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    struct cmsgx_sockaddr_l2 l2;
    const char *text;
    unsigned short psm, cid = 0;
    unsigned char type = 0;
    memset(&l2, 0, sizeof(l2));
    if (!PyTuple_Check(object)
        || !(CMSGX_WHOLE_BLUETOOTH_NAMES
                 ? PyArg_ParseTuple(object, "sH|HB", &text, &psm, &cid, &type)
                 : PyArg_ParseTuple(object, "sH", &text, &psm))) {
        return raise_bluetooth(object, CMSGX_WHOLE_BLUETOOTH_NAMES
                                           ? "(address, psm, cid=0, bdaddr_type=0)"
                                           : "(address, psm)");
    }
    l2.l2_family = AF_BLUETOOTH;
    l2.l2_psm = psm;
    l2.l2_cid = cid;
    l2.l2_bdaddr_type = type;
    return bluetooth_bytes(text, object, l2.l2_bdaddr) < 0 ? -1
                                                           : put(name, size, &l2, sizeof(l2));
}

static int
rfcomm_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    struct cmsgx_sockaddr_rc rc;
    const char *text;
    memset(&rc, 0, sizeof(rc));
    if (!PyTuple_Check(object) || !PyArg_ParseTuple(object, "sB", &text, &rc.rc_channel)) {
        return raise_bluetooth(object, "(address, channel)");
    }
    rc.rc_family = AF_BLUETOOTH;
    return bluetooth_bytes(text, object, rc.rc_bdaddr) < 0 ? -1
                                                           : put(name, size, &rc, sizeof(rc));
}

static int
hci_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    struct cmsgx_sockaddr_hci hci;
    unsigned short device, channel = 0;
    int is_read;
    memset(&hci, 0, sizeof(hci));
    if (PyTuple_Check(object)) {
        is_read = CMSGX_WHOLE_BLUETOOTH_NAMES
            ? PyArg_ParseTuple(object, "H|H", &device, &channel)
            : PyArg_ParseTuple(object, "H", &device);
    }
    else {
        /* The form in which it is received; socket accepts it since 3.14. */
        is_read = PyIndex_Check(object) && PyArg_Parse(object, "H", &device);
    }
    if (!is_read) {
        return raise_bluetooth(object, CMSGX_WHOLE_BLUETOOTH_NAMES
                                           ? "the number of the adapter, or (number, channel)"
                                           : "the number of the adapter, or (number,)");
    }
    hci.hci_family = AF_BLUETOOTH;
    hci.hci_dev = device;
    hci.hci_channel = channel;
    return put(name, size, &hci, sizeof(hci));
}

static int
sco_from_object(PyObject *object, struct sockaddr_storage *name, socklen_t *size)
{
    struct cmsgx_sockaddr_sco sco;
    const char *text;
    memset(&sco, 0, sizeof(sco));
    if (!(PyBytes_Check(object) ? PyArg_Parse(object, "y", &text)
          : PyUnicode_Check(object) ? PyArg_Parse(object, "s", &text) : 0)) {
        static const char *const format = "\"XX:XX:XX:XX:XX:XX\", as str or bytes";
        return PyErr_Occurred() ? cmsgx_raise_name_items(object, "AF_BLUETOOTH", format)
                                : raise_bluetooth(object, format);
    }
    sco.sco_family = AF_BLUETOOTH;
    return bluetooth_bytes(text, object, sco.sco_bdaddr) < 0
        ? -1 : put(name, size, &sco, sizeof(sco));
}

static int
bluetooth_from_object(PyObject *object, int proto, struct sockaddr_storage *name,
                      socklen_t *size)
{
    switch (proto) {
    case CMSGX_BTPROTO_L2CAP:
        return l2cap_from_object(object, name, size);
    case CMSGX_BTPROTO_RFCOMM:
        return rfcomm_from_object(object, name, size);
    case CMSGX_BTPROTO_HCI:
        return hci_from_object(object, name, size);
    case CMSGX_BTPROTO_SCO:
        return sco_from_object(object, name, size);
    default:
        PyErr_Format(PyExc_OSError,
                     proto < 0 ? "address: %R; the Bluetooth protocol is needed: give proto="
                               : "address: %R; unknown Bluetooth protocol",
                     object);
        return -1;
    }
}

int
cmsgx_linux_name_from_object(int family, cmsgx_whence whence, PyObject *object,
                             struct sockaddr_storage *name, socklen_t *size)
{
    switch (family) {
    case AF_PACKET:
        return packet_from_object(object, whence.fd, name, size);
    case AF_CAN:
        return can_from_object(object, whence, name, size);
    case AF_TIPC:
        return tipc_from_object(object, name, size);
    case AF_ALG:
        return alg_from_object(object, name, size);
    case AF_VSOCK:
        return vsock_from_object(object, name, size);
    case AF_QRTR:
        return qrtr_from_object(object, name, size);
    case AF_BLUETOOTH:
        return bluetooth_from_object(object, whence.proto, name, size);
    default:
        return 0;
    }
}
#endif
