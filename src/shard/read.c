/*
 * The way of a read: the replica that is preferred and the least loaded, if it has the token or gets it
 * within milliseconds; else the next; else the primary, where only so many may come at once; else, if
 * stale_reads says so, a replica that is behind, and that is told (stale.c). What ends because its node went
 * out of use goes on with the next.
 */
#include "shard/shard_private.h"

#include "postgres/sqlstate.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    TOKEN_WAIT_US = 5000, /* how long a replica is waited for, in all */
    TOKEN_OLD_US = 50000, /* what has not come for so long does not come within that */
    REPLAY_US = 700,      /* a commit's way to a replica near by */
    REPLAYED_US = 3000,   /* and on a busy machine */
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
    bool learn;   /* the token is to cover what is read, whoever answers */
    bool refused; /* there was no answer that is not stale */
    bool missed;  /* the answer misses the token */
    bool keeps;   /* the connection is wanted, too */
    struct node *answered;
    struct conn *kept;
    bool by_standby;
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

/*
 * Whether what is read must move the token, so that no later read shows less: where another node than this
 * one, and one that may be behind it, can be the next to answer.
 */
static bool must_learn(const struct read *r, const struct conn *conn)
{
    return r->learn || r->shard->nnodes > 2 || (r->shard->nnodes > 1 && !conn_role(conn)->standby);
}

static void learn(struct read *r, struct conn *conn, uint64_t begun, const struct pg_rows *position)
{
    if (pg_rows_count(position) != 1)
        return;
    uint64_t lsn = (uint64_t)pg_rows_i64(position, 0, 0, 0);
    conn_note_lsn(conn, lsn);
    /* A standby's position raises the token, but covers no commit whose own position is not known. */
    token_move(r->shard, conn_role(conn)->standby ? UINT64_MAX : begun,
               (struct position){conn_role(conn)->timeline, lsn});
}

static enum verdict run_read(struct read *r, struct node *node, struct conn *conn,
                             const struct attempt *attempt)
{
    uint64_t begun = token_begin(r->shard);
    /* The position is asked after the read: it covers all that the read has seen. */
    struct conn_step steps[] = {
        {.statement = r->statement, .params = r->params},
        {.statement = &position_statement, .commit = true},
    };
    struct fail why = {.err = 0};
    enum conn_outcome outcome = conn_run(conn, steps, must_learn(r, conn) ? 2 : 1, &attempt->op, &why);
    enum verdict verdict = judge(r, outcome, &why, attempt);
    if (verdict == READ_DONE) {
        learn(r, conn, begun, steps[1].rows);
        r->rows = steps[0].rows;
        r->answered = node;
        r->by_standby = conn_role(conn)->standby;
    } else {
        pg_rows_free(steps[0].rows);
    }
    pg_rows_free(steps[1].rows);
    return verdict;
}

/*
 * Position and rows in one round trip: the position is asked by an earlier statement, so the rows are at
 * least as new. *fresh tells whether that is new enough; else there are no rows.
 */
static enum verdict run_checked(struct read *r, struct node *node, struct conn *conn, struct position token,
                                const struct attempt *attempt, bool *fresh)
{
    struct conn_step steps[] = {
        {.statement = &position_statement},
        {.statement = r->statement, .params = r->params, .commit = true},
        {.statement = &position_statement, .commit = true},
    };
    struct fail why = {.err = 0};
    enum conn_outcome outcome = conn_run(conn, steps, must_learn(r, conn) ? 3 : 2, &attempt->op, &why);
    if (pg_rows_count(steps[0].rows) == 1)
        conn_note_lsn(conn, (uint64_t)pg_rows_i64(steps[0].rows, 0, 0, 0));
    pg_rows_free(steps[0].rows);
    enum verdict verdict = judge(r, outcome, &why, attempt);
    *fresh = has(conn, token);
    if (verdict == READ_DONE && *fresh) {
        learn(r, conn, UINT64_MAX, steps[2].rows);
        r->rows = steps[1].rows;
        r->answered = node;
        r->by_standby = conn_role(conn)->standby;
    } else {
        pg_rows_free(steps[1].rows);
    }
    pg_rows_free(steps[2].rows);
    return verdict;
}

/* Polls a replica until it has the token, for a few milliseconds; the first time after `pause` µs. */
static bool wait_for_token(struct conn *conn, struct position token, int pause, const struct attempt *attempt)
{
    for (int waited = 0; waited < TOKEN_WAIT_US && !op_interrupted(&attempt->op);) {
        if (pause > 0)
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
        pause = pause < TOKEN_POLL_US ? TOKEN_POLL_US : 2 * pause; /* each question takes from what replays */
    }
    return false;
}

