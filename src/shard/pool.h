/*
 * The connections to one node: at most `size`, opened when needed, the most recently used first. Who finds
 * none free waits in line, first come first served, until its deadline.
 *
 * At least `min` are kept open. One beyond them that nobody has used for `idle_ms` is closed, and every one
 * is replaced before it is older than `lifetime_ms`; both times are up to a tenth shorter, by chance, so that
 * connections made together do not end together. pool_tend() sees to that, called by the node's watcher.
 *
 * A node that cannot be connected to, or does not answer its watcher (watch.c), is out of use: then everybody
 * is sent away at once, those in line too, until the watcher mends the pool. So a dead node costs no
 * operation more than what was under way. A server that has no connection left for us is none of that as long
 * as we have one: then the pool does with what it has, and tries again at growing, jittered intervals.
 *
 * Thread-safe. The lock is never held while the server is talked to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/op.h"
#include "postgres/conn.h"
#include "shard/target.h"

struct pool;

enum { POOL_SIZE_MAX = 200 };

struct pool_settings {
    struct target *target; /* the pool takes a reference of its own */
    unsigned size;         /* connections, 1..POOL_SIZE_MAX */
    unsigned min;          /* kept open; more than `size` counts as `size` */
    int64_t idle_ms;       /* 0 = for ever */
    int64_t lifetime_ms;   /* 0 = for ever */
    unsigned waiters_max;  /* bound on *waiting */
    int64_t connect_timeout_ms;
};

/* Why connections were closed. */
enum pool_closed {
    POOL_BROKEN,   /* lost, ended by the server, or left in the middle of a statement */
    POOL_IDLE,     /* unused for idle_ms */
    POOL_LIFETIME, /* older than lifetime_ms */
    POOL_ROLE,     /* the node's role has changed */
    POOL_FAILED,   /* the node went out of use */
    POOL_RELOADED, /* the configuration has changed */
    POOL_REASONS
};

struct pool_stats {
    unsigned open, busy, max, min;
    unsigned waiting; /* in line now */
    /* Since the mount began: */
    uint64_t opened, open_failed;
    uint64_t closed[POOL_REASONS];
    uint64_t takes;     /* connections asked for */
    uint64_t waits;     /* of these stood in line, */
    uint64_t wait_us;   /* so long in all, */
    uint64_t timeouts;  /* and got none in time */
    uint64_t refused;   /* found the line full */
    uint64_t cancelled; /* statements that were ended on the server, their callers gone */
    uint64_t prepared;  /* statements, counted when a connection is given back */
};

/*
 * A new pool is out of use until it is mended. `waiting` counts the operations in line over all pools of a
 * shard; it is borrowed. NULL when out of memory.
 */
struct pool *pool_new(const struct pool_settings *settings, _Atomic unsigned *waiting);
/* No connection may be out and nobody inside. Takes NULL. */
void pool_free(struct pool *pool);
/* Other settings from now on. With another target, connections made by the old one are used no more. */
void pool_configure(struct pool *pool, const struct pool_settings *settings);
/* How to reach the node now; give the reference back by target_put(). */
struct target *pool_target(struct pool *pool);

/*
 * A connection that looked usable just now, the caller's until pool_give(). -EIO (out of use, or none free in
 * time, or too many wait), -EACCES, -EINTR.
 */
int pool_take(struct pool *pool, const struct op *op, struct conn **out, struct fail *f);
/* Gives it back; one that can no longer be used is closed. */
void pool_give(struct pool *pool, struct conn *conn);
/* Closes one that leads where it should not. */
void pool_drop(struct pool *pool, struct conn *conn);

/* Takes the node out of use, with the reason, and closes what is idle. */
void pool_fail(struct pool *pool, const struct fail *why);
/*
 * Puts it in use again, once a first connection is open. Otherwise it stays out of use, for the reason in *f,
 * whose -errno is returned.
 */
int pool_mend(struct pool *pool, struct fail *f);
/* The node's role has changed: no connection that was told another one is handed out any more. */
void pool_renew(struct pool *pool);
/* Closes what is too old or too long unused, and opens what is missing. May take a connect_timeout. */
void pool_tend(struct pool *pool);

/*
 * The sessions whose connections were given back in the middle of a statement, at most CONN_CANCEL_MAX of
 * them, each once: the server goes on until it is told. For the watcher, who is woken for each.
 */
size_t pool_steal_abandoned(struct pool *pool, struct conn_session out[CONN_CANCEL_MAX]);
void pool_count_cancelled(struct pool *pool, unsigned n);

/* Sleeps until the pool fails, pool_wake() is called (then true), or the time is over. For the watcher. */
bool pool_wait(struct pool *pool, int64_t ms);
/* Makes the watcher look at the node now; cheap. */
void pool_wake(struct pool *pool);

/* False while the node is out of use. */
bool pool_ready(struct pool *pool);
/* Why it is, as -errno; 0 when it is in use. */
int pool_why_not(struct pool *pool, struct fail *f);
/* Busy connections and waiters, to find the least loaded. */
unsigned pool_load(struct pool *pool);
struct pool_stats pool_stats(struct pool *pool);
