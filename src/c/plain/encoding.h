/* The forms in which one value lies in control messages: the kernel tells a time stamp in six
   ways, and IPv4 and IPv6 their packet info each in its own.  A kind holds one of them, its
   canonical form; these functions lead there and back.  Plain C, no Python.h. */

#ifndef CMSGX_ENCODING_H
#define CMSGX_ENCODING_H

#include <stddef.h>

typedef enum {
    CMSGX_AS_IT_IS,         /* canonical: the payload itself */
    CMSGX_WITHOUT_NUL,      /* canonical: the payload, without one NUL at its end */
    /* Those that change more, and have a canonical form of 32 bytes at most: */
    CMSGX_INTEGER,          /* 1, 2 or 4 bytes in the byte order of the machine; canonical: int */
    CMSGX_TIMEVAL,          /* struct timeval with the C library's long; canonical: int64_t ns */
    CMSGX_TIMESPEC,
    CMSGX_TIMEVAL64,        /* struct __kernel_sock_timeval */
    CMSGX_TIMESPEC64,       /* struct __kernel_timespec */
    CMSGX_BINTIME,          /* FreeBSD: time_t, and 2^-64 seconds */
    CMSGX_STAMPING,         /* three timespecs; canonical: three int64_t ns */
    CMSGX_STAMPING64,
    CMSGX_PKTINFO,          /* struct in_pktinfo; canonical: struct in6_pktinfo, mapped */
    CMSGX_ENCODINGS,
} cmsgx_encoding;

/* Its name in Python: kinds.register(encoding=). */
const char *cmsgx_encoding_name(cmsgx_encoding encoding);

/* Bytes of the payload in a form of fixed size; 0 where any size may be right. */
size_t cmsgx_encoding_size(cmsgx_encoding encoding);

/* Bytes of the canonical form of those that change more: what cmsgx_encoding_read() gives, and what
   cmsgx_encoding_write() reads.  0 for the others, and for one that this system does not have. */
size_t cmsgx_encoding_canonical(cmsgx_encoding encoding);

#define CMSGX_CANONICAL 32

/* Reads a payload of `size` bytes in one of the forms that change it into `out`, which has room
   for CMSGX_CANONICAL bytes.  Returns the bytes of the canonical form, or -1 where the payload
   has not the size of that form. */
ptrdiff_t cmsgx_encoding_read(cmsgx_encoding encoding, const unsigned char *data, size_t size,
                              unsigned char *out);

/* Whether a canonical value has that form at all: an address of IPv6 is none of IPv4. */
int cmsgx_encoding_has(cmsgx_encoding encoding, const unsigned char *value, size_t size);

/* Writes a canonical value of `size` bytes, which has to be cmsgx_encoding_canonical() where that
   is not 0, as a payload of `wire_size` bytes, which has to be what the form asks for:
   cmsgx_encoding_size(), for CMSGX_INTEGER 1, 2 or 4, else `size`. */
void cmsgx_encoding_write(cmsgx_encoding encoding, const unsigned char *value, size_t size,
                      unsigned char *out, size_t wire_size);

#endif
