#include "entity/freshness.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/sql.h"
#include "entity/noted.h"

/* More changes than that in one answer, and the whole shard is forgotten instead. */
enum { CHANGES_MAX = CHANGES_ROWS_MAX };
#define CHANGES_MAX_TEXT "4097" /* one more, to tell "exactly the limit" from "more" */
enum { SNAPSHOT_KEPT_MS = 3600000 };

enum changes_column {
    CHANGES_SNAPSHOT,
    CHANGES_COLLECTION,
    CHANGES_REGION,
    CHANGES_ROW,
    CHANGES_REV,
    CHANGES_TIME
};

struct freshness {
    struct shard *shard;
    struct cache *cache;
    struct runs *runs;
    const struct config *config;
    struct pg_statement changes;
    int64_t limit_ms;
    char *snapshot; /* owned; of the last answer, NULL before the first. Used by who set `asking`, without the
                       lock */

    uint32_t timeline; /* of the shard when that was answered; likewise */

    pthread_mutex_t lock; /* guards all below */
    freshness_listener noted;
    void *noted_arg;
    bool streaming;
    bool settled;        /* what was under way when the stream began has ended, and been asked for */
    uint64_t settle_xid; /* no later transaction was; 0 = none */
    unsigned streams;    /* begun so far */
    uint32_t stream_timeline;
    int64_t alive_at;        /* clock_now_ms() when the stream was last known to have come to the present */
    int64_t used_at;         /* clock_now_ms() of the last freshness_ensure() */
    pthread_cond_t answered; /* signalled when `asking` falls */
    bool asking;             /* somebody is asking; the others wait */
    int64_t asked_at;        /* clock_now_ms() when the last answered question began; INT64_MIN before */
    unsigned waiting;        /* threads that wait for the answer */
    uint64_t questions;
    uint64_t changes_seen;
    bool known; /* there has been an answer or a stream: somebody may have been told something */
    struct noted changes_noted;
};

struct freshness *freshness_new(struct shard *shard, struct cache *cache, struct runs *runs,
                                const struct config *config, int64_t limit_ms)
{
    struct freshness *fresh = calloc(1, sizeof *fresh);
    if (!fresh)
        return NULL;
    *fresh = (struct freshness){.shard = shard,
                                .cache = cache,
                                .runs = runs,
                                .config = config,
                                .limit_ms = limit_ms,
                                .asked_at = INT64_MIN / 2,
                                .alive_at = INT64_MIN / 2,
                                .used_at = clock_now_ms()}; /* the first readers find it fed */
    fresh->changes = (struct pg_statement){"changes", sql_text("queries/changes.sql"), 2};
    pthread_mutex_init(&fresh->lock, NULL);
    pthread_cond_init(&fresh->answered, NULL);
    return fresh;
}

void freshness_free(struct freshness *fresh)
{
    if (!fresh)
        return;
    pthread_cond_destroy(&fresh->answered);
    pthread_mutex_destroy(&fresh->lock);
    free(fresh->snapshot);
    free(fresh);
}

void freshness_each_folder(struct freshness *fresh, freshness_listener noted, void *arg)
{
    const struct config *config = config_hold(fresh->config);
    for (size_t i = 0; i < config->nregions; i++)
        if (config->regions[i].shard == shard_index(fresh->shard))
            noted(arg, &(struct row_change){.key = {.region = (uint8_t)config->regions[i].number}});
    if (shard_index(fresh->shard) == 0) /* the authority of what belongs to no region */
        for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
            if (c->global)
                noted(arg, &(struct row_change){.key = {.collection = (uint8_t)c->number}});
    config_put(config);
}

/* Under no lock: who listens is set before the first question and taken away after the last. */
static void pass_on(struct freshness *fresh, const struct row_change *change)
{
    pthread_mutex_lock(&fresh->lock);
    /* Before anything was known nobody has been told anything that could be outdated. */
    freshness_listener noted = fresh->known ? fresh->noted : NULL;
    void *arg = fresh->noted_arg;
    pthread_mutex_unlock(&fresh->lock);
    if (noted)
        noted(arg, change);
}

