#include "tree/by_name.h"

#include <string.h>

#include <jansson.h>

enum { ESCAPE_BYTES = 3 };

static const struct {
    char c;
    const char *escape;
} escapes[] = {{'/', "%2F"}, {'%', "%25"}, {'.', "%2E"}};

/* How a character is written; NULL for as it is. */
static const char *escape_of(char c, bool first)
{
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++)
        if (escapes[i].c == c)
            return c == '.' && !first ? NULL : escapes[i].escape;
    return NULL;
}

bool by_name_encode(const char *value, char name[NAME_MAX_BYTES + 1])
{
    size_t n = 0;
    for (const char *at = value; *at; at++) {
        const char *escape = escape_of(*at, at == value);
        size_t len = escape ? ESCAPE_BYTES : 1;
        if (n + len > NAME_MAX_BYTES)
            return false;
        memcpy(name + n, escape ? escape : at, len);
        n += len;
    }
    if (n == 0)
        name[n++] = '%';
    name[n] = '\0';
    return true;
}

static bool is_utf8(const char *text)
{
    json_t *string = json_string(text);
    json_decref(string);
    return string != NULL;
}

/* The character of an escape; 0 when it is none. */
static char unescape(const char *at)
{
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++)
        if (strncmp(at, escapes[i].escape, ESCAPE_BYTES) == 0)
            return escapes[i].c;
    return '\0';
}

bool by_name_decode(const char *name, char value[NAME_MAX_BYTES + 1])
{
    char again[NAME_MAX_BYTES + 1];
    size_t n = 0;
    if (strlen(name) > NAME_MAX_BYTES)
        return false;
    for (const char *at = name; *at && strcmp(name, "%") != 0; at++) {
        value[n] = *at == '%' ? unescape(at) : *at;
        if (value[n++] == '\0')
            return false;
        at += *at == '%' ? ESCAPE_BYTES - 1 : 0;
    }
    value[n] = '\0';
    return is_utf8(value) && by_name_encode(value, again) && strcmp(name, again) == 0;
}
