/*
 * The way of a read: the least loaded replica that has the token, else the next, else the primary. With no
 * primary reads go on, on a replica that has replayed all it was sent. What ends because its node went out of
 * use goes on with the next.
 */
#include "shard/shard_private.h"

#include "postgres/sqlstate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    TOKEN_WAIT_US = 5000, /* how long a replica is waited for, in all */
    REPLAY_US = 700,      /* a commit's way to a replica near by */
    TOKEN_POLL_US = 300,  /* the first pause; it doubles */
    ROUND_PAUSE_MS = 25,  /* between rounds over all nodes */
    ATTEMPT_SHARE = 80,   /* percent of the time left for one node while there is another */
    REFUSALS_MAX = 8,     /* by servers that might answer another time */
};

enum verdict { READ_DONE, READ_FAILED, READ_ELSEWHERE };

struct read {
    struct shard *shard;
    const struct pg_statement *statement;
    const char *const *params;
    struct pg_rows *rows;
    struct fail why; /* of the last node that was tried */
    int refusals;
};

static bool has(const struct conn *conn, struct position token)
{
    const struct conn_role *role = conn_role(conn);
    return role->timeline >= token.timeline && role->lsn >= token.lsn;
}

/* What the end of a conn_run() means for the read. */
static enum verdict judge(struct read *r, enum conn_outcome outcome, struct fail *why,
                          const struct attempt *attempt)
{
    if (outcome == CONN_DONE)
        return READ_DONE;
    attempt_explain(attempt, why);
    r->why = *why;
    if (why->err == EINTR)
        return READ_FAILED;
    if (outcome == CONN_REFUSED && (!sqlstate_is_transient(why->sqlstate) || ++r->refusals > REFUSALS_MAX))
        return READ_FAILED;
    return READ_ELSEWHERE;
}

static enum verdict run_read(struct read *r, struct conn *conn, const struct attempt *attempt)
{
    struct conn_step step = {.statement = r->statement, .params = r->params, .commit = true};
    struct fail why = {.err = 0};
    enum verdict verdict = judge(r, conn_run(conn, &step, 1, &attempt->op, &why), &why, attempt);
    if (verdict == READ_DONE)
        r->rows = step.rows;
    else
        pg_rows_free(step.rows);
    return verdict;
}

/*
 * Position and rows in one round trip: the position is asked by an earlier statement, so the rows are at
 * least as new. *fresh tells whether that is new enough; else there are no rows.
 */
static enum verdict run_checked(struct read *r, struct conn *conn, struct position token,
                                const struct attempt *attempt, bool *fresh)
{
    struct conn_step steps[] = {
        {.statement = &position_statement},
        {.statement = r->statement, .params = r->params, .commit = true},
    };
    struct fail why = {.err = 0};
    enum conn_outcome outcome = conn_run(conn, steps, 2, &attempt->op, &why);
    if (pg_rows_count(steps[0].rows) == 1)
        conn_note_lsn(conn, (uint64_t)pg_rows_i64(steps[0].rows, 0, 0, 0));
    pg_rows_free(steps[0].rows);
    enum verdict verdict = judge(r, outcome, &why, attempt);
    *fresh = has(conn, token);
    if (verdict == READ_DONE && *fresh)
        r->rows = steps[1].rows;
    else
        pg_rows_free(steps[1].rows);
    return verdict;
}

/* Polls a replica until it has the token, for a few milliseconds. */
static bool wait_for_token(struct conn *conn, struct position token, const struct attempt *attempt)
{
    int pause = TOKEN_POLL_US; /* grows: each question takes from what replays */
    for (int waited = 0; waited < TOKEN_WAIT_US && !op_interrupted(&attempt->op); pause *= 2) {
        nanosleep(&(struct timespec){.tv_nsec = pause * 1000}, NULL);
        waited += pause;
        struct conn_step step = {.statement = &position_statement, .commit = true};
        enum conn_outcome outcome = conn_run(conn, &step, 1, &attempt->op, NULL);
        if (pg_rows_count(step.rows) == 1)
            conn_note_lsn(conn, (uint64_t)pg_rows_i64(step.rows, 0, 0, 0));
        pg_rows_free(step.rows);
        if (outcome != CONN_DONE)
            return false;
        if (has(conn, token))
            return true;
    }
    return false;
}

