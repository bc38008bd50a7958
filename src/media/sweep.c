#include "media/sweep.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/uuid.h"
#include "media/bucket.h"
#include "media/document.h"
#include "media/media_error.h"

enum { ROUND_ENTRIES = 100, LEASE_ROUNDS = 3, LEASE_LEAST_MS = 60000 };

struct media_sweep {
    const struct config *config; /* borrowed */
    struct mongo *mongo;         /* borrowed */
    struct media_sweep_options options;
    char owner[UUID_OWNER];
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t ended;
    bool stop;
    struct media_swept swept;
};

/* What one round works with. */
struct sweep_round {
    struct mongo *mongo;
    const char *region;
    const struct media_sweep_options *options;
    const struct op *op;
    struct media_swept *swept;
    struct fail *f;
    int64_t now; /* the server's time, as it began */
};

static struct op step_of(const struct sweep_round *round)
{
    return op_within(round->options->step_ms);
}

/* The _id of an entry, as a document of one element. */
static bson_t *id_of(const bson_t *entry)
{
    bson_t *id = bson_new();
    bson_iter_t at;
    if (media_field(entry, "_id", &at))
        bson_append_iter(id, "_id", -1, &at);
    return id;
}

static bson_t *filter_of(const bson_t *id)
{
    bson_t *filter = bson_new();
    bson_iter_t at;
    if (media_field(id, "_id", &at))
        media_where(filter, "_id", &at);
    return filter;
}

static int find_file(const struct sweep_round *round, const bson_t *id, bson_t **out)
{
    CLEANUP(bson_destroyp) bson_t *filter = filter_of(id);
    struct op step = step_of(round);
    return bucket_find_one(round->mongo, round->region, "files", filter, NULL, out, "cannot look into GridFS",
                           &step, round->f);
}

static int drop_chunks(const struct sweep_round *round, const bson_t *id)
{
    int64_t deleted = 0;
    int r = bucket_delete_all_chunks(round->mongo, round->region, id, round->options->step_ms, round->op,
                                     &deleted, round->f);
    round->swept->chunks += (uint64_t)deleted;
    return r;
}

static int forget(const struct sweep_round *round, const bson_t *id)
{
    struct op step = step_of(round);
    return bucket_forget(round->mongo, round->region, id, &step, round->f);
}

/* ---- uploads ---- */

/* Takes the lease of an upload away when it has ended, unless it was renewed meanwhile. */
static int claim_upload(const struct sweep_round *round, const bson_t *entry)
{
    CLEANUP(bson_destroyp) bson_t *id = id_of(entry);
    CLEANUP(bson_destroyp) bson_t *filter = filter_of(id);
    CLEANUP(bson_destroyp)
    bson_t *update = BCON_NEW("$set", "{", "swept", BCON_DATE_TIME(round->now), "}", "$unset", "{",
                              "heartbeat", BCON_INT32(1), "}");
    bson_iter_t heartbeat;
    struct op step = step_of(round);
    if (media_field(entry, "heartbeat", &heartbeat))
        bson_append_iter(filter, "heartbeat", -1, &heartbeat);
    return bucket_update(round->mongo, round->region, "uploads", filter, update, false, NULL,
                         "cannot claim an upload", &step, round->f);
}

static int leave_retired(const struct sweep_round *round, const bson_t *id)
{
    CLEANUP(bson_destroyp) bson_t *filter = filter_of(id);
    CLEANUP(bson_destroyp) bson_t *update = BCON_NEW("$unset", "{", "swept", BCON_INT32(1), "}");
    struct op step = step_of(round);
    return bucket_update(round->mongo, round->region, "uploads", filter, update, false, NULL,
                         "cannot change the journal of uploads", &step, round->f);
}

/* An upload that was claimed in an earlier round: what its writer sent last has long arrived. One that was
 * published after all only leaves the journal. */
static int sweep_upload(const struct sweep_round *round, const bson_t *entry)
{
    CLEANUP(bson_destroyp) bson_t *id = id_of(entry);
    CLEANUP(bson_destroyp) bson_t *file = NULL;
    bson_iter_t retired;
    int r = find_file(round, id, &file);
    if (r == 0 && file && media_field(entry, "retired", &retired)) /* and was replaced: the same entry */
        return leave_retired(round, id);
    if (r == 0 && !file) {
        r = drop_chunks(round, id);
        round->swept->uploads += r == 0;
    }
    return r < 0 ? r : forget(round, id);
}

/* ---- revisions ---- */

