/*
 * The connections to one node: at most `size`, opened when needed, the most recently used first. Who finds
 * none free waits in line, first come first served, until its deadline.
 *
 * A node that could not be connected to, or that let a deadline pass, is failing: then everybody is sent away
 * at once, and only pool_revive() tries again, at growing, jittered intervals; so a dead node costs one
 * attempt at a time and no operation.
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

/* A new pool is failing until it is revived. NULL when out of memory. */
struct pool *pool_new(const struct pool_settings *settings);
/* No connection may be out and nobody inside. Takes NULL. */
void pool_free(struct pool *pool);

/*
 * A connection that looked usable just now, the caller's until pool_give(). -EIO (failing, or none free in
 * time, or too many wait), -EACCES, -EINTR.
 */
int pool_take(struct pool *pool, const struct op *op, struct conn **out, struct fail *f);
/* Gives it back; one that can no longer be used is closed. */
void pool_give(struct pool *pool, struct conn *conn);

/* The node did not answer in time: makes it failing and closes what is idle. */
void pool_fail(struct pool *pool, const struct fail *why);

/* False while the node is failing. */
bool pool_ready(struct pool *pool);
/* Says why a node is failing; 0 when it is not. */
int pool_why_not(struct pool *pool, struct fail *f);
/* Busy connections and waiters, to find the least loaded. */
unsigned pool_load(struct pool *pool);
struct pool_stats pool_stats(struct pool *pool);

/*
 * When the pool is failing and its next attempt is due (or `now`): tries one connection. Returns 0 when the
 * pool is ready, and the role if it has just become so (role->timeline is 0 otherwise); else -errno with the
 * reason.
 */
int pool_revive(struct pool *pool, bool now, struct conn_role *role, struct fail *f);
