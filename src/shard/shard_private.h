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
    pthread_t watcher;
    bool watched; /* the thread runs */
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

    pthread_mutex_t lock;  /* guards what follows and the nodes' state; innermost, never held over a wait */
    uint32_t timeline;     /* newest seen on any node */
    struct position token; /* what reads must not be older than */
    uint64_t lost;         /* how often the token after a commit could not be learned */
    bool token_lost;       /* such a commit is not covered by the token yet: only the primary may be read */
};

/* ---- node.c: what the nodes are ---- */

/*
 * A share of the time that is left for an attempt on one node, with the same interrupt. When the attempt has
 * used it up, and it was enough for any server that is alive, attempt_used_up() puts the blame on the node.
 */
struct attempt {
    struct op op;
    int64_t given; /* milliseconds */
};
struct attempt attempt_begin(const struct op *op, unsigned percent);
bool attempt_used_up(const struct attempt *attempt);

/* Takes note of what a node said; a primary on a newer timeline begins a new history for the token. */
void node_note(struct shard *shard, struct node *node, const struct conn_role *role);
/* Connects to a node that is out of use, when that is due or `now`. 0 when the node can be used. */
int node_revive(struct shard *shard, struct node *node, bool now, struct fail *f);
/* Asks a node for its role again on one of its connections; one that does not answer is out of use. */
void node_ask_role(struct shard *shard, struct node *node, const struct attempt *attempt);

/* The index of the primary on the newest timeline whose pool is ready, -1 = none. */
int node_find_primary(struct shard *shard);
/*
 * The least loaded standby whose pool is ready, none of those in `tried` (a bit a node), on the token's
 * timeline as far as known. `lagging` admits those beyond max_lag. -1 = none.
 */
int node_find_standby(struct shard *shard, uint64_t tried, bool lagging);
/* Says why no node can be used, as -EIO. */
void node_why_not(struct shard *shard, struct fail *f);
/* Asks every ready node for its role again. */
void node_ask_roles(struct shard *shard, const struct op *op);

/* ---- token.c ---- */

/* What a read must have; .lsn is UINT64_MAX when no replica can be known to have it. */
struct position token_read(struct shard *shard);
/* Begins a write or a synchronous read: what token_move() wants back. */
uint64_t token_begin(struct shard *shard);
/* Moves the token to a position asked after the work that began with `begun`. */
void token_move(struct shard *shard, uint64_t begun, struct position position);
/* A commit whose position is not known. */
void token_lose(struct shard *shard);

/* ---- used by read.c and write.c ---- */

/* Asks a connection's position: the primary's flush LSN, the standby's replay LSN. */
extern const struct pg_statement position_statement;

/* Sleeps up to `ms`, in slices, less when the deadline comes first. -EINTR when interrupted, else 0. */
int shard_pause(const struct op *op, int64_t ms);
