/* What an errno of sendmsg(2) is about: the message, or all of them.  Plain C, no Python.h. */

#ifndef CMSGX_REFUSAL_H
#define CMSGX_REFUSAL_H

typedef enum {
    /* The socket, the connection or the machine: the next would fail as well. */
    CMSGX_OF_ALL,
    /* Its size, its control messages, where it goes. */
    CMSGX_OF_MESSAGE,
    /* The same; or it was pending, about one that was sent before, and is told once: then the same
       message goes at the next try. */
    CMSGX_OF_MESSAGE_OR_BEFORE,
} cmsgx_refusal;

/* `type` and `family` are SOCK_* and AF_* of the socket, -1 where they are not known. */
cmsgx_refusal cmsgx_refusal_of(int error, int type, int family);

#endif
