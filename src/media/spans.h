/* A set of whole numbers as a sorted list of spans, for what comes in runs. Not thread-safe. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct span {
    int64_t from, to; /* `to` is not part of it */
};

/* Zero-initialised is empty. */
struct spans {
    struct span *list; /* owned; neither empty nor touching */
    size_t n, cap;
};

bool spans_has(const struct spans *spans, int64_t number);
/* Whether all of from..to-1 are in it. */
bool spans_cover(const struct spans *spans, int64_t from, int64_t to);
/* Adds or takes away from..to-1; -ENOMEM leaves the set as it was. */
int spans_add(struct spans *spans, int64_t from, int64_t to);
int spans_remove(struct spans *spans, int64_t from, int64_t to);
/* Makes it empty. */
void spans_clear(struct spans *spans);
