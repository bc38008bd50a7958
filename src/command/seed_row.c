#include "command/seed_row.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void add(struct seed_row *row, const char *text, size_t len)
{
    if (row->err == 0)
        row->err = buf_add(&row->text, text, len);
}

void seed_row_begin(struct seed_row *row)
{
    if (row->inside)
        add(row, "\t", 1);
    row->inside = true;
}

/* What COPY reads as this byte; NULL for a byte that stands for itself. */
static const char *escape_of(char c)
{
    switch (c) {
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

void seed_row_add(struct seed_row *row, struct seed_span span)
{
    size_t from = 0;
    for (size_t i = 0; i < span.len; i++) {
        const char *escape = escape_of(span.text[i]);
        if (!escape)
            continue;
        add(row, span.text + from, i - from);
        add(row, escape, 2);
        from = i + 1;
    }
    add(row, span.text + from, span.len - from);
}

void seed_row_format(struct seed_row *row, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof(text))
        row->err = row->err ? row->err : -EOVERFLOW;
    else
        seed_row_add(row, (struct seed_span){text, (size_t)len});
}

void seed_row_pattern(struct seed_row *row, struct seed_span pattern, struct seed_span topic,
                      struct seed_span city)
{
    size_t from = 0;
    for (size_t i = 0; i + 2 < pattern.len; i++) {
        bool place = pattern.text[i] == '{' && pattern.text[i + 2] == '}';
        if (!place)
            continue;
        seed_row_add(row, (struct seed_span){pattern.text + from, i - from});
        seed_row_add(row, pattern.text[i + 1] == 't' ? topic : city);
        from = i + 3;
    }
    seed_row_add(row, (struct seed_span){pattern.text + from, pattern.len - from});
}

void seed_row_text(struct seed_row *row, const char *text)
{
    seed_row_begin(row);
    seed_row_add(row, (struct seed_span){text, strlen(text)});
}

void seed_row_null(struct seed_row *row)
{
    seed_row_begin(row);
    add(row, "\\N", 2);
}

void seed_row_bool(struct seed_row *row, bool value)
{
    seed_row_begin(row);
    add(row, value ? "t" : "f", 1);
}

void seed_row_int(struct seed_row *row, int64_t value)
{
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        digits[--at] = '-';
    seed_row_begin(row);
    add(row, digits + at, sizeof(digits) - at);
}

void seed_row_cents(struct seed_row *row, int64_t cents)
{
    seed_row_begin(row);
    seed_row_format(row, "%lld.%02lld", (long long)(cents / 100), (long long)(cents % 100));
}

/* Days since the epoch as a date of the Gregorian calendar, whose 400 years have 146,097 days. */
static void civil_date(int64_t days, struct seed_date *date)
{
    int64_t shifted = days + 719468; /* from 1 March of the year 0, so that leap days come last */
    int64_t era = shifted / 146097, day = shifted % 146097;
    int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int64_t in_year = day - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * in_year + 2) / 153;
    date->day = (unsigned)(in_year - (153 * month + 2) / 5 + 1);
    date->month = (unsigned)(month < 10 ? month + 3 : month - 9);
    date->year = (int)(year + era * 400 + (date->month <= 2));
}

struct seed_date seed_date_of(int64_t us)
{
    const int64_t day = INT64_C(86400) * 1000000;
    struct seed_date date;
    /* Rounded down, also before 1970, when people were born. */
    int64_t days = us / day - (us % day < 0), rest = us - days * day;
    civil_date(days, &date);
    date.us = (unsigned)(rest % 1000000);
    rest /= 1000000;
    date.hour = (unsigned)(rest / 3600);
    date.minute = (unsigned)(rest / 60 % 60);
    date.second = (unsigned)(rest % 60);
    return date;
}

/* A number of exactly so many digits, written at `at`; returns where it ends. */
static char *put_digits(char *at, unsigned value, int digits)
{
    for (int i = digits - 1; i >= 0; i--, value /= 10)
        at[i] = (char)('0' + value % 10);
    return at + digits;
}

static char *put_day(char *at, const struct seed_date *date)
{
    at = put_digits(at, (unsigned)date->year, 4);
    *at++ = '-';
    at = put_digits(at, date->month, 2);
    *at++ = '-';
    return put_digits(at, date->day, 2);
}

void seed_row_time(struct seed_row *row, int64_t us)
{
    if (us == 0) {
        seed_row_null(row);
        return;
    }
    char text[40];
    struct seed_date date = seed_date_of(us);
    char *at = put_day(text, &date);
    *at++ = ' ';
    at = put_digits(at, date.hour, 2);
    *at++ = ':';
    at = put_digits(at, date.minute, 2);
    *at++ = ':';
    at = put_digits(at, date.second, 2);
    *at++ = '.';
    at = put_digits(at, date.us, 6);
    *at++ = '+';
    at = put_digits(at, 0, 2);
    seed_row_begin(row);
    add(row, text, (size_t)(at - text));
}

void seed_row_day(struct seed_row *row, int64_t us)
{
    char text[16];
    struct seed_date date = seed_date_of(us);
    char *end = put_day(text, &date);
    seed_row_begin(row);
    add(row, text, (size_t)(end - text));
}

void seed_row_end(struct seed_row *row)
{
    add(row, "\n", 1);
    row->inside = false;
    row->rows++;
}

void seed_row_clear(struct seed_row *row)
{
    row->text.len = 0;
    row->rows = 0;
    row->inside = false;
}

void seed_row_free(struct seed_row *row)
{
    buf_clear(&row->text);
    *row = (struct seed_row){0};
}
