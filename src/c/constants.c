#include "state.h"

#include <stddef.h>
#ifdef __linux__
#  include <linux/types.h>
#endif

/* Each constant that the Python layer needs, from the headers of the build.  One that the
   platform has not is absent. */
static const struct {
    const char *name;
    long value;
} constants[] = {
#define CONSTANT(name) {#name, (long)(name)}
    CONSTANT(SOL_SOCKET),
    CONSTANT(SCM_RIGHTS),
#ifdef SCM_CREDENTIALS
    CONSTANT(SCM_CREDENTIALS),
#endif
#ifdef SCM_SECURITY
    CONSTANT(SCM_SECURITY),
#endif
#ifdef SCM_PIDFD
    CONSTANT(SCM_PIDFD),
#endif
#ifdef SO_PASSCRED
    CONSTANT(SO_PASSCRED),
#endif
#ifdef SO_PASSSEC
    CONSTANT(SO_PASSSEC),
#endif
#ifdef SO_PASSPIDFD
    CONSTANT(SO_PASSPIDFD),
#endif
#ifdef SO_PASSRIGHTS
    CONSTANT(SO_PASSRIGHTS),
#endif
#ifdef SO_PEERCRED
    CONSTANT(SO_PEERCRED),
#endif
#ifdef SO_PEERGROUPS
    CONSTANT(SO_PEERGROUPS),
#endif
#ifdef SO_PEERPIDFD
    CONSTANT(SO_PEERPIDFD),
#endif
#ifdef SO_PEERSEC
    CONSTANT(SO_PEERSEC),
#endif
#ifdef SO_TIMESTAMP
    CONSTANT(SO_TIMESTAMP),
#endif
#ifdef SO_TIMESTAMPNS
    CONSTANT(SO_TIMESTAMPNS),
#endif
#ifdef SO_TIMESTAMPING
    CONSTANT(SO_TIMESTAMPING),
#endif
#ifdef SO_INQ
    CONSTANT(SO_INQ),
#endif
#ifdef SO_DOMAIN
    CONSTANT(SO_DOMAIN),
#endif
    CONSTANT(SO_TYPE),
    CONSTANT(MSG_CTRUNC),
    CONSTANT(MSG_TRUNC),
    {"MSG_CMSG_CLOEXEC", CMSGX_MSG_CMSG_CLOEXEC},
    {"MAX_FDS", CMSGX_MAX_FDS},
#ifdef SCM_CREDENTIALS
    {"UCRED_SIZE", (long)sizeof(struct ucred)},
    {"UCRED_PID", (long)offsetof(struct ucred, pid)},
    {"UCRED_UID", (long)offsetof(struct ucred, uid)},
    {"UCRED_GID", (long)offsetof(struct ucred, gid)},
#endif
#undef CONSTANT
};

#ifdef SCM_CREDENTIALS
_Static_assert(sizeof(struct ucred) == 12 && offsetof(struct ucred, uid) == 4
               && offsetof(struct ucred, gid) == 8, "unix(7): pid, uid, gid, 32 bits each");
#endif

int
cmsgx_add_constants(PyObject *module)
{
    for (size_t i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) {
            return -1;
        }
    }
    return 0;
}
