/* The pools of all nodes in numbers, for .campusfs/metrics. */
#pragma once

#include "base/buf.h"
#include "shard/cluster.h"

/* Appends what pool_stats() says of every node, as Prometheus' text. 0 or -ENOMEM. */
int pool_metrics(struct cluster *cluster, struct buf *out);
