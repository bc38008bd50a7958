/*
 * The way of a write: the primary on the newest timeline, one transaction, and in the same round trip the
 * position behind its commit. "Not known" is a result, too: an answer that was lost is looked up by the
 * request's id, which the write itself inserts: resolve_request() inserts it as void, and who comes second
 * fails. So a write is repeated only when it can no longer have happened, and then under a new id.
 */
#include "shard/shard_private.h"

#include "base/cleanup.h"
#include "base/uuid.h"
#include "postgres/sqlstate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
    RETRY_MAX = 6,       /* deadlocks and serialization failures */
    RETRY_PAUSE_MS = 10, /* grows with each */
    RESOLVE_PAUSE_MS = 25,
    WRITE_SHARE = 80, /* percent of the time for the write itself, the rest is to look up what became of it */
};

static const struct pg_statement resolve_statement = {
    "shard_resolve",
    "SELECT campusfs.resolve_request($1::uuid)",
    1,
};

struct write {
    struct shard *shard;
    const struct pg_statement *statement;
    const char *params[PG_MAX_PARAMS];
    char request[UUID_TEXT]; /* "" = none */
    int request_param;       /* which parameter it is, -1 = none */
    size_t bytes;            /* of all parameters */
    struct pg_rows *rows;
    struct fail why;
};

enum ending {
    WRITE_DONE,
    WRITE_FAILED,  /* refused, and to be told so */
    WRITE_AGAIN,   /* not committed and never will be */
    WRITE_UNKNOWN, /* may be committed */
};

static void request_renew(struct write *w)
{
    if (w->request_param < 0 || uuid_new(w->request) < 0)
        return;
    w->params[w->request_param] = w->request;
}

static enum ending judge(struct write *w, const struct conn_step *steps, enum conn_outcome outcome,
                         bool fenced, struct fail *why, const struct attempt *attempt)
{
    if (steps[0].done && !steps[0].unconfirmed && !fenced)
        return WRITE_DONE;
    if (steps[0].done)
        fail_set(why, EIO, "node %s: committed, but %s", attempt->node->name,
                 fenced ? "another was the primary already" : "no synchronous standby has confirmed it");
    attempt_explain(attempt, why);
    w->why = *why;
    if (steps[0].done)
        return WRITE_UNKNOWN;
    switch (outcome) {
    case CONN_UNSENT:
        return WRITE_AGAIN;
    case CONN_REFUSED:
        return sqlstate_is_transient(why->sqlstate) ? WRITE_AGAIN : WRITE_FAILED;
    default:
        return WRITE_UNKNOWN;
    }
}

/* One attempt on a connection to the primary. */
static enum ending write_on(struct write *w, struct conn *conn, const struct attempt *attempt)
{
    uint64_t begun = token_begin(w->shard);
    struct conn_step steps[] = {
        {.statement = w->statement, .params = w->params, .commit = true},
        {.statement = &position_statement, .commit = true},
    };
    struct fail why = {.err = 0};
    enum conn_outcome outcome = conn_run(conn, steps, 2, &attempt->op, &why);
    bool fenced = conn_role(conn)->timeline < shard_timeline(w->shard);
    enum ending ending = judge(w, steps, outcome, fenced, &why, attempt);
    if (steps[0].done) {
        w->rows = steps[0].rows;
        if (steps[1].done)
            token_move(
                w->shard, begun,
                (struct position){conn_role(conn)->timeline, (uint64_t)pg_rows_i64(steps[1].rows, 0, 0, 0)});
        else
            token_lose(w->shard);
    } else {
        pg_rows_free(steps[0].rows);
    }
    pg_rows_free(steps[1].rows);
    return ending;
}

/*
 * Looks up what became of a write, on whatever is the primary until the deadline, however many others wait
 * for one. WRITE_DONE, WRITE_AGAIN, or WRITE_UNKNOWN when that could not be learned.
 * The look itself commits, in either case: where a synchronous standby is to confirm commits, it then has
 * confirmed the write's as well.
 */
