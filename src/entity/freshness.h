/*
 * How long what has been read may be believed. A shard's cached documents are good while the shard was asked
 * less than the limit ago what has changed (sql/queries/changes.sql: every change not visible in the previous
 * snapshot, so that a transaction that commits out of order is not missed). One question a shard and
 * interval, only while somebody reads; an idle mount asks nothing.
 *
 * A document may only stay in the cache when no change was noted between the start of its query and its
 * entry: freshness_epoch() before the query, freshness_unchanged_since() before and again after it was put
 * in. Changes are noted before they are dropped, so one of the two sees the other.
 *
 * The question goes to the primary and moves the shard's token, so that a refill cannot come from a replica
 * that has not replayed what was dropped. Thread-safe; no lock is held across the question, others wait for
 * its answer with their own deadline.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/op.h"
#include "entity/cache.h"
#include "entity/runs.h"
#include "shard/cluster.h"

struct freshness;

/* So many operations may wait for one shard's answer; more get -EIO at once. */
enum { FRESHNESS_WAITERS = 250 };

/* For one shard; everything is borrowed and must outlive it. `limit_ms` is the age that is still believed. */
struct freshness *freshness_new(struct shard *shard, struct cache *cache, struct runs *runs,
                                const struct config *config, int64_t limit_ms);
void freshness_free(struct freshness *freshness);

/* Asks when the last answer is too old, and forgets what has changed. Errors of shard_sync_read(). */
int freshness_ensure(struct freshness *freshness, const struct op *op, struct fail *f);

/* The same however young the last answer is: what was committed before the call is seen behind it. */
int freshness_renew(struct freshness *freshness, const struct op *op, struct fail *f);

/* The same, and nobody is taken to have read anything: for the feed. */
int freshness_renew_unused(struct freshness *freshness, const struct op *op, struct fail *f);
/* clock_now_ms() when somebody last asked whether he may believe, and when the last answered question began.
 */
int64_t freshness_used_at(struct freshness *freshness);
int64_t freshness_asked_at(struct freshness *freshness);

/* What has changed, and the revision since. Id 0: any row of the collection and region; collection 0: of any.
 */
struct noted {
    struct row_key key;
    uint64_t rev; /* 0 = not known */
};
/*
 * Who is told of each change that an answer names, after the caches have forgotten it; NULL for nobody.
 * Called from whichever thread asked, and may not block.
 */
void freshness_listen(struct freshness *freshness, void (*noted)(void *arg, const struct noted *change),
                      void *arg);
/* Calls it with a key of id 0 for each folder group of the shard: all of it. */
void freshness_each_folder(struct freshness *freshness, void (*noted)(void *arg, const struct noted *change),
                           void *arg);

uint64_t freshness_epoch(struct freshness *freshness);
/*
 * False when a change of the row, or an answer that named any, has been noted since that epoch. A key of id 0
 * stands for every row of its folder. It may be false without need: so many of our own changes are
 * remembered, and no more.
 */
bool freshness_unchanged_since(struct freshness *freshness, const struct row_key *key, uint64_t epoch);
/* Whether nothing at all has been noted since: then no row need be asked for. */
bool freshness_quiet_since(struct freshness *freshness, uint64_t epoch);

/* True when an answer named changes since that epoch: somebody's, perhaps newer than what a save of ours
 * returned. */
bool freshness_told_since(struct freshness *freshness, uint64_t epoch);

/*
 * Notes a change of our own: what was being read of that row meanwhile does not stay in the cache. As in keys
 * above, an id, a collection or a region of 0 stands for all.
 */
void freshness_note_change(struct freshness *freshness, const struct row_key *key);

/* What was asked and found, for the metrics. */
void freshness_count(struct freshness *freshness, uint64_t *questions, uint64_t *changes);