/* ---- noting and forgetting: noted before it is dropped, see freshness.h ---- */

static void note_told(void *arg, const struct row_change *change)
{
    struct freshness *fresh = arg;
    noted_add(&fresh->changes_noted, change, false);
}

static void forget(void *arg, const struct row_change *change)
{
    struct freshness *fresh = arg;
    const struct row_key *key = &change->key;
    runs_drop(fresh->runs, key->collection, key->region);
    if (key->id == 0)
        cache_drop_all(fresh->cache, key->collection, key->region);
    else
        cache_drop(fresh->cache, key, change->rev);
    pass_on(fresh, change);
}

static void forget_all(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    noted_begin(&fresh->changes_noted);
    freshness_each_folder(fresh, note_told, fresh);
    pthread_mutex_unlock(&fresh->lock);
    freshness_each_folder(fresh, forget, fresh);
}

static void forget_rows(struct freshness *fresh, const struct row_change *rows, size_t n)
{
    pthread_mutex_lock(&fresh->lock);
    noted_begin(&fresh->changes_noted);
    for (size_t i = 0; i < n; i++)
        noted_add(&fresh->changes_noted, &rows[i], false);
    fresh->changes_seen += n;
    pthread_mutex_unlock(&fresh->lock);
    for (size_t i = 0; i < n; i++)
        forget(fresh, &rows[i]);
}

void freshness_note_change(struct freshness *fresh, const struct row_key *key)
{
    pthread_mutex_lock(&fresh->lock);
    noted_begin(&fresh->changes_noted);
    noted_add(&fresh->changes_noted, &(struct row_change){.key = *key}, true);
    pthread_mutex_unlock(&fresh->lock);
}

/* ---- the stream ---- */

void freshness_stream_begin(struct freshness *fresh, uint32_t timeline, uint64_t newest)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->streaming = true;
    fresh->settled = false;
    fresh->settle_xid = newest;
    fresh->streams++;
    fresh->stream_timeline = timeline;
    fresh->alive_at = clock_now_ms();
    pthread_mutex_unlock(&fresh->lock);
}

/*
 * Under the lock: an answer to a question that was asked when the stream had begun, its snapshot begun by the
 * oldest transaction that was under way. One whose commit was written before the stream's begin is not in the
 * stream, and becomes visible only later, when a synchronous standby has confirmed it: until all that were
 * under way have ended questions go on.
 */
static void settle(struct freshness *fresh, const char *snapshot)
{
    fresh->settled = strtoull(snapshot, NULL, 10) > fresh->settle_xid;
}

void freshness_stream_alive(struct freshness *fresh, int64_t at)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->alive_at = at;
    pthread_mutex_unlock(&fresh->lock);
}

void freshness_stream_end(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->streaming = false;
    pthread_mutex_unlock(&fresh->lock);
    forget_all(fresh);
}

/* Under the lock. */
static bool is_streamed(struct freshness *fresh)
{
    return fresh->streaming && fresh->settled &&
           clock_now_ms() - fresh->alive_at <= freshness_silence_ms(fresh->config) &&
           shard_timeline(fresh->shard) <= fresh->stream_timeline;
}

int64_t freshness_silence_ms(const struct config *config)
{
    return config->cache_ttl_ms * 9 / 10;
}

bool freshness_is_streamed(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    bool streamed = is_streamed(fresh);
    pthread_mutex_unlock(&fresh->lock);
    return streamed;
}

void freshness_apply(struct freshness *fresh, const struct changes *changes)
{
    if (changes->everything)
        forget_all(fresh);
    else if (changes->n > 0)
        forget_rows(fresh, changes->rows, changes->n);
}

/* ---- the question ---- */

