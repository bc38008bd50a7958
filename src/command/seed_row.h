/*
 * Rows in COPY's text format. The first failure (memory) is kept and all that follows does nothing, so that a
 * row can be written down field by field and asked once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "command/seed_words.h"

struct seed_row {
    struct buf text; /* any number of finished rows */
    int64_t rows;
    bool inside; /* a row is begun, the next field needs a tab before it */
    int err;     /* 0, or what went wrong first, negative */
};

void seed_row_null(struct seed_row *row);
void seed_row_int(struct seed_row *row, int64_t value);
void seed_row_bool(struct seed_row *row, bool value);
/* A number of two decimal places. */
void seed_row_cents(struct seed_row *row, int64_t cents);
/* Microseconds since the epoch as timestamptz; NULL for 0, which nothing here is. */
void seed_row_time(struct seed_row *row, int64_t us);
/* Its day, in UTC, as date. */
void seed_row_day(struct seed_row *row, int64_t us);
void seed_row_text(struct seed_row *row, const char *text);
void seed_row_end(struct seed_row *row);

/* A field made of pieces: begin, add..., and the next field or the end closes it. */
void seed_row_begin(struct seed_row *row);
void seed_row_add(struct seed_row *row, struct seed_span span);
__attribute__((format(printf, 2, 3))) void seed_row_format(struct seed_row *row, const char *format, ...);
/* A pattern with {t} and {c} replaced. */
void seed_row_pattern(struct seed_row *row, struct seed_span pattern, struct seed_span topic,
                      struct seed_span city);

/* Forgets the rows, keeps the memory. */
void seed_row_clear(struct seed_row *row);
void seed_row_free(struct seed_row *row);

struct seed_date {
    int year;
    unsigned month, day, hour, minute, second, us;
};
/* A moment's parts in UTC. */
struct seed_date seed_date_of(int64_t us);
