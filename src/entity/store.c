#include "entity/store.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/map.h"
#include "base/sql.h"
#include "entity/export.h"
#include "entity/store_internal.h"
#include "media/preferences_doc.h"

enum {
    AHEAD_GAP = 8000, /* ids step by 1000 in a shard, and two regions share one: that near is "just behind" */
    RUNS_SHARE = 5,   /* of cache_size for the rows of pages: a document takes some 250 bytes, its row 32 */
    AHEAD_FIRST = 16, /* rows fetched when a second query follows the first; then twice as many each time */
    AHEAD_MAX = 256,  /* whoever looks a name up in that folder waits behind them, in the kernel */
    AHEAD_LATE = 8 * AHEAD_GAP, /* so far behind the last page others may be who walk the same way */
};

#define NUMBER_TEXT 24 /* bytes of any 64-bit integer in decimal */

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

/* All that decides how a document looks: another code file is another revision of every row (data-model.md).
 */
static uint64_t schema_hash(void)
{
    uint64_t hash = 0;
    for (const struct sql_file *file = sql_files; file->name; file++)
        if (strncmp(file->name, "code/", 5) == 0)
            hash = map_hash_bytes(file->text, file->len, hash);
    return hash;
}

int store_open(const struct config *config, struct cluster *cluster, struct mongo *mongo, struct store **out,
               struct fail *f)
{
    collections_prepare();
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return fail_set(f, ENOMEM, "out of memory");
    store->config = config;
    store->cluster = cluster;
    store->mongo = mongo;
    store->schema = schema_hash();
    pthread_mutex_init(&store->lock, NULL);
    store->runs = runs_new(config->cache_size / RUNS_SHARE);
    store->cache = cache_new(config->cache_size - config->cache_size / RUNS_SHARE);
    store->preferences = known_preferences_new();
    bool complete = store->cache != NULL && store->runs != NULL && store->preferences != NULL;
    for (size_t i = 0; complete && i < cluster_shards(cluster); i++) {
        store->fresh[i] = freshness_new(cluster_shard(cluster, i), store->cache, store->runs, config,
                                        config->cache_ttl_ms - store_kernel_timeout_ms(store));
        complete = store->fresh[i] != NULL;
    }
    int r = complete ? preferences_doc_prepare(f) : fail_set(f, ENOMEM, "out of memory");
    if (r < 0) {
        store_close(store);
        return r;
    }
    *out = store;
    return 0;
}

/* Of users it is noted as well, for their preferences. */
static void tell(void *arg, const struct row_change *changes, size_t n, unsigned times)
{
    struct store *store = arg;
    for (size_t i = 0; times == 0 && i < n; i++)
        if (changes[i].key.id && collection_of_folder("users")->number == changes[i].key.collection)
            preferences_sweep_note(store->preferences_sweep, changes[i].key.id);
    store->changed(store->changed_arg, changes, n, times);
}

int store_listen(struct store *store, feed_listener changed, void *arg)
{
    const struct config *config = store->config;
    int r = 0;
    store->changed = changed;
    store->changed_arg = arg;
    if (store->mongo && !config->read_only && config->media_sweep_ms > 0)
        r = preferences_sweep_start(config, store->cluster, store->mongo, &store->preferences_sweep);
    for (size_t i = 0; r == 0 && config->cache_ttl_ms > 0 && i < cluster_shards(store->cluster); i++)
        r = feed_start(cluster_shard(store->cluster, i), store->fresh[i], config, tell, store,
                       &store->feeds[i]);
    if (r == 0 && !config->read_only)
        r = transfers_start(store->cluster, config->timeout_ms, &store->transfers);
    return r;
}

void store_ending(struct store *store)
{
    for (size_t i = 0; i < CONFIG_MAX_SHARDS; i++)
        feed_ending(store->feeds[i]);
    preferences_sweep_ending(store->preferences_sweep);
    transfers_ending(store->transfers);
}

void store_quiet(struct store *store)
{
    store_ending(store);
    for (size_t i = 0; i < CONFIG_MAX_SHARDS; i++)
        feed_stop(STEAL(store->feeds[i]));
    preferences_sweep_stop(STEAL(store->preferences_sweep));
    transfers_stop(STEAL(store->transfers));
}

