/*
 * A thread a node, so that a frozen one delays no other. It asks its node, on a connection of its own, for
 * role, position and lag: about twice a second, and at once when woken. While nobody uses a shard of which
 * all is well it asks every two seconds: each question costs two wakeups here, and more on the server. Who
 * begins to use it has all of its nodes asked at once. A node that does not answer is taken out of use, which
 * ends what operations have under way there; one that is out of use is tried again at growing, jittered
 * intervals, and sooner while somebody waits for a primary: it may be the next. It also ends, on the server,
 * what operations have left there.
 */
#include "base/cleanup.h"
#include "shard/shard_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASK_MS = 500,      /* from one question to the next */
    ASK_AGAIN_MS = 20, /* at the soonest, however often woken */
    ANSWER_MS = 1000,  /* how long an answer may take */
    BACKOFF_MS = 100,  /* after a first failure; doubles */
    BACKOFF_MAX_MS = 500,
    HURRIED_MS = 120,     /* from one attempt to the next, while woken */
    CALM_AFTER_MS = 1000, /* nobody has used the shard for so long: */
    CALM_ASK_MS = 2000,   /* from one question to the next */
    SCHEMA_MS = 2000,     /* from one look at the schema's version to the next */
    SETTLED_MS = 5000,    /* in use for so long, a node's failures are forgotten */
};

struct watch {
    struct node *node;
    bool ready;    /* as last seen */
    int64_t since; /* when that began */
    unsigned failures;
    int64_t retry_at;  /* while out of use */
    int64_t schema_at; /* when the schema's version is to be looked at next */
    unsigned seed;
};

static bool watch_interrupted(void *arg)
{
    return atomic_load(&((struct node *)arg)->stopping);
}

/* So long, or up to a quarter more or less, so that the watchers of many mounts do not keep step. */
static int64_t about(struct watch *watch, int64_t ms)
{
    return ms - ms / 4 + rand_r(&watch->seed) % (ms / 2 + 1);
}

/*
 * Asks, or connects first. 0 when the node is as it should be. A connection that was ended (by an
 * administrator, by a firewall) says nothing against the node as long as a new one is to be had; silence
 * does.
 */
static int ask(struct watch *watch, struct fail *why)
{
    struct node *node = watch->node;
    if (node_is_foreign(node)) /* by what connection ever: the way there is looked at anew */
        conn_close(STEAL(node->monitor));
    if (!node->monitor)
        return node_connect(node, false, NULL, why);
    struct op op = op_within(ANSWER_MS);
    op.interrupted = watch_interrupted;
    op.arg = node;
    /* Somebody may bring the database to another schema while it is used. */
    int64_t now = clock_now_ms();
    bool schema = now >= watch->schema_at;
    if (schema)
        watch->schema_at = now + about(watch, SCHEMA_MS);
    int r = node_ask(node, schema, &op, why);
    if (r == 0)
        return 0;
    conn_close(STEAL(node->monitor));
    bool silent = op_left_ms(&op) == 0;
    node_silent(node, silent);
    if (silent || watch_interrupted(node))
        return r;
    *why = (struct fail){.err = 0};
    return node_connect(node, false, NULL, why);
}

static void put_off(struct watch *watch)
{
    int64_t pause = (int64_t)BACKOFF_MS << (watch->failures < 5 ? watch->failures : 5);
    if (pause > BACKOFF_MAX_MS)
        pause = BACKOFF_MAX_MS;
    watch->failures++;
    watch->retry_at = clock_now_ms() + about(watch, pause);
}

/* Notices what the operations have made of the pool meanwhile. */
static void look(struct watch *watch)
{
    bool ready = pool_ready(watch->node->pool);
    if (ready == watch->ready)
        return;
    int64_t now = clock_now_ms();
    if (!ready) {
        if (now - watch->since > SETTLED_MS)
            watch->failures = 0;
        put_off(watch);
    }
    watch->ready = ready;
    watch->since = now;
    node_settle(watch->node->shard);
}

/*
 * A server that has no connection left for its watcher answers all the same: what the pool has is good. Its
 * role is asked again when there is room.
 */
