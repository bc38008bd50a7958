/* A cluster as a running mount sees it at this moment: copies, for health.json and the metrics. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "shard/cluster.h"
#include "shard/node_state.h"
#include "shard/pool.h"

struct node_live {
    const char *name;
    enum node_state state;
    int64_t since_ms;             /* it has been in it for so long */
    int64_t lag_ms, lag_bytes;    /* NODE_LAG_UNKNOWN; of a standby */
    int64_t connect_us, query_us; /* moving values, 0 = not known */
    uint64_t failures, reads, writes;
    struct pool *pool;
};

struct shard_live {
    struct shard_facts facts;
    uint64_t reads_replica, reads_primary, reads_stale, reads_fallen;
    int64_t stale_ms;     /* since the last stale answer, -1 = there was none */
    int64_t stale_age_ms; /* how old that may have been, NODE_LAG_UNKNOWN */
    unsigned held;        /* saves that wait for a primary */
    uint64_t held_total, held_refused;
};

struct shard_live shard_live(struct shard *shard);
/* The one of that name; false when there is none. */
bool shard_node_named(struct shard *shard, const char *name, struct node_live *out);

/* Prometheus text of all of it. */
int cluster_metrics(struct cluster *cluster, struct buf *out);