/* What was committed this very moment no replica has yet: asking at once would only be asking twice. */
static void let_it_replay(struct shard *shard)
{
    int64_t age = token_age_us(shard);
    if (age >= 0 && age < REPLAY_US)
        nanosleep(&(struct timespec){.tv_nsec = (REPLAY_US - age) * 1000}, NULL);
}

static enum verdict read_standby(struct read *r, struct node *node, struct conn *conn, bool stale,
                                 const struct attempt *attempt)
{
    struct position token = token_read(r->shard);
    struct conn_role role;
    /* A standby that changed over to a newer timeline keeps its connections, and says so when asked. */
    if (conn_role(conn)->timeline < token.timeline && conn_ask_role(conn, &attempt->op, &role, NULL) == 0)
        node_note(r->shard, node, &role);
    if (has(conn, token))
        return run_read(r, conn, attempt);
    bool behind = conn_role(conn)->timeline < token.timeline || token.lsn == UINT64_MAX;
    if (!behind) {
        bool fresh;
        let_it_replay(r->shard);
        enum verdict verdict = run_checked(r, conn, token, attempt, &fresh);
        if (verdict != READ_DONE || fresh)
            return verdict;
        if (wait_for_token(conn, token, attempt))
            return run_read(r, conn, attempt);
    }
    if (stale && conn_role(conn)->timeline >= token.timeline)
        return run_read(r, conn, attempt);
    r->why.err = 0;
    fail_set(&r->why, EIO, "node %s: has not replayed what this mount has written", node->config->name);
    return READ_ELSEWHERE;
}

static enum verdict not_taken(struct read *r, const struct attempt *attempt)
{
    attempt_explain(attempt, &r->why);
    return r->why.err == EINTR ? READ_FAILED : READ_ELSEWHERE;
}

/* One attempt on one node. `stale`: there is no primary, what the replica has is the best there is. */
static enum verdict read_node(struct read *r, struct node *node, bool stale, const struct attempt *attempt)
{
    struct conn *conn;
    r->why.err = 0;
    if (pool_take(node->pool, &attempt->op, &conn, &r->why) < 0)
        return not_taken(r, attempt);
    node_note(r->shard, node, conn_role(conn));
    enum verdict verdict = conn_role(conn)->standby ? read_standby(r, node, conn, stale, attempt)
                           : conn_role(conn)->timeline < token_read(r->shard).timeline
                               ? READ_ELSEWHERE
                               : run_read(r, conn, attempt);
    pool_give(node->pool, conn);
    return verdict;
}

static size_t count_ready(struct shard *shard)
{
    size_t ready = 0;
    for (size_t i = 0; i < shard->nnodes; i++)
        ready += pool_ready(shard->nodes[i].pool);
    return ready;
}

/* Every node once: replicas, the primary, then replicas that lag or, with no primary, miss the token. */
static enum verdict read_round(struct read *r, const struct op *op)
{
    uint64_t tried = 0;
    int primary = node_find_primary(r->shard);
    for (int pass = 0; pass < 3; pass++) {
        for (;;) {
            int i = pass == 1 ? primary : node_find_standby(r->shard, tried, pass == 2);
            if (i < 0 || (tried >> i & 1))
                break;
            tried |= (uint64_t)1 << i;
            struct attempt attempt;
            attempt_begin(&attempt, op, &r->shard->nodes[i], count_ready(r->shard) > 1 ? ATTEMPT_SHARE : 100);
            enum verdict verdict = read_node(r, &r->shard->nodes[i], pass == 2 && primary < 0, &attempt);
            if (verdict != READ_ELSEWHERE)
                return verdict;
        }
        if (pass == 1 && node_find_primary(r->shard) < 0) {
            primary = -1;
            tried =
                0; /* replicas that miss the token get a second chance, now that there is nothing better */
        }
    }
    return READ_ELSEWHERE;
}

