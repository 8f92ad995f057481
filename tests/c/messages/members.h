/* What fills a member of a struct, and prints what is there as JSON.  For messages.c alone. */

#ifndef MEMBERS_H
#define MEMBERS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void *payload;       /* zeroed, and more than any struct */
static size_t size;         /* bytes of it that are there */
static int reads;           /* it came in on stdin */
static unsigned counter;
static const char *comma;

static void
open_member(const char *name, const void *at, size_t bytes, const char *kind)
{
    printf("%s{\"name\": \"%s\", \"at\": %zu, \"size\": %zu, \"kind\": \"%s\", \"value\": ", comma,
           name, (size_t)((const char *)at - (const char *)payload), bytes, kind);
    comma = ", ";
}

static void
print_hex(const void *at, size_t bytes)
{
    printf("\"");
    for (size_t i = 0; i < bytes; i++) {
        printf("%02x", ((const unsigned char *)at)[i]);
    }
    printf("\"");
}

static void
print_number(const void *at, size_t bytes, int is_signed)
{
    union {
        int8_t b; uint8_t B; int16_t h; uint16_t H; int32_t i; uint32_t I; int64_t q; uint64_t Q;
    } value;
    memcpy(&value, at, bytes);
    if (is_signed) {
        printf("%lld", bytes == 1 ? (long long)value.b : bytes == 2 ? (long long)value.h
                       : bytes == 4 ? (long long)value.i : (long long)value.q);
    }
    else {
        printf("%llu", bytes == 1 ? (unsigned long long)value.B
                       : bytes == 2 ? (unsigned long long)value.H
                       : bytes == 4 ? (unsigned long long)value.I : (unsigned long long)value.Q);
    }
}

/* Each byte of each number is another one, and the highest bit is set: what takes the wrong ones,
   or for signed what is not, has another number. */
static uint64_t
distinct(size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | (0x10 + ++counter);
    }
    return value | UINT64_C(0x80) << 8 * (bytes - 1);
}

static void
fill(void *at, size_t bytes)
{
    for (size_t i = 0; !reads && i < bytes; i++) {
        ((unsigned char *)at)[i] = (unsigned char)(0x10 + ++counter);
    }
}

static void
bytes_member(const char *name, void *at, size_t bytes)
{
    fill(at, bytes);
    open_member(name, at, bytes, "bytes");
    print_hex(at, bytes);
    printf("}");
}

static void
pad_member(const char *name, void *at, size_t bytes)
{
    open_member(name, at, bytes, "pad");
    print_hex(at, bytes);
    printf("}");
}

/* In network order. */
static void
big_member(const char *name, void *at, size_t bytes)
{
    unsigned long value = 0;
    fill(at, bytes);
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | ((unsigned char *)at)[i];
    }
    open_member(name, at, bytes, "number");
    printf("%lu}", value);
}

#define IS_SIGNED(number) \
    _Generic(number, signed char: 1, short: 1, int: 1, long: 1, long long: 1, default: 0)

/* A member of the struct that `s` points to: one value or another, and what is there then. */
#define GIVEN(name, place, given) \
    do { \
        if (!reads) { \
            place = (__typeof__(place))(given); \
        } \
        open_member(name, &place, sizeof(place), "number"); \
        print_number(&place, sizeof(place), IS_SIGNED(place)); \
        printf("}"); \
    } while (0)
#define VALUE(member, given) GIVEN(#member, s->member, given)
#define NUMBER(member) VALUE(member, distinct(sizeof(s->member)))
/* What is not negative, whatever its type is. */
#define POSITIVE(member) \
    VALUE(member, distinct(sizeof(s->member)) & ~(UINT64_C(0x80) << 8 * (sizeof(s->member) - 1)))
#define BIG(member) big_member(#member, &s->member, sizeof(s->member))
#define BYTES(member) bytes_member(#member, &s->member, sizeof(s->member))
#define PAD(member) pad_member(#member, &s->member, sizeof(s->member))

#endif
