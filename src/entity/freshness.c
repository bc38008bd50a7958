#include "entity/freshness.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/sql.h"

/* More changes than that in one answer, and the whole shard is forgotten instead. */
enum { CHANGES_MAX = 10000, WAIT_SLICE_MS = 50 };
/* Changes of our own that are remembered: more than are made while a page is read. */
enum { OWN_MAX = 256 };
#define CHANGES_MAX_TEXT "10001" /* one more, to tell "exactly the limit" from "more" */

enum changes_column { CHANGES_SNAPSHOT, CHANGES_COLLECTION, CHANGES_REGION, CHANGES_ROW, CHANGES_REV };

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
    void (*noted)(void *arg, const struct noted *change);
    void *noted_arg;
    int64_t used_at;         /* clock_now_ms() of the last freshness_ensure() */
    pthread_cond_t answered; /* signalled when `asking` falls */
    bool asking;             /* somebody is asking; the others wait */
    int64_t asked_at;        /* clock_now_ms() when the last answered question began; INT64_MIN before */
    uint64_t epoch;          /* answers and changes noted so far */
    uint64_t last_told;      /* the epoch of the last answer that named changes */
    struct own {
        struct row_key key;
        uint64_t epoch;
    } own[OWN_MAX];   /* a ring of our own changes, in order */
    uint64_t nowned;  /* all that have been noted; the last of them lies at (nowned - 1) % OWN_MAX */
    unsigned waiting; /* threads that wait for the answer */
    uint64_t questions;
    uint64_t changes_seen;
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
                                .used_at = clock_now_ms()}; /* the first readers find it fed */
    fresh->changes = (struct pg_statement){"changes", sql_text("queries/changes.sql"), 2};
    pthread_mutex_init(&fresh->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&fresh->answered, &attr);
    pthread_condattr_destroy(&attr);
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

static void drop_folders(struct freshness *fresh, unsigned collection, unsigned region)
{
    runs_drop(fresh->runs, collection, region);
    cache_drop_all(fresh->cache, collection, region);
}

void freshness_each_folder(struct freshness *fresh, void (*noted)(void *arg, const struct noted *change),
                           void *arg)
{
    const struct config *config = fresh->config;
    for (size_t i = 0; i < config->nregions; i++)
        if (config->regions[i].shard == shard_index(fresh->shard))
            noted(arg, &(struct noted){.key.region = (uint8_t)config->regions[i].number});
    if (shard_index(fresh->shard) == 0) /* the authority of what belongs to no region */
        for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
            if (c->global)
                noted(arg, &(struct noted){.key.collection = (uint8_t)c->number});
}

/* Under no lock: who listens is set before the first question and taken away after the last. */
static void pass_on(struct freshness *fresh, const struct noted *change)
{
    pthread_mutex_lock(&fresh->lock);
    /* Before the first answer nobody has been told anything that could be outdated. */
    void (*noted)(void *arg, const struct noted *change) = fresh->questions > 0 ? fresh->noted : NULL;
    void *arg = fresh->noted_arg;
    pthread_mutex_unlock(&fresh->lock);
    if (noted)
        noted(arg, change);
}

static void forget_folder(void *arg, const struct noted *change)
{
    struct freshness *fresh = arg;
    drop_folders(fresh, change->key.collection, change->key.region);
    pass_on(fresh, change);
}

static void forget_shard(struct freshness *fresh)
{
    freshness_each_folder(fresh, forget_folder, fresh);
}

/* The changes that an answer names; a first answer, and one that was cut, name everything. */
static uint64_t changes_in(const struct pg_rows *rows, bool first)
{
    size_t n = pg_rows_count(rows);
    if (first || n > CHANGES_MAX)
        return n;
    return n == 1 && pg_rows_text(rows, 0, CHANGES_COLLECTION) == NULL ? 0 : n;
}

static void forget_changed(struct freshness *fresh, const struct pg_rows *rows)
{
    for (size_t i = 0; i < pg_rows_count(rows); i++) {
        struct noted change = {
            .key = {.collection = (uint8_t)pg_rows_i64(rows, i, CHANGES_COLLECTION, 0),
                    .region = (uint8_t)pg_rows_i64(rows, i, CHANGES_REGION, 0),
                    .id = pg_rows_i64(rows, i, CHANGES_ROW, 0)},
            .rev = (uint64_t)pg_rows_i64(rows, i, CHANGES_REV, 0),
        };
        runs_drop(fresh->runs, change.key.collection, change.key.region);
        if (change.key.id == 0)
            cache_drop_all(fresh->cache, change.key.collection, change.key.region);
        else
            cache_drop(fresh->cache, &change.key, change.rev);
        pass_on(fresh, &change);
    }
}

void freshness_note_change(struct freshness *fresh, const struct row_key *key)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->own[fresh->nowned++ % OWN_MAX] = (struct own){.key = *key, .epoch = ++fresh->epoch};
    pthread_mutex_unlock(&fresh->lock);
}

static void note_told(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->last_told = ++fresh->epoch;
    pthread_mutex_unlock(&fresh->lock);
}

