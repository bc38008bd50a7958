/*
 * JSON text: strict checking of what people write (by jansson), and the canonical layout of what the database
 * renders. Neither ever touches a number: documents stay text from the database to the reader.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/fail.h"

/*
 * Appends compact (or any) JSON in the layout that `jq .` prints: two-space indent, `[]` and `{}` when empty,
 * one final newline, DEL as \u007f. Tokens are copied, so the text must be valid JSON: -EPROTO when brackets
 * or strings do not match. -ENOMEM, -EFBIG from the buffer.
 */
int json_layout(const char *text, size_t len, struct buf *out);

/* The same text on one line, as `jq -c .` prints it, with the newline at its end. */
int json_compact(const char *text, size_t len, struct buf *out);

/*
 * Checks one document: UTF-8 without a BOM, an object, no duplicate keys, nothing after it, nesting at most
 * 2,048. -EINVAL with line and column in *f; *unfinished tells that the text is only the beginning of a
 * document (an empty text too).
 */
int json_check(const char *text, size_t len, bool *unfinished, struct fail *f);

/*
 * Checks the beginning of a document that is still being written: -EINVAL only when nothing that follows
 * could make it valid. *whole (may be NULL) tells that json_check() would find no fault with it.
 */
int json_check_prefix(const char *text, size_t len, bool *whole, struct fail *f);

/*
 * Copies what a valid document has as a string under a key of its own. False when it has none, or one that
 * does not fit.
 */
bool json_get_string(const char *text, size_t len, const char *key, char *out, size_t size);

/* Appends a JSON string literal, quotes included; bytes that are not UTF-8 become U+FFFD. */
int json_add_string(struct buf *out, const char *text, size_t len);
