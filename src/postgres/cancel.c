#include "postgres/conn_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TEXT = 1024 }; /* of CONN_CANCEL_MAX numbers of 20 digits */

static const struct pg_statement cancel_statement = {"cancel_statements", NULL, 2};

bool conn_abandoned(const struct conn *conn, struct conn_session *out)
{
    *out = conn->session;
    return conn->abandoned && conn->session.pid != 0;
}

int conn_cancel(struct conn *by, const struct conn_session *sessions, size_t n, const struct op *op,
                unsigned *ended, struct fail *f)
{
    char pids[TEXT], starts[TEXT];
    const char *params[] = {pids, starts};
    size_t p = 0, s = 0;
    *ended = 0;
    for (size_t i = 0; i < n && i < CONN_CANCEL_MAX; i++) {
        p += (size_t)snprintf(pids + p, TEXT - p, "%c%d", i ? ',' : '{', sessions[i].pid);
        s += (size_t)snprintf(starts + s, TEXT - s, "%c%" PRId64, i ? ',' : '{', sessions[i].started);
    }
    snprintf(pids + p, TEXT - p, p ? "}" : "{}");
    snprintf(starts + s, TEXT - s, s ? "}" : "{}");
    struct conn_step step = {.statement = &cancel_statement, .params = params, .commit = true};
    struct fail why = {.err = 0};
    enum conn_outcome outcome = conn_run(by, &step, 1, op, &why);
    if (outcome == CONN_DONE && pg_rows_count(step.rows) == 1)
        *ended = (unsigned)pg_rows_i64(step.rows, 0, 0, 0);
    pg_rows_free(step.rows);
    if (outcome != CONN_DONE && f && f->err == 0)
        *f = why;
    return -why.err;
}
