/* The line in front of a pool: first come, first served, each until its own deadline. */
#include "shard/pool_private.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

enum { PROBE_MS = 50 }; /* while a server has no room, one at a time tries whether it has again */

void line_hurry(struct pool *pool)
{
    if (pool->first)
        pthread_cond_signal(&pool->first->cond);
}

struct waiter *line_pop(struct pool *pool)
{
    struct waiter *waiter = pool->first;
    if (waiter) {
        pool->first = waiter->next;
        if (!pool->first)
            pool->last = &pool->first;
        pthread_cond_signal(&waiter->cond);
        if (pool->crowded)
            line_hurry(pool);
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
        if (pool->crowded)
            line_hurry(pool);
        return;
    }
}

void slot_release(struct pool *pool)
{
    struct waiter *waiter = pool->open <= pool->settings.size ? line_pop(pool) : NULL;
    if (waiter)
        waiter->may_open = true;
    else
        pool->open--;
}

bool slot_free(const struct pool *pool, int64_t now)
{
    return pool->open < pool->settings.size && now >= pool->open_after;
}

void slots_share(struct pool *pool)
{
    while (pool->first && pool->open < pool->settings.size) {
        pool->open++;
        line_pop(pool)->may_open = true;
    }
}

static void wait_slice(struct pool *pool, struct waiter *waiter, const struct op *op)
{
    int64_t slice = op_left_ms(op), until_open = pool->open_after - clock_now_ms();
    if (op->interrupted && slice > OP_SLICE_MS)
        slice = OP_SLICE_MS;
    if (pool->first == waiter && until_open > 0 && slice > until_open)
        slice = until_open;
    wait_until(&waiter->cond, &pool->lock, clock_now_ms() + slice);
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

static int too_late(struct pool *pool, struct fail *f)
{
    pool->count.timeouts++;
    if (pool->crowded)
        return fail_set(f, EIO,
                        "node %s: the server has no connection to spare (max_connections or the role's "
                        "limit), and none of our %u came free in time",
                        pool->node, pool->open);
    return fail_set(f, EIO, "node %s: none of its %u connections came free in time", pool->node,
                    pool->settings.size);
}

/* In line already. On 0 the waiter is served. */
static int wait_turn(struct pool *pool, struct waiter *waiter, const struct op *op, struct fail *f)
{
    for (;;) {
        bool interrupted = asked_unlocked(pool, op);
        if (is_served(waiter))
            return 0;
        if (interrupted)
            return fail_set(f, EINTR, "node %s: interrupted while waiting for a connection", pool->node);
        if (pool->first == waiter && slot_free(pool, clock_now_ms())) {
            pool->open++;
            if (pool->crowded)
                pool->open_after = clock_now_ms() + PROBE_MS;
            line_pop(pool)->may_open = true;
            return 0;
        }
        if (op_left_ms(op) == 0)
            return too_late(pool, f);
        wait_slice(pool, waiter, op);
    }
}

int line_wait(struct pool *pool, const struct op *op, struct conn **out, struct fail *f)
{
    if (atomic_fetch_add(pool->waiting, 1) >= pool->settings.waiters_max) {
        atomic_fetch_sub(pool->waiting, 1);
        pool->count.refused++;
        return fail_set(f, EIO, "node %s: all %u connections are busy and %u operations wait already",
                        pool->node, pool->settings.size, pool->settings.waiters_max);
    }
    struct waiter waiter = {.conn = NULL};
    int64_t began = clock_now_us();
    pthread_cond_init(&waiter.cond, NULL);
    *pool->last = &waiter;
    pool->last = &waiter.next;
    pool->nwaiting++;
    int r = wait_turn(pool, &waiter, op, f);
    pool->nwaiting--;
    pool->count.waits++;
    pool->count.wait_us += (uint64_t)(clock_now_us() - began);
    atomic_fetch_sub(pool->waiting, 1);
    if (r < 0)
        line_remove(pool, &waiter);
    else if (waiter.sent_away)
        r = fail_set(f, pool->why.err, "%s", pool->why.message);
    pthread_cond_destroy(&waiter.cond);
    *out = waiter.conn;
    return r;
}
