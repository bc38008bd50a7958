/*
 * The feed of one shard: how the tree, and by it the kernel, hears that something has changed. With it names
 * and attributes may be believed for minutes and a change is seen at once, or within cache_ttl, nevertheless.
 *
 * Changes are streamed (follow.h), or, where that cannot be, a thread asks what has changed (freshness.h)
 * again and again while the kernel may believe anything of the shard. A shard that does not answer delays no
 * other's feed. When it does not answer within cache_ttl everything is told to have changed, and nothing may
 * be believed for long until it does.
 *
 * Every change is told three times, at once, and again some 50 ms and some 500 ms later: a reply that was on
 * its way while the first was told is believed only after it.
 */
#pragma once

#include <stdint.h>

#include "entity/follow.h"
#include "entity/freshness.h"

struct feed;

/* How long the kernel may believe what is fed. */
enum { FEED_KEPT_MS = 300000 };

enum feed_state {
    FEED_DOWN,      /* the shard does not say what has changed: nothing is believed for long */
    FEED_POLLING,   /* it is asked, and answers in time */
    FEED_STREAMING, /* it says so by itself */
};

struct feed_report {
    enum feed_state state;
    struct follow_report follow;
};

/*
 * Called from the feed's thread with changes in the order of their commits: some at a time, so that who
 * listens may do once for many what concerns their folder. `times`: how often they have been told before, 0
 * to FEED_TOLD_AGAIN.
 */
typedef void (*feed_listener)(void *arg, const struct row_change *changes, size_t n, unsigned times);
enum { FEED_TOLD_AGAIN = 2 };

/* Borrows all; -errno when a thread cannot be had. */
int feed_start(struct shard *shard, struct freshness *fresh, const struct config *config,
               feed_listener listener, void *arg, struct feed **out);
/* Has the threads end soon, and does not wait for it: of many all are told first. Takes NULL. */
void feed_ending(struct feed *feed);
/* Ends the threads; nothing is told any more. Takes NULL. */
void feed_stop(struct feed *feed);

/* What was committed before the call is noted behind it. Errors of freshness_renew(). */
int feed_renew(struct feed *feed, const struct op *op, struct fail *f);

/* How long what was read just now may be believed, when it is vouched for by the cache; 0 = the feed is not
 * up. Takes NULL. */
int64_t feed_kept_ms(struct feed *feed);

void feed_report(struct feed *feed, struct feed_report *report);
