#include "shard/schema.h"

#include "base/sql.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pg_statement read_statement = {
    "schema_read",
    "SELECT (SELECT version FROM campusfs.schema_version ORDER BY entry DESC LIMIT 1),"
    " (SELECT number FROM campusfs.shard)",
    0,
};

unsigned schema_expected(void)
{
    static const char folder[] = "migrations/";
    unsigned last = 0;
    for (const struct sql_file *file = sql_files; file->name; file++) {
        if (strncmp(file->name, folder, sizeof folder - 1) != 0)
            continue;
        unsigned number = (unsigned)strtoul(file->name + sizeof folder - 1, NULL, 10);
        last = number > last ? number : last;
    }
    return last;
}

struct conn_step schema_question(void)
{
    return (struct conn_step){.statement = &read_statement, .commit = true};
}

unsigned schema_answer(const struct conn_step *step)
{
    return step->done && pg_rows_count(step->rows) == 1 ? (unsigned)pg_rows_i64(step->rows, 0, 0, 0) : 0;
}

int schema_read(struct conn *conn, const struct op *op, unsigned *version, unsigned *shard, struct fail *f)
{
    struct conn_step step = schema_question();
    struct fail why = {.err = 0};
    enum conn_outcome outcome = conn_run(conn, &step, 1, op, &why);
    *version = schema_answer(&step);
    *shard = outcome == CONN_DONE ? (unsigned)pg_rows_i64(step.rows, 0, 1, 0) : 0;
    pg_rows_free(step.rows);
    /* No such table or schema: nothing has been set up here. */
    if (outcome == CONN_REFUSED && (strcmp(why.sqlstate, "42P01") == 0 || strcmp(why.sqlstate, "3F000") == 0))
        return 0;
    if (outcome != CONN_DONE && f && f->err == 0)
        *f = why;
    return -why.err;
}

static int check(struct conn *conn, unsigned shard, bool strict, const struct op *op, struct fail *f)
{
    unsigned version, number, expected = schema_expected();
    const char *node = conn_node(conn);
    int r = schema_read(conn, op, &version, &number, f);
    if (r < 0)
        return r;
    if (version == 0)
        return fail_set(f, EPROTO, "node %s: the database has no campusfs schema: run \"campusfs init\"",
                        node);
    if (number != shard)
        return fail_set(f, EXDEV, "node %s: it belongs to shard number %u, but the configuration says %u",
                        node, number, shard);
    if (strict && version < expected)
        return fail_set(
            f, EPROTO,
            "node %s: its schema is older, version %u, than this program's, %u: run \"campusfs init\"", node,
            version, expected);
    if (strict && version > expected)
        return fail_set(
            f, EPROTO,
            "node %s: its schema is newer, version %u, than this program's, %u: install a newer campusfs",
            node, version, expected);
    return 0;
}

int schema_belongs(struct conn *conn, unsigned shard, const struct op *op, struct fail *f)
{
    return check(conn, shard, false, op, f);
}

int schema_check(struct conn *conn, unsigned shard, const struct op *op, struct fail *f)
{
    return check(conn, shard, true, op, f);
}

void schema_explain(struct fail *f)
{
    size_t len = strlen(f->message);
    if (strcmp(f->sqlstate, "3D000") != 0)
        return;
    f->err = EPROTO;
    snprintf(f->message + len, sizeof f->message - len, ": run \"campusfs init\"");
}
