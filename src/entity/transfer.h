/*
 * Users who move to another shard, with all that is theirs: one transaction a shard, in two phases
 * (sql/code/52_transfers.sql says what each does).
 *
 *   1. On the shard that the user leaves a transaction takes everything out and journals it. It stays open.
 *   2. The shard that the user comes to, and each other home of ids that move, prepare their parts.
 *   3. The first one commits. That decides: before it nothing has happened, behind it the user arrives.
 *   4. What was prepared is committed, and the journal notes that all is over.
 *
 * Between 3 and 4, a millisecond, the user is in neither region; never in both. Whoever writes to the user
 * meanwhile waits and then finds nobody. Where something breaks off (this process, a server, the network),
 * what is left is settled by whoever comes first: the keeper of any mount, at its start or within a minute,
 * or `campusfs check --repair` at once. Settling can be done by several at a time and any number of times, so
 * nobody has to be elected for it: all ask the journal, which decides once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fail.h"
#include "base/op.h"
#include "entity/collection.h"
#include "shard/cluster.h"

/*
 * Moves a user to a region of another shard. *rows is the new row, as of put, the caller's. *decided tells
 * that the user has left, also where a shard that has to learn of it did not answer (-EIO, in words). Errors:
 * -EBUSY (teaches, or has rows in courses of the shard: which ones), -EEXIST (e-mail, username or id is taken
 * there), -EXDEV (a server keeps no prepared transactions), -ENOLINK (no such user), -EFBIG, and as of
 * shard_write().
 */
int transfer_user(struct cluster *cluster, const struct row_key *user, unsigned to, const char *actor,
                  const struct op *op, struct pg_rows **rows, bool *decided, struct fail *f);

/* What was left over on a shard, as the listener of transfers_settle() is told. */
struct transfer_found {
    const struct shard *shard;
    const char *what; /* "prepared", "unfinished" or "lost" */
    const char *transfer;
    int64_t age_ms;
    bool settled;
    const char *message; /* in words, and why it could not be settled */
};

struct transfer_search {
    int64_t age_ms; /* only what is at least that old: what is under way is no leftover */
    bool thorough;  /* transfers that are over as well, for what a failover took back; takes a query each */
    bool settle;    /* else nothing is changed */
    void (*found)(void *arg, const struct transfer_found *found);
    void *arg;
};

/* Looks on one shard's primary. Errors as of shard_write(); one that cannot be settled is told, no error. */
int transfers_settle(struct cluster *cluster, struct shard *shard, const struct transfer_search *search,
                     const struct op *op, struct fail *f);

/*
 * The keeper: a thread of a mount that settles what is left over, at its start, a minute after the last time,
 * and a timeout after transfers_wake(). At its start and every hour it has each shard forget old requests and
 * changes, too (prune_logs(), sql/code/10_common.sql). -errno when a thread cannot be had.
 */
struct transfers;
int transfers_start(struct cluster *cluster, int64_t timeout_ms, struct transfers **out);
/* Has the thread end soon, and does not wait for it. Takes NULL. */
void transfers_ending(struct transfers *transfers);
/* Ends the thread, at the latest with the deadline of what it does. Takes NULL. */
void transfers_stop(struct transfers *transfers);
/* Something was left over. Takes NULL. */
void transfers_wake(struct transfers *transfers);
/* Prometheus text: prepared transactions of each primary, whoever's, with their age, and unfinished moves. */
int transfers_metrics(struct transfers *transfers, struct buf *out);