/*
 * What was committed this very moment no replica has yet, and one that is asked for rows all the same renders
 * them in vain. Returns the pause before its position is worth asking, -1 when it should have replayed by
 * now.
 */
static int replay_pause_us(struct shard *shard)
{
    int64_t age = token_age_us(shard);
    return age < 0 || age >= REPLAYED_US ? -1 : age < REPLAY_US ? (int)(REPLAY_US - age) : 0;
}

static enum verdict read_standby(struct read *r, struct node *node, struct conn *conn, bool stale,
                                 const struct attempt *attempt)
{
    struct position token = token_read(r->shard);
    struct conn_role role;
    /* A standby that changed over to a newer timeline keeps its connections, and says so when asked. */
    if (conn_role(conn)->timeline < token.timeline &&
        conn_ask_role(conn, NULL, &attempt->op, &role, NULL) == 0)
        node_note(node, &role);
    if (has(conn, token))
        return run_read(r, node, conn, attempt);
    bool behind = conn_role(conn)->timeline < token.timeline || token.lsn == UINT64_MAX;
    if (!behind) {
        int pause = replay_pause_us(r->shard);
        if (pause < 0) {
            bool fresh;
            enum verdict verdict = run_checked(r, node, conn, token, attempt, &fresh);
            if (verdict != READ_DONE || fresh)
                return verdict;
            pause = TOKEN_POLL_US;
        }
        if (token_age_us(r->shard) < TOKEN_OLD_US && wait_for_token(conn, token, pause, attempt))
            return run_read(r, node, conn, attempt);
    }
    if (stale && conn_role(conn)->timeline >= token.timeline) {
        r->missed = true;
        return run_read(r, node, conn, attempt);
    }
    r->why.err = 0;
    fail_set(&r->why, EIO, "node %s: has not replayed what this mount has written", node->name);
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
    r->missed = false;
    if (pool_take(node->pool, &attempt->op, &conn, &r->why) < 0)
        return not_taken(r, attempt);
    node_note(node, conn_role(conn));
    if (node_is_other(node, conn)) {
        pool_drop(node->pool, conn);
        fail_set(&r->why, EIO, "node %s: of another cluster", node->name);
        return READ_ELSEWHERE;
    }
    enum verdict verdict;
    if (conn_role(conn)->standby && !r->learn) {
        verdict = read_standby(r, node, conn, stale, attempt);
    } else if (!conn_role(conn)->standby && conn_role(conn)->timeline < token_read(r->shard).timeline) {
        fail_set(&r->why, EIO, "node %s: its history is an older one", node->name);
        verdict = READ_ELSEWHERE;
    } else {
        verdict = run_read(r, node, conn, attempt);
    }
    if (r->keeps && verdict == READ_DONE)
        r->kept = conn;
    else
        pool_give(node->pool, conn);
    return verdict;
}

static enum verdict try_node(struct read *r, int i, bool stale, const struct op *op)
{
    struct attempt attempt;
    watch_hurry(r->shard);
    attempt_begin(&attempt, op, &r->shard->nodes[i], node_count_read(r->shard) > 1 ? ATTEMPT_SHARE : 100);
    return read_node(r, &r->shard->nodes[i], stale, &attempt);
}

/* Each replica once that is not in *tried yet. */
static enum verdict try_replicas(struct read *r, uint64_t *tried, bool lagging, bool stale,
                                 const struct op *op)
{
    for (int i; (i = node_find_replica(r->shard, *tried, lagging)) >= 0;) {
        *tried |= (uint64_t)1 << i;
        enum verdict verdict = try_node(r, i, stale, op);
        if (verdict != READ_ELSEWHERE)
            return verdict;
    }
    return READ_ELSEWHERE;
}

static enum verdict try_primary(struct read *r, int primary, const struct op *op)
{
    r->why.err = 0;
    if (admit_fall_back(r->shard, op, &r->why) < 0)
        return r->why.err == EINTR ? READ_FAILED : READ_ELSEWHERE;
    enum verdict verdict = try_node(r, primary, false, op);
    admit_leave(r->shard);
    return verdict;
}