int64_t store_believed_ms(struct store *store, const struct row_key *key, uint64_t rev, uint64_t epoch)
{
    if (store_is_preferences(key->collection))
        return store_kernel_timeout_ms(store);
    struct revision known;
    const struct shard *shard = store_shard(store, key->collection, key->region);
    int64_t kept = shard ? feed_kept_ms(store->feeds[shard_index(shard)]) : 0;
    if (kept > 0 &&
        (rev == 0 || (epoch && freshness_unchanged_since(store_fresh(store, shard), key, epoch)) ||
         (cache_stat(store->cache, key, &known) && known.rev == rev)))
        return kept;
    return store_kernel_timeout_ms(store);
}

void store_close(struct store *store)
{
    if (!store)
        return;
    store_quiet(store);
    for (size_t i = 0; i < CONFIG_MAX_SHARDS; i++)
        freshness_free(store->fresh[i]);
    cache_free(store->cache);
    runs_free(store->runs);
    known_preferences_free(store->preferences);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

int64_t store_kernel_timeout_ms(const struct store *store)
{
    return store->config->cache_ttl_ms / 2;
}

struct shard *store_shard(const struct store *store, unsigned collection, unsigned region)
{
    const struct collection *c = collection_numbered(collection);
    if (c && c->global)
        return region == 0 ? cluster_shard(store->cluster, 0) : NULL;
    return c ? cluster_shard_of_region(store->cluster, region) : NULL;
}

struct freshness *store_fresh(const struct store *store, const struct shard *shard)
{
    return store->fresh[shard_index(shard)];
}

static uint32_t edition(const struct store *store, const struct shard *shard)
{
    return (uint32_t)map_hash_number(store->schema ^ shard_timeline(shard));
}

uint64_t store_mark(const struct store *store, const struct row_key *key, uint64_t rev)
{
    struct revision revision = {.rev = rev};
    const struct shard *shard = store_shard(store, key->collection, key->region);
    if (rev && shard && !store_is_preferences(key->collection))
        revision.edition = edition(store, shard);
    return revision_mark(&revision);
}

/* The columns rev, updated_us, content_us, body stand side by side in every result. */
enum { REV, UPDATED_US, CONTENT_US, BODY };

static int revision_of(const struct store *store, const struct shard *shard, const struct pg_rows *rows,
                       size_t i, unsigned column, struct revision *revision, struct buf *text, struct fail *f)
{
    uint64_t rev = (uint64_t)pg_rows_i64(rows, i, column + REV, 0);
    const char *body = pg_rows_text(rows, i, column + BODY);
    int r = body ? json_layout(body, pg_rows_len(rows, i, column + BODY), text) : -EPROTO;
    if (r < 0)
        return fail_set(f, r == -EPROTO ? EIO : -r, "the shard %s sent no document", shard_name(shard));
    *revision = (struct revision){
        .rev = rev,
        .edition = edition(store, shard),
        .mtime_us = pg_rows_i64(rows, i, column + UPDATED_US, 0),
        .content_us = pg_rows_i64(rows, i, column + CONTENT_US, 0),
        .size = text->len,
    };
    return 0;
}

int store_document(const struct store *store, const struct shard *shard, const struct pg_rows *rows, size_t i,
                   unsigned rev_column, struct document **out, struct fail *f)
{
    struct buf text CLEANUP(buf_clear) = {0};
    struct revision revision;
    int r = revision_of(store, shard, rows, i, rev_column, &revision, &text, f);
    if (r < 0)
        return r;
    struct document *document = document_new(revision.size);
    if (!document)
        return fail_set(f, ENOMEM, "out of memory");
    document->revision = revision;
    memcpy(document->text, text.data, text.len);
    *out = document;
    return 0;
}

/* The rows of a page enter the cache; `page` (may be NULL) takes what stat() shows of them. */
static int admit_page(struct store *store, struct shard *shard, unsigned collection, unsigned region,
                      const struct pg_rows *rows, uint64_t epoch, struct page *page, struct fail *f)
{
    struct buf text CLEANUP(buf_clear) = {0};
    struct freshness *fresh = store_fresh(store, shard);
    size_t n = pg_rows_count(rows);
    struct row_key key = {.collection = (uint8_t)collection, .region = (uint8_t)region};
    for (size_t i = 0; i < n; i++) {
        struct revision revision;
        text.len = 0;
        int r = revision_of(store, shard, rows, i, DOCUMENT_REV, &revision, &text, f);
        if (r < 0)
            return r;
        key.id = pg_rows_i64(rows, i, DOCUMENT_ID, 0);
        if (freshness_unchanged_since(fresh, &key, epoch))
            cache_put(store->cache, &key, &revision, text.data, false);
        if (page)
            page->rows[i] = (struct page_row){.id = key.id, .revision = revision};
    }
    if (page)
        page->count = n;
    /* What was noted while they were put in. */
    for (size_t i = 0; i < n && !freshness_quiet_since(fresh, epoch); i++) {
        key.id = pg_rows_i64(rows, i, DOCUMENT_ID, 0);
        if (!freshness_unchanged_since(fresh, &key, epoch))
            cache_drop(store->cache, &key, 0);
    }
    return 0;
}

/* One query of a page; the answer belongs to the epoch that it began in. */
static int query_page(struct shard *shard, unsigned collection, unsigned region, int64_t after, size_t limit,
                      const struct op *op, struct pg_rows **rows, struct fail *f)
{
    char region_text[NUMBER_TEXT], after_text[NUMBER_TEXT], limit_text[NUMBER_TEXT];
    snprintf(region_text, sizeof region_text, "%u", region);
    snprintf(after_text, sizeof after_text, "%lld", (long long)after);
    snprintf(limit_text, sizeof limit_text, "%zu", limit);
    const char *params[] = {region_text, after_text, limit_text};
    return shard_read(shard, &collection_numbered(collection)->page, params, op, rows, f);
}

/* A page whose rows are still known; NULL when they are not. */
static struct page *page_remembered(struct store *store, struct freshness *fresh, const struct run_key *key)
{
    size_t n;
    uint64_t epoch = freshness_epoch(fresh);
    struct run_row *rows CLEANUP(freep) = runs_get(store->runs, key, &n);
    struct page *page = rows ? calloc(1, sizeof *page + n * sizeof page->rows[0]) : NULL;
    if (!page)
        return NULL;
    for (size_t i = 0; i < n; i++)
        page->rows[i] = (struct page_row){.id = rows[i].id,
                                          .revision = {.rev = rows[i].rev,
                                                       .edition = rows[i].edition,
                                                       .mtime_us = rows[i].mtime_us,
                                                       .size = rows[i].size}};
    page->count = n;
    page->epoch = epoch;
    return page;
}

/* Remembers a page's rows unless something was noted since its query began. */
static void remember_page(struct store *store, struct freshness *fresh, const struct run_key *key,
                          const struct page *page)
{
    struct run_row *rows CLEANUP(freep) = malloc((page->count + 1) * sizeof *rows);
    const struct row_key folder = {.collection = (uint8_t)key->collection, .region = (uint8_t)key->region};
    if (!rows || !freshness_unchanged_since(fresh, &folder, page->epoch))
        return;
    for (size_t i = 0; i < page->count; i++) {
        const struct revision *revision = &page->rows[i].revision;
        rows[i] = (struct run_row){.id = page->rows[i].id,
                                   .rev = revision->rev,
                                   .mtime_us = revision->mtime_us,
                                   .edition = revision->edition,
                                   .size = (uint32_t)revision->size};
    }
    runs_put(store->runs, key, rows, page->count);
    if (!freshness_unchanged_since(fresh, &folder, page->epoch))
        runs_drop(store->runs, key->collection, key->region);
}

static int page_asked(struct store *store, struct shard *shard, const struct run_key *key,
                      const struct op *op, struct page **out, struct fail *f)
{
    uint64_t epoch = freshness_epoch(store_fresh(store, shard));
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = query_page(shard, key->collection, key->region, key->after, key->limit, op, &rows, f);
    if (r < 0)
        return r;
    struct page *page CLEANUP(freep) = malloc(sizeof *page + pg_rows_count(rows) * sizeof page->rows[0]);
    if (!page)
        return fail_set(f, ENOMEM, "out of memory");
    page->epoch = epoch;
    r = admit_page(store, shard, key->collection, key->region, rows, epoch, page, f);
    if (r < 0)
        return r;
    remember_page(store, store_fresh(store, shard), key, page);
    *out = STEAL(page);
    return 0;
}

int store_page(struct store *store, unsigned collection, unsigned region, int64_t after, size_t limit,
               const struct op *op, struct page **out, struct fail *f)
{
    if (store_is_preferences(collection))
        return preferences_page(store, region, after, limit, op, out, f);
    const struct run_key key = {.collection = collection, .region = region, .after = after, .limit = limit};
    struct shard *shard = store_shard(store, collection, region);
    if (!shard)
        return fail_set(f, ENOENT, "no such region");
    /* A listing that begins shows what was there before it, and then goes on as every read does. */
    struct freshness *fresh = store_fresh(store, shard);
    struct feed *feed = store->feeds[shard_index(shard)];
    int r = after > 0 ? freshness_ensure(fresh, op, f)
            : feed    ? feed_renew(feed, op, f)
                      : freshness_renew(fresh, op, f);
    if (r < 0)
        return r;
    *out = page_remembered(store, fresh, &key);
    return *out ? 0 : page_asked(store, shard, &key, op, out, f);
}

size_t store_ahead_rows(struct store *store, const struct row_key *key)
{
    pthread_mutex_lock(&store->lock);
    struct read_ahead *ahead = &store->ahead[key->collection][key->region];
    int64_t step = key->id - ahead->last_id;
    bool behind = step > 0 && step <= AHEAD_GAP;
    /* One of several walkers, a little late, or the same row again. */
    bool near = step <= 0 && key->id >= ahead->from - AHEAD_LATE;
    size_t rows = 1;
    if (behind && !ahead->fetching) {
        rows = ++ahead->run > 4 ? AHEAD_MAX : (size_t)AHEAD_FIRST << (ahead->run - 1);
        rows = rows < store->config->page_rows ? rows : store->config->page_rows;
        ahead->fetching = true;
        ahead->from = key->id;
    }
    if (!behind && !near) {
        ahead->run = 0;
        ahead->from = key->id;
    }
    if (!near)
        ahead->last_id = key->id;
    pthread_mutex_unlock(&store->lock);
    return rows;
}

void store_ahead_ended(struct store *store, const struct row_key *key, int64_t last_id)
{
    pthread_mutex_lock(&store->lock);
    struct read_ahead *ahead = &store->ahead[key->collection][key->region];
    ahead->fetching = false;
    if (last_id > ahead->last_id)
        ahead->last_id = last_id;
    pthread_mutex_unlock(&store->lock);
}

static int missing(struct store *store, const struct row_key *key, struct fail *f)
{
    cache_drop(store->cache, key, 0);
    return fail_set(f, ENOENT, "no such row");
}

static int fetch_one(struct store *store, struct shard *shard, const struct row_key *key, const struct op *op,
                     struct document **out, struct fail *f)
{
    char region[NUMBER_TEXT], id[NUMBER_TEXT];
    snprintf(region, sizeof region, "%u", key->region);
    snprintf(id, sizeof id, "%lld", (long long)key->id);
    const char *params[] = {region, id};
    struct freshness *fresh = store_fresh(store, shard);
    uint64_t epoch = freshness_epoch(fresh);
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = shard_read(shard, &collection_numbered(key->collection)->get, params, op, &rows, f);
    if (r < 0)
        return r;
    if (pg_rows_count(rows) == 0)
        return missing(store, key, f);
    struct document *document CLEANUP(document_unrefp) = NULL;
    r = store_document(store, shard, rows, 0, DOCUMENT_REV, &document, f);
    if (r < 0)
        return r;
    if (freshness_unchanged_since(fresh, key, epoch)) {
        /* Who looks a name up most often opens it next. */
        cache_put(store->cache, key, &document->revision, document->text, true);
        if (!freshness_unchanged_since(fresh, key, epoch))
            cache_drop(store->cache, key, 0);
    }
    *out = STEAL(document);
    return 0;
}

static int fetch_page(struct store *store, struct shard *shard, const struct row_key *key, size_t limit,
                      const struct op *op, int64_t *last_id, struct document **out, struct fail *f)
{
    uint64_t epoch = freshness_epoch(store_fresh(store, shard));
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = query_page(shard, key->collection, key->region, key->id - 1, limit, op, &rows, f);
    if (r < 0)
        return r;
    if (pg_rows_count(rows) == 0)
        return missing(store, key, f);
    r = admit_page(store, shard, key->collection, key->region, rows, epoch, NULL, f);
    if (r < 0)
        return r;
    *last_id = pg_rows_i64(rows, pg_rows_count(rows) - 1, DOCUMENT_ID, 0);
    if (pg_rows_i64(rows, 0, DOCUMENT_ID, 0) != key->id)
        return missing(store, key, f);
    return store_document(store, shard, rows, 0, DOCUMENT_REV, out, f);
}

static int fetch_many(struct store *store, struct shard *shard, const struct row_key *key, size_t limit,
                      const struct op *op, struct document **out, struct fail *f)
{
    int64_t last_id = 0;
    int r = fetch_page(store, shard, key, limit, op, &last_id, out, f);
    store_ahead_ended(store, key, last_id);
    return r;
}

/* Makes the cache believable for a row; its shard in *shard. */
static int believe(struct store *store, const struct row_key *key, const struct op *op, struct shard **shard,
                   struct fail *f)
{
    *shard = store_shard(store, key->collection, key->region);
    if (!*shard)
        return fail_set(f, ENOENT, "no such region");
    return freshness_ensure(store_fresh(store, *shard), op, f);
}

static int fetch(struct store *store, struct shard *shard, const struct row_key *key, const struct op *op,
                 struct document **out, struct fail *f)
{
    size_t rows = store_ahead_rows(store, key);
    return rows == 1 ? fetch_one(store, shard, key, op, out, f)
                     : fetch_many(store, shard, key, rows, op, out, f);
}

int store_get(struct store *store, const struct row_key *key, const struct op *op, struct document **out,
              struct fail *f)
{
    struct shard *shard;
    if (store_is_preferences(key->collection))
        return preferences_get(store, key, op, out, f);
    int r = believe(store, key, op, &shard, f);
    if (r < 0)
        return r;
    *out = cache_get(store->cache, key);
    return *out ? 0 : fetch(store, shard, key, op, out, f);
}

int store_stat(struct store *store, const struct row_key *key, const struct op *op, struct revision *revision,
               struct fail *f)
{
    struct shard *shard;
    if (store_is_preferences(key->collection))
        return preferences_stat(store, key, op, revision, f);
    int r = believe(store, key, op, &shard, f);
    if (r < 0 || cache_stat(store->cache, key, revision))
        return r;
    struct document *document CLEANUP(document_unrefp) = NULL;
    r = fetch(store, shard, key, op, &document, f);
    if (r == 0)
        *revision = document->revision;
    return r;
}

bool store_peek(struct store *store, const struct row_key *key, struct revision *revision)
{
    return store_is_preferences(key->collection) ? preferences_peek(store, key, revision)
                                                 : cache_stat(store->cache, key, revision);
}

int store_changed_us(struct store *store, unsigned collection, unsigned region, const struct op *op,
                     int64_t *us, struct fail *f)
{
    static const struct pg_statement changed = {
        "collection_changed", "SELECT collection_changed_us($1::smallint, $2::smallint)", 2};
    if (store_is_preferences(collection))
        return preferences_changed_us(store, region, op, us, f);
    struct shard *shard = store_shard(store, collection, region);
    if (!shard)
        return fail_set(f, ENOENT, "no such region");
    char collection_text[NUMBER_TEXT], region_text[NUMBER_TEXT];
    snprintf(collection_text, sizeof collection_text, "%u", collection);
    snprintf(region_text, sizeof region_text, "%u", region);
    const char *params[] = {collection_text, region_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = shard_read(shard, &changed, params, op, &rows, f);
    if (r == 0)
        *us = pg_rows_count(rows) ? pg_rows_i64(rows, 0, 0, 0) : 0;
    return r;
}

static void report_of(struct store *store, size_t i, struct feed_report *report)
{
    if (store->feeds[i])
        feed_report(store->feeds[i], report);
    else /* cache_ttl = 0 */
        *report =
            (struct feed_report){.state = FEED_DOWN, .follow = {.reason = "cache_ttl = 0", .lag_bytes = -1}};
}

json_t *store_feed_json(struct store *store, size_t i)
{
    static const char *const states[] = {
        [FEED_DOWN] = "down", [FEED_POLLING] = "polling", [FEED_STREAMING] = "streaming"};
    struct feed_report report;
    report_of(store, i, &report);
    const struct follow_report *follow = &report.follow;
    return json_pack("{s:s, s:o, s:I, s:I, s:o, s:f}", "state", states[report.state], "reason",
                     *follow->reason ? json_string(follow->reason) : json_null(), "transactions",
                     (json_int_t)follow->transactions, "losses", (json_int_t)follow->losses, "lag_bytes",
                     follow->lag_bytes >= 0 ? json_integer(follow->lag_bytes) : json_null(), "lag_ms",
                     (double)follow->lag_us / 1000);
}

static int metrics_of_feeds(struct store *store, struct buf *out)
{
    struct feed_report reports[CONFIG_MAX_SHARDS];
    size_t n = cluster_shards(store->cluster);
    static const struct {
        const char *name, *type;
    } samples[] = {{"campusfs_feed_up", "gauge"},
                   {"campusfs_feed_streaming", "gauge"},
                   {"campusfs_feed_transactions_total", "counter"},
                   {"campusfs_feed_losses_total", "counter"},
                   {"campusfs_feed_lag_bytes", "gauge"},
                   {"campusfs_feed_lag_seconds", "gauge"}};
    for (size_t i = 0; i < n; i++)
        report_of(store, i, &reports[i]);
    int r = 0;
    for (size_t s = 0; r == 0 && s < sizeof samples / sizeof *samples; s++) {
        r = buf_printf(out, "# TYPE %s %s\n", samples[s].name, samples[s].type);
        for (size_t i = 0; r == 0 && i < n; i++) {
            const struct follow_report *follow = &reports[i].follow;
            const double values[] = {reports[i].state != FEED_DOWN,
                                     reports[i].state == FEED_STREAMING,
                                     (double)follow->transactions,
                                     (double)follow->losses,
                                     follow->lag_bytes >= 0 ? (double)follow->lag_bytes : 0,
                                     (double)follow->lag_us / 1e6};
            r = buf_printf(out, "%s{shard=\"%s\"} %.15g\n", samples[s].name,
                           shard_name(cluster_shard(store->cluster, i)), values[s]);
        }
    }
    return r;
}

int store_metrics(struct store *store, struct buf *out)
{
    struct cache_counters c;
    cache_count(store->cache, &c);
    int r = buf_printf(out,
                       "# TYPE campusfs_cache_hits_total counter\ncampusfs_cache_hits_total %llu\n"
                       "# TYPE campusfs_cache_misses_total counter\ncampusfs_cache_misses_total %llu\n"
                       "# TYPE campusfs_cache_evictions_total counter\ncampusfs_cache_evictions_total %llu\n"
                       "# TYPE campusfs_cache_documents gauge\ncampusfs_cache_documents %zu\n"
                       "# TYPE campusfs_cache_bytes gauge\ncampusfs_cache_bytes %zu\n"
                       "# TYPE campusfs_cache_limit_bytes gauge\ncampusfs_cache_limit_bytes %zu\n"
                       "# TYPE campusfs_freshness_questions_total counter\n",
                       (unsigned long long)c.hits, (unsigned long long)c.misses,
                       (unsigned long long)c.evictions, c.entries, c.bytes, c.limit);
    uint64_t questions[CONFIG_MAX_SHARDS], changes[CONFIG_MAX_SHARDS];
    size_t n = cluster_shards(store->cluster);
    for (size_t i = 0; r == 0 && i < n; i++) {
        freshness_count(store->fresh[i], &questions[i], &changes[i]);
        r = buf_printf(out, "campusfs_freshness_questions_total{shard=\"%s\"} %llu\n",
                       shard_name(cluster_shard(store->cluster, i)), (unsigned long long)questions[i]);
    }
    if (r == 0)
        r = buf_add_text(out, "# TYPE campusfs_freshness_changes_total counter\n");
    for (size_t i = 0; r == 0 && i < n; i++)
        r = buf_printf(out, "campusfs_freshness_changes_total{shard=\"%s\"} %llu\n",
                       shard_name(cluster_shard(store->cluster, i)), (unsigned long long)changes[i]);
    if (r == 0 && store->mongo)
        r = buf_printf(
            out, "# TYPE campusfs_preferences_swept_total counter\ncampusfs_preferences_swept_total %llu\n",
            (unsigned long long)preferences_sweep_removed(store->preferences_sweep));
    r = r < 0 ? r : export_metrics(store, out);
    r = r < 0 ? r : transfers_metrics(store->transfers, out);
    return r < 0 ? r : metrics_of_feeds(store, out);
}
