#include "plain/encoding.h"

#include "plain/platform.h"

#include <string.h>

#define BILLION INT64_C(1000000000)

typedef struct {
    int64_t seconds;
    int64_t fraction;
} pair_of_64;

const char *
cmsgx_encoding_name(cmsgx_encoding encoding)
{
    switch (encoding) {
    case CMSGX_AS_IT_IS: return "";
    case CMSGX_WITHOUT_NUL: return "without NUL";
    case CMSGX_INTEGER: return "integer";
    case CMSGX_TIMEVAL: return "timeval";
    case CMSGX_TIMESPEC: return "timespec";
    case CMSGX_TIMEVAL64: return "timeval64";
    case CMSGX_TIMESPEC64: return "timespec64";
    case CMSGX_BINTIME: return "bintime";
    case CMSGX_STAMPING: return "stamping";
    case CMSGX_STAMPING64: return "stamping64";
    case CMSGX_PKTINFO: return "pktinfo";
    default: return "?";
    }
}

size_t
cmsgx_encoding_canonical(cmsgx_encoding encoding)
{
    switch (encoding) {
    case CMSGX_INTEGER: return sizeof(int);
    case CMSGX_TIMEVAL: case CMSGX_TIMESPEC: case CMSGX_TIMEVAL64: case CMSGX_TIMESPEC64:
    case CMSGX_BINTIME: return sizeof(int64_t);
    case CMSGX_STAMPING: case CMSGX_STAMPING64: return 3 * sizeof(int64_t);
#if CMSGX_HAS_PKTINFO
    case CMSGX_PKTINFO: return sizeof(struct in6_pktinfo);
#endif
    default: return 0;
    }
}

size_t
cmsgx_encoding_size(cmsgx_encoding encoding)
{
    switch (encoding) {
    case CMSGX_TIMEVAL: return sizeof(cmsgx_timeval);
    case CMSGX_TIMESPEC: return sizeof(cmsgx_timespec);
    case CMSGX_TIMEVAL64: case CMSGX_TIMESPEC64: return sizeof(pair_of_64);
    case CMSGX_BINTIME: return sizeof(cmsgx_bintime);
    case CMSGX_STAMPING: return 3 * sizeof(cmsgx_timespec);
    case CMSGX_STAMPING64: return 3 * sizeof(pair_of_64);
#if CMSGX_HAS_PKTINFO
    case CMSGX_PKTINFO: return sizeof(struct in_pktinfo);
#endif
    default: return 0;
    }
}

/* Seconds that do not fit in nanoseconds, after the year 2262, wrap; no clock reaches them. */
static int64_t
nanoseconds(int64_t seconds, int64_t fraction, int64_t unit)
{
    return (int64_t)((uint64_t)seconds * (uint64_t)BILLION + (uint64_t)fraction * (uint64_t)unit);
}

static int64_t
read_time(cmsgx_encoding encoding, const unsigned char *data)
{
    pair_of_64 wide;
    cmsgx_timeval timeval;
    cmsgx_timespec timespec;
    cmsgx_bintime binary;

    switch (encoding) {
    case CMSGX_TIMEVAL:
        memcpy(&timeval, data, sizeof(timeval));
        return nanoseconds(timeval.seconds, timeval.fraction, 1000);
    case CMSGX_TIMESPEC:
        memcpy(&timespec, data, sizeof(timespec));
        return nanoseconds(timespec.seconds, timespec.fraction, 1);
    case CMSGX_BINTIME:
        memcpy(&binary, data, sizeof(binary));
        return nanoseconds(binary.seconds,
                           (int64_t)(((binary.fraction >> 32) * (uint64_t)BILLION) >> 32), 1);
    default:
        memcpy(&wide, data, sizeof(wide));
        return nanoseconds(wide.seconds, wide.fraction, encoding == CMSGX_TIMEVAL64 ? 1000 : 1);
    }
}

static void
write_time(cmsgx_encoding encoding, int64_t value, unsigned char *out)
{
    int64_t seconds = value / BILLION;
    int64_t rest = value % BILLION;
    if (rest < 0) {
        /* Not by multiplying the seconds, which may be below INT64_MIN. */
        rest += BILLION;
        seconds--;
    }
    switch (encoding) {
    case CMSGX_TIMEVAL: {
        cmsgx_timeval timeval;
        memset(&timeval, 0, sizeof(timeval));
        timeval.seconds = (__typeof__(timeval.seconds))seconds;
        timeval.fraction = (__typeof__(timeval.fraction))(rest / 1000);
        memcpy(out, &timeval, sizeof(timeval));
        break;
    }
    case CMSGX_TIMESPEC: {
        cmsgx_timespec timespec;
        memset(&timespec, 0, sizeof(timespec));
        timespec.seconds = (__typeof__(timespec.seconds))seconds;
        timespec.fraction = (long)rest;
        memcpy(out, &timespec, sizeof(timespec));
        break;
    }
    case CMSGX_BINTIME: {
        cmsgx_bintime binary;
        memset(&binary, 0, sizeof(binary));
        binary.seconds = (__typeof__(binary.seconds))seconds;
        binary.fraction = (((uint64_t)rest << 32) / (uint64_t)BILLION) << 32;
        memcpy(out, &binary, sizeof(binary));
        break;
    }
    default: {
        pair_of_64 wide = {seconds, encoding == CMSGX_TIMEVAL64 ? rest / 1000 : rest};
        memcpy(out, &wide, sizeof(wide));
    }
    }
}

