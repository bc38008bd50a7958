/* What the files of a shard share: cluster.c opens, token.c and node.c keep state, read.c and write.c route.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "postgres/conn.h"
#include "shard/cluster.h"
#include "shard/pool.h"

enum node_role { NODE_UNKNOWN, NODE_PRIMARY, NODE_STANDBY };

struct node {
    struct shard *shard;
    const struct config_node *config;
    struct pool *pool;
    /* Guarded by shard.lock: what it was when last asked. */
    enum node_role role;
    uint32_t timeline;
    int64_t lag_ms; /* -1 = unknown */
    int64_t asked;  /* clock_now_ms() of these */
    /* The watcher's alone, once it runs. */
    struct conn *monitor; /* beside the pool's, so that a busy pool does not hide a frozen server */
    pthread_t watcher;
    bool watched; /* the thread has been started */
    _Atomic bool stopping;
};

/* A position in the history of a shard. Positions of different timelines do not compare; the newer one
 * counts. */
struct position {
    uint32_t timeline;
    uint64_t lsn;
};

struct shard {
    const struct config *config;
    const struct config_shard *self;
    size_t index;
    struct node *nodes;
    size_t nnodes;
    _Atomic unsigned waiting; /* operations in line at the pools */
    _Atomic unsigned turn;    /* so that equally loaded nodes take turns */

    pthread_mutex_t lock;   /* guards what follows and the nodes' state; innermost, never held over a wait */
    uint32_t timeline;      /* newest seen on any node */
    struct position token;  /* what reads must not be older than */
    int64_t token_moved_us; /* CLOCK_MONOTONIC */
    uint64_t lost;          /* how often the token after a commit could not be learned */
    int64_t away_since[2];  /* clock_now_ms() when an operation first found the shard away, by enum need; 0 =
                               it is not */
    bool token_lost;        /* such a commit is not covered by the token yet: only the primary may be read */
};

/* ---- node.c: what the nodes are ---- */

/* Takes note of what a node said, unless something newer is known; a primary on a newer timeline begins a new
 * history for the token. */
void node_note(struct shard *shard, struct node *node, const struct conn_role *role);
/*
 * Connects the monitor. Errors of conn_open() and schema_check(). The role, when it got so far, is in *role.
 */
int node_connect(struct node *node, bool strict, struct conn_role *role, struct fail *f);

/* The index of the primary on the newest timeline that is in use, -1 = none. */
int node_find_primary(struct shard *shard);
/*
 * The least loaded standby in use, none of those in `tried` (a bit a node). `lagging` admits those beyond
 * max_lag. -1 = none.
 */
int node_find_standby(struct shard *shard, uint64_t tried, bool lagging);
/* What an operation waits for. */
enum need { NEED_NODE, NEED_PRIMARY };
/*
 * For one who found none. True when the shard has been without for a whole timeout, found by others before:
 * then who comes late is told at once, else a walk of a folder would wait for every file of it.
 */
bool node_give_up(struct shard *shard, enum need need);
/* The node is in use again, or is the primary now: nobody has waited yet. */
void node_back(struct node *node);
/* Says why no node can be used, as -EIO. */
void node_why_not(struct shard *shard, struct fail *f);

/* ---- watch.c: a thread a node ---- */

/* -errno when a thread cannot be had. The monitors are connected as far as node_connect() has got. */
int watch_start(struct node *node);
/* Ends the thread, at the latest when the server has let its deadline pass. */
void watch_stop(struct node *node);

/* ---- attempt.c: one node is given its chance ---- */

/*
 * An operation on one node: it ends early when the caller is interrupted, or when the node goes out of use.
 * So a slow statement has its time, and a frozen server does not: the watcher finds it out on its own
 * connection.
 */
struct attempt {
    struct op op; /* for the calls below */
    const struct op *whole;
    struct node *node;
};
/* With a part of the time that is left. The attempt must not be moved in memory. */
void attempt_begin(struct attempt *attempt, const struct op *whole, struct node *node, unsigned percent);
/* Puts right what a wait that was broken off is said to have ended by. */
void attempt_explain(const struct attempt *attempt, struct fail *why);

/* ---- token.c ---- */

/* What a read must have; .lsn is UINT64_MAX when no replica can be known to have it. */
struct position token_read(struct shard *shard);
/* How long ago it moved, in microseconds. */
int64_t token_age_us(struct shard *shard);
/* Begins a write or a synchronous read: what token_move() wants back. */
uint64_t token_begin(struct shard *shard);
/* Moves the token to a position asked after the work that began with `begun`. */
void token_move(struct shard *shard, uint64_t begun, struct position position);
/* A commit whose position is not known. */
void token_lose(struct shard *shard);

/* ---- write.c ---- */

/* A connection to the primary, waited for until the deadline. -EROFS when there is none. */
int write_take_primary(struct shard *shard, const struct op *op, struct node **node, struct conn **out,
                       struct fail *f);

/* ---- used by all that routes ---- */

/* Asks a connection's position: the primary's flush LSN, the standby's replay LSN. */
extern const struct pg_statement position_statement;

/* Sleeps up to `ms`, in slices, less when the deadline comes first. -EINTR when interrupted, else 0. */
int shard_pause(const struct op *op, int64_t ms);
