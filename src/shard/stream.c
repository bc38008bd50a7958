#include "shard/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "shard/shard_private.h"
#include "shard/target.h"

/* sql/migrations/0001_tables.sql: what is inserted into the change log. */
static const char PUBLICATION[] = "campusfs_changes";

enum { WAL_PAGE = 8192 };

struct stream {
    struct shard *shard;
    struct node *node;
    struct replication *replication;
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

int stream_begin(struct stream *stream, const struct op *op, struct fail *f)
{
    uint64_t from;
    int r = replication_create_slot(stream->replication, op, &from, f);
    if (r == 0)
        r = replication_start(stream->replication, PUBLICATION, op, f);
    if (r == 0)
        stream_reached(stream, from);
    return r;
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