/* Asks; only the thread that set `asking` is here, and it alone uses the snapshot. */
static int ask(struct freshness *fresh, const struct op *op, struct fail *f)
{
    int64_t begun = clock_now_ms();
    /* Transactions of a former timeline may be lost, and their numbers used again by others. */
    uint32_t timeline = shard_timeline(fresh->shard);
    if (timeline != fresh->timeline)
        free(STEAL(fresh->snapshot));
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
    uint64_t changes = changes_in(rows, fresh->snapshot == NULL);
    if (changes > 0) {
        note_told(fresh); /* before anything is dropped, see freshness.h */
        if (fresh->snapshot == NULL || changes > CHANGES_MAX)
            forget_shard(fresh);
        else
            forget_changed(fresh, rows);
    }
    pg_rows_free(rows);
    free(fresh->snapshot);
    fresh->snapshot = copy;
    fresh->timeline = timeline;
    pthread_mutex_lock(&fresh->lock);
    fresh->asked_at = begun;
    fresh->epoch++;
    fresh->questions++;
    fresh->changes_seen += changes;
    pthread_mutex_unlock(&fresh->lock);
    return 0;
}

/*
 * Under the lock: waits until nobody asks, in slices, so that the caller can be interrupted. As many may wait
 * as for the shard's connections, so that a frozen one does not keep every thread of the mount.
 */
static int wait_for_answer(struct freshness *fresh, const struct op *op)
{
    int r = fresh->waiting >= FRESHNESS_WAITERS ? -EIO : 0;
    fresh->waiting++;
    while (r == 0 && fresh->asking) {
        int64_t now = clock_now_ms(), slice = now + WAIT_SLICE_MS;
        int64_t end = slice < op->deadline ? slice : op->deadline;
        struct timespec until = {.tv_sec = end / 1000, .tv_nsec = end % 1000 * 1000000};
        pthread_cond_timedwait(&fresh->answered, &fresh->lock, &until);
        if (fresh->asking && op_interrupted(op))
            r = -EINTR;
        else if (fresh->asking && clock_now_ms() >= op->deadline)
            r = -EIO;
    }
    fresh->waiting--;
    return r;
}

static int ensure(struct freshness *fresh, int64_t limit_ms, const struct op *op, struct fail *f)
{
    pthread_mutex_lock(&fresh->lock);
    int64_t needed = clock_now_ms() - limit_ms;
    int r = 0;
    while (r == 0 && fresh->asked_at < needed) {
        if (fresh->asking) {
            r = wait_for_answer(fresh, op);
            continue;
        }
        fresh->asking = true;
        pthread_mutex_unlock(&fresh->lock);
        r = ask(fresh, op, f);
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
    return ensure(fresh, fresh->limit_ms, op, f);
}

int freshness_renew(struct freshness *fresh, const struct op *op, struct fail *f)
{
    note_use(fresh);
    return ensure(fresh, 0, op, f);
}

int freshness_renew_unused(struct freshness *fresh, const struct op *op, struct fail *f)
{
    return ensure(fresh, 0, op, f);
}

int64_t freshness_used_at(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    int64_t used = fresh->used_at;
    pthread_mutex_unlock(&fresh->lock);
    return used;
}

int64_t freshness_asked_at(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    int64_t asked = fresh->asked_at;
    pthread_mutex_unlock(&fresh->lock);
    return asked;
}

void freshness_listen(struct freshness *fresh, void (*noted)(void *arg, const struct noted *change),
                      void *arg)
{
    pthread_mutex_lock(&fresh->lock);
    fresh->noted = noted;
    fresh->noted_arg = arg;
    pthread_mutex_unlock(&fresh->lock);
}

uint64_t freshness_epoch(struct freshness *fresh)
{
    pthread_mutex_lock(&fresh->lock);
    uint64_t epoch = fresh->epoch;
    pthread_mutex_unlock(&fresh->lock);
    return epoch;
}

/* Whether two keys have a row in common; 0 stands for all. */
static bool keys_meet(const struct row_key *a, const struct row_key *b)
{
    return (a->collection == b->collection || a->collection == 0 || b->collection == 0) &&
           (a->region == b->region || a->region == 0 || b->region == 0) &&
           (a->id == b->id || a->id == 0 || b->id == 0);
}

/* Under the lock. */
static bool own_since(const struct freshness *fresh, const struct row_key *key, uint64_t epoch)
{
    uint64_t oldest = fresh->nowned > OWN_MAX ? fresh->nowned - OWN_MAX : 0;
    for (uint64_t i = fresh->nowned; i > oldest; i--) {
        const struct own *own = &fresh->own[(i - 1) % OWN_MAX];
        if (own->epoch <= epoch)
            return false;
        if (keys_meet(&own->key, key))
            return true;
    }
    return oldest > 0; /* an older one is not remembered */
}

bool freshness_unchanged_since(struct freshness *fresh, const struct row_key *key, uint64_t epoch)
{
    pthread_mutex_lock(&fresh->lock);
    bool unchanged = fresh->last_told <= epoch && !own_since(fresh, key, epoch);
    pthread_mutex_unlock(&fresh->lock);
    return unchanged;
}

bool freshness_quiet_since(struct freshness *fresh, uint64_t epoch)
{
    pthread_mutex_lock(&fresh->lock);
    bool quiet = fresh->last_told <= epoch &&
                 (fresh->nowned == 0 || fresh->own[(fresh->nowned - 1) % OWN_MAX].epoch <= epoch);
    pthread_mutex_unlock(&fresh->lock);
    return quiet;
}

bool freshness_told_since(struct freshness *fresh, uint64_t epoch)
{
    pthread_mutex_lock(&fresh->lock);
    bool told = fresh->last_told > epoch;
    pthread_mutex_unlock(&fresh->lock);
    return told;
}

void freshness_count(struct freshness *fresh, uint64_t *questions, uint64_t *changes)
{
    pthread_mutex_lock(&fresh->lock);
    *questions = fresh->questions;
    *changes = fresh->changes_seen;
    pthread_mutex_unlock(&fresh->lock);
}
