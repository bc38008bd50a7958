/* What the files of the store share; nobody else includes it. */
#pragma once

#include <pthread.h>

#include "entity/feed.h"
#include "entity/freshness.h"
#include "entity/preferences_sweep.h"
#include "entity/runs.h"
#include "entity/store.h"
#include "entity/store_preferences.h"
#include "entity/transfer.h"

/* Where the last query of a folder ended: rows read one after the other are fetched by the page. */
struct read_ahead {
    int64_t from, last_id; /* where the last page began, and the last row asked for */
    unsigned run;          /* queries in a row that began just behind the last one */
    bool fetching;         /* a page is on its way */
};

struct store {
    const struct config *config; /* borrowed */
    struct cluster *cluster;     /* borrowed */
    struct mongo *mongo;         /* borrowed; NULL = none configured */
    struct cache *cache;
    struct runs *runs;
    struct known_preferences *preferences;
    struct freshness *fresh[CONFIG_MAX_SHARDS]; /* by shard_index() */
    struct feed *feeds[CONFIG_MAX_SHARDS];      /* likewise; NULL before store_listen() */
    feed_listener changed;                      /* who listens, since store_listen() */
    void *changed_arg;
    struct preferences_sweep
        *preferences_sweep;      /* NULL before store_listen(), read-only, or not by this mount */
    struct transfers *transfers; /* NULL before store_listen(), or read-only */
    uint64_t schema;             /* hash of what renders documents */
    _Atomic uint64_t export_rows, export_copies;
    pthread_mutex_t lock; /* guards all below */
    struct read_ahead ahead[COLLECTIONS_MAX][CONFIG_MAX_REGIONS + 1];
    unsigned exports[CONFIG_MAX_SHARDS]; /* open ones, by shard_index() */
};

/* The shard that serves a row's region; for a global collection the authority. NULL: no such region. */
struct shard *store_shard(const struct store *store, unsigned collection, unsigned region);
/*
 * How many rows to fetch from this one on: 1, or a growing page when rows are read one after the other. One
 * page at a time: several who walk a folder together would each ask for the same rows. store_ahead_ended() is
 * then due: the page has come and ended with `last_id`, or will not (0).
 */
size_t store_ahead_rows(struct store *store, const struct row_key *key);
void store_ahead_ended(struct store *store, const struct row_key *key, int64_t last_id);
struct freshness *store_fresh(const struct store *store, const struct shard *shard);

/*
 * The row that put or move returned becomes the result and enters the cache, where it stays unless somebody
 * else changed the row since that epoch. Never fails: what is behind it is committed. Without memory the
 * document is missing, and read later.
 */
void store_take_result(struct store *store, struct shard *shard, uint64_t epoch, unsigned collection,
                       unsigned region, const struct pg_rows *rows, struct put_result *result);

/* Lays row i of a get or put out as a document (the caller's). The columns from `rev` on are the same in
 * both. */
int store_document(const struct store *store, const struct shard *shard, const struct pg_rows *rows, size_t i,
                   unsigned rev_column, struct document **out, struct fail *f);
