#include "postgres/conn_private.h"

#include "base/scrub.h"
#include "base/utf8.h"
#include "postgres/sqlstate.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POLL_SLICE_MS = 50, STEPS_MAX = 8 };

/* ---- waiting ---- */

int conn_poll(struct conn *conn, short events, const struct op *op)
{
    for (;;) {
        int64_t left = op_left_ms(op);
        int slice = op->interrupted && left > POLL_SLICE_MS ? POLL_SLICE_MS
                    : left < 3600000                        ? (int)left
                                                            : 3600000;
        struct pollfd fd = {.fd = PQsocket(conn->pg), .events = events};
        int n = poll(&fd, 1, slice);
        if (n > 0 || (n < 0 && errno != EINTR))
            return 0; /* ready or broken: the next libpq call tells */
        if (op_interrupted(op))
            return -EINTR;
        if (left == 0)
            return -ETIMEDOUT;
    }
}

int conn_flush(struct conn *conn, const struct op *op)
{
    int more;
    while ((more = PQflush(conn->pg)) > 0) {
        int r = conn_poll(conn, POLLIN | POLLOUT, op);
        if (r < 0)
            return r;
        if (!PQconsumeInput(conn->pg))
            return -EIO;
    }
    return more < 0 ? -EIO : 0;
}

int conn_next_result(struct conn *conn, const struct op *op, PGresult **out)
{
    while (PQisBusy(conn->pg)) {
        int r = conn_poll(conn, POLLIN, op);
        if (r < 0)
            return r;
        if (!PQconsumeInput(conn->pg))
            break; /* libpq has made a result of what went wrong */
    }
    *out = PQgetResult(conn->pg);
    return 0;
}

int conn_fail_wait(struct conn *conn, int r, struct fail *f)
{
    conn->broken = true;
    conn->abandoned |= r == -EINTR || r == -ETIMEDOUT;
    if (r == -EINTR)
        return fail_set(f, EINTR, "node %s: interrupted", conn->node);
    if (r == -ETIMEDOUT)
        return fail_set(f, EIO, "node %s: no answer within the time there was", conn->node);
    const char *text = PQerrorMessage(conn->pg);
    r = fail_set(f, EIO, "node %s: %.*s", conn->node, (int)strcspn(text, "\n"),
                 *text ? text : "connection lost");
    if (f)
        utf8_clean(f->message);
    return r;
}

/*
 * "canceling wait for synchronous replication": the transaction is committed on this server, and perhaps
 * nowhere else. The text is in the server's language, the function's name is not.
 */
void conn_notice(void *arg, const PGresult *result)
{
    struct conn *conn = arg;
    const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
    if (function && strcmp(function, "SyncRepWaitForLSN") == 0)
        conn->unconfirmed = true;
}

static void copy_field(char *to, size_t size, const PGresult *result, int field)
{
    const char *text = PQresultErrorField(result, field);
    snprintf(to, size, "%s", text ? text : "");
    utf8_clean(to);
    scrub_secrets(to, strlen(to));
}

int conn_fail_result(struct conn *conn, const PGresult *result, struct fail *f)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (!state || PQstatus(conn->pg) == CONNECTION_BAD) {
        conn->broken = true;
        if (!state)
            return conn_fail_wait(conn, -EIO, f);
    }
    if (severity && strcmp(severity, "ERROR") != 0)
        conn->broken = true; /* FATAL, PANIC: nothing more will come */
    if (strcmp(state, "0A000") == 0 || strcmp(state, "26000") == 0)
        conn->broken = true; /* a prepared statement no longer fits: a new connection prepares it anew */
    if (!f || f->err)
        return -sqlstate_errno(state);
    f->err = sqlstate_errno(state);
    copy_field(f->sqlstate, sizeof f->sqlstate, result, PG_DIAG_SQLSTATE);
    copy_field(f->constraint, sizeof f->constraint, result, PG_DIAG_CONSTRAINT_NAME);
    copy_field(f->column, sizeof f->column, result, PG_DIAG_COLUMN_NAME);
    size_t len = 0;
    if (conn->broken) /* it is about the connection: say whose */
        len = (size_t)snprintf(f->message, sizeof f->message, "node %s: ", conn->node);
    copy_field(f->message + len, sizeof f->message - len, result, PG_DIAG_MESSAGE_PRIMARY);
    copy_field(f->hint, sizeof f->hint, result, PG_DIAG_MESSAGE_HINT);
    return -f->err;
}

/* ---- prepared statements and pipelines ---- */

