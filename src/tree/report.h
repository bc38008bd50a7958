/*
 * Errors in words: .campusfs/errors.jsonl, a bounded journal with the newest line last, and the log. One line
 * an error: time, path, errno, SQLSTATE, constraint, column, message, hint; secrets are blanked. Thread-safe.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/fail.h"

struct report;

/* Keeps at most `limit` bytes of lines. */
struct report *report_new(size_t limit);
void report_free(struct report *report);

/* Appends one error and logs it: refusals as info, failures (-EIO, -EROFS, ...) as warning. */
void report_add(struct report *report, const char *path, const struct fail *f);

/* The journal as it is now. */
int report_text(struct report *report, struct buf *out);

/* The same line in words for people, for a .error file. */
int report_words(const char *path, const struct fail *f, struct buf *out);
