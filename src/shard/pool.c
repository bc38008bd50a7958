#include "shard/pool_private.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CROWDED_MS = 50, /* a server without room is asked again after this; doubles */
    CROWDED_MAX_MS = 2000,
};

struct pool *pool_new(const struct pool_settings *settings, _Atomic unsigned *waiting)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->node = target_conn(settings->target)->node;
    pool->waiting = waiting;
    pool->settings = *settings;
    target_hold(settings->target);
    pool->last = &pool->first;
    pool->failed = true;
    pool->seed = (unsigned)(uintptr_t)pool ^ (unsigned)clock_now_ms();
    fail_set(&pool->why, EIO, "node %s: not connected yet", pool->node);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    for (unsigned i = 0; i < pool->nidle; i++)
        conn_close(pool->idle[i].conn);
    target_put(pool->settings.target);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static void close_all(struct conn **conns, unsigned n)
{
    while (n)
        conn_close(conns[--n]);
}

void pool_configure(struct pool *pool, const struct pool_settings *settings)
{
    struct conn *idle[POOL_SIZE_MAX];
    unsigned n = 0;
    pthread_mutex_lock(&pool->lock);
    struct target *old = pool->settings.target;
    pool->settings = *settings;
    if (target_equal(old, settings->target)) {
        pool->settings.target = old;
        old = NULL;
    } else {
        target_hold(settings->target);
        n = pool_steal_idle(pool, idle, POOL_RELOADED);
        pool->reloaded = clock_now_ms() + 1; /* those of this very millisecond, too */
        pool->open_after = 0;
    }
    slots_share(pool);
    pool->woken = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    close_all(idle, n);
    target_put(old);
}

struct target *pool_target(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct target *target = target_hold(pool->settings.target);
    pthread_mutex_unlock(&pool->lock);
    return target;
}

/* ---- out of use and in again ---- */

/* With the lock. The watcher, which is woken, tells of it. */
static void begin_failing(struct pool *pool, const struct fail *why)
{
    pool->failed = true;
    pool->why = *why;
    for (struct waiter *waiter; (waiter = line_pop(pool));)
        waiter->sent_away = true;
    pthread_cond_broadcast(&pool->changed);
}

void pool_fail(struct pool *pool, const struct fail *why)
{
    struct conn *idle[POOL_SIZE_MAX];
    pthread_mutex_lock(&pool->lock);
    unsigned n = pool_steal_idle(pool, idle, POOL_FAILED);
    begin_failing(pool, why);
    pthread_mutex_unlock(&pool->lock);
    close_all(idle, n);
}

void pool_renew(struct pool *pool)
{
    struct conn *idle[POOL_SIZE_MAX];
    pthread_mutex_lock(&pool->lock);
    unsigned n = pool_steal_idle(pool, idle, POOL_ROLE);
    pool->renewed = clock_now_ms();
    slots_share(pool);
    pthread_mutex_unlock(&pool->lock);
    close_all(idle, n);
}

/* ---- connecting ---- */

/* Connects to what is the target when that has been done: a reload may come in between. */
static int connect_node(struct pool *pool, const struct op *op, struct conn **out, struct fail *f)
{
    for (;;) {
        struct op attempt = *op;
        pthread_mutex_lock(&pool->lock);
        struct target *target = target_hold(pool->settings.target);
        int64_t latest = clock_now_ms() + pool->settings.connect_timeout_ms;
        pthread_mutex_unlock(&pool->lock);
        if (attempt.deadline > latest)
            attempt.deadline = latest;
        int r = conn_open(target_conn(target), &attempt, out, f);
        pthread_mutex_lock(&pool->lock);
        bool current = target == pool->settings.target;
        pthread_mutex_unlock(&pool->lock);
        target_put(target);
        if (r < 0 || current)
            return r;
        conn_close(STEAL(*out));
    }
}

/* With the lock: the server has no room for one more. */
static void put_off(struct pool *pool)
{
    int64_t pause = (int64_t)CROWDED_MS << (pool->crowded < 6 ? pool->crowded : 6);
    if (pause > CROWDED_MAX_MS)
        pause = CROWDED_MAX_MS;
    pool->crowded++;
    pool->open_after = clock_now_ms() + pause / 2 + rand_r(&pool->seed) % (pause + 1);
    line_hurry(pool);
}

int pool_open_one(struct pool *pool, const struct op *op, struct conn **out, struct fail *f)
{
    struct fail why = {.err = 0};
    int r = connect_node(pool, op, out, &why);
    pthread_mutex_lock(&pool->lock);
    if (r == 0) {
        pool->count.opened++;
        pool->crowded = 0;
        pool->open_after = 0;
        line_hurry(pool);
    } else if (why.err == EINTR || op_left_ms(op) == 0) {
        slot_release(pool); /* too little time of one caller says nothing against the node */
    } else {
        bool room = strcmp(why.sqlstate, "53300") != 0;
        pool->count.open_failed++;
        pool->open--;
        if (!room)
            put_off(pool);
        if (room || pool->open == 0)
            begin_failing(pool, &why);
        else
            r = -EAGAIN;
    }
    pthread_mutex_unlock(&pool->lock);
    if (r < 0 && f && f->err == 0)
        *f = why;
    return r;
}

