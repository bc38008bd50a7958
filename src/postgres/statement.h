/*
 * A statement that is prepared once on every connection that uses it, and the rows that it yields. The only
 * face of libpq that the stages above see.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct pg_statement {
    const char *name; /* unique over the program; the server-side name */
    const char *sql; /* parameters $1..$n, types inferred or cast in the text; NULL: sql/queries/<name>.sql */
    unsigned nparams; /* at most PG_MAX_PARAMS */
};

enum { PG_MAX_PARAMS = 16 };

/* The SQL of a statement, wherever it stands; "" when there is no such file. */
const char *pg_statement_text(const struct pg_statement *statement);

/* The rows of a finished statement, in memory, all columns in text format. */
struct pg_rows;

size_t pg_rows_count(const struct pg_rows *rows);
/* A column's text, borrowed from the rows and NUL-terminated; NULL for an SQL NULL. */
const char *pg_rows_text(const struct pg_rows *rows, size_t row, unsigned column);
size_t pg_rows_len(const struct pg_rows *rows, size_t row, unsigned column);
/* A column as integer; `null` for an SQL NULL. */
int64_t pg_rows_i64(const struct pg_rows *rows, size_t row, unsigned column, int64_t null);
/* Takes NULL. */
void pg_rows_free(struct pg_rows *rows);

/* The version of libpq, such as 150020 for 15.20. */
int pg_library_version(void);
