/* Every form of a time, with the values at the edges: what is written is read again. */

#include "../../src/c/plain/encoding.c"

#include <stdio.h>

int
main(void)
{
    static const int64_t values[] = {
        0, 1, -1, 999999999, -999999999, BILLION, -BILLION, INT64_MAX, INT64_MAX - 1,
        INT64_MIN, INT64_MIN + 1, INT64_MIN / BILLION * BILLION, INT64_MIN / BILLION * BILLION - 1,
        INT64_MAX / BILLION * BILLION, INT64_MAX / BILLION * BILLION + 1,
    };
    static const cmsgx_encoding encodings[] = {
        CMSGX_TIMEVAL, CMSGX_TIMESPEC, CMSGX_TIMEVAL64, CMSGX_TIMESPEC64, CMSGX_BINTIME,
    };
    int failed = 0;
    for (size_t f = 0; f < sizeof(encodings) / sizeof(encodings[0]); f++) {
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
            size_t size = cmsgx_encoding_size(encodings[f]);
            unsigned char wire[64], back[CMSGX_CANONICAL];
            int64_t value = values[i], found;
            cmsgx_encoding_write(encodings[f], (const unsigned char *)&value, sizeof(value), wire,
                                 size);
            cmsgx_encoding_read(encodings[f], wire, size, back);
            memcpy(&found, back, sizeof(found));
            /* Microseconds round down, and 2^-64 seconds may lose one nanosecond. */
            int64_t unit =
                encodings[f] == CMSGX_TIMEVAL || encodings[f] == CMSGX_TIMEVAL64 ? 1000 : 1;
            uint64_t lost = (uint64_t)value - (uint64_t)found;
            if (lost > (uint64_t)(unit == 1000 ? 999 : encodings[f] == CMSGX_BINTIME ? 1 : 0)
                && sizeof(long) == sizeof(int64_t)) {
                printf("form %d: %lld became %lld\n", (int)encodings[f], (long long)value,
                       (long long)found);
                failed = 1;
            }
        }
    }
    return failed;
}