static bool is_prepared(const struct conn *conn, const struct pg_statement *statement)
{
    for (size_t i = 0; i < conn->nprepared; i++)
        if (conn->prepared[i] == statement)
            return true;
    return false;
}

/* Should memory run out, the connection goes: it would prepare a name twice. */
static void note_prepared(struct conn *conn, const struct pg_statement *statement)
{
    const struct pg_statement **more = reallocarray(conn->prepared, conn->nprepared + 1, sizeof *more);
    if (!more) {
        conn->broken = true;
        return;
    }
    conn->prepared = more;
    conn->prepared[conn->nprepared++] = statement;
}

/* What one result of a pipeline answers. */
struct reply {
    enum { REPLY_PREPARE, REPLY_ROWS, REPLY_COMMIT } kind;
    struct conn_step *step;
};

struct pipeline {
    struct reply replies[3 * STEPS_MAX];
    size_t count;
    bool sent; /* a Sync has gone to the socket: before that nothing can commit */
};

static bool pipeline_send(struct conn *conn, struct pipeline *p, struct conn_step *steps, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct pg_statement *statement = steps[i].statement;
        bool queued_before = is_prepared(conn, statement);
        for (size_t j = 0; j < i && !queued_before; j++)
            queued_before = steps[j].statement == statement;
        if (!queued_before) {
            if (!PQsendPrepare(conn->pg, statement->name, pg_statement_text(statement), 0, NULL))
                return false;
            p->replies[p->count++] = (struct reply){REPLY_PREPARE, &steps[i]};
        }
        if (!PQsendQueryPrepared(conn->pg, statement->name, (int)statement->nparams, steps[i].params, NULL,
                                 NULL, 0))
            return false;
        p->replies[p->count++] = (struct reply){REPLY_ROWS, &steps[i]};
        if (steps[i].commit || i + 1 == n) {
            p->sent = true;
            if (!PQpipelineSync(conn->pg))
                return false;
            p->replies[p->count++] = (struct reply){REPLY_COMMIT, &steps[i]};
        }
    }
    return true;
}

/* Takes one result for a reply. Returns 0, or the -errno of an error result. */
static int take_result(struct conn *conn, const struct reply *reply, PGresult *result, struct fail *f)
{
    switch (PQresultStatus(result)) {
    case PGRES_COMMAND_OK:
        if (reply->kind == REPLY_PREPARE)
            note_prepared(conn, reply->step->statement);
        break;
    case PGRES_TUPLES_OK:
        reply->step->rows = (struct pg_rows *)result;
        return 0;
    case PGRES_PIPELINE_SYNC:
    case PGRES_PIPELINE_ABORTED:
        break;
    default: {
        int r = conn_fail_result(conn, result, f);
        PQclear(result);
        return r;
    }
    }
    PQclear(result);
    return 0;
}

/*
 * Reads the results up to and with the next Sync, the end of one transaction. A commit that fails (a deferred
 * constraint) shows as an error just before the Sync. Returns 0 when it is committed.
 */
static int read_transaction(struct conn *conn, struct pipeline *p, size_t *at, const struct op *op,
                            struct fail *f)
{
    int failed = 0;
    conn->unconfirmed = false;
    for (size_t ends = 0;;) {
        PGresult *result = NULL;
        int r = conn_next_result(conn, op, &result);
        if (r < 0)
            return conn_fail_wait(conn, r, f);
        if (!result) {
            /* One end a reply, one more behind an error at commit; others mean that libpq waits for nothing.
             */
            if (PQstatus(conn->pg) == CONNECTION_BAD || ++ends > p->count + 1)
                return conn_fail_wait(conn, -EIO, f);
            if (p->replies[*at].kind != REPLY_COMMIT)
                (*at)++;
            continue;
        }
        bool end = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        r = take_result(conn, &p->replies[*at], result, f);
        failed = failed ? failed : r;
        if (end) {
            (*at)++;
            return failed;
        }
        if (failed && conn->broken && PQstatus(conn->pg) == CONNECTION_BAD)
            return failed;
    }
}

static enum conn_outcome pipeline_read(struct conn *conn, struct pipeline *p, const struct op *op,
                                       struct fail *f)
{
    int r = conn_flush(conn, op);
    if (r < 0 && r != -EIO) {
        conn_fail_wait(conn, r, f);
        return CONN_LOST;
    }
    /* After a write error there may still be the reason to read. */
    enum conn_outcome outcome = CONN_DONE;
    for (size_t at = 0; at < p->count;) {
        size_t first = at;
        r = read_transaction(conn, p, &at, op, f);
        bool ended = at > first && p->replies[at - 1].kind == REPLY_COMMIT;
        if (r < 0 && !ended)
            return outcome == CONN_DONE ? CONN_LOST : outcome;
        if (r < 0) {
            outcome =
                CONN_REFUSED; /* what follows is read nevertheless, so that the connection can be kept */
            continue;
        }
        for (size_t i = first; i < at; i++) {
            p->replies[i].step->done = true;
            p->replies[i].step->unconfirmed = conn->unconfirmed;
        }
    }
    return outcome;
}

