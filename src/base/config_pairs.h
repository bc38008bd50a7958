/* Splits "key=value key='quoted \' value'" as libpq does; what it meets is kept as written. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct config_pair {
    const char *key; /* borrowed from the text */
    size_t key_len;
    const char *raw; /* the value as written, quotes included; borrowed */
    size_t raw_len;
};

/* Steps to the next pair. 1 when there is one, 0 at the end, -EINVAL at something else. */
int config_pair_next(const char **at, struct config_pair *out);

bool config_pair_is(const struct config_pair *pair, const char *key);

/* The value without its quoting, on the heap; NULL when out of memory. */
char *config_pair_value(const struct config_pair *pair);