/* Repeats rounds until one yields something or the time is over; then the last reason is the one that is
 * told. */
static int read_rounds(struct read *r, enum verdict (*round)(struct read *, const struct op *),
                       const struct op *op, struct pg_rows **rows, struct fail *f)
{
    enum verdict verdict;
    while ((verdict = round(r, op)) == READ_ELSEWHERE && op_left_ms(op) > 0) {
        if (node_give_up(r->shard, NEED_NODE))
            break;
        if (shard_pause(op, ROUND_PAUSE_MS) < 0) {
            r->why = (struct fail){.err = EINTR};
            snprintf(r->why.message, sizeof r->why.message, "shard %s: interrupted", r->shard->self->name);
            break;
        }
    }
    if (verdict == READ_DONE) {
        *rows = r->rows;
        return 0;
    }
    if (r->why.err == 0)
        node_why_not(r->shard, &r->why);
    if (f && f->err == 0)
        *f = r->why;
    return -r->why.err;
}

int shard_read(struct shard *shard, const struct pg_statement *statement, const char *const *params,
               const struct op *op, struct pg_rows **rows, struct fail *f)
{
    struct read r = {.shard = shard, .statement = statement, .params = params};
    return read_rounds(&r, read_round, op, rows, f);
}

/* ---- synchronous reads ---- */

static enum verdict sync_read_node(struct read *r, struct node *node, const struct attempt *attempt)
{
    struct conn *conn;
    r->why.err = 0;
    uint64_t begun = token_begin(r->shard);
    if (pool_take(node->pool, &attempt->op, &conn, &r->why) < 0)
        return not_taken(r, attempt);
    node_note(r->shard, node, conn_role(conn));
    /* The position is asked after the read: it covers all that the read has seen. */
    struct conn_step steps[] = {
        {.statement = r->statement, .params = r->params},
        {.statement = &position_statement, .commit = true},
    };
    struct fail why = {.err = 0};
    enum verdict verdict = judge(r, conn_run(conn, steps, 2, &attempt->op, &why), &why, attempt);
    if (verdict == READ_DONE) {
        uint64_t lsn = (uint64_t)pg_rows_i64(steps[1].rows, 0, 0, 0);
        conn_note_lsn(conn, lsn);
        /* A standby's position raises the token, but covers no commit whose own position is not known. */
        token_move(r->shard, conn_role(conn)->standby ? UINT64_MAX : begun,
                   (struct position){conn_role(conn)->timeline, lsn});
        r->rows = steps[0].rows;
    } else {
        pg_rows_free(steps[0].rows);
    }
    pg_rows_free(steps[1].rows);
    pool_give(node->pool, conn);
    return verdict;
}

static enum verdict sync_read_round(struct read *r, const struct op *op)
{
    int primary = node_find_primary(r->shard);
    uint64_t tried = 0;
    if (primary >= 0) {
        struct attempt attempt;
        attempt_begin(&attempt, op, &r->shard->nodes[primary],
                      count_ready(r->shard) > 1 ? ATTEMPT_SHARE : 100);
        enum verdict verdict = sync_read_node(r, &r->shard->nodes[primary], &attempt);
        if (verdict != READ_ELSEWHERE)
            return verdict;
    }
    for (int i; (i = node_find_standby(r->shard, tried, true)) >= 0;) {
        tried |= (uint64_t)1 << i;
        struct attempt attempt;
        attempt_begin(&attempt, op, &r->shard->nodes[i], ATTEMPT_SHARE);
        enum verdict verdict = sync_read_node(r, &r->shard->nodes[i], &attempt);
        if (verdict != READ_ELSEWHERE)
            return verdict;
    }
    return READ_ELSEWHERE;
}

int shard_sync_read(struct shard *shard, const struct pg_statement *statement, const char *const *params,
                    const struct op *op, struct pg_rows **rows, struct fail *f)
{
    struct read r = {.shard = shard, .statement = statement, .params = params};
    return read_rounds(&r, sync_read_round, op, rows, f);
}
