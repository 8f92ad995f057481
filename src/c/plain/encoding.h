/* The encodings of one value in control messages: kernels have six for a time stamp, and IPv4 and
   IPv6 each one for packet info.  A kind holds the canonical form; these functions convert to it
   and back.  Plain C, no Python.h. */

#ifndef CMSGX_ENCODING_H
#define CMSGX_ENCODING_H

#include <stddef.h>

typedef enum {
    CMSGX_AS_IT_IS,         /* canonical: the payload itself */
    CMSGX_WITHOUT_NUL,      /* canonical: the payload, without one NUL at its end */
    /* Those below convert; their canonical form has at most 32 bytes: */
    CMSGX_INTEGER,          /* 1, 2 or 4 bytes in the byte order of the machine; canonical: int */
    CMSGX_TIMEVAL,          /* struct timeval with the C library's long; canonical: int64_t ns */
    CMSGX_TIMESPEC,
    CMSGX_TIMEVAL64,        /* struct __kernel_sock_timeval */
    CMSGX_TIMESPEC64,       /* struct __kernel_timespec */
    CMSGX_BINTIME,          /* FreeBSD: time_t, and a fraction in 2^-64 s */
    CMSGX_STAMPING,         /* three timespecs; canonical: three int64_t ns */
    CMSGX_STAMPING64,
    CMSGX_PKTINFO,          /* struct in_pktinfo; canonical: struct in6_pktinfo, IPv4-mapped */
    CMSGX_ENCODINGS,
} cmsgx_encoding;

/* Its name in Python: kinds.register(encoding=). */
const char *cmsgx_encoding_name(cmsgx_encoding encoding);

/* Bytes of the payload, where the encoding has a fixed size; else 0. */
size_t cmsgx_encoding_size(cmsgx_encoding encoding);

/* Bytes of the canonical form, for an encoding that converts: what cmsgx_encoding_read() gives and
   cmsgx_encoding_write() takes.  0 for the others, and for one that this system lacks. */
size_t cmsgx_encoding_canonical(cmsgx_encoding encoding);

#define CMSGX_CANONICAL 32

/* Reads a payload of `size` bytes, for an encoding that converts, into `out`, which has room for
   CMSGX_CANONICAL bytes.  Returns the bytes of the canonical form, or -1 where `size` is not a
   size of that encoding. */
ptrdiff_t cmsgx_encoding_read(cmsgx_encoding encoding, const unsigned char *data, size_t size,
                              unsigned char *out);

/* Whether a canonical value can be written so: an IPv6 address that is not mapped is not an IPv4
   address. */
int cmsgx_encoding_has(cmsgx_encoding encoding, const unsigned char *value, size_t size);

/* Writes a canonical value as a payload.  `size` is cmsgx_encoding_canonical(), where that is not
   0.  `wire_size` is cmsgx_encoding_size(); for CMSGX_INTEGER 1, 2 or 4; for any other without a
   fixed size `size`. */
void cmsgx_encoding_write(cmsgx_encoding encoding, const unsigned char *value, size_t size,
                      unsigned char *out, size_t wire_size);

#endif
