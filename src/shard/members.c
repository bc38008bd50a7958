/* The nodes of a shard come and go with the configuration. Their places stay, so that a number names one
 * node. */
#include "shard/shard_private.h"

#include "base/log.h"
#include "shard/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct pool_settings settings_of(const struct config *config, struct target *target)
{
    return (struct pool_settings){
        .target = target,
        .size = config->pool_size,
        .min = config->pool_min,
        .idle_ms = config->pool_idle_ms,
        .lifetime_ms = config->pool_lifetime_ms,
        .waiters_max = config->pool_waiters,
        .connect_timeout_ms = config->connect_timeout_ms,
    };
}

int member_add(struct shard *shard, const struct config *config, size_t index)
{
    size_t n = shard->nnodes;
    if (n == CONFIG_MAX_NODES)
        return -ENOSPC;
    struct node *node = &shard->nodes[n];
    *node = (struct node){.shard = shard,
                          .name = strdup(config->nodes[index].name),
                          .priority = config->nodes[index].priority,
                          .facts.lag_ms = NODE_LAG_UNKNOWN};
    struct target *target = node->name ? target_new(config, index, node->name) : NULL;
    if (target) {
        struct pool_settings settings = settings_of(config, target);
        node->pool = pool_new(&settings, &shard->waiting);
        target_put(target);
    }
    if (!node->pool) {
        free(node->name);
        return -ENOMEM;
    }
    shard->nnodes = n + 1; /* nobody looks at it before */
    return 0;
}

void member_clear(struct node *node)
{
    watch_stop(node);
    pool_free(node->pool);
    free(node->name);
}

static void retire(struct node *node)
{
    struct fail why = {.err = 0};
    if (atomic_load(&node->retired))
        return;
    fail_set(&why, EIO, "node %s: no longer in the configuration", node->name);
    watch_stop(node);
    atomic_store(&node->retired, true);
    pool_fail(node->pool, &why);
    node_unlearn(node);
}

/* Another place, or another way there: what is known of the node is about another one, perhaps. */
static void move(struct node *node, const struct pool_settings *settings)
{
    struct fail why = {.err = 0};
    fail_set(&why, EIO, "node %s: the configuration has changed, it is being connected to anew", node->name);
    pool_fail(node->pool, &why);
    node_unlearn(node);
    pool_configure(node->pool, settings);
}

static int update(struct node *node, const struct config *config, size_t index)
{
    struct target *target = target_new(config, index, node->name), *before = pool_target(node->pool);
    if (!target) {
        target_put(before);
        return -ENOMEM;
    }
    struct pool_settings settings = settings_of(config, target);
    bool back = atomic_load(&node->retired), same = target_equal(before, target);
    int r = 0;
    atomic_store(&node->priority, config->nodes[index].priority);
    if (same && !back) {
        pool_configure(node->pool, &settings);
    } else {
        watch_stop(node); /* its connection is the old one's, too */
        if (target_same_place(before, target))
            pool_configure(node->pool, &settings);
        else
            move(node, &settings);
        atomic_store(&node->retired, false);
        r = watch_start(node);
    }
    target_put(before);
    target_put(target);
    return r;
}

static struct node *find_member(struct shard *shard, const char *name)
{
    for (size_t i = 0; i < shard->nnodes; i++)
        if (strcmp(shard->nodes[i].name, name) == 0)
            return &shard->nodes[i];
    return NULL;
}

static bool is_member(const struct config *config, size_t shard, const char *name)
{
    for (size_t i = 0; i < config->nnodes; i++)
        if (config->nodes[i].shard == shard && strcmp(config->nodes[i].name, name) == 0)
            return true;
    return false;
}

/* How far a replica may be behind is a fact of the shard. */
static void follow_bounds(struct shard *shard, const struct config *config)
{
    pthread_mutex_lock(&shard->lock);
    shard->facts.max_lag_ms = config->max_lag_ms;
    shard->facts.max_lag_bytes = config->max_lag_bytes;
    pthread_mutex_unlock(&shard->lock);
    node_settle(shard);
}

/* New ones first, so that the shard is not without a node in between. */
int members_follow(struct shard *shard, const struct config *config, struct fail *f)
{
    int r = 0;
    for (size_t i = 0; i < config->nnodes; i++) {
        if (config->nodes[i].shard != shard->index)
            continue;
        struct node *node = find_member(shard, config->nodes[i].name);
        int one = node ? update(node, config, i) : member_add(shard, config, i);
        if (!node && one == 0)
            one = watch_start(&shard->nodes[shard->nnodes - 1]);
        if (one == -ENOSPC)
            fail_set(f, ENOSPC, "node %s: more than %d nodes of shard %s have come and gone: mount anew",
                     config->nodes[i].name, CONFIG_MAX_NODES, shard->self->name);
        else if (one < 0)
            fail_set(f, -one, "node %s: %s", config->nodes[i].name, strerror(-one));
        r = r < 0 ? r : one;
    }
    for (size_t i = 0; i < shard->nnodes; i++)
        if (!is_member(config, shard->index, shard->nodes[i].name))
            retire(&shard->nodes[i]);
    follow_bounds(shard, config);
    return r;
}
