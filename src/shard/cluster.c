#include "shard/cluster.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/sql.h"
#include "shard/schema.h"
#include "shard/shard_private.h"
#include "shard/target.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WATCH_FAILING_MS = 50, WATCH_READY_MS = 1000, WATCH_ANSWER_MS = 1000 };

struct cluster {
    const struct config *config;
    struct shard *shards;
    size_t nshards;
    pthread_mutex_t lock; /* guards `stopping` */
    pthread_cond_t stop;
    bool stopping;
};

struct watch {
    struct cluster *cluster;
    struct node *node;
};

/* ---- the watchers ---- */

/* Sleeps; false when the cluster is being closed. */
static bool watch_sleep(struct cluster *cluster, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (until.tv_nsec + ms * 1000000) / 1000000000;
    until.tv_nsec = (until.tv_nsec + ms * 1000000) % 1000000000;
    pthread_mutex_lock(&cluster->lock);
    int r = 0;
    while (!cluster->stopping && r == 0)
        r = pthread_cond_clockwait(&cluster->stop, &cluster->lock, CLOCK_MONOTONIC, &until);
    bool go_on = !cluster->stopping;
    pthread_mutex_unlock(&cluster->lock);
    return go_on;
}

/*
 * One thread a node, so that a frozen one delays no other: brings a node that is out of use back, and asks
 * one that is in use for its role and lag. Operations never try a node that is out of use.
 */
static void *watch_node(void *arg)
{
    struct watch watch = *(struct watch *)arg;
    struct node *node = watch.node;
    free(arg);
    bool ready = pool_ready(node->pool);
    while (watch_sleep(watch.cluster, ready ? WATCH_READY_MS : WATCH_FAILING_MS)) {
        if (pool_ready(node->pool)) {
            struct op op = op_within(WATCH_ANSWER_MS);
            struct attempt attempt = attempt_begin(&op, 100);
            node_ask_role(node->shard, node, &attempt);
        } else if (node_revive(node->shard, node, false, NULL) == 0) {
            log_info("shard %s: node %s: in use again", node->shard->self->name, node->config->name);
        }
        ready = pool_ready(node->pool);
    }
    return NULL;
}

static int start_watchers(struct cluster *cluster)
{
    for (size_t s = 0; s < cluster->nshards; s++) {
        for (size_t n = 0; n < cluster->shards[s].nnodes; n++) {
            struct node *node = &cluster->shards[s].nodes[n];
            struct watch *watch = malloc(sizeof *watch);
            if (!watch)
                return -ENOMEM;
            *watch = (struct watch){cluster, node};
            int err = pthread_create(&node->watcher, NULL, watch_node, watch);
            if (err) {
                free(watch);
                return -err;
            }
            node->watched = true;
        }
    }
    return 0;
}

static void stop_watchers(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    cluster->stopping = true;
    pthread_cond_broadcast(&cluster->stop);
    pthread_mutex_unlock(&cluster->lock);
    for (size_t s = 0; s < cluster->nshards; s++)
        for (size_t n = 0; n < cluster->shards[s].nnodes; n++)
            if (cluster->shards[s].nodes[n].watched)
                pthread_join(cluster->shards[s].nodes[n].watcher, NULL);
}

/* ---- building ---- */

static int build_shard(struct shard *shard, const struct config *config, size_t index)
{
    shard->config = config;
    shard->self = &config->shards[index];
    shard->index = index;
    shard->nodes = calloc(config->nnodes, sizeof *shard->nodes);
    if (!shard->nodes)
        return -ENOMEM;
    for (size_t i = 0; i < config->nnodes; i++) {
        if (config->nodes[i].shard != index)
            continue;
        struct pool_settings settings = {
            .target = target_of_node(config, i),
            .size = config->pool_size,
            .waiting = &shard->waiting,
            .waiters_max = config->pool_waiters,
            .connect_timeout_ms = config->connect_timeout_ms,
        };
        struct node *node = &shard->nodes[shard->nnodes];
        *node = (struct node){.shard = shard, .config = &config->nodes[i], .pool = pool_new(&settings)};
        if (!node->pool)
            return -ENOMEM;
        shard->nnodes++;
    }
    return 0;
}

static struct cluster *cluster_new(const struct config *config)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    if (!cluster)
        return NULL;
    cluster->config = config;
    pthread_mutex_init(&cluster->lock, NULL);
    pthread_cond_init(&cluster->stop, NULL);
    cluster->shards = calloc(config->nshards, sizeof *cluster->shards);
    cluster->nshards = cluster->shards ? config->nshards : 0;
    for (size_t i = 0; i < cluster->nshards; i++)
        pthread_mutex_init(&cluster->shards[i].lock, NULL);
    int r = cluster->shards ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < cluster->nshards; i++)
        r = build_shard(&cluster->shards[i], config, i);
    if (r < 0) {
        cluster_close(cluster);
        return NULL;
    }
    return cluster;
}

void cluster_close(struct cluster *cluster)
{
    if (!cluster)
        return;
    stop_watchers(cluster);
    for (size_t s = 0; s < cluster->nshards; s++) {
        struct shard *shard = &cluster->shards[s];
        for (size_t n = 0; n < shard->nnodes; n++)
            pool_free(shard->nodes[n].pool);
        free(shard->nodes);
        pthread_mutex_destroy(&shard->lock);
    }
    free(cluster->shards);
    pthread_cond_destroy(&cluster->stop);
    pthread_mutex_destroy(&cluster->lock);
    free(cluster);
}

