#include "shard/shard_private.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "shard/schema.h"
#include "shard/target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const role_names[] = {"unknown", "primary", "standby"};

void node_note(struct shard *shard, struct node *node, const struct conn_role *role)
{
    enum node_role now = role->standby ? NODE_STANDBY : NODE_PRIMARY;
    pthread_mutex_lock(&shard->lock);
    if (role->asked <= node->asked) {
        pthread_mutex_unlock(&shard->lock);
        return; /* nothing new: what this connection was told when it was opened */
    }
    enum node_role before = node->role;
    bool changed = before != now || node->timeline != role->timeline;
    node->role = now;
    node->timeline = role->timeline;
    node->lag_ms = role->lag_ms;
    node->asked = role->asked;
    if (role->timeline > shard->timeline)
        shard->timeline = role->timeline;
    /* What an older history held beyond the fork is gone: reads follow the new one from here. */
    if (now == NODE_PRIMARY && role->timeline > shard->token.timeline)
        shard->token = (struct position){role->timeline, role->lsn};
    pthread_mutex_unlock(&shard->lock);
    if (!changed || before == NODE_UNKNOWN)
        return;
    node_back(node);
    pool_renew(node->pool);
    log_warning("shard %s: node %s: was %s, is %s on timeline %" PRIu32, shard->self->name,
                node->config->name, role_names[before], role_names[now], role->timeline);
}

static bool node_stopping(void *arg)
{
    return atomic_load(&((struct node *)arg)->stopping);
}

int node_connect(struct node *node, bool strict, struct conn_role *role, struct fail *f)
{
    const struct config *config = node->shard->config;
    struct conn_target target = target_of_node(config, (size_t)(node->config - config->nodes));
    struct op op = op_within(config->connect_timeout_ms);
    op.interrupted = node_stopping;
    op.arg = node;
    int r = conn_open(&target, &op, &node->monitor, f);
    if (r < 0) {
        schema_explain(f);
        return -f->err;
    }
    *role = *conn_role(node->monitor);
    unsigned number = node->shard->self->number;
    r = strict ? schema_check(node->monitor, number, &op, f) : schema_belongs(node->monitor, number, &op, f);
    if (r < 0)
        conn_close(STEAL(node->monitor));
    return r;
}

/* Under the lock: a node that is in use; the primary on the newest timeline, or any. -1 = none. */
static int find_ready(const struct shard *shard, enum need need)
{
    for (size_t i = 0; i < shard->nnodes; i++) {
        const struct node *node = &shard->nodes[i];
        bool fits = need == NEED_NODE || (node->role == NODE_PRIMARY && node->timeline == shard->timeline);
        if (fits && pool_ready(node->pool))
            return (int)i;
    }
    return -1;
}

int node_find_primary(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    int found = find_ready(shard, NEED_PRIMARY);
    pthread_mutex_unlock(&shard->lock);
    return found;
}

int node_find_standby(struct shard *shard, uint64_t tried, bool lagging)
{
    unsigned turn = atomic_fetch_add(&shard->turn, 1), best_load = 0;
    int best = -1;
    pthread_mutex_lock(&shard->lock);
    for (size_t k = 0; k < shard->nnodes; k++) {
        size_t i = (k + turn) % shard->nnodes;
        const struct node *node = &shard->nodes[i];
        bool late = node->lag_ms < 0 || node->lag_ms > shard->config->max_lag_ms;
        if (node->role != NODE_STANDBY || (tried >> i & 1) || (late && !lagging) || !pool_ready(node->pool))
            continue;
        unsigned load = pool_load(node->pool);
        if (best < 0 || load < best_load) {
            best = (int)i;
            best_load = load;
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return best;
}

bool node_give_up(struct shard *shard, enum need need)
{
    int64_t now = clock_now_ms();
    pthread_mutex_lock(&shard->lock);
    int64_t *since = &shard->away_since[need];
    if (find_ready(shard, need) >= 0)
        *since = 0;
    else if (*since == 0)
        *since = now;
    bool late = *since != 0 && now - *since >= shard->config->timeout_ms;
    pthread_mutex_unlock(&shard->lock);
    return late;
}

void node_back(struct node *node)
{
    struct shard *shard = node->shard;
    pthread_mutex_lock(&shard->lock);
    shard->away_since[NEED_NODE] = 0;
    if (node->role == NODE_PRIMARY && node->timeline == shard->timeline)
        shard->away_since[NEED_PRIMARY] = 0;
    pthread_mutex_unlock(&shard->lock);
}

void node_why_not(struct shard *shard, struct fail *f)
{
    fail_set(f, EIO, "shard %s: no node can be used", shard->self->name);
    for (size_t i = 0; i < shard->nnodes; i++) {
        struct fail why = {.err = 0};
        size_t len = strlen(f->message);
        if (pool_why_not(shard->nodes[i].pool, &why) < 0)
            snprintf(f->message + len, sizeof f->message - len, "; %s", why.message);
    }
}
