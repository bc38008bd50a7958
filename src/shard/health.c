#include "shard/health.h"

#include "base/cleanup.h"
#include "base/parallel.h"
#include "postgres/conn.h"
#include "shard/schema.h"
#include "shard/shard_private.h"
#include "shard/target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What one node said; filled by its own thread. */
struct probe {
    const struct config *config;
    size_t node;
    const struct op *op;
    bool reachable;
    struct conn_role role;
    double latency_ms; /* of one question on an open connection */
    unsigned schema;
    struct fail why; /* err 0 = nothing is wrong */
};

DEFINE_CLEANUP(struct conn, conn_close)

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void probe_node(void *arg, size_t index)
{
    struct probe *p = (struct probe *)arg + index;
    struct conn_target target = target_of_node(p->config, p->node);
    CLEANUP(conn_closep) struct conn *conn = NULL;
    unsigned shard;
    if (conn_open(&target, p->op, &conn, &p->why) < 0) {
        schema_explain(&p->why);
        return;
    }
    if (schema_check(conn, p->config->shards[p->config->nodes[p->node].shard].number, p->op, &p->why) < 0 &&
        p->why.err != EPROTO && p->why.err != EXDEV)
        return;
    struct fail ignored = {.err = 0};
    schema_read(conn, p->op, &p->schema, &shard, &ignored);
    double start = now_ms();
    p->reachable = conn_ask_role(conn, p->op, &p->role, &p->why) == 0;
    p->latency_ms = now_ms() - start;
}

/* The primary of a shard: the one on the newest timeline; NULL = none answered. */
static const struct probe *find_primary(const struct probe *probes, size_t shard)
{
    const struct probe *found = NULL;
    for (size_t i = 0; i < probes->config->nnodes; i++) {
        const struct probe *p = &probes[i];
        if (p->config->nodes[i].shard == shard && p->reachable && !p->role.standby &&
            (!found || p->role.timeline > found->role.timeline))
            found = p;
    }
    return found;
}

static uint32_t newest_timeline(const struct probe *probes, size_t shard)
{
    uint32_t newest = 0;
    for (size_t i = 0; i < probes->config->nnodes; i++)
        if (probes->config->nodes[i].shard == shard && probes[i].reachable &&
            probes[i].role.timeline > newest)
            newest = probes[i].role.timeline;
    return newest;
}

/* Finds fault with what a reachable node said. */
static void judge_node(struct probe *p, uint32_t newest)
{
    const char *name = p->config->nodes[p->node].name;
    int64_t max = p->config->max_lag_ms;
    if (!p->reachable || p->why.err)
        return;
    if (!p->role.standby && p->role.timeline < newest)
        fail_set(&p->why, EROFS,
                 "node %s: a primary on timeline %" PRIu32 ", while %" PRIu32 " has been seen", name,
                 p->role.timeline, newest);
    else if (p->role.lag_ms < 0)
        fail_set(&p->why, EIO, "node %s: not connected to a primary, how far it lags is not known", name);
    else if (p->role.lag_ms > max)
        fail_set(&p->why, EIO, "node %s: lags %" PRId64 " ms, allowed are %" PRId64, name, p->role.lag_ms,
                 max);
}

/* The mount's own pool of a node; NULL without a cluster. */
static struct pool *pool_of(struct cluster *cluster, const struct config_node *node)
{
    for (size_t s = 0; cluster && s < cluster_shards(cluster); s++) {
        struct shard *shard = cluster_shard(cluster, s);
        for (size_t n = 0; n < shard->nnodes; n++)
            if (shard->nodes[n].config == node)
                return shard->nodes[n].pool;
    }
    return NULL;
}

static json_t *pool_json(struct pool *pool)
{
    if (!pool)
        return json_null();
    struct pool_stats stats = pool_stats(pool);
    return json_pack("{s:i, s:i, s:i}", "open", (int)stats.open, "busy", (int)stats.busy, "max",
                     (int)stats.max);
}

