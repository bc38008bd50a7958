/* Times as documents show them: UTC, ISO 8601, microseconds. Pure. */
#pragma once

#include <stdint.h>

enum { UTC_TEXT = 40 };

/* "2026-11-22T15:48:30.123456Z" of µs since the epoch; -ERANGE outside the years 1 to 9999. */
int utc_text(int64_t us, char out[UTC_TEXT]);

/* The same, also with a blank for the T, fewer digits, and +01:00 for the Z; -EINVAL. */
int utc_parse(const char *text, int64_t *us);