/* The later revisions of a file's name; *n how many. */
static int list_later(const struct sweep_round *round, const bson_t *file, struct media_revision **list,
                      size_t *n)
{
    CLEANUP(media_revision_unrefp) struct media_revision *revision = NULL;
    bson_iter_t name, date;
    *n = 0;
    int r = media_revision_parse(file, &revision);
    if (r < 0 || !media_field(file, "filename", &name) || !media_field(file, "uploadDate", &date))
        return r;
    CLEANUP(mongo_collection_close) struct mongo_collection files = {0};
    r = mongo_part_open(round->mongo, round->region, "files", &files, round->f);
    if (r < 0)
        return r;
    struct op step = step_of(round);
    CLEANUP(bson_destroyp) bson_t *filter = bson_new();
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(&step, ROUND_ENTRIES);
    bson_t from;
    media_where(filter, "filename", &name);
    BSON_APPEND_DOCUMENT_BEGIN(filter, "uploadDate", &from);
    bson_append_iter(&from, "$gte", -1, &date);
    bson_append_document_end(filter, &from);
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(files.handle, filter, opts, NULL);
    const bson_t *other;
    bson_error_t error;
    while (*n < ROUND_ENTRIES && mongoc_cursor_next(cursor, &other)) {
        struct media_revision *candidate = NULL;
        if (media_revision_parse(other, &candidate) == 0 && media_revision_order(candidate, revision) > 0)
            list[(*n)++] = candidate;
        else
            media_revision_unref(candidate);
    }
    return mongoc_cursor_error(cursor, &error)
               ? media_error_set(round->f, &error, "cannot look for revisions")
               : 0;
}

/* Whether a revision has all its chunks. */
static int is_whole(const struct sweep_round *round, const struct media_revision *revision, bool *whole)
{
    CLEANUP(bson_destroyp) bson_t *id = media_id_filter(revision, "_id");
    int64_t count = 0;
    *whole = false;
    if (revision->broken)
        return 0;
    int r = bucket_count_chunks(round->mongo, round->region, id, 0, media_revision_chunks(revision),
                                round->options->step_ms, round->op, &count, round->f);
    *whole = r == 0 && count == media_revision_chunks(revision);
    return r;
}

/* Whether later revisions of its name are there, and one of them that has all its chunks. */
static int is_replaced(const struct sweep_round *round, const bson_t *file, bool *newest, bool *replaced)
{
    struct media_revision *list[ROUND_ENTRIES];
    size_t n;
    int r = list_later(round, file, list, &n);
    *newest = n == 0;
    *replaced = false;
    for (size_t i = 0; i < n; i++) {
        if (r == 0 && !*replaced)
            r = is_whole(round, list[i], replaced);
        media_revision_unref(list[i]);
    }
    return r;
}

/* What replaced it is damaged: it is looked at again when another such time is over. */
static int postpone(const struct sweep_round *round, const bson_t *file)
{
    CLEANUP(media_revision_unrefp) struct media_revision *revision = NULL;
    struct op step = step_of(round);
    int r = media_revision_parse(file, &revision);
    return r < 0 ? r : bucket_retire(round->mongo, round->region, revision, &step, round->f);
}

/* A revision whose time is over. One that is the newest of its name again stays: what would have replaced it
 * was never published. One stays as well while all that replaced it is damaged: nothing else of the file is
 * left. */
static int sweep_revision(const struct sweep_round *round, const bson_t *entry)
{
    CLEANUP(bson_destroyp) bson_t *id = id_of(entry);
    CLEANUP(bson_destroyp) bson_t *file = NULL;
    bool newest = false, replaced = true;
    int r = find_file(round, id, &file);
    if (r == 0 && file)
        r = is_replaced(round, file, &newest, &replaced);
    if (r < 0 || !replaced)
        return r < 0 ? r : newest ? forget(round, id) : postpone(round, file);
    if (file) {
        CLEANUP(bson_destroyp) bson_t *filter = filter_of(id);
        struct op step = step_of(round);
        bson_iter_t name;
        if (media_field(file, "filename", &name))
            media_where(filter, "filename", &name); /* not one that was renamed meanwhile */
        r = bucket_delete(round->mongo, round->region, "files", filter, NULL, &step, round->f);
        bson_destroy(file);
        file = NULL;
        if (r == 0)
            r = find_file(round, id, &file);
        if (r < 0 || file)
            return r;
    }
    r = drop_chunks(round, id);
    round->swept->revisions += r == 0;
    return r < 0 ? r : forget(round, id);
}

/* ---- a round ---- */

