/* What the files of a shard share: cluster.c opens, token.c and node.c keep state, read.c and write.c route.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "postgres/conn.h"
#include "shard/cluster.h"
#include "shard/fence.h"
#include "shard/node_state.h"
#include "shard/pool.h"
#include "shard/trail.h"

struct node {
    struct shard *shard;
    char *name;                     /* owned; messages and connections borrow it */
    struct pool *pool;              /* knows how to reach it */
    _Atomic int priority;           /* of several replicas the highest is read first */
    _Atomic uint64_t reads, writes; /* answered by it */
    _Atomic unsigned newer_schema; /* the version of its schema when this program is too old for it, else 0 */

    /* Guarded by shard.lock: what it was when last asked, and what follows from that. */
    struct node_facts facts; /* err is that of the pool at the last node_settle() */
    enum node_state state;
    bool visited;                 /* it has been tried to reach it */
    int64_t since;                /* clock_now_ms() when the state began */
    int64_t asked;                /* clock_now_ms() of the last answer; 0 = none */
    struct conn_role role;        /* that answer */
    int64_t connect_us, query_us; /* moving values, 0 = not known */
    uint64_t failures;            /* how often it has gone out of use */

    /* The watcher's alone, once it runs. */
    struct conn *monitor; /* beside the pool's, so that a busy pool does not hide a frozen server */
    pthread_t watcher;
    bool watched; /* the thread has been started */
    _Atomic bool stopping;
    _Atomic bool retired; /* no longer in the configuration: its pool is out of use, nobody watches it */
};

/* A position in the history of a shard. Positions of different timelines do not compare; the newer one
 * counts. */
struct position {
    uint32_t timeline;
    uint64_t lsn;
};

/* What an operation waits for. */
enum need { NEED_NODE, NEED_PRIMARY };

/* ---- admit.c: how many may wait, or fall back ---- */

/* Guarded by shard.lock. */
struct admitted {
    unsigned held; /* writes that wait for a primary */
    size_t held_bytes;
    unsigned fallen; /* reads that no replica could answer, at the primary now */
    uint64_t held_total, held_refused, fallen_total;
};

/*
 * A write of so many bytes waits for a primary. -EROFS when failover_writes or failover_size is reached.
 * Ended by admit_release().
 */
int admit_hold(struct shard *shard, size_t bytes, struct fail *f);
void admit_release(struct shard *shard, size_t bytes);
/* Waits a moment, less when a primary is found. */
void admit_wait(struct shard *shard, int64_t ms);

/*
 * A read that a replica was to answer goes to the primary: so many at once as primary_reads leaves room for;
 * who comes later waits, as long as his operation may. -EIO, -EINTR. Ended by admit_leave().
 */
int admit_fall_back(struct shard *shard, const struct op *op, struct fail *f);
void admit_leave(struct shard *shard);

/* ---- stale.c: answers that may be old are told ---- */

/* Guarded by shard.lock. */
struct stale {
    uint64_t total;
    int64_t last;      /* clock_now_ms() of the last such answer, 0 = none */
    int64_t age_ms;    /* how old it may have been, NODE_LAG_UNKNOWN */
    _Atomic bool told; /* logged that it began; read without the lock, too */
};

/* This node has answered, for want of a better one: it misses what this mount has written, or may lag. */
void stale_note(struct shard *shard, const struct node *node, bool missed);
/* Answers are known not to be; cheap. */
void stale_over(struct shard *shard);

struct shard {
    const struct config *config;
    const struct config_shard *self;
    size_t index;
    struct fence *fence;      /* the cluster's */
    struct node *nodes;       /* room for CONFIG_MAX_NODES; one that is gone keeps its place */
    _Atomic size_t nnodes;    /* only grows */
    _Atomic unsigned waiting; /* operations in line at the pools */
    _Atomic unsigned turn;    /* so that equally loaded nodes take turns */
    _Atomic uint64_t reads_replica, reads_primary; /* answered by one */
    _Atomic int64_t hurried;                       /* clock_now_ms() of the last watch_hurry() */
    _Atomic unsigned dozing;                       /* watchers that ask less often meanwhile */

    pthread_mutex_t lock;   /* guards what follows and the nodes' state; innermost, never held over a wait */
    pthread_cond_t changed; /* a primary was found, or room among those who wait (CLOCK_MONOTONIC) */
    struct shard_facts facts;
    bool begun;       /* the nodes have states */
    bool system_sure; /* a primary, or what was kept, has said facts.system */
    int leader;       /* the node that was the primary last, -1 = none yet */
    struct trail trail;
    struct position token;  /* what reads must not be older than */
    int64_t token_moved_us; /* CLOCK_MONOTONIC */
    uint64_t lost;          /* how often the token after a commit could not be learned */
    bool token_lost;        /* such a commit is not covered by the token yet: only the primary may be read */
    int64_t away_since[2];  /* clock_now_ms() when an operation first found the shard away, by enum need; 0 =
                               it is not */
    struct admitted admitted;
    struct stale stale;
};

/* ---- node.c: what the nodes are ---- */

