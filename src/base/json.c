#include "base/json.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* The depth that the layout indents; a database document is a few levels deep, preferences may be deeper. */
enum { LAYOUT_MAX_DEPTH = 4096 };

#ifndef JSON_PARSER_MAX_DEPTH
#define JSON_PARSER_MAX_DEPTH 2048 /* Debian's build of jansson */
#endif

static int layout_newline(struct buf *out, size_t depth)
{
    static const char spaces[] = "                                ";
    int r = buf_add_char(out, '\n');
    for (size_t left = 2 * depth; r == 0 && left > 0;) {
        size_t n = left < sizeof spaces - 1 ? left : sizeof spaces - 1;
        r = buf_add(out, spaces, n);
        left -= n;
    }
    return r;
}

/* Copies the string literal that starts at text[*at], and moves *at behind it. */
static int layout_string(const char *text, size_t len, size_t *at, struct buf *out)
{
    size_t start = *at, i = start + 1;
    int r;
    for (; i < len && text[i] != '"'; i++) {
        if (text[i] == '\\') {
            i++;
        } else if (text[i] == 0x7f) {
            r = buf_add(out, text + start, i - start);
            if (r == 0)
                r = buf_add_text(out, "\\u007f");
            if (r < 0)
                return r;
            start = i + 1;
        }
    }
    if (i >= len)
        return -EPROTO;
    *at = i + 1;
    return buf_add(out, text + start, i + 1 - start);
}

static size_t skip_space(const char *text, size_t len, size_t i)
{
    while (i < len && strchr(" \t\r\n", text[i]) && text[i] != '\0')
        i++;
    return i;
}

/* An opening bracket: empty containers stay on one line. */
static int layout_open(const char *text, size_t len, size_t *at, size_t *depth, struct buf *out)
{
    char open = text[*at], close = open == '{' ? '}' : ']';
    size_t next = skip_space(text, len, *at + 1);
    int r = buf_add_char(out, open);
    if (r < 0)
        return r;
    if (next < len && text[next] == close) {
        *at = next + 1;
        return buf_add_char(out, close);
    }
    if (*depth >= LAYOUT_MAX_DEPTH)
        return -EPROTO;
    *at = next;
    return layout_newline(out, ++*depth);
}

static int layout_token(const char *text, size_t len, size_t *at, size_t *depth, struct buf *out)
{
    size_t i = *at;
    int r;
    switch (text[i]) {
    case '{':
    case '[':
        return layout_open(text, len, at, depth, out);
    case '}':
    case ']':
        if (*depth == 0)
            return -EPROTO;
        r = layout_newline(out, --*depth);
        ++*at;
        return r < 0 ? r : buf_add_char(out, text[i]);
    case ',':
        ++*at;
        r = buf_add_char(out, ',');
        return r < 0 ? r : layout_newline(out, *depth);
    case ':':
        ++*at;
        return buf_add(out, ": ", 2);
    case '"':
        return layout_string(text, len, at, out);
    default:
        while (i < len && !strchr(" \t\r\n,:{}[]\"", text[i]))
            i++;
        if (i == *at)
            return -EPROTO;
        r = buf_add(out, text + *at, i - *at);
        *at = i;
        return r;
    }
}

int json_layout(const char *text, size_t len, struct buf *out)
{
    size_t depth = 0, at = skip_space(text, len, 0);
    while (at < len) {
        int r = layout_token(text, len, &at, &depth, out);
        if (r < 0)
            return r;
        at = skip_space(text, len, at);
    }
    return depth != 0 || len == 0 ? -EPROTO : buf_add_char(out, '\n');
}

int json_compact(const char *text, size_t len, struct buf *out)
{
    size_t start = 0, i = 0;
    int r = 0;
    while (r == 0 && i < len) {
        if (text[i] == '"') {
            r = buf_add(out, text + start, i - start);
            if (r == 0)
                r = layout_string(text, len, &i, out);
            start = i;
        } else if (strchr(" \t\r\n", text[i]) && text[i] != '\0') {
            r = buf_add(out, text + start, i - start);
            i = start = skip_space(text, len, i);
        } else {
            i++;
        }
    }
    if (r == 0)
        r = buf_add(out, text + start, len - start);
    return r < 0 ? r : len == 0 ? -EPROTO : buf_add_char(out, '\n');
}

static bool has_bom(const char *text, size_t len)
{
    return len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0;
}

/*
 * What jansson found, in words for who wrote the document: its own speak of the library's flags, and show
 * what stands there, which may be a secret. Keys and numbers are shown; digits that could be a card's are
 * blanked by who keeps it.
 */
