#include "shard/twophase.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "shard/shard_private.h"

enum { COMMAND_MAX = 160 };

struct shard_tx {
    struct shard *shard;
    struct node *node;
    struct conn *conn;
    struct attempt attempt; /* of the call under way */
    struct op whole;        /* likewise: without the caller's interrupt */
    uint64_t begun;         /* token_begin() */
    bool failed;            /* COMMIT would answer as if it had worked */
};

DEFINE_CLEANUP(struct shard_tx, shard_tx_end)

/* What bounds the next call on the connection. */
static const struct op *tx_op(struct shard_tx *tx, const struct op *op)
{
    tx->whole = (struct op){.deadline = op->deadline};
    attempt_begin(&tx->attempt, &tx->whole, tx->node, 100);
    return &tx->attempt.op;
}

static int tx_failed(struct shard_tx *tx, struct fail *why, struct fail *f)
{
    attempt_explain(&tx->attempt, why);
    tx->failed = true;
    if (why->err == 0)
        fail_set(why, EIO, "node %s: no answer", tx->node->name);
    if (f && f->err == 0)
        *f = *why;
    return -why->err;
}

static int tx_command(struct shard_tx *tx, const char *command, const struct op *op, struct fail *f)
{
    struct fail why = {.err = 0};
    int r = conn_exec(tx->conn, command, tx_op(tx, op), NULL, &why);
    return r < 0 ? tx_failed(tx, &why, f) : 0;
}

/* A transaction that has a connection, and no BEGIN yet. */
static int tx_open(struct shard *shard, const struct op *op, struct shard_tx **out, struct fail *f)
{
    CLEANUP(shard_tx_endp) struct shard_tx *tx = calloc(1, sizeof *tx);
    if (!tx)
        return fail_set(f, ENOMEM, "out of memory");
    tx->shard = shard;
    struct op whole = {.deadline = op->deadline};
    int r = primary_take(shard, (struct claim){0}, &whole, &tx->node, &tx->conn, f);
    if (r < 0)
        return r;
    tx->begun = token_begin(shard);
    *out = STEAL(tx);
    return 0;
}

int shard_tx_begin(struct shard *shard, const struct op *op, struct shard_tx **out, struct fail *f)
{
    CLEANUP(shard_tx_endp) struct shard_tx *tx = NULL;
    int r = tx_open(shard, op, &tx, f);
    if (r == 0)
        r = tx_command(tx, "BEGIN", op, f);
    if (r == 0)
        *out = STEAL(tx);
    return r;
}

int shard_tx_run(struct shard_tx *tx, const struct pg_statement *statement, const char *const *params,
                 const struct op *op, struct pg_rows **rows, struct fail *f)
{
    /* The end of the pipeline is no end of the transaction: that was begun by a BEGIN. */
    struct conn_step step = {.statement = statement, .params = params, .commit = true};
    struct fail why = {.err = 0};
    if (conn_run(tx->conn, &step, 1, tx_op(tx, op), &why) != CONN_DONE) {
        pg_rows_free(step.rows);
        return tx_failed(tx, &why, f);
    }
    *rows = step.rows;
    return 0;
}

/* Asks for the position behind a commit on the same connection. */
static void tx_committed(struct shard_tx *tx, const struct op *op)
{
    struct conn_step step = {.statement = &position_statement, .commit = true};
    if (conn_run(tx->conn, &step, 1, tx_op(tx, op), NULL) == CONN_DONE)
        token_move(
            tx->shard, tx->begun,
            (struct position){conn_role(tx->conn)->timeline, (uint64_t)pg_rows_i64(step.rows, 0, 0, 0)});
    else
        token_lose(tx->shard);
    pg_rows_free(step.rows);
}

/*
 * Whether an error leaves open what became of the command: all but a plain refusal, behind which the server
 * goes on. One that dies of a commit (PANIC) may have it on its disk.
 */
static bool is_open(struct shard_tx *tx, const struct fail *why)
{
    return *why->sqlstate == '\0' || !conn_usable(tx->conn);
}

/* Another is the primary by now: what is committed here is nowhere else, or was there before. */
static bool is_fenced(const struct shard_tx *tx)
{
    return conn_role(tx->conn)->timeline < shard_timeline(tx->shard);
}

/* What a command on a node that was fenced meanwhile has done, the next primary is to be asked. */
static int tx_decide(struct shard_tx *tx, const char *command, const struct op *op, struct fail *f)
{
    int r = tx_command(tx, command, op, f);
    if (r == 0 && is_fenced(tx))
        return fail_set(f, EIO, "node %s: committed, but another was the primary already", tx->node->name);
    return r;
}

static int tx_finish(struct shard_tx *tx, const char *command, const struct op *op, bool *unknown,
                     struct fail *f)
{
    struct fail why = {.err = 0};
    *unknown = false;
    if (tx->failed)
        return fail_set(f, EIO, "node %s: the transaction has failed", tx->node->name);
    if (is_fenced(tx)) {
        tx->failed = true;
        return fail_set(f, EROFS, "node %s: another is the primary by now", tx->node->name);
    }
    int r = tx_decide(tx, command, op, &why);
    if (r < 0) {
        *unknown = is_open(tx, &why);
        if (f && f->err == 0)
            *f = why;
    }
    return r;
}

static bool is_name(const char *gid)
{
    return *gid && strlen(gid) < COMMAND_MAX / 2 &&
           gid[strspn(gid, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-")] == '\0';
}

int shard_tx_prepare(struct shard_tx *tx, const char *gid, const struct op *op, bool *unknown, struct fail *f)
{
    char command[COMMAND_MAX];
    *unknown = false;
    if (!is_name(gid))
        return fail_set(f, EINVAL, "%s is no name of a transaction", gid);
    snprintf(command, sizeof command, "PREPARE TRANSACTION '%s'", gid);
    return tx_finish(tx, command, op, unknown, f);
}

int shard_tx_commit(struct shard_tx *tx, const struct op *op, bool *unknown, struct fail *f)
{
    int r = tx_finish(tx, "COMMIT", op, unknown, f);
    if (r == 0)
        tx_committed(tx, op);
    return r;
}

void shard_tx_end(struct shard_tx *tx)
{
    if (!tx)
        return;
    if (tx->conn) /* in a transaction it is closed, which rolls that back */
        pool_give(tx->node->pool, tx->conn);
    free(tx);
}

int shard_finish_prepared(struct shard *shard, const char *gid, bool commit, const struct op *op,
                          struct fail *f)
{
    char command[COMMAND_MAX];
    struct fail why = {.err = 0};
    CLEANUP(shard_tx_endp) struct shard_tx *tx = NULL;
    if (!is_name(gid))
        return fail_set(f, EINVAL, "%s is no name of a transaction", gid);
    snprintf(command, sizeof command, "%s PREPARED '%s'", commit ? "COMMIT" : "ROLLBACK", gid);
    int r = tx_open(shard, op, &tx, f);
    if (r < 0)
        return r;
    r = tx_decide(tx, command, op, &why);
    if (r == 0) {
        tx_committed(tx, op);
        return 0;
    }
    if (strcmp(why.sqlstate, "42704") == 0) /* undefined_object */
        return fail_set(f, ENOENT, "node %s: no transaction is prepared as %s", tx->node->name, gid);
    if (f && f->err == 0)
        *f = why;
    return r;
}
