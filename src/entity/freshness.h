/*
 * How long what has been read may be believed. Either the shard's changes are streamed to us (follow.h): then
 * its cached documents are good as long as the stream is known to be alive. Or they are good while the shard
 * was asked less than the limit ago what has changed (sql/queries/changes.sql: every change not visible in
 * the previous snapshot, so that a transaction that commits out of order is not missed): one question a shard
 * and interval, only while somebody reads.
 *
 * A document may only stay in the cache when no change of it was noted between the start of its query and its
 * entry: freshness_epoch() before the query, freshness_unchanged_since() before and again after it was put
 * in. Changes are noted before they are dropped, so one of the two sees the other.
 *
 * Whatever names a change moves the shard's token first, so that a refill cannot come from a replica that has
 * not replayed what was dropped. Thread-safe; no lock is held across the question, others wait for its answer
 * with their own deadline.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/op.h"
#include "entity/cache.h"
#include "entity/changes.h"
#include "entity/runs.h"
#include "shard/cluster.h"

struct freshness;

/* So many operations may wait for one shard's answer; more get -EIO at once. */
enum { FRESHNESS_WAITERS = 250 };

/* For one shard; everything is borrowed and must outlive it. `limit_ms` is the age that is still believed. */
struct freshness *freshness_new(struct shard *shard, struct cache *cache, struct runs *runs,
                                const struct config *config, int64_t limit_ms);
void freshness_free(struct freshness *freshness);

/* Asks when nothing is streamed and the last answer is too old, and forgets what has changed. Errors of
 * shard_sync_read(). */
int freshness_ensure(struct freshness *freshness, const struct op *op, struct fail *f);

/* Asks whatever is known: what was committed before the call is seen behind it. */
int freshness_renew(struct freshness *freshness, const struct op *op, struct fail *f);

/* The same, and nobody is taken to have read anything: for the feed. */
int freshness_renew_unused(struct freshness *freshness, const struct op *op, struct fail *f);
/* clock_now_ms() when somebody last asked whether he may believe. */
int64_t freshness_used_at(struct freshness *freshness);
/* All that was committed until then (clock_now_ms()) is noted: when the last answered question began, or the
 * stream was last known to be alive. */
int64_t freshness_known_at(struct freshness *freshness);

/* ---- the stream ---- */

/*
 * From here on every change comes by freshness_apply(). What was changed before is asked for: the stream
 * counts once all transactions that were under way, of which `newest` is the last (stream_begin()), have
 * ended, and have been asked for. `timeline`: of the stream; it counts for nothing when the shard has a newer
 * one.
 */
void freshness_stream_begin(struct freshness *freshness, uint32_t timeline, uint64_t newest);
/* The stream is alive and has come to the present, at that time (clock_now_ms()). */
void freshness_stream_alive(struct freshness *freshness, int64_t at);
/* The stream is lost, and with it perhaps changes: all is forgotten. */
void freshness_stream_end(struct freshness *freshness);
/* Whether it is to be believed now: what it says makes the question needless. */
bool freshness_is_streamed(struct freshness *freshness);
/* How long it is without a sign of life. */
int64_t freshness_silence_ms(const struct config *config);
/* One transaction; the token has been moved. */
void freshness_apply(struct freshness *freshness, const struct changes *changes);

/* ---- what was noted ---- */

typedef void (*freshness_listener)(void *arg, const struct row_change *change);

/*
 * Who is told of each change, after the caches have forgotten it; NULL for nobody. Called from whichever
 * thread learned of it, and may not block.
 */
void freshness_listen(struct freshness *freshness, freshness_listener noted, void *arg);
/* Calls it for each folder group of the shard: all of it. */
void freshness_each_folder(struct freshness *freshness, freshness_listener noted, void *arg);

uint64_t freshness_epoch(struct freshness *freshness);
/* False when a change of the row was noted since that epoch; a key of id 0: of any row of the folder. */
bool freshness_unchanged_since(struct freshness *freshness, const struct row_key *key, uint64_t epoch);
/* Whether nothing at all was: then no row need be asked for. */
bool freshness_quiet_since(struct freshness *freshness, uint64_t epoch);
/* Whether somebody else's change was that is later than the revision that a save of ours returned. */
bool freshness_newer_since(struct freshness *freshness, const struct row_key *key, uint64_t rev,
                           uint64_t epoch);

/* Notes a change of our own: what was being read of the row meanwhile does not stay in the cache. */
void freshness_note_change(struct freshness *freshness, const struct row_key *key);

/* What was asked and found, for the metrics. */
void freshness_count(struct freshness *freshness, uint64_t *questions, uint64_t *changes);