/* The changes that an answer names; one row without a change says that there is none. */
static size_t changes_in(const struct pg_rows *rows)
{
    size_t n = pg_rows_count(rows);
    return n == 1 && pg_rows_text(rows, 0, CHANGES_COLLECTION) == NULL ? 0 : n;
}

/* A first answer, and one that was cut, name everything. */
static int forget_changed(struct freshness *fresh, const struct pg_rows *rows, bool first)
{
    size_t n = changes_in(rows);
    if (first || n > CHANGES_MAX) {
        forget_all(fresh);
        return 0;
    }
    struct row_change *changes CLEANUP(freep) = n ? malloc(n * sizeof *changes) : NULL;
    if (n && !changes)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        changes[i] = (struct row_change){
            .key = {.collection = (uint8_t)pg_rows_i64(rows, i, CHANGES_COLLECTION, 0),
                    .region = (uint8_t)pg_rows_i64(rows, i, CHANGES_REGION, 0),
                    .id = pg_rows_i64(rows, i, CHANGES_ROW, 0)},
            .rev = (uint64_t)pg_rows_i64(rows, i, CHANGES_REV, 0),
            .changed_us = pg_rows_i64(rows, i, CHANGES_TIME, 0),
        };
    if (n)
        forget_rows(fresh, changes, n);
    return 0;
}

/* Asks; only the thread that set `asking` is here, and it alone uses the snapshot. */
static int ask(struct freshness *fresh, const struct op *op, struct fail *f)
{
    int64_t begun = clock_now_ms();
    /* Transactions of a former timeline may be lost, and their numbers used again by others; of an old
     * snapshot, after long streaming, the log may have been pruned. */
    uint32_t timeline = shard_timeline(fresh->shard);
    if (timeline != fresh->timeline || begun - fresh->asked_at > SNAPSHOT_KEPT_MS)
        free(STEAL(fresh->snapshot));
    pthread_mutex_lock(&fresh->lock);
    unsigned streams = fresh->streams;
    pthread_mutex_unlock(&fresh->lock);
    const char *params[] = {fresh->snapshot, CHANGES_MAX_TEXT};
    struct pg_rows *rows = NULL;
    int r = shard_sync_read(fresh->shard, &fresh->changes, params, op, &rows, f);
    if (r < 0)
        return r;
    const char *snapshot = pg_rows_count(rows) ? pg_rows_text(rows, 0, CHANGES_SNAPSHOT) : NULL;
    char *copy = snapshot ? strdup(snapshot) : NULL;
    if (copy && shard_timeline(fresh->shard) != timeline && op_left_ms(op) > 0) {
        free(copy);
        pg_rows_free(rows);
        return ask(fresh, op, f); /* a failover came between: it is the next primary's answer that counts */
    }
    if (!copy || shard_timeline(fresh->shard) != timeline) {
        free(copy);
        pg_rows_free(rows);
        return fail_set(f, EIO, "the shard %s did not say what has changed", shard_name(fresh->shard));
    }
    r = forget_changed(fresh, rows, fresh->snapshot == NULL);
    pg_rows_free(rows);
    if (r < 0) {
        free(copy);
        return fail_set(f, ENOMEM, "out of memory");
    }
    free(fresh->snapshot);
    fresh->snapshot = copy;
    fresh->timeline = timeline;
    pthread_mutex_lock(&fresh->lock);
    fresh->asked_at = begun;
    noted_begin(&fresh->changes_noted);
    fresh->questions++;
    fresh->known = true;
    if (fresh->streaming && !fresh->settled && fresh->streams == streams)
        settle(fresh, copy);
    pthread_mutex_unlock(&fresh->lock);
    return 0;
}

/*
 * Under the lock: waits until nobody asks. As many may wait
 * as for the shard's connections, so that a frozen one does not keep every thread of the mount.
 */
