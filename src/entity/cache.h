/*
 * The documents that have been read, by row, least recently used out first. Texts are kept compressed against
 * a sample of their collection: a row of 600 bytes takes about 200, so that what follows a listing of a
 * hundred thousand rows needs no query.
 *
 * Coherence is not decided here (entity/freshness.h): the cache only forgets what it is told to forget.
 * Thread-safe; the lock is held for memory operations only, compression is done outside it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "entity/collection.h"
#include "entity/document.h"

struct cache;

struct cache_counters {
    uint64_t hits, misses, evictions;
    size_t entries, bytes, limit;
};

/* `limit` bounds what entries take, overhead included, in bytes. NULL when memory is out. */
struct cache *cache_new(size_t limit);
void cache_free(struct cache *cache);

/*
 * Remembers a revision; replaces the row's former one unless that is newer (rev rises with every change of a
 * row, as long as its shard's timeline lasts). Failing to (memory) only costs a query later. `soon`: it is
 * likely to be read again soon, and kept as it is: packing and unpacking take longer than all else that a
 * save or a lookup does here. A quarter of the limit may be taken by such; beyond that it is packed.
 */
void cache_put(struct cache *cache, const struct row_key *key, const struct revision *revision,
               const char *text, bool soon);

/* What is remembered of a row; false when nothing is. */
bool cache_stat(struct cache *cache, const struct row_key *key, struct revision *revision);
/* The document itself, a reference of the caller's; NULL when it is not there (or memory is out). */
struct document *cache_get(struct cache *cache, const struct row_key *key);

/* Forgets a row unless what is remembered is that rev or a later one (0 = whatever it is). */
void cache_drop(struct cache *cache, const struct row_key *key, uint64_t unless_rev);
/* Forgets all of a collection and region; 0 stands for every collection, every region. */
void cache_drop_all(struct cache *cache, unsigned collection, unsigned region);

void cache_count(struct cache *cache, struct cache_counters *counters);
