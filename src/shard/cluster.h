/*
 * The shards: which regions live where, each shard's nodes and their pools, and the routing of statements.
 *
 * A node's role is asked (pg_is_in_recovery()), never configured: a watcher a node asks it about twice a
 * second (every two seconds while nobody uses the shard and all is well there), and from what all of a
 * shard's nodes say follows what each is to it (node_state.h). Writes go to the primary, on the newest
 * timeline seen, which is remembered over restarts (fence.h). Reads go to a replica within the bounds of lag
 * that has replayed the shard's token (below), those of the highest priority and the least loaded first; else
 * to the primary, as many at once as primary_reads allows. Without a primary writes wait for the next,
 * bounded in time, number and size, then -EROFS; reads go on. A node that does not answer is out of use until
 * it does; what waits there goes on elsewhere. Once a shard has been without any node, or without a primary,
 * for a whole timeout, operations that need one fail at once.
 *
 * Token: (timeline, LSN), moved by each of our commits, by shard_sync_read(), and by reads that a later one
 * on another node could undercut. A read is answered by a node that has replayed it, checked in an earlier
 * statement than the read; so this mount reads its own writes, and never less than it has read before. One
 * exception, where stale_reads = serve: while no primary is in use (it is gone, or frozen), a replica on the
 * token's timeline is read even if it misses the last commits. That is told (stale.c). With refuse it is
 * -EIO.
 *
 * Thread-safe. No lock is held across a query. Errors: -EIO (no node in time), -EROFS (no primary, on writes
 * only), -EINTR (reads, when the op says so), and what SQLSTATEs become (postgres/sqlstate.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/fail.h"
#include "base/op.h"
#include "postgres/statement.h"

struct cluster;
struct shard;

/*
 * Opens the pools and checks the schema version of every shard that answers. The configuration is borrowed
 * and must outlive the cluster. Fails (-EIO, -EACCES, -EPROTO for a schema that is missing, older or newer)
 * when no node of some shard can be used, with every shard's reason in *f->message. Threads may be started:
 * call it after the daemon has forked.
 */
int cluster_open(const struct config *config, struct cluster **out, struct fail *f);
void cluster_close(struct cluster *cluster);
/*
 * Follows the configuration in force (config_hold()) after a reload: nodes that are new are connected to,
 * those that are gone are used no more, pools get their new sizes and times. What is under way goes on; only
 * where a node's address or way of connecting has changed it is tried again. One thread at a time. The first
 * failure (-ENOMEM, -EAGAIN, -ENOSPC) is returned, the rest is done nevertheless.
 */
int cluster_reload(struct cluster *cluster, struct fail *f);

size_t cluster_shards(const struct cluster *cluster);
struct shard *cluster_shard(struct cluster *cluster, size_t index);
/* NULL when no shard has that number or region. */
struct shard *cluster_shard_numbered(struct cluster *cluster, unsigned number);
struct shard *cluster_shard_of_region(struct cluster *cluster, unsigned region);

unsigned shard_number(const struct shard *shard);
const char *shard_name(const struct shard *shard);
size_t shard_index(const struct shard *shard);
/* The newest timeline seen on any node; part of a revision's edition. */
uint32_t shard_timeline(const struct shard *shard);

/* A read, retried on another node until the deadline. *rows is the caller's. */
int shard_read(struct shard *shard, const struct pg_statement *statement, const char *const *params,
               const struct op *op, struct pg_rows **rows, struct fail *f);

/*
 * A read on the primary when there is one, else on a replica; afterwards the shard's token is at least that
 * node's position, so what this read saw every later read sees.
 */
int shard_sync_read(struct shard *shard, const struct pg_statement *statement, const char *const *params,
                    const struct op *op, struct pg_rows **rows, struct fail *f);

/*
 * One transaction of one statement on the primary; the token is moved before it returns. Deadlocks and
 * serialization failures are retried (-EAGAIN in the end), a broken connection only when the statement was
 * never sent. `request` is the id that the statement itself inserts (a UUID): with it an answer that was lost
 * is looked up (resolve_request) on whatever is the primary then, and a write known not to have happened is
 * repeated; *rows is then NULL when the lost answer turned out to be a commit, and 0 is returned. A commit
 * that a synchronous standby was to confirm and did not is no success until a later one is confirmed.
 */
int shard_write(struct shard *shard, const struct pg_statement *statement, const char *const *params,
                const char *request, const struct op *op, struct pg_rows **rows, struct fail *f);

/* The same for what leaves nothing that would have to be looked up, as the next number of a sequence: it is
 * given up when the caller is interrupted (-EINTR), also while there is no primary. */
int shard_draw(struct shard *shard, const struct pg_statement *statement, const char *const *params,
               const struct op *op, struct pg_rows **rows, struct fail *f);
