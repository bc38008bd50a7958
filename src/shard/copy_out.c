#include "shard/copy_out.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "shard/shard_private.h"

struct shard_copy {
    struct shard *shard;
    struct node *node;
    struct conn *conn; /* in a transaction */
    uint64_t begun;    /* token_begin() */
    bool under_way;    /* rows may be on their way */
};

DEFINE_CLEANUP(struct shard_copy, shard_copy_close)

/* A failure on the connection, put right where it was the node that went out of use. */
static int failed(const struct attempt *attempt, struct fail *why, struct fail *f)
{
    attempt_explain(attempt, why);
    if (f && f->err == 0)
        *f = *why;
    return -why->err;
}

/*
 * By key from the first row on, whatever the planner thinks of reading it all and sorting: then the first row
 * comes at once, and neither side holds them all.
 */
static int begin(struct shard_copy *copy, const char *statement, const struct attempt *attempt,
                 struct fail *why)
{
    char settings[160];
    snprintf(settings, sizeof settings,
             "BEGIN READ ONLY; SET LOCAL statement_timeout = '%ds'; SET LOCAL enable_sort = off; "
             "SET LOCAL enable_seqscan = off",
             COPY_OUT_S);
    int r = conn_exec(copy->conn, settings, &attempt->op, NULL, why);
    if (r < 0)
        return r;
    copy->under_way = true;
    return conn_copy_out(copy->conn, statement, &attempt->op, why);
}

int shard_copy_open(struct shard *shard, const char *statement, const struct op *op, struct shard_copy **out,
                    struct fail *f)
{
    CLEANUP(shard_copy_closep) struct shard_copy *copy = calloc(1, sizeof *copy);
    if (!copy)
        return fail_set(f, ENOMEM, "out of memory");
    copy->shard = shard;
    int r = read_take(shard, op, &copy->node, &copy->conn, f);
    if (r < 0)
        return r;
    struct attempt attempt;
    struct fail why = {.err = 0};
    copy->begun = token_begin(shard);
    attempt_begin(&attempt, op, copy->node, 100);
    if (begin(copy, statement, &attempt, &why) < 0)
        return failed(&attempt, &why, f);
    *out = STEAL(copy);
    return 0;
}

/* The transaction's end. Should it fail, the rows have come all the same: no more than the token is lost. */
static void end(struct shard_copy *copy, const struct attempt *attempt)
{
    struct conn_step step = {.statement = &position_statement, .commit = true};
    copy->under_way = false;
    if (conn_exec(copy->conn, "COMMIT", &attempt->op, NULL, NULL) == 0 && copy->shard->nnodes > 1 &&
        conn_run(copy->conn, &step, 1, &attempt->op, NULL) == CONN_DONE)
        token_move(
            copy->shard, conn_role(copy->conn)->standby ? UINT64_MAX : copy->begun,
            (struct position){conn_role(copy->conn)->timeline, (uint64_t)pg_rows_i64(step.rows, 0, 0, 0)});
    pg_rows_free(step.rows);
}

int shard_copy_next(struct shard_copy *copy, struct copy_field *fields, size_t n, const struct op *op,
                    struct fail *f)
{
    struct attempt attempt;
    struct fail why = {.err = 0};
    attempt_begin(&attempt, op, copy->node, 100);
    int r = conn_copy_next(copy->conn, fields, n, &attempt.op, &why);
    if (r < 0)
        return failed(&attempt, &why, f);
    if (r == 0)
        end(copy, &attempt);
    return r;
}

void shard_copy_close(struct shard_copy *copy)
{
    if (!copy)
        return;
    if (copy->under_way)
        conn_copy_leave(copy->conn);
    if (copy->conn) /* in a transaction it is closed */
        pool_give(copy->node->pool, copy->conn);
    free(copy);
}
