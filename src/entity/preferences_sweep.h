/*
 * Preferences go with their users, whoever deleted these, and whatever was away meanwhile: the documents
 * whose users no shard has any more are searched for and deleted. What the shards say of a user
 * (preferences_owners() in sql/code/53_check.sql, asked on primaries, all of them) decides:
 *
 *   there is such a user            the document stays
 *   deleted within the last day     it stays as long, for the user can be brought back
 *   erased, or known to be deleted  it goes at once
 *   nobody knows the user           it is marked, and goes in a day: a shard may have been restored from an
 *                                   older backup, or the user may be coming. With the user the mark goes
 *
 * When a shard does not answer nothing goes. An id whose home is no shard of the configuration is left alone,
 * unless it is known to be deleted.
 *
 * The thread of a mount looks every media_sweep, if it has the lease: at whom the feed has named since
 * (at most PREFERENCES_NOTED; more are left to the next), and every hour at all.
 */
#pragma once

#include "base/config.h"
#include "media/mongo.h"
#include "media/preferences_walk.h"
#include "shard/cluster.h"

struct preferences_sweep;

enum { PREFERENCES_NOTED = 4096 };

/* Borrows all; -errno when a thread cannot be had. */
int preferences_sweep_start(const struct config *config, struct cluster *cluster, struct mongo *mongo,
                            struct preferences_sweep **out);
/* Has the thread end soon, and does not wait for it. Takes NULL. */
void preferences_sweep_ending(struct preferences_sweep *sweep);
/* Ends the thread, when the message that is on its way is answered. Takes NULL. */
void preferences_sweep_stop(struct preferences_sweep *sweep);

/* A user was changed or deleted. Waits for nobody. Takes NULL. */
void preferences_sweep_note(struct preferences_sweep *sweep, int64_t user_id);
/* Documents deleted since the start. Takes NULL. */
uint64_t preferences_sweep_removed(struct preferences_sweep *sweep);

/* Asks the shards, each for timeout_ms, and sets the fates. Errors of shard_sync_read(). */
int preferences_judge(struct cluster *cluster, int64_t timeout_ms, struct preferences_owner *owners, size_t n,
                      struct fail *f);
