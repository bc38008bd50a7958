/*
 * Rows as documents: read, list, save, delete. Between the tree, which knows names and handles, and the
 * shards, which know nodes; it owns the cache of documents and what keeps it coherent.
 *
 * Every call takes an op (deadline, interrupt), returns 0 or -errno and says why in *f (may be NULL).
 * Thread-safe; no lock is held across a query. Beyond the errors of shard/cluster.h: -ENOENT (no such row or
 * region), and from saving those of the table in docs/saving.md.
 */
#pragma once

#include <jansson.h>

#include "base/config.h"
#include "base/fail.h"
#include "base/op.h"
#include "entity/cache.h"
#include "entity/collection.h"
#include "entity/document.h"
#include "entity/feed.h"
#include "media/mongo.h"
#include "shard/cluster.h"

struct store;

/* Configuration, cluster and MongoDB (NULL = none configured) are borrowed and must outlive the store. */
int store_open(const struct config *config, struct cluster *cluster, struct mongo *mongo, struct store **out,
               struct fail *f);
void store_close(struct store *store);

/*
 * From here on what changes is told (entity/feed.h), until store_quiet(). -errno. Nothing is told with a
 * cache_ttl of 0, which believes nothing. In that time moves between shards that broke off are settled, too.
 */
int store_listen(struct store *store, feed_listener changed, void *arg);
void store_quiet(struct store *store);
/* Has its threads end soon, and does not wait for it: before store_quiet(), when others are told as well. */
void store_ending(struct store *store);

/*
 * How long the kernel may believe this revision of a row, or, with a rev of 0, what it was told of the folder
 * of the key: minutes while the feed is up and the cache, or a page of that epoch, vouches that nothing newer
 * has been noted, else half of cache_ttl.
 */
int64_t store_believed_ms(struct store *store, const struct row_key *key, uint64_t rev, uint64_t epoch);

/* Half of cache_ttl: the other half is what the kernel may believe (timeouts of entries and attributes). */
int64_t store_kernel_timeout_ms(const struct store *store);

/* What stat() shows of a row. */
int store_stat(struct store *store, const struct row_key *key, const struct op *op, struct revision *revision,
               struct fail *f);
/* The row's current document; *out is a reference of the caller's. */
int store_get(struct store *store, const struct row_key *key, const struct op *op, struct document **out,
              struct fail *f);

/* What the cache remembers of a row, however old; asks nobody. False when nothing. */
bool store_peek(struct store *store, const struct row_key *key, struct revision *revision);
/* The mark (document.h) of a row's revision of which no more than the rev is known; 0 for 0. */
uint64_t store_mark(const struct store *store, const struct row_key *key, uint64_t rev);

/* One keyset page of a listing, ascending by id. */
struct page_row {
    int64_t id;
    struct revision revision;
};
struct page {
    size_t count;   /* less than asked for: the listing has ended */
    uint64_t epoch; /* what is noted later than that may make it outdated (freshness.h) */
    struct page_row rows[];
};

/*
 * The rows behind `after` (0 = from the start), at most `limit`; documents that are read enter the cache.
 * free() the page. content_us is 0 where the page was remembered.
 */
int store_page(struct store *store, unsigned collection, unsigned region, int64_t after, size_t limit,
               const struct op *op, struct page **out, struct fail *f);

/* store_deleted.c: the same of rows deleted within the last day. Nothing of them is cached. */
int store_deleted_get(struct store *store, const struct row_key *key, const struct op *op,
                      struct document **out, struct fail *f);
int store_deleted_page(struct store *store, unsigned collection, unsigned region, int64_t after, size_t limit,
                       const struct op *op, struct page **out, struct fail *f);

/* When a collection last changed, µs since the epoch; 0 = never. */
int store_changed_us(struct store *store, unsigned collection, unsigned region, const struct op *op,
                     int64_t *us, struct fail *f);

/* A fresh id for a new row. */
int store_next_id(struct store *store, unsigned collection, unsigned region, const struct op *op, int64_t *id,
                  struct fail *f);

/* Times of a save: µs since the epoch, or one of these. */
#define STORE_TIME_NONE                                                                                      \
    INT64_MIN /* at: the commit's own time; base: the document's updated_at alone decides */
#define STORE_TIME_FOREVER INT64_MAX /* base: never a conflict */

struct put {
    struct row_key key; /* id 0: take the next one */
    const char *text;   /* one JSON document, checked (json_check), NUL-terminated */
    int64_t at_us;      /* the time that the writer set, or STORE_TIME_NONE */
    int64_t base_us; /* content_at of the writer's own last save, or STORE_TIME_NONE, or STORE_TIME_FOREVER */
    bool must_exist; /* refuse with -ECANCELED, result->deleted, when the row is gone */
    bool must_be_new;  /* refuse with -EEXIST when there is such a row; not of users' documents */
    const char *actor; /* for the change log, "uid=1000 pid=4711" */
};

struct put_result {
    int64_t id;
    bool deleted;              /* it was to exist and did not */
    bool unchanged;            /* the row was equal: nothing was written */
    uint64_t replaced_rev;     /* what the cache held before, 0 = nothing */
    struct document *document; /* the row's new revision, the caller's; NULL when only its commit is known */
};

/* One transaction. The new revision is in the cache when it returns. */
int store_put(struct store *store, const struct put *put, const struct op *op, struct put_result *result,
              struct fail *f);
int store_delete(struct store *store, const struct row_key *key, const char *actor, const struct op *op,
                 struct fail *f);
/* A row deleted within the last day becomes one again, as it was, its time included. -ENOENT when there is
 * none, -EEXIST when its id or a unique value is taken now. */
int store_undelete(struct store *store, const struct row_key *key, const char *actor, const struct op *op,
                   struct put_result *result, struct fail *f);
/* Forgets a deleted row before its day is over; -ENOENT. */
int store_forget(struct store *store, const struct row_key *key, const char *actor, const struct op *op,
                 struct fail *f);
/* To another region, also of another shard (entity/transfer.h): -EPERM for what cannot move. */
int store_move(struct store *store, const struct row_key *key, unsigned to, const char *actor,
               const struct op *op, struct put_result *result, struct fail *f);

/*
 * How shard i hears of changes: the object "feed" of .campusfs/health.json, a new reference; NULL when memory
 * is out. {"state": "streaming" | "polling" | "down", "reason": why it is not streamed, or null,
 * "transactions", "losses", "lag_bytes": number or null, "lag_ms": of the last transaction}
 */
json_t *store_feed_json(struct store *store, size_t i);

/* Prometheus text of the cache and of what keeps it coherent. */
int store_metrics(struct store *store, struct buf *out);