/* Entries that match, at most a round's; *n how many. */
static int collect(const struct sweep_round *round, const bson_t *filter, bson_t **entries, size_t *n)
{
    CLEANUP(mongo_collection_close) struct mongo_collection uploads = {0};
    struct op step = step_of(round);
    int r = mongo_part_open(round->mongo, round->region, "uploads", &uploads, round->f);
    *n = 0;
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(&step, ROUND_ENTRIES);
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(uploads.handle, filter, opts, NULL);
    const bson_t *entry;
    bson_error_t error;
    while (*n < ROUND_ENTRIES && mongoc_cursor_next(cursor, &entry))
        entries[(*n)++] = bson_copy(entry);
    return mongoc_cursor_error(cursor, &error)
               ? media_error_set(round->f, &error, "cannot read the journal of uploads")
               : 0;
}

static int sweep_matching(const struct sweep_round *round, const bson_t *filter,
                          int (*sweep)(const struct sweep_round *round, const bson_t *entry), bool *left)
{
    bson_t *entries[ROUND_ENTRIES];
    size_t n;
    int r = collect(round, filter, entries, &n);
    *left = *left || n == ROUND_ENTRIES;
    for (size_t i = 0; i < n; i++) {
        if (r == 0 && op_interrupted(round->op))
            r = -EINTR;
        if (r == 0)
            r = sweep(round, entries[i]);
        bson_destroy(entries[i]);
    }
    return r;
}

int media_sweep_region(struct mongo *mongo, const char *region, const struct media_sweep_options *options,
                       const struct op *op, struct media_swept *swept, bool *left, struct fail *f)
{
    struct sweep_round round = {
        .mongo = mongo, .region = region, .options = options, .op = op, .swept = swept, .f = f};
    struct op step = step_of(&round);
    int64_t now;
    *left = false;
    int r = bucket_server_ms(mongo, &step, &now, f);
    if (r < 0)
        return r;
    round.now = now;
    CLEANUP(bson_destroyp)
    bson_t *expired = BCON_NEW("heartbeat", "{", "$lt", BCON_DATE_TIME(now - BUCKET_LEASE_MS), "}");
    CLEANUP(bson_destroyp) bson_t *claimed = BCON_NEW("swept", "{", "$exists", BCON_BOOL(true), "}");
    CLEANUP(bson_destroyp)
    bson_t *retired = BCON_NEW("retired", "{", "$lt", BCON_DATE_TIME(now - options->keep_ms), "}");
    r = sweep_matching(&round, claimed, sweep_upload, left);
    if (r == 0) /* to be swept in the next round, if nobody has published them until then */
        r = sweep_matching(&round, expired, claim_upload, left);
    if (r < 0)
        return r;
    uint64_t before = swept->revisions;
    bool full = false;
    r = sweep_matching(&round, retired, sweep_revision, &full);
    if (full && swept->revisions > before) /* what was put off is not for another round at once */
        *left = true;
    return r;
}

/* ---- the thread ---- */

/* Whether this mount is the one that sweeps the region; others come to know it by a duplicate. */
static int take_lease(struct media_sweep *sweep, const char *region, struct fail *f)
{
    struct op op = op_within(sweep->options.step_ms);
    int64_t now, lasts = sweep->options.every_ms * LEASE_ROUNDS;
    int r = bucket_server_ms(sweep->mongo, &op, &now, f);
    if (r < 0)
        return r;
    lasts = lasts < LEASE_LEAST_MS ? LEASE_LEAST_MS : lasts;
    CLEANUP(bson_destroyp)
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("sweep"), "$or", "[", "{", "owner", BCON_UTF8(sweep->owner),
                              "}", "{", "until", "{", "$lt", BCON_DATE_TIME(now), "}", "}", "]");
    CLEANUP(bson_destroyp)
    bson_t *update =
        BCON_NEW("$set", "{", "owner", BCON_UTF8(sweep->owner), "until", BCON_DATE_TIME(now + lasts), "}");
    return bucket_update(sweep->mongo, region, "uploads", filter, update, true, NULL,
                         "cannot take the lease of the sweep", &op, f);
}

/* Another mount need not wait until they end. A server that does not answer once is not asked again: they end
 * by themselves. */
static void give_leases_back(struct media_sweep *sweep, const bool *held, const bool *failing)
{
    CLEANUP(bson_destroyp)
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("sweep"), "owner", BCON_UTF8(sweep->owner));
    struct op op = op_within(sweep->options.step_ms);
    int r = 0;
    for (size_t i = 0; r == 0 && i < sweep->config->nregions && op_left_ms(&op) > 0; i++)
        if (held[i] && !failing[i])
            r = bucket_delete(sweep->mongo, sweep->config->regions[i].name, "uploads", filter, NULL, &op,
                              NULL);
}

