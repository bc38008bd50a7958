/* struct pg_rows is never defined: a pointer to it is a PGresult. */
#include "postgres/statement.h"

#include "base/sql.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

const char *pg_statement_text(const struct pg_statement *statement)
{
    char name[128];
    if (statement->sql)
        return statement->sql;
    snprintf(name, sizeof name, "queries/%s.sql", statement->name);
    const char *text = sql_text(name);
    return text ? text : "";
}

static const PGresult *result_of(const struct pg_rows *rows)
{
    return (const PGresult *)rows;
}

size_t pg_rows_count(const struct pg_rows *rows)
{
    return rows ? (size_t)PQntuples(result_of(rows)) : 0;
}

const char *pg_rows_text(const struct pg_rows *rows, size_t row, unsigned column)
{
    if (PQgetisnull(result_of(rows), (int)row, (int)column))
        return NULL;
    return PQgetvalue(result_of(rows), (int)row, (int)column);
}

size_t pg_rows_len(const struct pg_rows *rows, size_t row, unsigned column)
{
    return (size_t)PQgetlength(result_of(rows), (int)row, (int)column);
}

int64_t pg_rows_i64(const struct pg_rows *rows, size_t row, unsigned column, int64_t null)
{
    const char *text = pg_rows_text(rows, row, column);
    return text ? strtoll(text, NULL, 10) : null;
}

void pg_rows_free(struct pg_rows *rows)
{
    PQclear((PGresult *)rows);
}

int pg_library_version(void)
{
    return PQlibVersion();
}
