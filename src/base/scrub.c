/*
 * Works on the raw bytes, never on a parse: what is to be blanked is mostly what did not parse. So it errs on
 * the side of blanking: a quote may open a string or close one, both readings are tried.
 */
#include "base/scrub.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

enum { CARD_MIN = 13, CARD_MAX = 19, RUN_MAX = 64 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t skip_spaces(const char *text, size_t len, size_t at)
{
    while (at < len && is_space(text[at]))
        at++;
    return at;
}

static unsigned hex_value(char c)
{
    if (is_digit(c))
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a' + 10);
    return c >= 'A' && c <= 'F' ? (unsigned)(c - 'A' + 10) : 256;
}

/* The character at *at, which moves behind it: \u0070 is read as the p that a JSON reader would see. */
static char next_char(const char *text, size_t len, size_t *at)
{
    if (len - *at >= 6 && text[*at] == '\\' && text[*at + 1] == 'u') {
        unsigned code = 0;
        for (size_t i = 2; i < 6; i++)
            code = code < 256 ? code * 16 + hex_value(text[*at + i]) : code;
        *at += 6;
        return code > 0 && code < 128 ? (char)code : '?';
    }
    return text[(*at)++];
}

/* The place behind `"password"` or `"password_hash"` at text[at], in any case of letters; 0 when something
 * else stands there. */
static size_t password_key_end(const char *text, size_t len, size_t at)
{
    static const char key[] = "password_hash";
    enum { WORD = 8 }; /* of the first word */
    size_t i = 0;
    for (at++; i < sizeof key - 1 && at < len && text[at] != '"'; i++) {
        char c = next_char(text, len, &at);
        if ((c | (c == '_' ? 0 : 0x20)) != key[i])
            return 0;
    }
    return (i == WORD || i == sizeof key - 1) && at < len && text[at] == '"' ? at + 1 : 0;
}

/* Blanks the string that opens at text[at], up to its end or that of the text. Returns the place behind it.
 */
static size_t blank_string(char *text, size_t len, size_t at)
{
    for (at++; at < len && text[at] != '"'; at++) {
        bool escape = text[at] == '\\' && at + 1 < len;
        text[at] = '*';
        if (escape)
            text[++at] = '*';
    }
    return at < len ? at + 1 : at;
}

static size_t blank_value(char *text, size_t len, size_t at)
{
    if (at < len && text[at] == '"')
        return blank_string(text, len, at);
    size_t end = at;
    if (at < len && (text[at] == '{' || text[at] == '[')) {
        for (end = at + 1; end < len && text[end] != '}' && text[end] != ']';)
            end = text[end] == '"' ? blank_string(text, len, end) : end + 1;
        return end;
    }
    while (end < len && !strchr(",}] \t\r\n", text[end]))
        end++;
    if (end - at != 4 || memcmp(text + at, "null", 4) != 0)
        memset(text + at, '*', end - at);
    return end;
}

static void scrub_passwords(char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t end = text[at] == '"' ? password_key_end(text, len, at) : 0;
        if (end == 0) {
            at++;
            continue;
        }
        size_t colon = skip_spaces(text, len, end);
        at = end;
        if (colon < len && text[colon] == ':')
            at = blank_value(text, len, skip_spaces(text, len, colon + 1));
    }
}

static bool luhn_passes(const char *text, const size_t *where, size_t count)
{
    unsigned sum = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned digit = (unsigned)(text[where[count - 1 - i]] - '0');
        if (i % 2 == 1)
            digit = digit * 2 > 9 ? digit * 2 - 9 : digit * 2;
        sum += digit;
    }
    return sum % 10 == 0;
}

/* Finds the digits of the run at `at`, single separators allowed inside, RUN_MAX at most. Returns their
 * number. */
static size_t find_digits(const char *text, size_t len, size_t at, size_t *where)
{
    size_t count = 0;
    while (at < len && count < RUN_MAX) {
        if (is_digit(text[at]))
            where[count++] = at++;
        else if ((text[at] == ' ' || text[at] == '-') && at + 1 < len && is_digit(text[at + 1]))
            at++;
        else
            break;
    }
    return count;
}

/* Blanks the longest card number that starts with the first of these digits. Returns its number of digits, or
 * 0. */
static size_t blank_card(char *text, size_t len, const size_t *where, size_t count)
{
    if (where[0] > 0 && is_digit(text[where[0] - 1]))
        return 0;
    for (size_t n = count < CARD_MAX ? count : CARD_MAX; n >= CARD_MIN; n--) {
        size_t behind = where[n - 1] + 1;
        if ((behind < len && is_digit(text[behind])) || !luhn_passes(text, where, n))
            continue;
        for (size_t i = 0; i < n; i++)
            text[where[i]] = '*';
        return n;
    }
    return 0;
}

/* Numbers may stand side by side: within a run, whatever starts and ends at a separator is judged. */
static void scrub_cards(char *text, size_t len)
{
    size_t where[RUN_MAX];
    for (size_t at = 0; at < len; at++) {
        if (!is_digit(text[at]))
            continue;
        size_t count = find_digits(text, len, at, where);
        size_t first = 0;
        while (first + CARD_MIN <= count) {
            size_t blanked = blank_card(text, len, where + first, count - first);
            first += blanked ? blanked : 1;
        }
        /* What is left of a full window starts the next one. */
        at = count == RUN_MAX && first < count ? where[first] - 1 : where[count - 1];
    }
}

static bool is_hash_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '/';
}

/* bcrypt's "$2b$10$" and what follows, whole or cut off, under whatever key it stands: all but the head. */
static void scrub_hashes(char *text, size_t len)
{
    enum { HEAD = 7 };
    for (size_t at = 0; at + HEAD < len; at++) {
        const char *h = text + at;
        if (h[0] != '$' || h[1] != '2' || h[3] != '$' || !is_digit(h[4]) || !is_digit(h[5]) || h[6] != '$')
            continue;
        at += HEAD;
        while (at < len && is_hash_char(text[at]))
            text[at++] = '*';
        at--; /* what ended it may begin the next one */
    }
}

void scrub_secrets(char *text, size_t len)
{
    scrub_passwords(text, len);
    scrub_hashes(text, len);
    scrub_cards(text, len);
}