/* Nobody who is up to date could be read, and nobody else is to be. */
static enum verdict refuse_stale(struct read *r)
{
    struct fail before = r->why;
    r->refused = true;
    r->why = (struct fail){.err = 0};
    fail_set(&r->why, EIO,
             "shard %s: nothing that is up to date can be read, and stale_reads = refuse%s%.1000s",
             r->shard->self->name, before.err ? ": " : "", before.err ? before.message : "");
    return READ_ELSEWHERE;
}

/* Replicas that lag and, with no primary, those that miss the token; or who was the primary before a quarrel.
 */
static enum verdict try_stale(struct read *r, uint64_t tried, bool primary, const struct op *op)
{
    if (r->shard->config->stale_refused)
        return refuse_stale(r);
    enum verdict verdict = try_replicas(r, &tried, true, !primary, op);
    int leader = verdict == READ_ELSEWHERE ? node_find_leader(r->shard) : -1;
    if (leader >= 0)
        verdict = try_node(r, leader, true, op);
    if (verdict == READ_DONE)
        stale_note(r->shard, r->answered, r->missed || leader >= 0);
    return verdict;
}

/* Every node once: replicas, the primary, then what may be stale. */
static enum verdict read_round(struct read *r, const struct op *op)
{
    uint64_t tried = 0;
    enum verdict verdict = try_replicas(r, &tried, false, false, op);
    int primary = node_find_primary(r->shard);
    if (verdict == READ_ELSEWHERE && primary >= 0) {
        verdict = try_primary(r, primary, op);
        primary = node_find_primary(r->shard);
    }
    if (verdict != READ_ELSEWHERE) {
        if (primary >= 0)
            stale_over(r->shard);
        return verdict;
    }
    /* Those that miss the token get a second chance when there is nothing better. */
    return try_stale(r, primary < 0 ? 0 : tried, primary >= 0, op);
}

/* Repeats rounds until one yields something or the time is over; then the last reason is the one that is
 * told. */
static int read_rounds(struct read *r, enum verdict (*round)(struct read *, const struct op *),
                       const struct op *op, struct pg_rows **rows, struct fail *f)
{
    enum verdict verdict;
    while ((verdict = round(r, op)) == READ_ELSEWHERE && op_left_ms(op) > 0) {
        if (node_give_up(r->shard, r->refused ? NEED_PRIMARY : NEED_NODE))
            break;
        if (shard_pause(op, ROUND_PAUSE_MS) < 0) {
            r->why = (struct fail){.err = EINTR};
            snprintf(r->why.message, sizeof r->why.message, "shard %s: interrupted", r->shard->self->name);
            break;
        }
    }
    if (verdict == READ_DONE) {
        if (!r->learn) { /* what has changed is asked where it is known first, which is no share of the reads
                          */
            atomic_fetch_add(&r->answered->reads, 1);
            atomic_fetch_add(r->by_standby ? &r->shard->reads_replica : &r->shard->reads_primary, 1);
        }
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

int read_take(struct shard *shard, const struct op *op, struct node **node, struct conn **conn,
              struct fail *f)
{
    struct read r = {.shard = shard, .statement = &position_statement, .keeps = true};
    struct pg_rows *rows = NULL;
    int result = read_rounds(&r, read_round, op, &rows, f);
    pg_rows_free(rows);
    *node = r.answered;
    *conn = r.kept;
    return result;
}

/* ---- synchronous reads ---- */

static enum verdict sync_read_round(struct read *r, const struct op *op)
{
    int primary = node_find_primary(r->shard);
    bool refuse = r->shard->config->stale_refused;
    uint64_t tried = 0;
    enum verdict verdict = primary >= 0 ? try_node(r, primary, false, op) : READ_ELSEWHERE;
    if (verdict == READ_ELSEWHERE && node_find_primary(r->shard) >= 0)
        return verdict; /* it is there, or has just come: what a replica has proves nothing */
    if (verdict == READ_ELSEWHERE)
        verdict = try_replicas(r, &tried, !refuse, false, op);
    if (verdict != READ_ELSEWHERE)
        return verdict;
    int leader = refuse ? -1 : node_find_leader(r->shard);
    return refuse ? refuse_stale(r) : leader < 0 ? verdict : try_node(r, leader, false, op);
}

int shard_sync_read(struct shard *shard, const struct pg_statement *statement, const char *const *params,
                    const struct op *op, struct pg_rows **rows, struct fail *f)
{
    struct read r = {.shard = shard, .statement = statement, .params = params, .learn = true};
    return read_rounds(&r, sync_read_round, op, rows, f);
}
