/*
 * A growing byte buffer with a bound. Zero-initialised is empty; buf_clear() frees. The bytes are always
 * followed by a NUL that is not counted, once anything has been added.
 */
#pragma once

#include <stddef.h>

struct buf {
    char *data; /* owned; NULL while empty */
    size_t len; /* bytes in use */
    size_t cap; /* bytes allocated */
    size_t max; /* bound on len, 0 = none; beyond it -EFBIG */
};

/* All return 0, -ENOMEM or -EFBIG and leave the buffer as it was on failure. */
int buf_add(struct buf *b, const void *data, size_t len);
int buf_add_text(struct buf *b, const char *text);
int buf_add_char(struct buf *b, char c);
__attribute__((format(printf, 2, 3))) int buf_printf(struct buf *b, const char *format, ...);

/* Sets the length; new bytes are zero. */
int buf_resize(struct buf *b, size_t len);

/* Writes at any offset as pwrite() does: a hole before it reads as zeros. */
int buf_write_at(struct buf *b, const void *data, size_t len, size_t offset);

/* Shortens it to at most its length, and gives the memory behind that back. */
void buf_shrink(struct buf *b, size_t len);

/* Frees the bytes and leaves an empty buffer with the same bound. */
void buf_clear(struct buf *b);