static bool is_crowded(struct node *node, const struct fail *why)
{
    return strcmp(why->sqlstate, "53300") == 0 && pool_ready(node->pool) && pool_stats(node->pool).open > 0;
}

static int mend(struct watch *watch, struct fail *why)
{
    struct node *node = watch->node;
    int r = pool_mend(node->pool, why);
    if (r < 0)
        return r;
    node_back(node);
    look(watch);
    return 0;
}

/* What callers have left under way, interrupted or out of time, is ended on the server. */
static void cancel_abandoned(struct node *node)
{
    struct conn_session sessions[CONN_CANCEL_MAX];
    unsigned ended = 0;
    size_t n = node->monitor ? pool_steal_abandoned(node->pool, sessions) : 0;
    if (n == 0)
        return;
    struct op op = op_within(ANSWER_MS);
    op.interrupted = watch_interrupted;
    op.arg = node;
    conn_cancel(node->monitor, sessions, n, &op, &ended, NULL);
    pool_count_cancelled(node->pool, ended);
}

static void visit(struct watch *watch)
{
    struct node *node = watch->node;
    struct fail why = {.err = 0};
    int r = ask(watch, &why);
    if (atomic_load(&node->stopping))
        return;
    if (r < 0 && is_crowded(node, &why))
        return;
    if (r == 0 && !pool_ready(node->pool))
        r = mend(watch, &why);
    if (r < 0) {
        pool_fail(node->pool, &why);
        if (watch->ready)
            look(watch);
        else
            put_off(watch);
    } else {
        cancel_abandoned(node);
        pool_tend(node->pool);
    }
    node_visited(node);
    node_settle(node->shard);
}

/* Until the next question is due, or somebody wakes us. */
static void doze(struct watch *watch)
{
    struct node *node = watch->node;
    struct shard *shard = node->shard;
    atomic_fetch_add(&shard->dozing, 1); /* before looking who uses it: see watch_hurry() */
    bool calm = clock_now_ms() - atomic_load(&shard->hurried) > CALM_AFTER_MS && node_all_well(shard);
    if (calm) {
        pool_wait(node->pool, about(watch, CALM_ASK_MS));
        watch->schema_at = 0; /* in the same round trip, so that it costs no wakeup of its own */
    }
    atomic_fetch_sub(&shard->dozing, 1);
    if (!calm)
        pool_wait(node->pool, about(watch, ASK_MS));
}

/* Until the node is to be asked, or tried, again. */
static void rest(struct watch *watch)
{
    struct node *node = watch->node;
    int64_t asked = clock_now_ms(), hurried = asked + about(watch, HURRIED_MS);
    if (pool_ready(node->pool))
        doze(watch);
    while (!atomic_load(&node->stopping)) {
        look(watch);
        int64_t now = clock_now_ms(), due = watch->ready ? asked + ASK_AGAIN_MS : watch->retry_at;
        if (now >= due)
            return;
        bool woken = pool_wait(node->pool, due - now);
        if (woken && !watch->ready && hurried < watch->retry_at)
            watch->retry_at = hurried;
    }
}

static void *watch_main(void *arg)
{
    struct node *node = arg;
    struct watch watch = {.node = node, .ready = pool_ready(node->pool), .since = clock_now_ms()};
    watch.seed = (unsigned)watch.since ^ (unsigned)(uintptr_t)node;
    while (!atomic_load(&node->stopping)) {
        look(&watch);
        visit(&watch);
        rest(&watch);
    }
    return NULL;
}

void watch_wake(struct shard *shard)
{
    for (size_t n = 0; n < shard->nnodes; n++)
        pool_wake(shard->nodes[n].pool);
}

void watch_hurry(struct shard *shard)
{
    atomic_store(&shard->hurried, clock_now_ms());
    if (atomic_load(&shard->dozing) > 0)
        watch_wake(shard);
}

int watch_start(struct node *node)
{
    atomic_store(&node->stopping, false);
    int err = pthread_create(&node->watcher, NULL, watch_main, node);
    node->watched = err == 0;
    return -err;
}

void watch_stop(struct node *node)
{
    atomic_store(&node->stopping, true);
    pool_wake(node->pool);
    if (node->watched)
        pthread_join(node->watcher, NULL);
    node->watched = false;
    conn_close(STEAL(node->monitor));
}