enum conn_outcome conn_run(struct conn *conn, struct conn_step *steps, size_t n, const struct op *op,
                           struct fail *f)
{
    struct pipeline p = {.count = 0};
    for (size_t i = 0; i < n; i++) {
        steps[i].rows = NULL;
        steps[i].done = steps[i].unconfirmed = false;
    }
    if (conn->broken || n > STEPS_MAX || !pipeline_send(conn, &p, steps, n)) {
        conn_fail_wait(conn, -EIO, f);
        return p.sent ? CONN_LOST : CONN_UNSENT;
    }
    return pipeline_read(conn, &p, op, f);
}

/* ---- text ---- */

/* Adds where in the text an error is: its line, or, inside a function, the first line of the server's
 * context. */
static void add_place(const PGresult *result, const char *sql, struct fail *f)
{
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    const char *context = PQresultErrorField(result, PG_DIAG_CONTEXT);
    size_t len = strlen(f->message);
    if (position) {
        unsigned line = 1;
        /* The position counts characters, not bytes. */
        for (long left = strtol(position, NULL, 10); *sql && left > 1; sql++) {
            line += *sql == '\n';
            left -= (sql[1] & 0xc0) != 0x80;
        }
        snprintf(f->message + len, sizeof f->message - len, " (line %u)", line);
    } else if (context) {
        snprintf(f->message + len, sizeof f->message - len, " (%.*s)", (int)strcspn(context, "\n"), context);
        utf8_clean(f->message + len);
    }
}

int conn_exec(struct conn *conn, const char *sql, const struct op *op, struct pg_rows **rows, struct fail *f)
{
    PGresult *result, *last = NULL;
    int failed = 0;
    if (conn->broken || !PQexitPipelineMode(conn->pg) || !PQsendQuery(conn->pg, sql))
        return conn_fail_wait(conn, -EIO, f);
    conn->unconfirmed = false;
    int r = conn_flush(conn, op);
    while (r == 0 && (r = conn_next_result(conn, op, &result)) == 0 && result) {
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
            PQclear(last);
            last = result;
            continue;
        }
        int err = conn_fail_result(conn, result, f);
        if (!failed && f)
            add_place(result, sql, f);
        failed = failed ? failed : err;
        PQclear(result);
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT)
            break; /* not for here; breaking the connection ends it */
    }
    if (r < 0)
        failed = conn_fail_wait(conn, r, f);
    else if (!PQenterPipelineMode(conn->pg))
        failed = failed ? failed : conn_fail_wait(conn, -EIO, f);
    if (!failed && conn->unconfirmed)
        failed =
            fail_set(f, EIO, "node %s: committed, but no synchronous standby has confirmed it", conn->node);
    if (failed || !rows)
        PQclear(last);
    else
        *rows = (struct pg_rows *)last;
    return failed;
}

/* ---- role ---- */

static const struct pg_statement role_statement = {"node_role", NULL, 0};
static const struct pg_statement session_statement = {"session", NULL, 0};

/* Columns of sql/queries/node_role.sql. */
enum role_column {
    ROLE_STANDBY,
    ROLE_TIMELINE,
    ROLE_LSN,
    ROLE_LAG,
    ROLE_SYSTEM,
    ROLE_RECEIVED,
    ROLE_STREAMING,
    ROLE_SYNCHRONOUS,
    ROLE_CONFIRMING,
    ROLE_CLOCK,
};

static int64_t wall_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct conn_role read_role(const struct pg_rows *rows)
{
    return (struct conn_role){
        .standby = pg_rows_i64(rows, 0, ROLE_STANDBY, 1) != 0,
        .timeline = (uint32_t)pg_rows_i64(rows, 0, ROLE_TIMELINE, 0),
        .lsn = (uint64_t)pg_rows_i64(rows, 0, ROLE_LSN, 0),
        .lag_ms = pg_rows_i64(rows, 0, ROLE_LAG, CONN_LAG_UNKNOWN),
        .system = (uint64_t)pg_rows_i64(rows, 0, ROLE_SYSTEM, 0),
        .received = (uint64_t)pg_rows_i64(rows, 0, ROLE_RECEIVED, 0),
        .streaming = pg_rows_i64(rows, 0, ROLE_STREAMING, 0) != 0,
        .synchronous = pg_rows_i64(rows, 0, ROLE_SYNCHRONOUS, 0) != 0,
        .confirming = (int)pg_rows_i64(rows, 0, ROLE_CONFIRMING, -1),
        .clock_ms = pg_rows_i64(rows, 0, ROLE_CLOCK, 0) - wall_clock_ms(),
        .asked = clock_now_ms(),
    };
}

