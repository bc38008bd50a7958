#include "shard/pool.h"

#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAIT_SLICE_MS = 50 };

/* One who stands in line; on its own stack. What it is given, it is given under the lock. */
struct waiter {
    pthread_cond_t cond;
    struct waiter *next;
    struct conn *conn; /* a connection handed over */
    bool may_open;     /* or the right to open one, counted in `open` already */
    bool sent_away;    /* or the pool has failed */
};

struct pool {
    struct pool_settings settings;
    pthread_mutex_t lock; /* guards what follows */
    struct conn **idle;   /* a stack, room for settings.size */
    unsigned nidle;
    unsigned open; /* idle, busy and being opened */
    struct waiter *first, **last;
    bool failed;
    struct fail why;
    int64_t renewed; /* connections that asked the node's role before are closed */
    bool woken;
    pthread_cond_t changed; /* failed or woken, for the watcher */
};

struct pool *pool_new(const struct pool_settings *settings)
{
    struct pool *pool = calloc(1, sizeof *pool);
    struct conn **idle = calloc(settings->size, sizeof *idle);
    if (!pool || !idle) {
        free(pool);
        free(idle);
        return NULL;
    }
    pool->settings = *settings;
    pool->idle = idle;
    pool->last = &pool->first;
    pool->failed = true;
    fail_set(&pool->why, EIO, "node %s: not connected yet", settings->target.node);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    return pool;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    for (unsigned i = 0; i < pool->nidle; i++)
        conn_close(pool->idle[i]);
    free(pool->idle);
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* ---- under the lock ---- */

static struct waiter *line_pop(struct pool *pool)
{
    struct waiter *waiter = pool->first;
    if (waiter) {
        pool->first = waiter->next;
        if (!pool->first)
            pool->last = &pool->first;
        pthread_cond_signal(&waiter->cond);
    }
    return waiter;
}

static void line_remove(struct pool *pool, struct waiter *waiter)
{
    for (struct waiter **at = &pool->first; *at; at = &(*at)->next) {
        if (*at != waiter)
            continue;
        *at = waiter->next;
        if (!waiter->next)
            pool->last = at;
        return;
    }
}

/* A connection has gone: the next in line may open another. */
static void slot_release(struct pool *pool)
{
    struct waiter *waiter = line_pop(pool);
    if (waiter)
        waiter->may_open = true;
    else
        pool->open--;
}

/* True when the pool was in use until now, and the caller is to say so. */
static bool begin_failing(struct pool *pool, const struct fail *why)
{
    bool news = !pool->failed;
    pool->failed = true;
    pool->why = *why;
    for (struct waiter *waiter; (waiter = line_pop(pool));)
        waiter->sent_away = true;
    pthread_cond_broadcast(&pool->changed);
    return news;
}

/* Takes all idle connections out, for the caller to close without the lock. */
static unsigned steal_idle(struct pool *pool, struct conn **out)
{
    unsigned n = pool->nidle;
    for (unsigned i = 0; i < n; i++)
        out[i] = pool->idle[i];
    pool->nidle = 0;
    pool->open -= n;
    return n;
}

/* ---- waiting ---- */

/* Waits for a signal for so long at most. */
static void wait_on(struct pool *pool, pthread_cond_t *cond, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_clockwait(cond, &pool->lock, CLOCK_MONOTONIC, &until);
}

static void wait_slice(struct pool *pool, struct waiter *waiter, const struct op *op)
{
    int64_t left = op_left_ms(op);
    wait_on(pool, &waiter->cond, op->interrupted && left > WAIT_SLICE_MS ? WAIT_SLICE_MS : left);
}

static bool is_served(const struct waiter *waiter)
{
    return waiter->conn || waiter->may_open || waiter->sent_away;
}

/* An operation may be interrupted because of this very pool's state, which takes the lock to be known. */
static bool asked_unlocked(struct pool *pool, const struct op *op)
{
    pthread_mutex_unlock(&pool->lock);
    bool interrupted = op_interrupted(op);
    pthread_mutex_lock(&pool->lock);
    return interrupted;
}

/* Stands in line. On 0 the waiter holds a connection or may open one. */
static int wait_in_line(struct pool *pool, struct waiter *waiter, const struct op *op, struct fail *f)
{
    const struct pool_settings *s = &pool->settings;
    if (atomic_fetch_add(s->waiting, 1) >= s->waiters_max) {
        atomic_fetch_sub(s->waiting, 1);
        return fail_set(f, EIO, "node %s: all %u connections are busy and %u operations wait already",
                        s->target.node, s->size, s->waiters_max);
    }
    int r = 0;
    *pool->last = waiter;
    pool->last = &waiter->next;
    while (r == 0 && !is_served(waiter)) {
        bool interrupted = asked_unlocked(pool, op);
        if (is_served(waiter))
            break;
        if (interrupted)
            r = fail_set(f, EINTR, "node %s: interrupted while waiting for a connection", s->target.node);
        else if (op_left_ms(op) == 0)
            r = fail_set(f, EIO, "node %s: none of its %u connections came free in time", s->target.node,
                         s->size);
        else
            wait_slice(pool, waiter, op);
    }
    atomic_fetch_sub(s->waiting, 1);
    if (r < 0)
        line_remove(pool, waiter);
    else if (waiter->sent_away)
        r = fail_set(f, pool->why.err, "%s", pool->why.message);
    return r;
}

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
    if (!pool->first && pool->nidle) {
        *out = pool->idle[--pool->nidle];
        return 0;
    }
    if (!pool->first && pool->open < pool->settings.size) {
        pool->open++;
        return 0;
    }
    struct waiter waiter = {.conn = NULL};
    pthread_cond_init(&waiter.cond, NULL);
    int r = wait_in_line(pool, &waiter, op, f);
    pthread_cond_destroy(&waiter.cond);
    *out = waiter.conn;
    return r;
}

