/*
 * Follows the stream of one shard's changes (shard/stream.h): a thread that connects, makes the slot, has
 * asked for what was changed before, and from then on says of each transaction what it changed
 * (freshness_apply()), the shard's token moved to its commit first. While that cannot be, the question of
 * freshness.h goes on; it is tried again, soon after a loss, every half minute where the server does not
 * allow it.
 *
 * While many write what comes is let gather for some milliseconds, so that not each message has to wake
 * somebody.
 *
 * A stream counts only while it is known to have come to the present: the server is asked for a sign of life
 * every 3/5 of cache_ttl, and what it has sent must have reached what its watcher was told a cache_ttl ago.
 * It is given up when it is silent for STALL_MS, makes no sense, or belongs to a former primary.
 *
 * Each function may be called from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/op.h"
#include "entity/freshness.h"
#include "shard/cluster.h"

struct follow;

/* What there is to know of it. */
struct follow_report {
    bool streaming;
    char reason[256];      /* why not, or why not last time; "" = nothing has failed yet */
    uint64_t transactions; /* told since the start, with changes in them */
    uint64_t losses;       /* streams that have ended */
    int64_t lag_bytes;     /* of the primary's log that is not yet streamed, as far as is known; -1 = nothing
                              is known */
    int64_t lag_us;        /* from commit to arrival of the last transaction, by the server's clock */
};

/* `ask` is called, from the thread, when the shard is to be asked at once: a stream has begun, or counts no
 * more and is not lost either. Borrows all. -errno
 * when a thread or descriptor cannot be had. */
int follow_start(struct shard *shard, struct freshness *fresh, const struct config *config,
                 void (*ask)(void *arg), void *arg, struct follow **out);
/* Has the thread end soon, and does not wait for it. Takes NULL. */
void follow_ending(struct follow *follow);
/* Ends the thread. Takes NULL. */
void follow_stop(struct follow *follow);

/*
 * Waits, some milliseconds, until the stream has come to the present of this call: what was committed before
 * is then noted, unless the server's processors are so busy that its sender did not get to run meanwhile. No
 * statement is sent for that. False when that is not to be had within a tenth of a second.
 */
bool follow_catch_up(struct follow *follow, const struct op *op);

void follow_report(struct follow *follow, struct follow_report *report);
