#include "postgres/copy_row.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static const char signature[] = "PGCOPY\n\377\r\n"; /* its NUL belongs to it */

enum { CRITICAL_FLAGS = ~0xffff }; /* bits that a reader must know, and none is known */

struct cursor {
    const char *at;
    size_t left;
};

static int take(struct cursor *c, void *to, size_t size)
{
    if (c->left < size)
        return -EPROTO;
    memcpy(to, c->at, size);
    c->at += size;
    c->left -= size;
    return 0;
}

static int take_i16(struct cursor *c, int16_t *value)
{
    uint16_t raw;
    int r = take(c, &raw, sizeof raw);
    *value = r == 0 ? (int16_t)be16toh(raw) : 0;
    return r;
}

static int take_i32(struct cursor *c, int32_t *value)
{
    uint32_t raw;
    int r = take(c, &raw, sizeof raw);
    *value = r == 0 ? (int32_t)be32toh(raw) : 0;
    return r;
}

static int skip(struct cursor *c, int32_t size)
{
    if (size < 0 || c->left < (size_t)size)
        return -EPROTO;
    c->at += size;
    c->left -= (size_t)size;
    return 0;
}

static int pass_header(struct cursor *c)
{
    int32_t flags, extension;
    if (c->left < sizeof signature || memcmp(c->at, signature, sizeof signature) != 0)
        return 0;
    c->at += sizeof signature;
    c->left -= sizeof signature;
    int r = take_i32(c, &flags);
    if (r == 0 && (flags & CRITICAL_FLAGS))
        r = -EPROTO;
    if (r == 0)
        r = take_i32(c, &extension);
    return r < 0 ? r : skip(c, extension);
}

int copy_row_read(const char *data, size_t len, struct copy_field *fields, size_t n)
{
    struct cursor c = {data, len};
    int16_t columns;
    int r = pass_header(&c);
    if (r == 0)
        r = take_i16(&c, &columns);
    if (r < 0)
        return r;
    if (columns == -1)
        return c.left == 0 ? 0 : -EPROTO;
    if (columns < 0 || (size_t)columns != n)
        return -EPROTO;
    for (size_t i = 0; i < n; i++) {
        r = take_i32(&c, &fields[i].len);
        if (r < 0 || fields[i].len < -1)
            return -EPROTO;
        fields[i].data = c.at;
        if (fields[i].len > 0 && skip(&c, fields[i].len) < 0)
            return -EPROTO;
    }
    return c.left == 0 ? 1 : -EPROTO;
}

int64_t copy_field_i64(const struct copy_field *field, int64_t missing)
{
    uint64_t raw;
    if (field->len != (int32_t)sizeof raw)
        return missing;
    memcpy(&raw, field->data, sizeof raw);
    return (int64_t)be64toh(raw);
}
