/* How long connections are kept: some always open, none for ever, and those that nobody needs not long. */
#include "shard/pool_private.h"

#include <stdatomic.h>

/* Up to a tenth less, by chance, but always the same for one connection. */
static int64_t jittered(int64_t ms, const struct conn *conn)
{
    uint64_t mixed = ((uint64_t)(uintptr_t)conn ^ (uint64_t)conn_opened(conn)) * UINT64_C(0x9e3779b97f4a7c15);
    return ms - ms / 10 * (int64_t)(mixed >> 56) / 255;
}

static bool is_old(const struct pool *pool, const struct conn *conn, int64_t now)
{
    int64_t lifetime = pool->settings.lifetime_ms;
    return lifetime && now - conn_opened(conn) >= jittered(lifetime, conn);
}

enum pool_closed pool_judge(const struct pool *pool, const struct conn *conn, bool usable, int64_t now)
{
    if (!usable)
        return POOL_BROKEN;
    if (pool->failed)
        return POOL_FAILED;
    if (conn_role(conn)->asked < pool->renewed)
        return POOL_ROLE;
    if (conn_opened(conn) < pool->reloaded || pool->open > pool->settings.size)
        return POOL_RELOADED;
    return is_old(pool, conn, now) ? POOL_LIFETIME : POOL_REASONS;
}

unsigned pool_steal_idle(struct pool *pool, struct conn **out, enum pool_closed reason)
{
    unsigned n = pool->nidle;
    for (unsigned i = 0; i < n; i++)
        out[i] = pool->idle[i].conn;
    pool->count.closed[reason] += n;
    pool->nidle = 0;
    pool->open -= n;
    return n;
}

/* The number that is to be open whatever happens. */
static unsigned wanted(const struct pool *pool)
{
    return pool->settings.min < pool->settings.size ? pool->settings.min : pool->settings.size;
}

/* Why an idle connection is to be closed now; POOL_REASONS = it is not. Looks at the socket, without waiting.
 */
static enum pool_closed judge_idle(const struct pool *pool, const struct idle *idle, int64_t now)
{
    int64_t idle_ms = pool->settings.idle_ms;
    if (!conn_usable(idle->conn))
        return POOL_BROKEN;
    if (is_old(pool, idle->conn, now))
        return POOL_LIFETIME;
    if (pool->open > pool->settings.size)
        return POOL_RELOADED;
    bool unused = idle_ms && now - idle->since >= jittered(idle_ms, idle->conn);
    return unused && pool->open > wanted(pool) ? POOL_IDLE : POOL_REASONS;
}

/* Takes out the idle connections that are to be closed, the longest unused first. */
static unsigned weed(struct pool *pool, int64_t now, struct conn **out)
{
    unsigned n = 0, kept = 0;
    for (unsigned i = 0; i < pool->nidle; i++) {
        enum pool_closed reason = judge_idle(pool, &pool->idle[i], now);
        if (reason == POOL_REASONS) {
            pool->idle[kept++] = pool->idle[i];
            continue;
        }
        out[n++] = pool->idle[i].conn;
        pool->count.closed[reason]++;
        pool->open--;
    }
    pool->nidle = kept;
    return n;
}

/* Whether one more is to be opened; the right to it is taken. */
static bool lacks_one(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool lacks = !pool->failed && pool->open < wanted(pool) && slot_free(pool, clock_now_ms());
    pool->open += lacks;
    pthread_mutex_unlock(&pool->lock);
    return lacks;
}

void pool_tend(struct pool *pool)
{
    struct conn *old[POOL_SIZE_MAX], *conn;
    pthread_mutex_lock(&pool->lock);
    unsigned n = weed(pool, clock_now_ms(), old);
    struct op op = op_within(pool->settings.connect_timeout_ms);
    pthread_mutex_unlock(&pool->lock);
    while (n)
        conn_close(old[--n]);
    while (lacks_one(pool) && pool_open_one(pool, &op, &conn, NULL) == 0)
        pool_give(pool, conn);
}