/* ---- the first look ---- */

struct look {
    struct node *node;
    int result; /* 0 = can be used */
    struct fail why;
};

static void look_at_node(void *arg, size_t index)
{
    struct look *look = (struct look *)arg + index;
    struct node *node = look->node;
    struct conn *conn;
    look->result = node_revive(node->shard, node, true, &look->why);
    if (look->result < 0) {
        schema_explain(&look->why);
        return;
    }
    struct op op = op_within(node->shard->config->connect_timeout_ms);
    look->result = pool_take(node->pool, &op, &conn, &look->why);
    if (look->result < 0)
        return;
    look->result = schema_check(conn, node->shard->self->number, &op, &look->why);
    pool_give(node->pool, conn);
    if (look->result < 0)
        pool_fail(node->pool, &look->why);
}

/* One shard: good when some node can be used and none has a schema that is not ours. */
static int judge_shard(const struct shard *shard, const struct look *looks, size_t n, struct fail *f)
{
    bool usable = false, foreign = false;
    for (size_t i = 0; i < n; i++) {
        if (looks[i].node->shard != shard)
            continue;
        usable = usable || looks[i].result == 0;
        foreign = foreign || looks[i].why.err == EPROTO;
    }
    if (usable && !foreign)
        return 0;
    int err = 0;
    for (size_t i = 0; i < n; i++) {
        if (looks[i].node->shard != shard || looks[i].result == 0)
            continue;
        /* A schema that is not ours weighs more than a password, and that more than silence. */
        int worse = looks[i].why.err == EPROTO || looks[i].why.err == EACCES || looks[i].why.err == EINVAL
                        ? looks[i].why.err
                        : EIO;
        if (err == 0 || err == EIO || worse == EPROTO)
            err = worse;
        size_t len = f ? strlen(f->message) : 0;
        if (f)
            snprintf(f->message + len, sizeof f->message - len, "%sshard %s: %s", len ? "\n" : "",
                     shard->self->name, looks[i].why.message);
    }
    return -err;
}

static int look_at_all(struct cluster *cluster, struct fail *f)
{
    size_t n = 0;
    struct look *looks = calloc(cluster->config->nnodes, sizeof *looks);
    if (!looks)
        return fail_set(f, ENOMEM, "out of memory");
    for (size_t s = 0; s < cluster->nshards; s++)
        for (size_t i = 0; i < cluster->shards[s].nnodes; i++)
            looks[n++].node = &cluster->shards[s].nodes[i];
    parallel_run(n, look_at_node, looks);
    int r = 0;
    for (size_t s = 0; s < cluster->nshards; s++) {
        int one = judge_shard(&cluster->shards[s], looks, n, f);
        r = r == 0 || r == -EIO ? (one ? one : r) : r;
    }
    for (size_t i = 0; r == 0 && i < n; i++)
        if (looks[i].result < 0)
            log_warning("shard %s: %s: going on without it", looks[i].node->shard->self->name,
                        looks[i].why.message);
    free(looks);
    if (r < 0 && f)
        f->err = -r;
    return r;
}

int cluster_open(const struct config *config, struct cluster **out, struct fail *f)
{
    struct cluster *cluster = cluster_new(config);
    if (!cluster)
        return fail_set(f, ENOMEM, "out of memory");
    int r = look_at_all(cluster, f);
    if (r == 0 && (r = start_watchers(cluster)) < 0)
        fail_set(f, -r, "cannot start a thread: %s", strerror(-r));
    if (r < 0) {
        cluster_close(cluster);
        return r;
    }
    *out = cluster;
    return 0;
}

/* ---- what there is ---- */

size_t cluster_shards(const struct cluster *cluster)
{
    return cluster->nshards;
}

struct shard *cluster_shard(struct cluster *cluster, size_t index)
{
    return &cluster->shards[index];
}

struct shard *cluster_shard_numbered(struct cluster *cluster, unsigned number)
{
    for (size_t i = 0; i < cluster->nshards; i++)
        if (cluster->shards[i].self->number == number)
            return &cluster->shards[i];
    return NULL;
}

struct shard *cluster_shard_of_region(struct cluster *cluster, unsigned region)
{
    const struct config *config = cluster->config;
    for (size_t i = 0; i < config->nregions; i++)
        if (config->regions[i].number == region)
            return &cluster->shards[config->regions[i].shard];
    return NULL;
}

unsigned shard_number(const struct shard *shard)
{
    return shard->self->number;
}

const char *shard_name(const struct shard *shard)
{
    return shard->self->name;
}

size_t shard_index(const struct shard *shard)
{
    return shard->index;
}

uint32_t shard_timeline(const struct shard *shard)
{
    /* The lock is no part of what a reader may not change. */
    struct shard *writable = (struct shard *)shard;
    pthread_mutex_lock(&writable->lock);
    uint32_t timeline = shard->timeline;
    pthread_mutex_unlock(&writable->lock);
    return timeline;
}