ptrdiff_t
cmsgx_encoding_read(cmsgx_encoding encoding, const unsigned char *data, size_t size,
                unsigned char *out)
{
    size_t fixed = cmsgx_encoding_size(encoding);
    if (fixed != 0 && size != fixed) {
        return -1;
    }
    switch (encoding) {
    case CMSGX_INTEGER: {
        int value;
        if (size == 1) {
            value = data[0];
        }
        else if (size == sizeof(uint16_t)) {
            uint16_t half;
            memcpy(&half, data, sizeof(half));
            value = half;
        }
        else if (size == sizeof(value)) {
            memcpy(&value, data, sizeof(value));
        }
        else {
            return -1;
        }
        memcpy(out, &value, sizeof(value));
        return sizeof(value);
    }
    case CMSGX_TIMEVAL: case CMSGX_TIMESPEC: case CMSGX_TIMEVAL64: case CMSGX_TIMESPEC64:
    case CMSGX_BINTIME: {
        int64_t value = read_time(encoding, data);
        memcpy(out, &value, sizeof(value));
        return sizeof(value);
    }
    case CMSGX_STAMPING: case CMSGX_STAMPING64: {
        cmsgx_encoding one = encoding == CMSGX_STAMPING ? CMSGX_TIMESPEC : CMSGX_TIMESPEC64;
        int64_t values[3];
        for (size_t i = 0; i < 3; i++) {
            values[i] = read_time(one, data + i * cmsgx_encoding_size(one));
        }
        memcpy(out, values, sizeof(values));
        return sizeof(values);
    }
#if CMSGX_HAS_PKTINFO
    case CMSGX_PKTINFO: {
        struct in_pktinfo info;
        struct in6_pktinfo mapped;
        memset(&mapped, 0, sizeof(mapped));
        memcpy(&info, data, sizeof(info));
        memset((unsigned char *)&mapped.ipi6_addr + 10, 0xff, 2);
        memcpy((unsigned char *)&mapped.ipi6_addr + 12, &info.ipi_addr, sizeof(info.ipi_addr));
        mapped.ipi6_ifindex = (__typeof__(mapped.ipi6_ifindex))info.ipi_ifindex;
        memcpy(out, &mapped, sizeof(mapped));
        return sizeof(mapped);
    }
#endif
    default:
        return -1;
    }
}

int
cmsgx_encoding_has(cmsgx_encoding encoding, const unsigned char *value, size_t size)
{
#if CMSGX_HAS_PKTINFO
    struct in6_pktinfo mapped;
    if (encoding == CMSGX_PKTINFO && size == sizeof(mapped)) {
        memcpy(&mapped, value, sizeof(mapped));
        return IN6_IS_ADDR_V4MAPPED(&mapped.ipi6_addr)
            || IN6_IS_ADDR_UNSPECIFIED(&mapped.ipi6_addr);
    }
#else
    (void)encoding, (void)value, (void)size;
#endif
    return 1;
}

void
cmsgx_encoding_write(cmsgx_encoding encoding, const unsigned char *value, size_t size,
                 unsigned char *out, size_t wire_size)
{
    switch (encoding) {
    case CMSGX_INTEGER: {
        int number;
        memcpy(&number, value, sizeof(number));
        if (wire_size == 1) {
            out[0] = (unsigned char)number;
        }
        else if (wire_size == sizeof(uint16_t)) {
            uint16_t half = (uint16_t)number;
            memcpy(out, &half, sizeof(half));
        }
        else {
            memcpy(out, &number, sizeof(number));
        }
        break;
    }
    case CMSGX_TIMEVAL: case CMSGX_TIMESPEC: case CMSGX_TIMEVAL64: case CMSGX_TIMESPEC64:
    case CMSGX_BINTIME: {
        int64_t time;
        memcpy(&time, value, sizeof(time));
        write_time(encoding, time, out);
        break;
    }
    case CMSGX_STAMPING: case CMSGX_STAMPING64: {
        cmsgx_encoding one = encoding == CMSGX_STAMPING ? CMSGX_TIMESPEC : CMSGX_TIMESPEC64;
        int64_t times[3];
        memcpy(times, value, sizeof(times));
        for (size_t i = 0; i < 3; i++) {
            write_time(one, times[i], out + i * cmsgx_encoding_size(one));
        }
        break;
    }
#if CMSGX_HAS_PKTINFO
    case CMSGX_PKTINFO: {
        struct in_pktinfo info;
        struct in6_pktinfo mapped;
        memset(&info, 0, sizeof(info));
        memcpy(&mapped, value, sizeof(mapped));
        memcpy(&info.CMSGX_PKTINFO_SOURCE, (unsigned char *)&mapped.ipi6_addr + 12,
               sizeof(info.CMSGX_PKTINFO_SOURCE));
        info.ipi_ifindex = (__typeof__(info.ipi_ifindex))mapped.ipi6_ifindex;
        memcpy(out, &info, sizeof(info));
        break;
    }
#endif
    default:
        memcpy(out, value, size < wire_size ? size : wire_size);
    }
}