static bool is_stopping(void *arg)
{
    struct media_sweep *sweep = arg;
    pthread_mutex_lock(&sweep->lock);
    bool stop = sweep->stop;
    pthread_mutex_unlock(&sweep->lock);
    return stop;
}

/* All regions; *held tells of which this mount has the lease. What fails is tried the next time. */
static bool sweep_all(struct media_sweep *sweep, bool *held, bool *failing)
{
    bool more = false;
    for (size_t i = 0; i < sweep->config->nregions && !is_stopping(sweep); i++) {
        const char *region = sweep->config->regions[i].name;
        struct op op = {.interrupted = is_stopping, .arg = sweep};
        struct media_swept swept = {0};
        struct fail f = {0};
        bool left = false;
        int r = take_lease(sweep, region, &f);
        held[i] = r == 0;
        if (r == 0)
            r = media_sweep_region(sweep->mongo, region, &sweep->options, &op, &swept, &left, &f);
        more = more || (r == 0 && left);
        pthread_mutex_lock(&sweep->lock);
        sweep->swept.uploads += swept.uploads;
        sweep->swept.revisions += swept.revisions;
        sweep->swept.chunks += swept.chunks;
        pthread_mutex_unlock(&sweep->lock);
        if (swept.uploads + swept.revisions > 0)
            log_info("swept in %s: %llu uploads that had ended, %llu revisions, %llu chunks", region,
                     (unsigned long long)swept.uploads, (unsigned long long)swept.revisions,
                     (unsigned long long)swept.chunks);
        bool bad = r < 0 && r != -EEXIST && r != -EINTR;
        if (bad && !failing[i])
            log_warning("cannot sweep media of %s: %s", region, f.message);
        failing[i] = bad;
    }
    return more;
}

/* An interval with up to a quarter of jitter, so that mounts that started together do not stay together. */
static int64_t pause_ms(const struct media_sweep *sweep, unsigned *random)
{
    return sweep->options.every_ms - (int64_t)(rand_r(random) % (unsigned)(sweep->options.every_ms / 4 + 1));
}

static void *sweep_main(void *arg)
{
    struct media_sweep *sweep = arg;
    bool held[CONFIG_MAX_REGIONS] = {0}, failing[CONFIG_MAX_REGIONS] = {0};
    unsigned random = (unsigned)(clock_now_ms() ^ getpid());
    bool more = false;
    for (;;) {
        int64_t until = clock_now_ms() + (more ? 0 : pause_ms(sweep, &random));
        pthread_mutex_lock(&sweep->lock);
        while (!sweep->stop && clock_now_ms() < until)
            wait_until(&sweep->ended, &sweep->lock, until);
        bool stop = sweep->stop;
        pthread_mutex_unlock(&sweep->lock);
        if (stop)
            break;
        more = sweep_all(sweep, held, failing);
    }
    give_leases_back(sweep, held, failing);
    return NULL;
}

int media_sweep_start(const struct config *config, struct mongo *mongo,
                      const struct media_sweep_options *options, struct media_sweep **out)
{
    struct media_sweep *sweep = calloc(1, sizeof(*sweep));
    int r = sweep ? uuid_owner(sweep->owner) : -ENOMEM;
    if (r < 0) {
        free(sweep);
        return r;
    }
    sweep->config = config;
    sweep->mongo = mongo;
    sweep->options = *options;
    pthread_mutex_init(&sweep->lock, NULL);
    pthread_cond_init(&sweep->ended, NULL);
    r = pthread_create(&sweep->thread, NULL, sweep_main, sweep);
    if (r != 0) {
        pthread_mutex_destroy(&sweep->lock);
        pthread_cond_destroy(&sweep->ended);
        free(sweep);
        return -r;
    }
    *out = sweep;
    return 0;
}

void media_sweep_ending(struct media_sweep *sweep)
{
    if (!sweep)
        return;
    pthread_mutex_lock(&sweep->lock);
    sweep->stop = true;
    pthread_cond_broadcast(&sweep->ended);
    pthread_mutex_unlock(&sweep->lock);
}

void media_sweep_stop(struct media_sweep *sweep)
{
    if (!sweep)
        return;
    media_sweep_ending(sweep);
    pthread_join(sweep->thread, NULL);
    pthread_cond_destroy(&sweep->ended);
    pthread_mutex_destroy(&sweep->lock);
    free(sweep);
}

void media_sweep_stats(struct media_sweep *sweep, struct media_swept *swept)
{
    pthread_mutex_lock(&sweep->lock);
    *swept = sweep->swept;
    pthread_mutex_unlock(&sweep->lock);
}