static int wait_for_answer(struct freshness *fresh, const struct op *op)
{
    int r = fresh->waiting >= FRESHNESS_WAITERS ? -EIO : 0;
    fresh->waiting++;
    while (r == 0 && fresh->asking)
        r = op_wait(&fresh->answered, &fresh->lock, op);
    fresh->waiting--;
    return r;
}

static int ensure(struct freshness *fresh, bool streamed, int64_t limit_ms, const struct op *op,
                  struct fail *f)
{
    pthread_mutex_lock(&fresh->lock);
    int64_t needed = clock_now_ms() - limit_ms;
    int r = 0;
    bool done = false; /* asked by us: in the very millisecond that an answer was needed of, that is enough */
    while (r == 0 && !done && fresh->asked_at <= needed && !(streamed && is_streamed(fresh))) {
        if (fresh->asking) {
            r = wait_for_answer(fresh, op);
            continue;
        }
        fresh->asking = true;
        pthread_mutex_unlock(&fresh->lock);
        r = ask(fresh, op, f);
        done = true;
        pthread_mutex_lock(&fresh->lock);
        fresh->asking = false;
        pthread_cond_broadcast(&fresh->answered);
    }
    pthread_mutex_unlock(&fresh->lock);
    return r == -EIO ? fail_set(f, EIO, "the shard %s did not answer in time", shard_name(fresh->shard)) : r;
}

static void note_use(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->used_at = clock_now_ms();
    pthread_mutex_unlock(&fresh->lock);
}

int freshness_ensure(struct freshness *fresh, const struct op *op, struct fail *f)
{
    note_use(fresh);
    return ensure(fresh, true, fresh->limit_ms, op, f);
}

int freshness_renew(struct freshness *fresh, const struct op *op, struct fail *f)
{
    note_use(fresh);
    return ensure(fresh, false, 0, op, f);
}

int freshness_renew_unused(struct freshness *fresh, const struct op *op, struct fail *f)
{
    return ensure(fresh, false, 0, op, f);
}

int64_t freshness_used_at(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    int64_t used = fresh->used_at;
    pthread_mutex_unlock(&fresh->lock);
    return used;
}

int64_t freshness_known_at(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    int64_t known = fresh->asked_at;
    if (fresh->streaming && fresh->settled && fresh->alive_at > known)
        known = fresh->alive_at;
    pthread_mutex_unlock(&fresh->lock);
    return known;
}

void freshness_listen(struct freshness *fresh, freshness_listener noted, void *arg)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->noted = noted;
    fresh->noted_arg = arg;
    pthread_mutex_unlock(&fresh->lock);
}

uint64_t freshness_epoch(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    uint64_t epoch = fresh->changes_noted.epoch;
    pthread_mutex_unlock(&fresh->lock);
    return epoch;
}

bool freshness_unchanged_since(struct freshness *fresh, const struct row_key *key, uint64_t epoch)
{
    pthread_mutex_lock(&fresh->lock);
    bool changed = noted_since(&fresh->changes_noted, key, epoch);
    pthread_mutex_unlock(&fresh->lock);
    return !changed;
}

bool freshness_quiet_since(struct freshness *fresh, uint64_t epoch)
{
    pthread_mutex_lock(&fresh->lock);
    bool noted = noted_any_since(&fresh->changes_noted, epoch);
    pthread_mutex_unlock(&fresh->lock);
    return !noted;
}

bool freshness_newer_since(struct freshness *fresh, const struct row_key *key, uint64_t rev, uint64_t epoch)
{
    pthread_mutex_lock(&fresh->lock);
    bool newer = noted_newer_since(&fresh->changes_noted, key, rev, epoch);
    pthread_mutex_unlock(&fresh->lock);
    return newer;
}

void freshness_count(struct freshness *fresh, uint64_t *questions, uint64_t *changes)
{
    pthread_mutex_lock(&fresh->lock);
    *questions = fresh->questions;
    *changes = fresh->changes_seen;
    pthread_mutex_unlock(&fresh->lock);
}
