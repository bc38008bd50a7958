#include "shard/live.h"

#include "shard/shard_private.h"

#include <inttypes.h>
#include <string.h>

struct shard_live shard_live(struct shard *shard)
{
    int64_t now = clock_now_ms();
    pthread_mutex_lock(&shard->lock);
    const struct stale *stale = &shard->stale;
    struct shard_live live = {
        .facts = shard->facts,
        .reads_replica = atomic_load(&shard->reads_replica),
        .reads_primary = atomic_load(&shard->reads_primary),
        .reads_stale = stale->total,
        .reads_fallen = shard->admitted.fallen_total,
        .stale_ms = stale->last ? now - stale->last : -1,
        .stale_age_ms = stale->age_ms,
        .held = shard->admitted.held,
        .held_total = shard->admitted.held_total,
        .held_refused = shard->admitted.held_refused,
    };
    pthread_mutex_unlock(&shard->lock);
    return live;
}

static struct node_live node_live(struct shard *shard, size_t index)
{
    struct node *node = &shard->nodes[index];
    int64_t now = clock_now_ms();
    pthread_mutex_lock(&shard->lock);
    bool lag = node->facts.known && node->facts.err == 0;
    struct node_live live = {
        .name = node->name,
        .state = node->state,
        .since_ms = now - node->since,
        .lag_ms = lag ? node->facts.lag_ms : NODE_LAG_UNKNOWN,
        .lag_bytes = lag ? node->facts.lag_bytes : NODE_LAG_UNKNOWN,
        .connect_us = node->connect_us,
        .query_us = node->query_us,
        .failures = node->failures,
        .reads = atomic_load(&node->reads),
        .writes = atomic_load(&node->writes),
        .pool = node->pool,
    };
    pthread_mutex_unlock(&shard->lock);
    return live;
}

bool shard_node_named(struct shard *shard, const char *name, struct node_live *out)
{
    for (size_t i = 0; i < shard->nnodes; i++) {
        *out = node_live(shard, i);
        if (strcmp(out->name, name) == 0 && !atomic_load(&shard->nodes[i].retired))
            return true;
    }
    return false;
}

/* ---- metrics ---- */

/* A sample of a node, in thousandths where it is a time or a lag; negative = none. */
struct node_family {
    const char *name, *type;
    int64_t (*value)(const struct node_live *node);
    unsigned unit; /* what the value is divided by */
};

static int64_t lag_of(const struct node_live *node)
{
    return node->state == NODE_PRIMARY ? -1 : node->lag_ms;
}

static int64_t lag_bytes_of(const struct node_live *node)
{
    return node->state == NODE_PRIMARY ? -1 : node->lag_bytes;
}

static int64_t connect_of(const struct node_live *node)
{
    return node->connect_us ? node->connect_us : -1;
}

static int64_t query_of(const struct node_live *node)
{
    return node->query_us ? node->query_us : -1;
}

static int64_t failures_of(const struct node_live *node)
{
    return (int64_t)node->failures;
}

static int64_t reads_of(const struct node_live *node)
{
    return (int64_t)node->reads;
}

static int64_t writes_of(const struct node_live *node)
{
    return (int64_t)node->writes;
}

static const struct node_family node_families[] = {
    {"node_lag_seconds", "gauge", lag_of, 1000},
    {"node_lag_bytes", "gauge", lag_bytes_of, 1},
    {"node_connect_seconds", "gauge", connect_of, 1000000},
    {"node_query_seconds", "gauge", query_of, 1000000},
    {"node_failures_total", "counter", failures_of, 1},
    {"node_reads_total", "counter", reads_of, 1},
    {"node_writes_total", "counter", writes_of, 1},
};

