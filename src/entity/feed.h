/*
 * The feed of one shard: a thread that asks what has changed (freshness.h) again and again while the kernel
 * may believe anything of that shard, and tells the tree, which tells the kernel. With it names and
 * attributes may be believed for minutes and a change is seen within cache_ttl nevertheless. A shard that
 * does not answer delays no other's feed.
 *
 * Every change is told twice, some 50 ms apart: a reply that was on its way while the first was told is
 * believed only after it. When the shard does not answer within cache_ttl everything is told to have changed,
 * and nothing may be believed for long until it does.
 */
#pragma once

#include <stdint.h>

#include "entity/freshness.h"

struct feed;

/* How long the kernel may believe what is fed. */
enum { FEED_KEPT_MS = 300000 };

/* Called from the feed's thread with changes in the order of their commits: some at a time, so that who
 * listens may do once for many what concerns their folder. */
typedef void (*feed_listener)(void *arg, const struct noted *changes, size_t n);

/* Borrows all; -errno when a thread cannot be had. */
int feed_start(struct freshness *fresh, const struct config *config, feed_listener listener, void *arg,
               struct feed **out);
/* Ends the thread; nothing is told any more. Takes NULL. */
void feed_stop(struct feed *feed);

/* How long what was read just now may be believed, when it is vouched for by the cache; 0 = the feed is not
 * up. */
int64_t feed_kept_ms(struct feed *feed);