/* The first step is the question of the role, and all that has to be answered when it ends a transaction. */
static int ask(struct conn *conn, struct conn_step *steps, size_t n, const struct op *op, struct fail *f)
{
    int64_t begun = clock_now_us(), connect_us = conn->role.connect_us;
    struct fail why = {.err = 0};
    conn_run(conn, steps, n, op, &why);
    bool answered = steps[0].done;
    if (answered && pg_rows_count(steps[0].rows) == 1) {
        conn->role = read_role(steps[0].rows);
        conn->role.connect_us = connect_us;
        conn->role.answer_us = clock_now_us() - begun;
    }
    pg_rows_free(steps[0].rows);
    if (answered)
        return 0;
    if (f && f->err == 0)
        *f = why;
    return why.err ? -why.err : -EIO;
}

int conn_ask_role(struct conn *conn, struct conn_step *also, const struct op *op, struct conn_role *role,
                  struct fail *f)
{
    struct conn_step steps[2] = {{.statement = &role_statement, .commit = true}};
    if (also)
        steps[1] = *also;
    int r = ask(conn, steps, also ? 2 : 1, op, f);
    if (also)
        *also = steps[1];
    if (r == 0)
        *role = conn->role;
    return r;
}

int conn_introduce(struct conn *conn, const struct op *op, struct fail *f)
{
    struct conn_step steps[] = {{.statement = &role_statement},
                                {.statement = &session_statement, .commit = true}};
    int r = ask(conn, steps, 2, op, f);
    bool pinned = false;
    if (r == 0 && pg_rows_count(steps[1].rows) == 1) {
        conn->session = (struct conn_session){(int)pg_rows_i64(steps[1].rows, 0, 0, 0),
                                              pg_rows_i64(steps[1].rows, 0, 1, 0)};
        pinned = pg_rows_i64(steps[1].rows, 0, 2, 0) != 0;
    }
    pg_rows_free(steps[1].rows);
    if (r == 0 && !pinned)
        return fail_set(f, EACCES,
                        "node %s: the settings of the session were not taken: a pooler in between ignores "
                        "them (\"options\"), and without them statements may mean something else",
                        conn->node);
    return r;
}

const struct conn_role *conn_role(const struct conn *conn)
{
    return &conn->role;
}

void conn_note_lsn(struct conn *conn, uint64_t lsn)
{
    if (lsn > conn->role.lsn)
        conn->role.lsn = lsn;
}

bool conn_usable(struct conn *conn)
{
    if (conn->broken || PQstatus(conn->pg) != CONNECTION_OK || PQtransactionStatus(conn->pg) != PQTRANS_IDLE)
        return false;
    struct pollfd fd = {.fd = PQsocket(conn->pg), .events = POLLIN};
    if (poll(&fd, 1, 0) > 0) {
        /* Notices and changed settings are fine; the end of the connection, announced or not, is not. */
        if (!PQconsumeInput(conn->pg) || PQstatus(conn->pg) != CONNECTION_OK || PQisBusy(conn->pg))
            return false;
        if (poll(&fd, 1, 0) > 0)
            return false;
    }
    /* With the next answer a server says by itself that it has been promoted. The watcher, who hears of it as
     * well, has all such connections closed (pool_renew()); this one is closed before, and also where it was
     * told what it is in the very millisecond of that. */
    const char *standby = PQparameterStatus(conn->pg, "in_hot_standby");
    return !standby || (strcmp(standby, "on") == 0) == conn->role.standby;
}

int64_t conn_opened(const struct conn *conn)
{
    return conn->opened;
}

unsigned conn_count_prepared(struct conn *conn)
{
    unsigned news = (unsigned)(conn->nprepared - conn->ncounted);
    conn->ncounted = conn->nprepared;
    return news;
}

const char *conn_node(const struct conn *conn)
{
    return conn->node;
}

void conn_close(struct conn *conn)
{
    if (!conn)
        return;
    int saved = errno;
    PQfreemem(conn->copied);
    PQfinish(conn->pg);
    free(conn->prepared);
    free(conn);
    errno = saved;
}