static int node_metrics(struct cluster *cluster, const struct node_family *family, struct buf *out)
{
    int r = buf_printf(out, "# TYPE campusfs_%s %s\n", family->name, family->type);
    for (size_t s = 0; s < cluster_shards(cluster); s++) {
        struct shard *shard = cluster_shard(cluster, s);
        for (size_t i = 0; r == 0 && i < shard->nnodes; i++) {
            if (atomic_load(&shard->nodes[i].retired))
                continue;
            struct node_live node = node_live(shard, i);
            int64_t value = family->value(&node);
            if (value >= 0)
                r = buf_printf(out, "campusfs_%s{shard=\"%s\",node=\"%s\"} %.10g\n", family->name,
                               shard_name(shard), node.name, (double)value / family->unit);
        }
    }
    return r;
}

static int state_metrics(struct cluster *cluster, struct buf *out)
{
    int r = buf_add_text(out, "# TYPE campusfs_node_state gauge\n");
    for (size_t s = 0; s < cluster_shards(cluster); s++) {
        struct shard *shard = cluster_shard(cluster, s);
        for (size_t i = 0; r == 0 && i < shard->nnodes; i++) {
            if (atomic_load(&shard->nodes[i].retired))
                continue;
            struct node_live node = node_live(shard, i);
            for (enum node_state state = 0; r == 0 && state < NODE_STATES; state++)
                r = buf_printf(out, "campusfs_node_state{shard=\"%s\",node=\"%s\",state=\"%s\"} %d\n",
                               shard_name(shard), node.name, node_state_name(state), node.state == state);
        }
    }
    return r;
}

struct shard_family {
    const char *name, *type, *labels; /* further ones, "" or begun by a comma */
    uint64_t (*value)(const struct shard_live *shard);
    bool goes_on; /* further samples of the family before */
};

static uint64_t replica_of(const struct shard_live *shard)
{
    return shard->reads_replica;
}

static uint64_t primary_of(const struct shard_live *shard)
{
    return shard->reads_primary;
}

static uint64_t stale_of(const struct shard_live *shard)
{
    return shard->reads_stale;
}

static uint64_t fallen_of(const struct shard_live *shard)
{
    return shard->reads_fallen;
}

static uint64_t held_of(const struct shard_live *shard)
{
    return shard->held;
}

static uint64_t held_total_of(const struct shard_live *shard)
{
    return shard->held_total;
}

static uint64_t held_refused_of(const struct shard_live *shard)
{
    return shard->held_refused;
}

static uint64_t timeline_of(const struct shard_live *shard)
{
    return shard->facts.timeline;
}

static const struct shard_family shard_families[] = {
    {"shard_timeline", "gauge", "", timeline_of, false},
    {"reads_total", "counter", ",role=\"replica\"", replica_of, false},
    {"reads_total", "counter", ",role=\"primary\"", primary_of, true},
    {"stale_reads_total", "counter", "", stale_of, false},
    {"fallback_reads_total", "counter", "", fallen_of, false},
    {"held_writes", "gauge", "", held_of, false},
    {"held_writes_total", "counter", "", held_total_of, false},
    {"held_writes_refused_total", "counter", "", held_refused_of, false},
};

static int shard_metrics(struct cluster *cluster, const struct shard_family *family, struct buf *out)
{
    int r = family->goes_on ? 0 : buf_printf(out, "# TYPE campusfs_%s %s\n", family->name, family->type);
    for (size_t s = 0; r == 0 && s < cluster_shards(cluster); s++) {
        struct shard *shard = cluster_shard(cluster, s);
        struct shard_live live = shard_live(shard);
        r = buf_printf(out, "campusfs_%s{shard=\"%s\"%s} %" PRIu64 "\n", family->name, shard_name(shard),
                       family->labels, family->value(&live));
    }
    return r;
}

int cluster_metrics(struct cluster *cluster, struct buf *out)
{
    int r = state_metrics(cluster, out);
    for (size_t i = 0; r == 0 && i < sizeof node_families / sizeof *node_families; i++)
        r = node_metrics(cluster, &node_families[i], out);
    for (size_t i = 0; r == 0 && i < sizeof shard_families / sizeof *shard_families; i++)
        r = shard_metrics(cluster, &shard_families[i], out);
    return r;
}
