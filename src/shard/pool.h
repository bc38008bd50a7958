/*
 * The connections to one node: at most `size`, opened when needed, the most recently used first. Who finds
 * none free waits in line, first come first served, until its deadline.
 *
 * A node that cannot be connected to, or does not answer its watcher (watch.c), is out of use: then everybody
 * is sent away at once, those in line too, until the watcher mends the pool. So a dead node costs no
 * operation more than what was under way.
 *
 * Thread-safe. The lock is never held while the server is talked to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/op.h"
#include "postgres/conn.h"

struct pool;

enum { POOL_SIZE_MAX = 200 };

struct pool_settings {
    struct conn_target target; /* its strings are borrowed for the pool's life */
    unsigned size;             /* connections, 1..POOL_SIZE_MAX */
    _Atomic unsigned *waiting; /* operations that wait, counted over all pools of a shard */
    unsigned waiters_max;      /* bound on *waiting */
    int64_t connect_timeout_ms;
};

struct pool_stats {
    unsigned open, busy, max;
};

/* A new pool is out of use until it is mended. NULL when out of memory. */
struct pool *pool_new(const struct pool_settings *settings);
/* No connection may be out and nobody inside. Takes NULL. */
void pool_free(struct pool *pool);

/*
 * A connection that looked usable just now, the caller's until pool_give(). -EIO (out of use, or none free in
 * time, or too many wait), -EACCES, -EINTR.
 */
int pool_take(struct pool *pool, const struct op *op, struct conn **out, struct fail *f);
/* Gives it back; one that can no longer be used is closed. */
void pool_give(struct pool *pool, struct conn *conn);

/* Takes the node out of use, with the reason, and closes what is idle. */
void pool_fail(struct pool *pool, const struct fail *why);
/* Puts it in use again, with a first connection open where that can be had. */
void pool_mend(struct pool *pool);
/* The node's role has changed: no connection that was told another one is handed out any more. */
void pool_renew(struct pool *pool);

/* Sleeps until the pool fails, pool_wake() is called, or the time is over. For the watcher. */
void pool_wait(struct pool *pool, int64_t ms);
/* Makes the watcher look at the node now; cheap. */
void pool_wake(struct pool *pool);

/* False while the node is out of use. */
bool pool_ready(struct pool *pool);
/* Why it is, as -errno; 0 when it is in use. */
int pool_why_not(struct pool *pool, struct fail *f);
/* Busy connections and waiters, to find the least loaded. */
unsigned pool_load(struct pool *pool);
struct pool_stats pool_stats(struct pool *pool);
