/*
 * The messages of COPY ... TO STDOUT (FORMAT binary), of which the server sends one a row (PostgreSQL's
 * documentation, "COPY", "Binary Format"; "CopyData" in "Message Formats"). Pure; trusts nothing.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct copy_field {
    const char *data; /* in the message; not followed by a NUL */
    int32_t len;      /* -1 = NULL */
};

/*
 * One message: 1 and the fields of a row of exactly n columns, 0 at the end of the data, -EPROTO for anything
 * else. The stream's header, which stands before the first row, is passed over.
 */
int copy_row_read(const char *data, size_t len, struct copy_field *fields, size_t n);

/* A bigint; `missing` for NULL and for what is none. */
int64_t copy_field_i64(const struct copy_field *field, int64_t missing);
