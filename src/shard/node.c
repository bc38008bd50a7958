#include "shard/shard_private.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BLAME_MS = 500 };

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
    if (changed && before != NODE_UNKNOWN)
        log_warning("shard %s: node %s: was %s, is %s on timeline %" PRIu32, shard->self->name,
                    node->config->name, role_names[before], role_names[now], role->timeline);
}

int node_revive(struct shard *shard, struct node *node, bool now, struct fail *f)
{
    struct conn_role role;
    int r = pool_revive(node->pool, now, &role, f);
    if (r == 0 && role.timeline)
        node_note(shard, node, &role);
    return r;
}

void node_ask_role(struct shard *shard, struct node *node, const struct attempt *attempt)
{
    struct conn *conn;
    struct conn_role role;
    struct fail why = {.err = 0};
    if (!pool_ready(node->pool) || pool_take(node->pool, &attempt->op, &conn, NULL) < 0)
        return;
    int r = conn_ask_role(conn, &attempt->op, &role, &why);
    pool_give(node->pool, conn);
    if (r == 0)
        node_note(shard, node, &role);
    else if (attempt_used_up(attempt))
        pool_fail(node->pool, &why);
}

int node_find_primary(struct shard *shard)
{
    int found = -1;
    pthread_mutex_lock(&shard->lock);
    for (size_t i = 0; i < shard->nnodes; i++) {
        const struct node *node = &shard->nodes[i];
        if (node->role == NODE_PRIMARY && node->timeline == shard->timeline && pool_ready(node->pool))
            found = (int)i;
    }
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

void node_ask_roles(struct shard *shard, const struct op *op)
{
    for (size_t i = 0; i < shard->nnodes; i++) {
        struct attempt attempt = attempt_begin(op, 25);
        node_ask_role(shard, &shard->nodes[i], &attempt);
    }
}

int shard_pause(const struct op *op, int64_t ms)
{
    int64_t until = clock_now_ms() + ms;
    if (until > op->deadline)
        until = op->deadline;
    for (int64_t left; (left = until - clock_now_ms()) > 0;) {
        if (op_interrupted(op))
            return -EINTR;
        int64_t slice = left < 50 ? left : 50;
        nanosleep(&(struct timespec){.tv_nsec = slice * 1000000}, NULL);
    }
    return op_interrupted(op) ? -EINTR : 0;
}

struct attempt attempt_begin(const struct op *op, unsigned percent)
{
    struct attempt attempt = {*op, op_left_ms(op) * percent / 100};
    attempt.op.deadline = clock_now_ms() + attempt.given;
    return attempt;
}

bool attempt_used_up(const struct attempt *attempt)
{
    return attempt->given >= BLAME_MS && op_left_ms(&attempt->op) == 0;
}
