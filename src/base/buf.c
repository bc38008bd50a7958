#include "base/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for `len` bytes in all and the NUL behind them. */
static int buf_reserve(struct buf *b, size_t len)
{
    if (b->max && len > b->max)
        return -EFBIG;
    if (len < b->cap)
        return 0;
    if (len > SIZE_MAX / 2 - 64)
        return -ENOMEM;
    size_t cap = b->cap * 2 > len + 1 ? b->cap * 2 : len + 1;
    if (cap < 64)
        cap = 64;
    if (b->max && cap > b->max + 1)
        cap = b->max + 1;
    char *data = realloc(b->data, cap);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->cap = cap;
    return 0;
}

int buf_resize(struct buf *b, size_t len)
{
    int r = buf_reserve(b, len);
    if (r < 0)
        return r;
    if (len > b->len)
        memset(b->data + b->len, 0, len - b->len);
    b->len = len;
    b->data[len] = '\0';
    return 0;
}

int buf_write_at(struct buf *b, const void *data, size_t len, size_t offset)
{
    if (len == 0)
        return 0;
    if (len > SIZE_MAX - offset)
        return -EFBIG;
    if (offset + len > b->len) {
        int r = buf_resize(b, offset + len);
        if (r < 0)
            return r;
    }
    memcpy(b->data + offset, data, len);
    return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
    if (len > SIZE_MAX - b->len)
        return -EFBIG;
    int r = buf_reserve(b, b->len + len);
    if (r < 0)
        return r;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return 0;
}

int buf_add_text(struct buf *b, const char *text)
{
    return buf_add(b, text, strlen(text));
}

int buf_add_char(struct buf *b, char c)
{
    return buf_add(b, &c, 1);
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    int r = need < 0 ? -EINVAL : buf_reserve(b, b->len + (size_t)need);
    if (r == 0) {
        vsnprintf(b->data + b->len, (size_t)need + 1, format, again);
        b->len += (size_t)need;
    }
    va_end(again);
    return r;
}

void buf_clear(struct buf *b)
{
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

void buf_shrink(struct buf *b, size_t len)
{
    if (len == 0) {
        buf_clear(b);
        return;
    }
    if (len < b->len) {
        b->len = len;
        b->data[len] = '\0';
    }
    char *less = realloc(b->data, b->len + 1);
    if (less) {
        b->data = less;
        b->cap = b->len + 1;
    }
}
