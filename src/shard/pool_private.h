/* What the files of a pool share: pool.c hands out, pool_line.c lets wait, pool_tend.c keeps and replaces. */
#pragma once

#include <pthread.h>

#include "shard/pool.h"

/* One who stands in line; on its own stack. What it is given, it is given under the lock. */
struct waiter {
    pthread_cond_t cond;
    struct waiter *next;
    struct conn *conn; /* a connection handed over */
    bool may_open;     /* or the right to open one, counted in `open` already */
    bool sent_away;    /* or the pool has failed */
};

struct idle {
    struct conn *conn;
    int64_t since; /* clock_now_ms() */
};

struct pool {
    const char *node;          /* its name; borrowed from the first target's maker */
    _Atomic unsigned *waiting; /* over all pools of the shard */
    pthread_mutex_t lock;      /* guards what follows */
    struct pool_settings settings;
    struct idle idle[POOL_SIZE_MAX]; /* a stack */
    unsigned nidle;
    unsigned open; /* idle, busy and being opened */
    unsigned nwaiting;
    struct waiter *first, **last;
    bool failed;
    struct fail why;
    int64_t renewed;    /* connections that asked the node's role before are closed */
    int64_t reloaded;   /* and those that were made before */
    int64_t open_after; /* while the server has no room: nobody tries to connect before */
    unsigned crowded;   /* how often in a row it had none */
    struct conn_session abandoned[CONN_CANCEL_MAX]; /* more are left to their server */
    size_t nabandoned;
    unsigned seed; /* of the jitter */
    bool woken;
    pthread_cond_t changed;  /* failed or woken, for the watcher */
    struct pool_stats count; /* what is counted since the beginning */
};

/* ---- pool.c ---- */

/* Connects, as one who has the right to. On failure the right is gone. 0 or -errno, -EAGAIN when the server
 * has no room and others' connections are to be waited for. */
int pool_open_one(struct pool *pool, const struct op *op, struct conn **out, struct fail *f);

/* ---- pool_line.c; all with the lock held ---- */

/* The first in line, out of it and about to wake; NULL = nobody waits. */
struct waiter *line_pop(struct pool *pool);
/* Who is the first in line by now looks when he may connect: it is he alone who tries where the server had no
 * room. */
void line_hurry(struct pool *pool);
/* Stands in line. 0: a connection in *out, or NULL there and the right to open one. */
int line_wait(struct pool *pool, const struct op *op, struct conn **out, struct fail *f);
/* A connection has gone: the next in line may open another. */
void slot_release(struct pool *pool);
/* Room has come: as many as it has may open. */
void slots_share(struct pool *pool);
/* Whether somebody may connect now. */
bool slot_free(const struct pool *pool, int64_t now);

/* ---- pool_tend.c; with the lock held ---- */

/* Why a connection that is given back at `now` cannot be kept; POOL_REASONS = it can. */
enum pool_closed pool_judge(const struct pool *pool, const struct conn *conn, bool usable, int64_t now);
/* Takes all idle connections out, for the caller to close without the lock. */
unsigned pool_steal_idle(struct pool *pool, struct conn **out, enum pool_closed reason);