int pool_mend(struct pool *pool, struct fail *f)
{
    struct fail why = {.err = 0};
    struct conn *conn = NULL;
    pthread_mutex_lock(&pool->lock);
    bool opens = pool->open < pool->settings.size;
    pool->open += opens;
    struct op op = op_within(pool->settings.connect_timeout_ms);
    pthread_mutex_unlock(&pool->lock);
    int r = opens ? connect_node(pool, &op, &conn, &why) : 0;
    pthread_mutex_lock(&pool->lock);
    pool->count.opened += conn != NULL;
    pool->count.open_failed += r < 0;
    if (r < 0) {
        pool->open--;
        pool->why = why;
    } else {
        pool->failed = false;
        pool->crowded = 0;
        pool->open_after = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    if (conn)
        pool_give(pool, conn);
    if (r < 0 && f && f->err == 0)
        *f = why;
    return r;
}

/* ---- taking and giving ---- */

/*
 * Yields a connection that was idle, or NULL with the right to open one. Called and left with the lock.
 */
static int claim(struct pool *pool, const struct op *op, struct conn **out, struct fail *f)
{
    *out = NULL;
    if (pool->failed) {
        if (f && f->err == 0)
            *f = pool->why;
        return -pool->why.err;
    }
    pool->count.takes++;
    if (pool->nidle) { /* nobody waits, then: pool_give() */
        *out = pool->idle[--pool->nidle].conn;
        return 0;
    }
    if (!pool->first && slot_free(pool, clock_now_ms())) {
        pool->open++;
        return 0;
    }
    return line_wait(pool, op, out, f);
}

int pool_take(struct pool *pool, const struct op *op, struct conn **out, struct fail *f)
{
    for (;;) {
        struct conn *conn;
        pthread_mutex_lock(&pool->lock);
        int r = claim(pool, op, &conn, f);
        pthread_mutex_unlock(&pool->lock);
        if (r < 0)
            return r;
        if (!conn) {
            struct fail why = {.err = 0};
            r = pool_open_one(pool, op, out, &why);
            if (r == -EAGAIN)
                continue; /* in line, for one of those that there are */
            if (r < 0 && f && f->err == 0)
                *f = why;
            return r;
        }
        if (conn_usable(conn)) {
            *out = conn;
            return 0;
        }
        pool_give(pool, conn);
    }
}

/* With the lock. */
static void note_abandoned(struct pool *pool, const struct conn *conn)
{
    struct conn_session session;
    if (pool->nabandoned == CONN_CANCEL_MAX || !conn_abandoned(conn, &session))
        return;
    pool->abandoned[pool->nabandoned++] = session;
    pool->woken = true;
    pthread_cond_broadcast(&pool->changed);
}

void pool_give(struct pool *pool, struct conn *conn)
{
    bool usable = conn_usable(conn);
    int64_t now = clock_now_ms();
    pthread_mutex_lock(&pool->lock);
    note_abandoned(pool, conn);
    pool->count.prepared += conn_count_prepared(conn);
    enum pool_closed reason = pool_judge(pool, conn, usable, now);
    if (reason == POOL_REASONS) {
        struct waiter *waiter = line_pop(pool);
        if (waiter)
            waiter->conn = conn;
        else
            pool->idle[pool->nidle++] = (struct idle){conn, now};
        conn = NULL;
    } else {
        pool->count.closed[reason]++;
        slot_release(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    conn_close(conn);
}

void pool_drop(struct pool *pool, struct conn *conn)
{
    pthread_mutex_lock(&pool->lock);
    pool->count.closed[POOL_ROLE]++;
    slot_release(pool);
    pthread_mutex_unlock(&pool->lock);
    conn_close(conn);
}

/* ---- for the watcher, and whoever asks ---- */

size_t pool_steal_abandoned(struct pool *pool, struct conn_session out[CONN_CANCEL_MAX])
{
    pthread_mutex_lock(&pool->lock);
    size_t n = pool->nabandoned;
    memcpy(out, pool->abandoned, n * sizeof *out);
    pool->nabandoned = 0;
    pthread_mutex_unlock(&pool->lock);
    return n;
}

void pool_count_cancelled(struct pool *pool, unsigned n)
{
    pthread_mutex_lock(&pool->lock);
    pool->count.cancelled += n;
    pthread_mutex_unlock(&pool->lock);
}

bool pool_wait(struct pool *pool, int64_t ms)
{
    pthread_mutex_lock(&pool->lock);
    if (!pool->woken)
        wait_until(&pool->changed, &pool->lock, clock_now_ms() + ms);
    bool woken = pool->woken;
    pool->woken = false;
    pthread_mutex_unlock(&pool->lock);
    return woken;
}

void pool_wake(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->woken = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

bool pool_ready(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool ready = !pool->failed;
    pthread_mutex_unlock(&pool->lock);
    return ready;
}

int pool_why_not(struct pool *pool, struct fail *f)
{
    pthread_mutex_lock(&pool->lock);
    int r = pool->failed ? fail_set(f, pool->why.err, "%s", pool->why.message) : 0;
    pthread_mutex_unlock(&pool->lock);
    return r;
}

unsigned pool_load(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    unsigned load = pool->open - pool->nidle + pool->nwaiting;
    pthread_mutex_unlock(&pool->lock);
    return load;
}

struct pool_stats pool_stats(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct pool_stats stats = pool->count;
    stats.open = pool->open;
    stats.busy = pool->open - pool->nidle;
    stats.max = pool->settings.size;
    stats.min = pool->settings.min;
    stats.waiting = pool->nwaiting;
    pthread_mutex_unlock(&pool->lock);
    return stats;
}
