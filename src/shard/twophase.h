/*
 * A transaction of several round trips on a shard's primary, and its end in two phases, so that transactions
 * of several shards can be committed together. Who begins one holds a connection of the pool until its end.
 *
 * A prepared transaction outlives its connection, the server and a failover to a standby that has it; it
 * keeps its locks until somebody ends it by its name (entity/transfer.h does). Only servers with
 * max_prepared_transactions > 0 can prepare one.
 *
 * One thread at a time uses a transaction. Nothing of it is interrupted by a caller, only by its deadline or
 * by its node going out of use. Errors as of shard_write(); never retried here.
 */
#pragma once

#include <stdbool.h>

#include "shard/cluster.h"

struct shard_tx;

/* Begins one; *out is the caller's, to be ended by shard_tx_end(). */
int shard_tx_begin(struct shard *shard, const struct op *op, struct shard_tx **out, struct fail *f);

/* A statement in it; after a failure it can only be ended. *rows is the caller's. */
int shard_tx_run(struct shard_tx *tx, const struct pg_statement *statement, const char *const *params,
                 const struct op *op, struct pg_rows **rows, struct fail *f);

/*
 * The first phase, and the only one of a transaction that needs no second. When they fail *unknown tells
 * whether it may have happened nevertheless: an answer was lost, or a newer primary was heard of meanwhile.
 * On a node that is known not to be the primary any more neither is even tried (-EROFS). `gid` has letters,
 * digits, ':' and '-' only (-EINVAL).
 */
int shard_tx_prepare(struct shard_tx *tx, const char *gid, const struct op *op, bool *unknown,
                     struct fail *f);
int shard_tx_commit(struct shard_tx *tx, const struct op *op, bool *unknown, struct fail *f);

/* Gives the connection back; what is neither prepared nor committed is rolled back. Takes NULL. */
void shard_tx_end(struct shard_tx *tx);

/*
 * The second phase: commits or rolls back what was prepared under a name, and moves the shard's token.
 * -ENOENT when there is none of that name: over already, or never prepared. -EIO where a newer primary was
 * heard of meanwhile: ask that one again.
 */
int shard_finish_prepared(struct shard *shard, const char *gid, bool commit, const struct op *op,
                          struct fail *f);
