/* The state of every node, probed at once, for `campusfs health`, `campusfs status` and
 * .campusfs/health.json. */
#pragma once

#include <jansson.h>

#include "base/op.h"
#include "shard/cluster.h"

enum health_status { HEALTH_OK = 0, HEALTH_DEGRADED = 1, HEALTH_DOWN = 2 };

/*
 * Probes all nodes in parallel, each on a connection of its own, so that a frozen one delays nobody.
 * Healthy: every shard has a primary and every node answers within the allowed lag. Degraded: reads work
 * everywhere, something is missing, or a node that answers is not in use by the cluster yet. Down: some shard
 * cannot be read. *out is a new object; what is not known is null, so is what only a mount can know without a
 * cluster (NULL). 0, or -ENOMEM.
 *
 *   {"status": "ok" | "degraded" | "down",
 *    "shards": [{"name", "number", "status", "primary": its name, "timeline": the newest seen,
 *                "protection": "synchronous" | "waiting" | "unprotected",
 *                "prepared": {"count", "oldest_s"}: transactions that are prepared on the primary,
 *                "traffic": null | {"reads": {"replica", "primary", "stale"}, "stale_ms", "stale_age_ms",
 *                                   "held_writes", "held_writes_total", "held_writes_refused"},
 *                "nodes": [{"name", "state": node_state_name(), "since_s", "reachable",
 *                           "role": "primary" | "standby", "timeline", "lag_ms", "lag_bytes", "clock_ms",
 *                           "latency_ms", "connect_ms", "pool": {"open", "busy", "max"}, "reads", "writes",
 *                           "failures", "schema_version", "error"}]}]}
 *
 * "protection" is that of the primary's commits: confirmed by a standby; to be, but none is there that could;
 * or by nobody, so that the last ones can be lost with it. With a cluster the states are those that the mount
 * goes by. The lag of a node that a mount does not watch is told by the clocks of two servers, corrected by
 * what both say the time is.
 */
int health_probe(const struct config *config, struct cluster *cluster, const struct op *op, json_t **out,
                 enum health_status *status);
