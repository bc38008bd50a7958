#include "base/config_pairs.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *skip_blank(const char *p)
{
    while (*p && isspace((unsigned char)*p))
        p++;
    return p;
}

/* The end of a value; NULL when a quote stays open. */
static const char *value_end(const char *p)
{
    if (*p != '\'') {
        for (; *p && !isspace((unsigned char)*p); p++)
            if (*p == '\\' && p[1])
                p++;
        return p;
    }
    for (p++; *p != '\''; p++) {
        if (*p == '\\' && p[1])
            p++;
        if (!*p)
            return NULL;
    }
    return p + 1;
}

int config_pair_next(const char **at, struct config_pair *out)
{
    const char *p = skip_blank(*at);
    if (!*p)
        return 0;
    out->key = p;
    while (isalnum((unsigned char)*p) || *p == '_')
        p++;
    out->key_len = (size_t)(p - out->key);
    p = skip_blank(p);
    if (out->key_len == 0 || *p != '=')
        return -EINVAL;
    out->raw = skip_blank(p + 1);
    p = value_end(out->raw);
    if (!p)
        return -EINVAL;
    out->raw_len = (size_t)(p - out->raw);
    *at = p;
    return 1;
}

bool config_pair_is(const struct config_pair *pair, const char *key)
{
    return strlen(key) == pair->key_len && memcmp(key, pair->key, pair->key_len) == 0;
}

char *config_pair_value(const struct config_pair *pair)
{
    char *value = malloc(pair->raw_len + 1);
    if (!value)
        return NULL;
    const char *p = pair->raw, *end = p + pair->raw_len;
    if (p < end && *p == '\'') {
        p++;
        end--;
    }
    size_t len = 0;
    for (; p < end; p++) {
        if (*p == '\\' && p + 1 < end)
            p++;
        value[len++] = *p;
    }
    value[len] = '\0';
    return value;
}
