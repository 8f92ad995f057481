#include "plain/walk.h"

#include "plain/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

_Static_assert(CMSG_LEN(0) >= sizeof(struct cmsghdr), "a header fits before its data");
_Static_assert(sizeof(int) == 4, "SCM_RIGHTS carries 32-bit numbers");

cmsgx_step
cmsgx_walk(const void *control, size_t used, size_t *offset, cmsgx_header *header)
{
    const unsigned char *start = control;
    struct cmsghdr raw;

    if (*offset > used || used - *offset < CMSG_LEN(0)) {
        return CMSGX_END;
    }
    size_t left = used - *offset;
    memcpy(&raw, start + *offset, sizeof(raw));
    header->level = raw.cmsg_level;
    header->type = raw.cmsg_type;
    header->data = start + *offset + CMSG_LEN(0);
    header->offset = *offset;

    size_t length = (size_t)raw.cmsg_len;
    if (length < CMSG_LEN(0) || length > left) {
        header->size = left - CMSG_LEN(0);
        *offset = used;
        return length < CMSG_LEN(0) ? CMSGX_BROKEN : CMSGX_CUT;
    }
    header->size = length - CMSG_LEN(0);
    /* CMSG_SPACE cannot overflow, as the length is within the buffer.  The result may be past the
       end, where the last message lacks its padding. */
    *offset += CMSG_SPACE(header->size);
    return CMSGX_MESSAGE;
}

static int
carries_rights(const cmsgx_header *header)
{
    return header->level == SOL_SOCKET && header->type == SCM_RIGHTS;
}

static int
carries_pidfd(const cmsgx_header *header)
{
    return header->level == SOL_SOCKET && header->type == CMSGX_SCM_PIDFD;
}

static int
number_at(const cmsgx_header *header, size_t index)
{
    int number;
    memcpy(&number, header->data + index * sizeof(number), sizeof(number));
    return number;
}

static size_t
count_numbers(const cmsgx_header *header, cmsgx_step step)
{
    size_t max_count = header->size / sizeof(int);
    if (step == CMSGX_MESSAGE) {
        return max_count;
    }
    size_t count = 0;
    while (count < max_count && number_at(header, count) > STDERR_FILENO
           && fcntl(number_at(header, count), F_GETFD) >= 0) {
        count++;
    }
    return count;
}

static size_t
take_numbers(const cmsgx_header *header, cmsgx_step step, int *fds)
{
    size_t count = count_numbers(header, step);
    memcpy(fds, header->data, count * sizeof(int));
    return count;
}

cmsgx_found
cmsgx_gather(const void *control, size_t used, int *fds)
{
    cmsgx_found found = {0, 0, 0};
    cmsgx_header header;
    cmsgx_step step;
    int has_pidfds = 0;

    for (size_t offset = 0;
         (step = cmsgx_walk(control, used, &offset, &header)) != CMSGX_END;) {
        found.malformed |= step != CMSGX_MESSAGE;
        if (carries_rights(&header)) {
            found.rights += take_numbers(&header, step, fds + found.rights);
        }
        has_pidfds |= carries_pidfd(&header);
    }
    if (!has_pidfds) {
        return found;
    }
    for (size_t offset = 0;
         (step = cmsgx_walk(control, used, &offset, &header)) != CMSGX_END;) {
        if (carries_pidfd(&header)) {
            found.pidfds += take_numbers(&header, step, fds + found.rights + found.pidfds);
        }
    }
    return found;
}

static void
close_numbers(const cmsgx_header *header, size_t from, size_t count)
{
    for (size_t i = from; i < count; i++) {
        int fd = number_at(header, i);
        cmsgx_close_all(&fd, 1);
    }
}

void
cmsgx_close_message(const cmsgx_header *header, cmsgx_step step)
{
    if (carries_rights(header) || carries_pidfd(header)) {
        close_numbers(header, 0, count_numbers(header, step));
    }
}

void
cmsgx_close_received(const void *control, size_t used)
{
    cmsgx_header header;
    cmsgx_step step;
    size_t offset = 0;

    while ((step = cmsgx_walk(control, used, &offset, &header)) != CMSGX_END) {
        cmsgx_close_message(&header, step);
    }
}

size_t
cmsgx_shorten(void *control, size_t used, size_t control_size, int *cut)
{
    unsigned char *start = control;
    cmsgx_header header;
    cmsgx_step step;
    size_t offset = 0, end = 0;

    while ((step = cmsgx_walk(control, used, &offset, &header)) == CMSGX_MESSAGE
           && header.offset + CMSG_LEN(header.size) <= control_size) {
        /* The last one may lack its padding. */
        end = offset < control_size ? offset : control_size;
    }
    *cut = step != CMSGX_END;
    if (step == CMSGX_END) {
        return end < used ? end : used;
    }
    /* The first that does not fit: part of it may.  A malformed one is left as it is. */
    int in_numbers = carries_rights(&header) || carries_pidfd(&header);
    size_t kept = 0;
    if (header.offset + CMSG_LEN(in_numbers ? sizeof(int) : 0) <= control_size) {
        size_t size = control_size - header.offset - CMSG_LEN(0);
        end = control_size;
        kept = size / sizeof(int);
        *cut = step == CMSGX_MESSAGE;
        if (step == CMSGX_MESSAGE) {
            struct cmsghdr raw;
            size -= in_numbers ? size % sizeof(int) : 0;
            memcpy(&raw, start + header.offset, sizeof(raw));
            raw.cmsg_len = (__typeof__(raw.cmsg_len))CMSG_LEN(size);
            memcpy(start + header.offset, &raw, sizeof(raw));
            if (header.offset + CMSG_SPACE(size) < control_size) {
                end = header.offset + CMSG_SPACE(size);
            }
        }
    }
    if (in_numbers) {
        close_numbers(&header, kept, count_numbers(&header, step));
    }
    while ((step = cmsgx_walk(control, used, &offset, &header)) != CMSGX_END) {
        cmsgx_close_message(&header, step);
    }
    return end;
}

size_t
cmsgx_put(void *control, int level, int type, const void *data, size_t size)
{
    unsigned char *start = control;
    struct cmsghdr raw;

    /* musl's header has padding inside: zeroed, so that no byte of this process leaks. */
    memset(&raw, 0, sizeof(raw));
    raw.cmsg_level = level;
    raw.cmsg_type = type;
    raw.cmsg_len = (__typeof__(raw.cmsg_len))CMSG_LEN(size);
    memset(start, 0, CMSG_LEN(0));
    memcpy(start, &raw, sizeof(raw));
    if (size > 0 && data != NULL) {
        memcpy(start + CMSG_LEN(0), data, size);
    }
    memset(start + CMSG_LEN(size), 0, CMSG_SPACE(size) - CMSG_LEN(size));
    return CMSG_SPACE(size);
}

void
cmsgx_close_all(const int *fds, size_t count)
{
    int saved = errno;
    size_t i = 0;

    while (i < count) {
        size_t end = i + 1;
        if (fds[i] >= 0) {
            while (end < count && fds[end - 1] < INT_MAX && fds[end] == fds[end - 1] + 1) {
                end++;
            }
            if (end - i == 1
                || cmsgx_close_range((unsigned int)fds[i], (unsigned int)fds[end - 1]) != 0) {
                for (size_t k = i; k < end; k++) {
                    (void)close(fds[k]);
                }
            }
        }
        i = end;
    }
    errno = saved;
}