static enum ending resolve(struct write *w, const struct op *op)
{
    const char *params[] = {w->request};
    while (op_left_ms(op) > 0) {
        struct node *node;
        struct conn *conn;
        if (primary_take(w->shard, (struct claim){.owed = true}, op, &node, &conn, NULL) < 0)
            break;
        uint64_t begun = token_begin(w->shard);
        struct conn_step steps[] = {
            {.statement = &resolve_statement, .params = params, .commit = true},
            {.statement = &position_statement, .commit = true},
        };
        struct position position = {conn_role(conn)->timeline, 0};
        struct attempt attempt;
        attempt_begin(&attempt, op, node, 100);
        conn_run(conn, steps, 2, &attempt.op, NULL);
        /* What a primary says that is none any more, the next one may say otherwise. */
        bool fenced = position.timeline < shard_timeline(w->shard);
        bool known = steps[0].done && !steps[0].unconfirmed && !fenced && pg_rows_count(steps[0].rows) == 1;
        bool committed = known && strcmp(pg_rows_text(steps[0].rows, 0, 0), "committed") == 0;
        position.lsn = steps[1].done ? (uint64_t)pg_rows_i64(steps[1].rows, 0, 0, 0) : 0;
        if (committed && steps[1].done)
            token_move(w->shard, begun, position);
        else if (committed)
            token_lose(w->shard);
        pg_rows_free(steps[0].rows);
        pg_rows_free(steps[1].rows);
        pool_give(node->pool, conn);
        if (known)
            return committed ? WRITE_DONE : WRITE_AGAIN;
        shard_pause(op, RESOLVE_PAUSE_MS);
    }
    return WRITE_UNKNOWN;
}

static enum ending write_once(struct write *w, const struct op *op)
{
    struct op part = *op;
    struct node *node;
    struct conn *conn;
    struct attempt attempt;
    part.deadline = clock_now_ms() + op_left_ms(op) * WRITE_SHARE / 100;
    w->why = (struct fail){.err = 0};
    if (primary_take(w->shard, (struct claim){.bytes = w->bytes}, &part, &node, &conn, &w->why) < 0)
        return WRITE_FAILED;
    attempt_begin(&attempt, &part, node, 100);
    enum ending ending = write_on(w, conn, &attempt);
    pool_give(node->pool, conn);
    if (ending == WRITE_UNKNOWN && *w->request) {
        ending = resolve(w, op);
        if (ending == WRITE_AGAIN)
            request_renew(w);
    }
    if (ending == WRITE_DONE)
        atomic_fetch_add(&node->writes, 1);
    else
        pg_rows_free(STEAL(w->rows));
    return ending;
}

static void say_unknown(struct write *w)
{
    struct fail lost = w->why;
    w->why = (struct fail){.err = 0};
    fail_set(&w->why, EIO, "shard %s: whether this was saved is not known: %.300s%s%s", w->shard->self->name,
             lost.message, *w->request ? "; request " : "", w->request);
    /* If it was, the position of its commit is not known either. */
    token_lose(w->shard);
}

static int write_prepare(struct write *w, const char *const *params, const char *request)
{
    w->request_param = -1;
    if (w->statement->nparams > PG_MAX_PARAMS)
        return -EINVAL;
    for (unsigned i = 0; i < w->statement->nparams; i++) {
        w->params[i] = params[i];
        w->bytes += params[i] ? strlen(params[i]) : 0;
        if (request && params[i] && strcmp(params[i], request) == 0)
            w->request_param = (int)i;
    }
    if (request)
        snprintf(w->request, sizeof w->request, "%s", request);
    return 0;
}

static int write_whole(struct shard *shard, const struct pg_statement *statement, const char *const *params,
                       const char *request, const struct op *op, struct pg_rows **rows, struct fail *f)
{
    struct write w = {.shard = shard, .statement = statement};
    if (write_prepare(&w, params, request) < 0)
        return fail_set(f, EINVAL, "%s takes more than %d parameters", statement->name, PG_MAX_PARAMS);
    enum ending ending = WRITE_FAILED;
    for (int attempt = 0; attempt < RETRY_MAX; attempt++) {
        ending = write_once(&w, op);
        if (ending != WRITE_AGAIN)
            break;
        shard_pause(op, RETRY_PAUSE_MS << attempt);
        if (op_left_ms(op) == 0)
            break;
    }
    if (ending == WRITE_DONE) {
        *rows = w.rows;
        return 0;
    }
    if (ending == WRITE_UNKNOWN && w.why.err != EINTR)
        say_unknown(&w);
    if (f && f->err == 0)
        *f = w.why;
    return -w.why.err;
}

int shard_write(struct shard *shard, const struct pg_statement *statement, const char *const *params,
                const char *request, const struct op *op, struct pg_rows **rows, struct fail *f)
{
    /* A write is not given up half-way because its caller was interrupted: it would not know what became of
     * it. */
    struct op whole = {.deadline = op->deadline};
    return write_whole(shard, statement, params, request, &whole, rows, f);
}

int shard_draw(struct shard *shard, const struct pg_statement *statement, const char *const *params,
               const struct op *op, struct pg_rows **rows, struct fail *f)
{
    return write_whole(shard, statement, params, NULL, op, rows, f);
}