static void problem(const json_error_t *error, char *out, size_t size)
{
    const char *near = strstr(error->text, " near '");
    size_t words = near ? (size_t)(near - error->text) : strlen(error->text);
    switch (json_error_code(error)) {
    case json_error_numeric_overflow:
        snprintf(out, size, "a number that is too large to be stored%s", near ? near : "");
        break;
    case json_error_duplicate_key:
        snprintf(out, size, "%s", error->text);
        break;
    case json_error_null_character:
    case json_error_null_byte_in_key:
        snprintf(out, size, "a NUL character (\\u0000), which no text can hold");
        break;
    case json_error_stack_overflow:
        snprintf(out, size, "nested too deep: the depth is at most %d levels", JSON_PARSER_MAX_DEPTH);
        break;
    default:
        snprintf(out, size, "%.*s", (int)words, error->text);
    }
}

int json_check(const char *text, size_t len, bool *unfinished, struct fail *f)
{
    json_error_t error = {0};
    char words[2 * JSON_ERROR_TEXT_LENGTH];
    *unfinished = false;
    if (has_bom(text, len))
        return fail_set(f, EINVAL,
                        "the document begins with a byte order mark; save it as UTF-8 without one");
    if (len > 0 &&
        memchr(text, '\0', len)) /* jansson lets one pass behind a number, and libpq would cut there */
        return fail_set(f, EINVAL, "the document contains a NUL byte");
    json_t *value = json_loadb(text ? text : "", len, JSON_REJECT_DUPLICATES, &error);
    if (!value) {
        *unfinished = json_error_code(&error) == json_error_premature_end_of_input;
        problem(&error, words, sizeof words);
        return fail_set(f, EINVAL, "not valid JSON: line %d, column %d: %s", error.line, error.column, words);
    }
    bool object = json_is_object(value);
    json_decref(value);
    return object ? 0 : fail_set(f, EINVAL, "a document is one JSON object, { ... }");
}

/* How much of an unfinished text can be judged: a literal, an escape or a character cut at its end cannot. */
static size_t judgeable(const char *text, size_t len)
{
    size_t n = len;
    while (n > 0 && (text[n - 1] & 0x80))
        n--;
    while (n > 0 && memchr("+-.0123456789abcdefghijklmnopqrstuvwxyzE", text[n - 1], 40))
        n--;
    /* "\ud83d\ude00" is twelve bytes: judge nothing behind a backslash that near to the end, nor half a pair
     * of them. */
    size_t i = n > 12 ? n - 12 : 0;
    while (i < n && text[i] != '\\')
        i++;
    while (i < n && i > 0 && text[i - 1] == '\\')
        i--;
    return i;
}

int json_check_prefix(const char *text, size_t len, bool *whole, struct fail *f)
{
    bool unfinished;
    struct fail why = {0};
    size_t n = judgeable(text, len);
    if (whole)
        *whole = false;
    if (n < len && memchr("+-.0123456789abcdefghijklmnopqrstuvwxyzE\\", text[0], 41))
        n = len; /* no document begins with these: judged as it stands */
    if (n == 0)
        return 0;
    if (json_check(text, n, &unfinished, &why) == 0) {
        if (whole)
            *whole = n == len;
        return 0;
    }
    if (unfinished)
        return 0;
    if (f && f->err == 0)
        *f = why;
    return -EINVAL;
}

bool json_get_string(const char *text, size_t len, const char *key, char *out, size_t size)
{
    json_t *value = json_loadb(text ? text : "", len, 0, NULL);
    const json_t *member = json_object_get(value, key);
    bool fits = json_is_string(member) && json_string_length(member) < size;
    if (fits)
        memcpy(out, json_string_value(member), json_string_length(member) + 1);
    json_decref(value);
    return fits;
}

static int add_code_point(struct buf *out, const unsigned char *p, size_t n)
{
    switch (*p) {
    case '"':
        return buf_add(out, "\\\"", 2);
    case '\\':
        return buf_add(out, "\\\\", 2);
    case '\n':
        return buf_add(out, "\\n", 2);
    case '\t':
        return buf_add(out, "\\t", 2);
    default:
        return *p < 0x20 || *p == 0x7f ? buf_printf(out, "\\u%04x", *p) : buf_add(out, p, n);
    }
}

int json_add_string(struct buf *out, const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text, *end = p + len;
    int r = buf_add_char(out, '"');
    while (r == 0 && p < end) {
        size_t n = utf8_sequence(p, (size_t)(end - p));
        r = n ? add_code_point(out, p, n) : buf_add_text(out, "\xef\xbf\xbd");
        p += n ? n : 1;
    }
    return r < 0 ? r : buf_add_char(out, '"');
}
