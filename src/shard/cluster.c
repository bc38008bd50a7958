#include "shard/cluster.h"

#include "base/parallel.h"
#include "shard/shard_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cluster {
    const struct config *config;
    struct fence *fence;
    struct shard *shards;
    size_t nshards;
};

/* ---- building ---- */

/* What was kept counts from the start. */
static void build_facts(struct shard *shard)
{
    struct fence_mark known = fence_known(shard->fence, shard->index);
    shard->facts = (struct shard_facts){
        .system = known.system,
        .timeline = known.timeline,
        .max_lag_ms = shard->config->max_lag_ms,
        .max_lag_bytes = shard->config->max_lag_bytes,
    };
    shard->system_sure = known.system != 0;
    shard->leader = -1;
}

static int build_shard(struct shard *shard, const struct config *config, size_t index, struct fence *fence)
{
    int r = 0;
    shard->config = config;
    shard->self = &config->shards[index];
    shard->index = index;
    shard->fence = fence;
    build_facts(shard);
    shard->nodes = calloc(CONFIG_MAX_NODES, sizeof *shard->nodes);
    if (!shard->nodes)
        return -ENOMEM;
    for (size_t i = 0; r == 0 && i < config->nnodes; i++)
        if (config->nodes[i].shard == index)
            r = member_add(shard, config, i);
    return r;
}

static struct cluster *cluster_new(const struct config *config)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    if (!cluster)
        return NULL;
    cluster->config = config;
    cluster->shards = calloc(config->nshards, sizeof *cluster->shards);
    cluster->nshards = cluster->shards ? config->nshards : 0;
    for (size_t i = 0; i < cluster->nshards; i++) {
        pthread_mutex_init(&cluster->shards[i].lock, NULL);
        pthread_cond_init(&cluster->shards[i].changed, NULL);
    }
    cluster->fence = fence_open(config);
    int r = cluster->shards && cluster->fence ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < cluster->nshards; i++)
        r = build_shard(&cluster->shards[i], config, i, cluster->fence);
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
    for (size_t s = 0; s < cluster->nshards; s++) {
        struct shard *shard = &cluster->shards[s];
        for (size_t n = 0; n < shard->nnodes; n++)
            watch_stop(&shard->nodes[n]); /* each looks at all of them */
        for (size_t n = 0; n < shard->nnodes; n++)
            member_clear(&shard->nodes[n]);
        free(shard->nodes);
        pthread_cond_destroy(&shard->changed);
        pthread_mutex_destroy(&shard->lock);
    }
    fence_free(cluster->fence);
    free(cluster->shards);
    free(cluster);
}

/* ---- the first look ---- */

struct look {
    struct node *node;
    bool standby;
    struct fail why; /* err 0 = can be used */
};

static void look_at_node(void *arg, size_t index)
{
    struct look *look = (struct look *)arg + index;
    struct node *node = look->node;
    if (node_connect(node, true, &look->standby, &look->why) < 0)
        pool_fail(node->pool, &look->why);
    else
        pool_mend(node->pool, &look->why);
    node_visited(node);
}

/*
 * How bad a reason is: a schema that is not ours weighs more than a password or a word that libpq does not
 * know, and that more than silence. A standby may just not have replayed our schema yet: that is silence.
 */
static int weigh(const struct look *look)
{
    switch (look->why.err) {
    case EXDEV:
        return EPROTO;
    case EPROTO:
        return look->standby ? EIO : EPROTO;
    case EACCES:
    case EINVAL:
        return look->why.err;
    default:
        return EIO;
    }
}

/* One shard: good when some node can be used and none has a schema that is not ours. */
static int judge_shard(const struct shard *shard, const struct look *looks, size_t n, struct fail *f)
{
    bool usable = false;
    int worst = 0;
    for (size_t i = 0; i < n; i++) {
        if (looks[i].node->shard != shard)
            continue;
        usable = usable || looks[i].why.err == 0;
        int err = looks[i].why.err ? weigh(&looks[i]) : 0;
        if (worst == 0 || (worst == EIO && err) || err == EPROTO)
            worst = err;
    }
    if (usable && worst != EPROTO)
        return 0;
    for (size_t i = 0; f && i < n; i++) {
        size_t len = strlen(f->message);
        if (looks[i].node->shard == shard && looks[i].why.err)
            snprintf(f->message + len, sizeof f->message - len, "%sshard %s: %s", len ? "\n" : "",
                     shard->self->name, looks[i].why.message);
    }
    return -worst;
}

static int judge_all(struct cluster *cluster, const struct look *looks, size_t n, struct fail *f)
{
    int r = 0;
    for (size_t s = 0; s < cluster->nshards; s++) {
        int one = judge_shard(&cluster->shards[s], looks, n, f);
        r = r == 0 || (r == -EIO && one) ? one : r;
    }
    if (r < 0 && f)
        f->err = -r;
    return r;
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
    /* All have been heard: only now can it be said which cluster they are, and who is none of it. */
    for (size_t i = 0; i < n; i++)
        if (looks[i].why.err == 0)
            node_foresee(looks[i].node, &looks[i].why);
    int r = judge_all(cluster, looks, n, f);
    for (size_t s = 0; r == 0 && s < cluster->nshards; s++)
        node_begin(&cluster->shards[s]);
    free(looks);
    return r;
}

static int start_watchers(struct cluster *cluster, struct fail *f)
{
    int r = 0;
    for (size_t s = 0; s < cluster->nshards; s++)
        for (size_t i = 0; r == 0 && i < cluster->shards[s].nnodes; i++)
            r = watch_start(&cluster->shards[s].nodes[i]);
    return r < 0 ? fail_set(f, -r, "cannot start a thread: %s", strerror(-r)) : 0;
}

int cluster_open(const struct config *config, struct cluster **out, struct fail *f)
{
    struct cluster *cluster = cluster_new(config);
    if (!cluster)
        return fail_set(f, ENOMEM, "out of memory");
    int r = look_at_all(cluster, f);
    if (r == 0)
        r = start_watchers(cluster, f);
    if (r < 0) {
        cluster_close(cluster);
        return r;
    }
    *out = cluster;
    return 0;
}

int cluster_reload(struct cluster *cluster, struct fail *f)
{
    const struct config *now = config_hold(cluster->config);
    int r = 0;
    for (size_t s = 0; s < cluster->nshards; s++) {
        int one = members_follow(&cluster->shards[s], now, f);
        r = r < 0 ? r : one;
    }
    config_put(now);
    return r;
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
    uint32_t timeline = shard->facts.timeline;
    pthread_mutex_unlock(&writable->lock);
    return timeline;
}
