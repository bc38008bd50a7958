/*
 * What a node is to its shard. One function decides it, from what the node last said and what is known of the
 * whole shard, for a mount (node.c) and for a single look (health.c) alike.
 *
 * Names for people, in health.json, metrics, log and docs/running.md, are node_state_name()'s.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/fail.h"

enum node_state {
    NODE_CONNECTING,  /* not heard of yet */
    NODE_PRIMARY,     /* takes the writes */
    NODE_REPLICA,     /* is read */
    NODE_LAGGING,     /* a replica beyond max_lag or max_lag_bytes: read only when nothing better is there */
    NODE_FENCED,      /* on an older timeline than the newest seen: neither written to nor read */
    NODE_RIVAL,       /* one of several primaries on the same timeline: nothing is written to any */
    NODE_FOREIGN,     /* of another cluster (system identifier): neither written to nor read */
    NODE_SCHEMA,      /* no schema, or another shard's */
    NODE_REFUSED,     /* does not let us in */
    NODE_UNREACHABLE, /* cannot be connected to */
    NODE_FROZEN,      /* takes connections or holds one, and does not answer */
    NODE_STATES,
};

const char *node_state_name(enum node_state state);
/* Whether reads may be answered by it, if need be. */
bool node_state_is_read(enum node_state state);

#define NODE_LAG_UNKNOWN (-1)

/* What is known of one node. */
struct node_facts {
    bool known;  /* it has answered; else nothing but err counts */
    int err;     /* why it is not in use, an errno; 0 = it is */
    bool silent; /* that is for want of an answer */
    bool standby;
    bool synchronous; /* a primary's commits wait for a standby */
    uint32_t timeline;
    uint64_t system;
    int64_t lag_ms, lag_bytes; /* NODE_LAG_UNKNOWN */
};

/* What is known of a shard as a whole. */
struct shard_facts {
    uint64_t system;   /* which cluster it is, 0 = not known yet */
    uint32_t timeline; /* the newest that any of its nodes was seen on */
    unsigned claims;   /* primaries on it */
    int64_t max_lag_ms;
    size_t max_lag_bytes; /* 0 = none */
};

/*
 * Which cluster the nodes are, when it has not been known before: that of the primaries, of several the one
 * with the most nodes; without a primary that of most nodes. 0 when none has answered, or as many say this as
 * that. *sure tells that a primary decided it.
 */
uint64_t node_system(const struct node_facts *facts, size_t n, bool *sure);

/* Moves shard->timeline on to the newest of the nodes' and counts the claims. */
void node_survey(const struct node_facts *facts, size_t n, struct shard_facts *shard);

/* `before` keeps a replica that lags from coming and going: it must be clearly within the bounds again. */
enum node_state node_judge(const struct node_facts *facts, const struct shard_facts *shard,
                           enum node_state before);

/*
 * Says in *f what is wrong with a node in a state that is no failure to reach it: EROFS or EIO. Nothing
 * when nothing is, or when it is the pool that knows why.
 */
void node_explain(const char *name, enum node_state state, const struct node_facts *facts,
                  const struct shard_facts *shard, struct fail *f);