/* A node that answers us here, and that the mount does not use yet: it comes to that within a second. */
static void judge_use(struct probe *p, struct cluster *cluster)
{
    struct fail why = {.err = 0};
    struct pool *pool = pool_of(cluster, &p->config->nodes[p->node]);
    if (p->reachable && p->why.err == 0 && pool && pool_why_not(pool, &why) < 0)
        fail_set(&p->why, EIO, "not in use yet again: %.1000s", why.message);
}

static json_t *node_json(const struct probe *p, const struct probe *primary, struct cluster *cluster)
{
    const struct config_node *node = &p->config->nodes[p->node];
    bool behind = p->reachable && p->role.standby && primary;
    int64_t bytes =
        behind && primary->role.lsn > p->role.lsn ? (int64_t)(primary->role.lsn - p->role.lsn) : 0;
    json_t *json = json_pack("{s:s, s:b}", "name", node->name, "reachable", p->reachable);
    json_object_set_new(json, "role",
                        p->reachable ? json_string(p->role.standby ? "standby" : "primary") : json_null());
    json_object_set_new(json, "timeline", p->reachable ? json_integer(p->role.timeline) : json_null());
    json_object_set_new(json, "lag_ms",
                        p->reachable && p->role.lag_ms >= 0 ? json_integer(p->role.lag_ms) : json_null());
    json_object_set_new(json, "lag_bytes",
                        behind || (p->reachable && !p->role.standby) ? json_integer(bytes) : json_null());
    json_object_set_new(json, "latency_ms", p->reachable ? json_real(p->latency_ms) : json_null());
    json_object_set_new(json, "pool", pool_json(pool_of(cluster, node)));
    json_object_set_new(json, "schema_version", p->schema ? json_integer(p->schema) : json_null());
    json_object_set_new(json, "error", p->why.err ? json_string(p->why.message) : json_null());
    return json;
}

static enum health_status judge_shard(const struct probe *probes, size_t shard)
{
    bool readable = false, fault = false;
    for (size_t i = 0; i < probes->config->nnodes; i++) {
        const struct probe *p = &probes[i];
        if (p->config->nodes[i].shard != shard)
            continue;
        readable = readable || (p->reachable && p->why.err != EPROTO && p->why.err != EXDEV);
        fault = fault || p->why.err;
    }
    if (!readable)
        return HEALTH_DOWN;
    return fault || !find_primary(probes, shard) ? HEALTH_DEGRADED : HEALTH_OK;
}

static const char *status_name(enum health_status status)
{
    return status == HEALTH_OK ? "ok" : status == HEALTH_DEGRADED ? "degraded" : "down";
}

static json_t *shard_json(struct probe *probes, size_t shard, struct cluster *cluster,
                          enum health_status *status)
{
    const struct config *config = probes->config;
    json_t *nodes = json_array();
    const struct probe *primary = find_primary(probes, shard);
    uint32_t newest = newest_timeline(probes, shard);
    for (size_t i = 0; i < config->nnodes; i++) {
        if (config->nodes[i].shard != shard)
            continue;
        judge_node(&probes[i], newest);
        judge_use(&probes[i], cluster);
        json_array_append_new(nodes, node_json(&probes[i], primary, cluster));
    }
    *status = judge_shard(probes, shard);
    return json_pack("{s:s, s:i, s:s, s:o}", "name", config->shards[shard].name, "number",
                     (int)config->shards[shard].number, "status", status_name(*status), "nodes", nodes);
}

int health_probe(const struct config *config, struct cluster *cluster, const struct op *op, json_t **out,
                 enum health_status *status)
{
    struct probe *probes = calloc(config->nnodes, sizeof *probes);
    if (!probes)
        return -ENOMEM;
    for (size_t i = 0; i < config->nnodes; i++)
        probes[i] = (struct probe){.config = config, .node = i, .op = op};
    parallel_run(config->nnodes, probe_node, probes);
    json_t *shards = json_array();
    *status = HEALTH_OK;
    for (size_t s = 0; s < config->nshards; s++) {
        enum health_status one;
        json_array_append_new(shards, shard_json(probes, s, cluster, &one));
        *status = one > *status ? one : *status;
    }
    free(probes);
    *out = json_pack("{s:s, s:o}", "status", status_name(*status), "shards", shards);
    return *out ? 0 : -ENOMEM;
}
