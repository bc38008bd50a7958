#include "shard/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "shard/shard_private.h"
#include "shard/target.h"

/* sql/migrations/0001_tables.sql: what is inserted into the change log. */
static const char PUBLICATION[] = "campusfs_changes";

enum {
    WAL_PAGE = 8192,
    WAITS_KNOWN_MS = 100, /* how long it is believed that no commit waits for a standby */
    TAKE_MS = 20,         /* and how long a connection is waited for to ask that again */
};

struct stream {
    struct shard *shard;
    struct node *node;
    struct replication *replication;
    bool waits;    /* commits may wait for a standby, as far as is known */
    int64_t asked; /* clock_now_ms() when that was said; 0 = it is to be asked */
};

DEFINE_CLEANUP(struct stream, stream_close)

/* As the configuration in force says. */
static int connect_node(struct stream *stream, const struct op *op, struct fail *f)
{
    const struct config *config = config_hold(stream->shard->config);
    size_t n = 0;
    while (n < config->nnodes && strcmp(config->nodes[n].name, stream->node->name) != 0)
        n++;
    int r;
    if (n < config->nnodes) {
        struct conn_target target = target_of_feed(config, n);
        target.node = stream->node->name; /* lives as long as the shard */
        r = replication_open(&target, op, &stream->replication, f);
    } else {
        r = fail_set(f, EIO, "node %s: no longer in the configuration", stream->node->name);
    }
    config_put(config);
    return r;
}

int stream_open(struct shard *shard, const struct op *op, struct stream **out, struct fail *f)
{
    int i = node_find_primary(shard);
    if (i < 0)
        return fail_set(f, EROFS, "shard %s: no primary is in use", shard->self->name);
    CLEANUP(stream_closep) struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return fail_set(f, ENOMEM, "out of memory");
    stream->shard = shard;
    stream->node = &shard->nodes[i];
    int r = connect_node(stream, op, f);
    if (r < 0)
        return r;
    pthread_mutex_lock(&shard->lock);
    uint64_t system = shard->facts.system;
    pthread_mutex_unlock(&shard->lock);
    if (system != 0 && replication_system(stream->replication) != system)
        return fail_set(f, EXDEV, "node %s: the server has the data of another shard's", stream->node->name);
    if (replication_timeline(stream->replication) < shard_timeline(shard))
        return fail_set(f, EROFS, "node %s: is on timeline %" PRIu32 ", which is over", stream->node->name,
                        replication_timeline(stream->replication));
    *out = STEAL(stream);
    return 0;
}

void stream_close(struct stream *stream)
{
    if (!stream)
        return;
    replication_close(stream->replication);
    free(stream);
}

/* One row that the primary says, asked on a connection of the pool, which is waited for by `take`. */
static int ask(struct stream *stream, const struct pg_statement *statement, const char *const *params,
               const struct op *take, const struct op *op, struct pg_rows **rows, struct fail *f)
{
    struct conn_step step = {.statement = statement, .params = params, .commit = true};
    struct conn *conn;
    struct fail why = {.err = 0};
    struct attempt taking, asking;
    attempt_begin(&taking, take, stream->node, 100);
    int r = pool_take(stream->node->pool, &taking.op, &conn, f);
    if (r < 0)
        return r;
    attempt_begin(&asking, op, stream->node, 100);
    bool answered = conn_run(conn, &step, 1, &asking.op, &why) == CONN_DONE && pg_rows_count(step.rows) == 1;
    pool_give(stream->node->pool, conn);
    if (answered) {
        *rows = step.rows;
        return 0;
    }
    pg_rows_free(step.rows);
    return fail_set(f, why.err ? why.err : EIO, "%s", why.message);
}

int stream_begin(struct stream *stream, const struct op *op, uint64_t *newest, struct fail *f)
{
    static const struct pg_statement statement = {"transactions_open", NULL, 0};
    struct pg_rows *rows = NULL;
    uint64_t from;
    int r = replication_create_slot(stream->replication, op, &from, f);
    if (r == 0)
        r = replication_start(stream->replication, PUBLICATION, op, f);
    if (r == 0)
        r = ask(stream, &statement, NULL, op, op, &rows, f);
    if (r < 0)
        return r;
    *newest = (uint64_t)pg_rows_i64(rows, 0, 0, 0);
    pg_rows_free(rows);
    stream_reached(stream, from);
    return 0;
}

const char *stream_node(const struct stream *stream)
{
    return stream->node->name;
}

bool stream_is_current(const struct stream *stream)
{
    struct shard *shard = stream->shard;
    pthread_mutex_lock(&shard->lock);
    bool current =
        shard->facts.timeline <= replication_timeline(stream->replication) && !stream->node->facts.standby;
    pthread_mutex_unlock(&shard->lock);
    return current;
}

void stream_heard(const struct stream *stream, uint64_t lsn)
{
    struct shard *shard = stream->shard;
    uint32_t timeline = replication_timeline(stream->replication);
    pthread_mutex_lock(&shard->lock);
    if (timeline >= shard->facts.timeline)
        trail_add(&shard->trail, timeline, lsn, clock_now_ms());
    pthread_mutex_unlock(&shard->lock);
}

bool stream_is_visible(struct stream *stream, uint32_t xid, const struct op *op)
{
    static const struct pg_statement statement = {"transaction_visible", NULL, 1};
    char number[16];
    const char *params[] = {number};
    struct pg_rows *rows;
    struct op take = *op, brief = op_within(TAKE_MS);
    if (!stream->waits && clock_now_ms() - stream->asked < WAITS_KNOWN_MS)
        return true;
    if (!stream->waits && brief.deadline < take.deadline)
        take.deadline = brief.deadline;
    snprintf(number, sizeof number, "%" PRIu32, xid);
    if (ask(stream, &statement, params, &take, op, &rows, NULL) < 0)
        return !stream->waits;
    bool visible = pg_rows_i64(rows, 0, 0, 0) == 1;
    stream->waits = pg_rows_i64(rows, 0, 1, 1) == 1;
    stream->asked = visible ? clock_now_ms() : 0; /* what cannot be seen is asked for again */
    pg_rows_free(rows);
    return visible;
}

void stream_reached(struct stream *stream, uint64_t lsn)
{
    /* It covers no commit of ours whose position is not known: UINT64_MAX. */
    token_move(stream->shard, UINT64_MAX, (struct position){replication_timeline(stream->replication), lsn});
}

int64_t stream_lag(const struct stream *stream, uint64_t lsn, int64_t *bytes)
{
    struct shard *shard = stream->shard;
    int64_t age = 0;
    *bytes = 0;
    pthread_mutex_lock(&shard->lock);
    uint64_t head = trail_head(&shard->trail);
    bool ours = shard->trail.timeline == replication_timeline(stream->replication);
    /* The end of a page, and of no record: the first part of one whose rest is not flushed yet. */
    bool between = head % WAL_PAGE == 0 && head - lsn < 2 * WAL_PAGE;
    if (ours && head > lsn && !between) {
        *bytes = (int64_t)(head - lsn);
        age = trail_age(&shard->trail, lsn, clock_now_ms());
    }
    pthread_mutex_unlock(&shard->lock);
    return age;
}

struct replication *stream_replication(struct stream *stream)
{
    return stream->replication;
}
