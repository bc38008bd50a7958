#include "shard/pool_metrics.h"

#include "shard/shard_private.h"

#include <stddef.h>

/* One family of samples, a number a node. */
struct family {
    const char *name, *type;
    enum { UNSIGNED, LONG } width;
    size_t offset; /* in struct pool_stats */
};

static const struct family families[] = {
    {"campusfs_pool_open", "gauge", UNSIGNED, offsetof(struct pool_stats, open)},
    {"campusfs_pool_busy", "gauge", UNSIGNED, offsetof(struct pool_stats, busy)},
    {"campusfs_pool_max", "gauge", UNSIGNED, offsetof(struct pool_stats, max)},
    {"campusfs_pool_waiting", "gauge", UNSIGNED, offsetof(struct pool_stats, waiting)},
    {"campusfs_pool_opened_total", "counter", LONG, offsetof(struct pool_stats, opened)},
    {"campusfs_pool_open_failed_total", "counter", LONG, offsetof(struct pool_stats, open_failed)},
    {"campusfs_pool_takes_total", "counter", LONG, offsetof(struct pool_stats, takes)},
    {"campusfs_pool_waits_total", "counter", LONG, offsetof(struct pool_stats, waits)},
    {"campusfs_pool_wait_timeouts_total", "counter", LONG, offsetof(struct pool_stats, timeouts)},
    {"campusfs_pool_waits_refused_total", "counter", LONG, offsetof(struct pool_stats, refused)},
    {"campusfs_pool_cancelled_total", "counter", LONG, offsetof(struct pool_stats, cancelled)},
    {"campusfs_pool_prepared_total", "counter", LONG, offsetof(struct pool_stats, prepared)},
};

static const char *const reasons[POOL_REASONS] = {
    [POOL_BROKEN] = "broken", [POOL_IDLE] = "idle",     [POOL_LIFETIME] = "lifetime",
    [POOL_ROLE] = "role",     [POOL_FAILED] = "failed", [POOL_RELOADED] = "reloaded",
};

static unsigned long long value_of(const struct family *family, const struct pool_stats *stats)
{
    const char *field = (const char *)stats + family->offset;
    return family->width == UNSIGNED ? *(const unsigned *)field : *(const uint64_t *)field;
}

/* The nodes of all shards and what their pools say, gathered once so that all families agree. */
struct sample {
    const char *node;
    struct pool_stats stats;
};

static size_t gather(struct cluster *cluster, struct sample *samples)
{
    size_t n = 0;
    for (size_t s = 0; s < cluster_shards(cluster); s++) {
        struct shard *shard = cluster_shard(cluster, s);
        for (size_t i = 0; i < shard->nnodes && n < CONFIG_MAX_NODES; i++)
            if (!atomic_load(&shard->nodes[i].retired))
                samples[n++] = (struct sample){shard->nodes[i].name, pool_stats(shard->nodes[i].pool)};
    }
    return n;
}

int pool_metrics(struct cluster *cluster, struct buf *out)
{
    struct sample samples[CONFIG_MAX_NODES];
    size_t n = gather(cluster, samples);
    int r = 0;
    for (size_t k = 0; k < sizeof families / sizeof *families; k++) {
        r = r < 0 ? r : buf_printf(out, "# TYPE %s %s\n", families[k].name, families[k].type);
        for (size_t i = 0; r == 0 && i < n; i++)
            r = buf_printf(out, "%s{node=\"%s\"} %llu\n", families[k].name, samples[i].node,
                           value_of(&families[k], &samples[i].stats));
    }
    r = r < 0 ? r : buf_add_text(out, "# TYPE campusfs_pool_wait_seconds_total counter\n");
    for (size_t i = 0; r == 0 && i < n; i++)
        r = buf_printf(out, "campusfs_pool_wait_seconds_total{node=\"%s\"} %.6f\n", samples[i].node,
                       (double)samples[i].stats.wait_us / 1e6);
    r = r < 0 ? r : buf_add_text(out, "# TYPE campusfs_pool_closed_total counter\n");
    for (size_t i = 0; r == 0 && i < n; i++)
        for (size_t k = 0; r == 0 && k < POOL_REASONS; k++)
            r = buf_printf(out, "campusfs_pool_closed_total{node=\"%s\",reason=\"%s\"} %llu\n",
                           samples[i].node, reasons[k], (unsigned long long)samples[i].stats.closed[k]);
    return r;
}
