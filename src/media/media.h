/*
 * The media half of a mount: the cache of chunks, what is being written, the sweep, and for each region the
 * index of its names. One for a mount; there is none where no MongoDB is configured.
 */
#pragma once

#include "base/config.h"
#include "media/chunk_cache.h"
#include "media/index.h"
#include "media/mongo.h"
#include "media/staging.h"
#include "media/sweep.h"

struct media;

/* Contacts no server. `outdated`: see media/index.h; `region` is its number. Configuration and pool are
 * borrowed. */
int media_open(const struct config *config, struct mongo *mongo,
               void (*outdated)(void *arg, unsigned region, bool file, uint64_t number), void *arg,
               struct media **out, struct fail *f);
/* Has the threads that nobody waits for end soon, and does not wait for it. Takes NULL. */
void media_ending(struct media *media);
/* Nothing is outdated any more, and names are no longer known. Takes NULL. */
void media_quiet(struct media *media);
/* All readers are closed. Takes NULL. */
void media_close(struct media *media);

struct mongo *media_mongo(struct media *media);
struct chunk_cache *media_chunks(struct media *media);
struct staging *media_staging(struct media *media);
/* Prepares for regions that a reload has added; one thread at a time. */
int media_follow(struct media *media);
/* NULL for a number that is no region's, or not yet. */
struct media_index *media_index(struct media *media, unsigned region);
/* The region's name; "" for none. */
const char *media_region(const struct media *media, unsigned region);

/* Prometheus text. */
int media_metrics(struct media *media, struct buf *out);
