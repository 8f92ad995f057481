/* What an errno of sendmsg(2) is about: this message, or every message.  Plain C, no Python.h. */

#ifndef CMSGX_REFUSAL_H
#define CMSGX_REFUSAL_H

typedef enum {
    /* The socket, the connection or the machine: the next message would fail as well. */
    CMSGX_OF_ALL,
    /* Its size, its control messages, its destination. */
    CMSGX_OF_MESSAGE,
    /* The same; or a pending error of an earlier message, which is reported once: then this
       message can be sent at the next try. */
    CMSGX_OF_MESSAGE_OR_BEFORE,
} cmsgx_refusal;

/* `type` and `family` are SOCK_* and AF_* of the socket, -1 where unknown. */
cmsgx_refusal cmsgx_refusal_of(int error, int type, int family);

#endif