/* ---- connecting ---- */

static int connect_node(struct pool *pool, const struct op *op, struct conn **out, struct fail *f)
{
    struct op attempt = *op;
    int64_t latest = clock_now_ms() + pool->settings.connect_timeout_ms;
    if (attempt.deadline > latest)
        attempt.deadline = latest;
    return conn_open(&pool->settings.target, &attempt, out, f);
}

static int open_for(struct pool *pool, const struct op *op, struct conn **out, struct fail *f)
{
    struct fail why = {.err = 0};
    int r = connect_node(pool, op, out, &why);
    if (r == 0)
        return 0;
    pthread_mutex_lock(&pool->lock);
    slot_release(pool);
    /* Too little time of one caller, or too many clients at the server, say nothing against the node. */
    bool busy = pool->open > 0 && strcmp(why.sqlstate, "53300") == 0;
    bool news = why.err != EINTR && !busy && op_left_ms(op) > 0 && begin_failing(pool, &why);
    pthread_mutex_unlock(&pool->lock);
    if (news)
        log_warning("%s: out of use", why.message);
    if (f && f->err == 0)
        *f = why;
    return r;
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
        if (!conn)
            return open_for(pool, op, out, f);
        if (conn_usable(conn)) {
            *out = conn;
            return 0;
        }
        conn_close(conn);
        pthread_mutex_lock(&pool->lock);
        slot_release(pool);
        pthread_mutex_unlock(&pool->lock);
    }
}

void pool_give(struct pool *pool, struct conn *conn)
{
    bool usable = conn_usable(conn);
    pthread_mutex_lock(&pool->lock);
    if (usable && !pool->failed && conn_role(conn)->asked >= pool->renewed) {
        struct waiter *waiter = line_pop(pool);
        if (waiter)
            waiter->conn = conn;
        else
            pool->idle[pool->nidle++] = conn;
        conn = NULL;
    } else {
        slot_release(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    conn_close(conn);
}

void pool_fail(struct pool *pool, const struct fail *why)
{
    struct conn *idle[POOL_SIZE_MAX];
    pthread_mutex_lock(&pool->lock);
    unsigned n = steal_idle(pool, idle);
    bool news = begin_failing(pool, why);
    pthread_mutex_unlock(&pool->lock);
    if (news)
        log_warning("%s: out of use", why->message);
    while (n)
        conn_close(idle[--n]);
}

void pool_renew(struct pool *pool)
{
    struct conn *idle[POOL_SIZE_MAX];
    pthread_mutex_lock(&pool->lock);
    unsigned n = steal_idle(pool, idle);
    pool->renewed = clock_now_ms();
    while (pool->first && pool->open < pool->settings.size) {
        pool->open++;
        line_pop(pool)->may_open = true;
    }
    pthread_mutex_unlock(&pool->lock);
    while (n)
        conn_close(idle[--n]);
}

void pool_mend(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->failed = false;
    pthread_mutex_unlock(&pool->lock);
    struct op op = op_within(pool->settings.connect_timeout_ms);
    struct conn *conn;
    if (pool_take(pool, &op, &conn, NULL) == 0)
        pool_give(pool, conn);
}

void pool_wait(struct pool *pool, int64_t ms)
{
    pthread_mutex_lock(&pool->lock);
    if (!pool->woken)
        wait_on(pool, &pool->changed, ms);
    pool->woken = false;
    pthread_mutex_unlock(&pool->lock);
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
    unsigned load = pool->open - pool->nidle;
    for (const struct waiter *waiter = pool->first; waiter; waiter = waiter->next)
        load++;
    pthread_mutex_unlock(&pool->lock);
    return load;
}

struct pool_stats pool_stats(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct pool_stats stats = {pool->open, pool->open - pool->nidle, pool->settings.size};
    pthread_mutex_unlock(&pool->lock);
    return stats;
}
