/* What a file's bytes are, by libmagic and the machine's magic database. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum {
    CONTENT_TYPE_BYTES = 64 * 1024, /* of a file's beginning: more is not looked at */
    CONTENT_TYPE_MAX = 127,         /* bytes of a type */
};

/*
 * The media type ("video/mp4") of a file that begins with these bytes. False when there is none to tell: of
 * no bytes, or when the machine has no database, which the log says once. The database is loaded once, at the
 * first use; one look at a time, each bounded by CONTENT_TYPE_BYTES. Thread-safe.
 */
bool content_type_of(const void *data, size_t len, char out[CONTENT_TYPE_MAX + 1]);