/* Takes note of what a connection was told, unless something newer is known. */
void node_note(struct node *node, const struct conn_role *role);
/*
 * Whether a connection leads to another cluster than that of the shard: a proxy's or an address's way may
 * change under the connections that there are. It is to be closed (pool_drop()).
 */
bool node_is_other(struct node *node, const struct conn *conn);
/* It is taken for one of another cluster. */
bool node_is_foreign(struct node *node);
/*
 * Brings the states of all nodes up to date: the one place where a state changes. Each change is logged, and
 * a new timeline is kept (fence.h) before this returns.
 */
void node_settle(struct shard *shard);
/* Returns when the newest timeline is kept; cheap. */
void node_keep(struct shard *shard);
/*
 * Connects the monitor and takes note. Errors of conn_open() and schema_check(). What it is, when it got so
 * far, is in *standby (may be NULL).
 */
int node_connect(struct node *node, bool strict, bool *standby, struct fail *f);
/* Asks on the monitor, for the version of the schema too, and takes note. Errors of conn_ask_role(). */
int node_ask(struct node *node, bool schema, const struct op *op, struct fail *f);
/* The first attempt to reach it is over: that it is out of use means something from here on. */
void node_visited(struct node *node);
/* What keeps it out of use is that it does not answer. */
void node_silent(struct node *node, bool silent);
/* Why a node that answers cannot be used; to be asked when all have been heard, before the states begin. */
void node_foresee(struct node *node, struct fail *f);
/* All have been heard: from here on they have states. */
void node_begin(struct shard *shard);

/* The index of the primary when it is in use, -1 = there is none, or more than one. */
int node_find_primary(struct shard *shard);
/*
 * Of the replicas in use that are none of those in `tried` (a bit a node) the one that is preferred, has room
 * and is the least loaded. `lagging` admits those beyond the bounds, too. -1 = none.
 */
int node_find_replica(struct shard *shard, uint64_t tried, bool lagging);
/*
 * While several nodes claim to be the primary: the one that this mount followed until then, if it is in use.
 * Replicas are none of whom one could know whose they are. -1 = none, or there is no such quarrel.
 */
int node_find_leader(struct shard *shard);
/* There is a primary, and every node is in use and within its bounds. */
bool node_all_well(struct shard *shard);
/* How many nodes can be read. */
size_t node_count_read(struct shard *shard);
/*
 * For one who found none. True when the shard has been without for a whole timeout, found by others before:
 * then who comes late is told at once, else a walk of a folder would wait for every file of it.
 */
bool node_give_up(struct shard *shard, enum need need);
/* The node is in use again: nobody has waited yet. */
void node_back(struct node *node);
/* Says why no node can be used, as -EIO. */
void node_why_not(struct shard *shard, struct fail *f);

/* What it said last counts no more: it is gone, or is another. */
void node_unlearn(struct node *node);

/* ---- members.c: which nodes there are ---- */

/* A node of the configuration, not watched yet. -ENOMEM, -ENOSPC. */
int member_add(struct shard *shard, const struct config *config, size_t index);
/* Ends it, when nobody uses the shard any more. */
void member_clear(struct node *node);
/* As cluster_reload(), for one shard. */
int members_follow(struct shard *shard, const struct config *config, struct fail *f);

/* ---- watch.c: a thread a node ---- */

/* -errno when a thread cannot be had. The monitors are connected as far as node_connect() has got. */
int watch_start(struct node *node);
/*
 * The shard is used: its nodes are asked at once if they have been left in peace, and go on to be asked more
 * often. Cheap.
 */
void watch_hurry(struct shard *shard);
/* Has every node of the shard asked, or tried, now. */
void watch_wake(struct shard *shard);
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
/*
 * Moves the token to a position asked after the work that began with `begun`; UINT64_MAX: a standby's, which
 * covers no commit whose own position is not known.
 */
void token_move(struct shard *shard, uint64_t begun, struct position position);
/* A commit whose position is not known. */
void token_lose(struct shard *shard);

/* ---- primary.c ---- */

/* What somebody wants a connection to the primary for. */
struct claim {
    size_t bytes; /* kept in memory while he waits */
    bool owed;    /* to learn what became of a write: waits to the deadline, and is not counted among them */
};

/*
 * A connection to the primary, waited for until the deadline. -EROFS when there is none, or too many wait for
 * one.
 */
int primary_take(struct shard *shard, struct claim claim, const struct op *op, struct node **node,
                 struct conn **out, struct fail *f);

/* ---- read.c ---- */

/* A connection on which may be read, as shard_read() would choose it; give it back to the node's pool. */
int read_take(struct shard *shard, const struct op *op, struct node **node, struct conn **conn,
              struct fail *f);

/* ---- used by all that routes ---- */

/* Asks a connection's position: the primary's flush LSN, the standby's replay LSN. */
extern const struct pg_statement position_statement;

/* Sleeps up to `ms`, in slices, less when the deadline comes first. -EINTR when interrupted, else 0. */
int shard_pause(const struct op *op, int64_t ms);
