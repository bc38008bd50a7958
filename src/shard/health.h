/* The state of every node, probed at once, for `campusfs health` and .campusfs/health.json. */
#pragma once

#include <jansson.h>

#include "base/op.h"
#include "shard/cluster.h"

enum health_status { HEALTH_OK = 0, HEALTH_DEGRADED = 1, HEALTH_DOWN = 2 };

/*
 * Probes all nodes in parallel, each on a connection of its own, so that a frozen one delays nobody.
 * Healthy: every shard has a primary and every node answers within the allowed lag. Degraded: reads work
 * everywhere, something is missing, or a node that answers is not in use by the cluster yet. Down: some shard
 * cannot be read. *out is a new object; what is not known is null, so is "pool" without a cluster (NULL). 0,
 * or -ENOMEM.
 *
 *   {"status": "ok" | "degraded" | "down",
 *    "shards": [{"name", "number", "status",
 *                "nodes": [{"name", "reachable", "role": "primary" | "standby", "timeline", "lag_ms",
 *                           "lag_bytes", "latency_ms", "pool": {"open", "busy", "max"},
 *                           "schema_version", "error"}]}]}
 */
int health_probe(const struct config *config, struct cluster *cluster, const struct op *op, json_t **out,
                 enum health_status *status);
