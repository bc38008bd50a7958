/*
 * Saving and deleting rows. A row of a region is one transaction on its shard. A row of a global
 * collection is written on every shard, the copies first and the authority, which serves the reads, last:
 * what can be read is everywhere (docs/data-model.md).
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/uuid.h"
#include "entity/store_internal.h"
#include "media/names.h"

enum {
    NUMBER_TEXT = 24, /* any 64-bit integer in decimal */
    TIME_TEXT = 96,   /* a timestamptz in text */
    IDS_A_SHARD = 1000,
};

#define TIME_NEVER (INT64_MIN + 1) /* base: of no row, which is to be new (check_conflict() in sql/) */

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

/* A time as a parameter: NULL for none. -EINVAL outside the years 1 to 9999. */
static int time_text(int64_t us, char out[TIME_TEXT], const char **param, struct fail *f)
{
    *param = NULL;
    if (us == STORE_TIME_NONE)
        return 0;
    *param = out;
    if (us == STORE_TIME_FOREVER || us == TIME_NEVER) {
        snprintf(out, TIME_TEXT, us == TIME_NEVER ? "-infinity" : "infinity");
        return 0;
    }
    int64_t fraction = us % 1000000;
    time_t seconds = (time_t)(us / 1000000);
    if (fraction < 0) {
        fraction += 1000000;
        seconds--;
    }
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) || tm.tm_year + 1900 < 1 || tm.tm_year + 1900 > 9999)
        return fail_set(f, EINVAL, "a time outside the years 1 to 9999");
    snprintf(out, TIME_TEXT, "%04d-%02d-%02d %02d:%02d:%02d.%06d+00", tm.tm_year + 1900, tm.tm_mon + 1,
             tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)fraction);
    return 0;
}

void store_take_result(struct store *store, struct shard *shard, uint64_t epoch, unsigned collection,
                       unsigned region, const struct pg_rows *rows, struct put_result *result)
{
    const char *outcome = pg_rows_text(rows, 0, PUT_OUTCOME);
    result->id = pg_rows_i64(rows, 0, PUT_ID, 0);
    result->unchanged = outcome && strcmp(outcome, "unchanged") == 0;
    if (!outcome || strcmp(outcome, "created") == 0)
        runs_drop(store->runs, collection, region);
    struct row_key key = {.collection = (uint8_t)collection, .region = (uint8_t)region, .id = result->id};
    if (store_document(store, shard, rows, 0, PUT_REV, &result->document, NULL) < 0) {
        cache_drop(store->cache, &key, 0);
        return;
    }
    cache_put(store->cache, &key, &result->document->revision, result->document->text, true);
    if (freshness_newer_since(store_fresh(store, shard), &key, result->document->revision.rev, epoch))
        cache_drop(store->cache, &key, 0);
}

/* What one call of a put function is given beyond the request itself. */
struct put_call {
    const struct put *put;
    const struct pg_statement *statement;
    int64_t id, at_us, base_us;
    bool claimed;
};

static int call_put(struct shard *shard, const struct put_call *call, const struct op *op,
                    struct pg_rows **rows, struct fail *f)
{
    char request[UUID_TEXT], region[NUMBER_TEXT], id[NUMBER_TEXT], at[TIME_TEXT], base[TIME_TEXT];
    const char *at_param, *base_param;
    int r = uuid_new(request);
    if (r == 0)
        r = time_text(call->at_us, at, &at_param, f);
    if (r == 0)
        r = time_text(call->base_us, base, &base_param, f);
    if (r < 0)
        return r;
    snprintf(region, sizeof region, "%u", call->put->key.region);
    snprintf(id, sizeof id, "%lld", (long long)call->id);
    const char *params[] = {region,     call->id ? id : NULL,      call->put->text, at_param,
                            base_param, call->claimed ? "t" : "f", request,         call->put->actor};
    return shard_write(shard, call->statement, params, request, op, rows, f);
}

/* Takes an id at its home shard, so that no other shard gives it away; can be repeated. */
static int claim(struct store *store, const struct shard *shard, unsigned collection, int64_t id,
                 const struct op *op, struct fail *f)
{
    static const struct pg_statement statement = {
        "claim_id", "SELECT claim_id($1::smallint, $2::bigint, $3::smallint)", 3};
    struct shard *home = cluster_shard_numbered(store->cluster, (unsigned)(id % IDS_A_SHARD));
    if (!home) /* numbers that no shard gives away are kept by the first one */
        home = cluster_shard(store->cluster, 0);
    if (home == shard)
        return 0;
    char collection_text[NUMBER_TEXT], id_text[NUMBER_TEXT], shard_text[NUMBER_TEXT];
    snprintf(collection_text, sizeof collection_text, "%u", collection);
    snprintf(id_text, sizeof id_text, "%lld", (long long)id);
    snprintf(shard_text, sizeof shard_text, "%u", shard_number(shard));
    const char *params[] = {collection_text, id_text, shard_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    return shard_write(home, &statement, params, NULL, op, &rows, f);
}

/* One put on one shard; an id of another shard's numbers is claimed when the database asks for it. */
static int put_on(struct store *store, struct shard *shard, struct put_call *call, const struct op *op,
                  struct pg_rows **rows, struct fail *f)
{
    struct fail why = {0};
    int r = call_put(shard, call, op, rows, &why);
    if (r == -ENOKEY) {
        why = (struct fail){0};
        r = claim(store, shard, call->put->key.collection, call->id, op, &why);
        call->claimed = true;
        if (r == 0)
            r = call_put(shard, call, op, rows, &why);
    }
    if (r < 0 && f && f->err == 0)
        *f = why;
    return r;
}

static int put_row(struct store *store, struct shard *shard, const struct put *put, const struct op *op,
                   struct pg_rows **rows, struct fail *f)
{
    const struct collection *collection = collection_numbered(put->key.collection);
    struct put_call call = {.put = put,
                            .statement = put->must_exist ? &collection->put_existing : &collection->put,
                            .id = put->key.id,
                            .at_us = put->at_us,
                            .base_us = put->must_be_new ? TIME_NEVER : put->base_us,
                            .claimed = put->must_exist};
    return put_on(store, shard, &call, op, rows, f);
}

/*
 * A row of a global collection: tried on the authority, written to the copies, then to the authority. *gone
 * tells that it was to exist and does not. Deleted between the two, it may have copies again: `check` finds
 * them.
 */
static int put_everywhere(struct store *store, struct shard *authority, const struct put *put,
                          const struct op *op, struct pg_rows **rows, bool *gone, struct fail *f)
{
    const struct collection *collection = collection_numbered(put->key.collection);
    static const struct pg_statement preview = {
        "preview_put_categories",
        "SELECT outcome, id, rev, updated_us, content_us, body FROM preview_put_categories($1::smallint, "
        "$2::bigint, $3::jsonb, $4::timestamptz, $5::timestamptz, $6::boolean, $7::uuid, $8::text)",
        8};
    struct put_call call = {.put = put,
                            .statement = &preview,
                            .id = put->key.id,
                            .at_us = put->at_us,
                            .base_us = put->must_be_new ? TIME_NEVER : put->base_us,
                            .claimed = put->must_exist};
    struct pg_rows *trial CLEANUP(pg_rows_freep) = NULL;
    int r = put_on(store, authority, &call, op, &trial, f);
    if (r < 0)
        return r;
    const char *outcome = trial && pg_rows_count(trial) ? pg_rows_text(trial, 0, PUT_OUTCOME) : NULL;
    if (!outcome)
        return fail_set(f, EIO, "the shard %s did not say what it would save", shard_name(authority));
    *gone = put->must_exist && strcmp(outcome, "created") == 0;
    if (*gone)
        return 0;
    call.statement = &collection->put;
    if (strcmp(outcome, "unchanged") != 0) {
        call.at_us = pg_rows_i64(trial, 0, PUT_UPDATED_US, STORE_TIME_NONE);
        if (call.id == 0)
            call.id = pg_rows_i64(trial, 0, PUT_ID, 0);
        struct put_call copy = call;
        copy.claimed = true;
        copy.base_us = STORE_TIME_FOREVER;
        for (size_t i = 0; r == 0 && i < cluster_shards(store->cluster); i++) {
            struct pg_rows *ignored CLEANUP(pg_rows_freep) = NULL;
            struct shard *shard = cluster_shard(store->cluster, i);
            if (shard != authority)
                r = put_on(store, shard, &copy, op, &ignored, f);
        }
    }
    if (put->must_exist)
        call.statement = &collection->put_existing;
    return r < 0 ? r : put_on(store, authority, &call, op, rows, f);
}

/* Where the answer was lost but the commit is known, the row is read back, if it can be. */
static void read_back(struct store *store, const struct put *put, const struct op *op,
                      struct put_result *result)
{
    runs_drop(store->runs, put->key.collection, put->key.region);
    if (put->key.id == 0)
        return;
    cache_drop(store->cache, &put->key, 0);
    result->id = put->key.id;
    store_get(store, &put->key, op, &result->document, NULL);
}

/* What every write begins with: its region exists (`shard` is not NULL), and the mount is not read-only. */
static int may_write(const struct store *store, const struct shard *shard, struct fail *f)
{
    if (!shard)
        return fail_set(f, ENOENT, "no such region");
    return store->config->read_only ? fail_set(f, EROFS, "the mount is read-only") : 0;
}

int store_put(struct store *store, const struct put *put, const struct op *op, struct put_result *result,
              struct fail *f)
{
    const struct collection *collection = collection_numbered(put->key.collection);
    struct shard *shard = store_shard(store, put->key.collection, put->key.region);
    struct revision former;
    if (collection->of_users)
        return preferences_put_row(store, put, op, result, f);
    *result = (struct put_result){0};
    int writable = may_write(store, shard, f);
    if (writable < 0)
        return writable;
    if (put->key.id && store_peek(store, &put->key, &former))
        result->replaced_rev = former.rev;
    uint64_t epoch = freshness_epoch(store_fresh(store, shard));
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    bool gone = false;
    int r = collection->global ? put_everywhere(store, shard, put, op, &rows, &gone, f)
                               : put_row(store, shard, put, op, &rows, f);
    if (r < 0)
        return r;
    if (gone || (put->must_exist && rows && pg_rows_count(rows) == 0)) {
        cache_drop(store->cache, &put->key, 0);
        runs_drop(store->runs, put->key.collection, put->key.region);
        result->deleted = true;
        return fail_set(f, ECANCELED, "the row was deleted since it was read");
    }
    if (put->must_be_new && rows && pg_rows_count(rows) == 1 &&
        strcmp(pg_rows_text(rows, 0, PUT_OUTCOME), "unchanged") == 0)
        return fail_set(f, EEXIST, "there is an equal row already: it was made meanwhile");
    struct row_key changed = put->key;
    if (rows && pg_rows_count(rows) == 1)
        changed.id = pg_rows_i64(rows, 0, PUT_ID, 0);
    freshness_note_change(store_fresh(store, shard), &changed);
    if (rows && pg_rows_count(rows) == 1)
        store_take_result(store, shard, epoch, put->key.collection, put->key.region, rows, result);
    else
        read_back(store, put, op, result);
    return 0;
}

static int call_delete(struct shard *shard, const struct pg_statement *statement, const struct row_key *key,
                       const char *actor, const struct op *op, struct pg_rows **rows, struct fail *f)
{
    char request[UUID_TEXT], region[NUMBER_TEXT], id[NUMBER_TEXT];
    int r = uuid_new(request);
    if (r < 0)
        return r;
    snprintf(region, sizeof region, "%u", key->region);
    snprintf(id, sizeof id, "%lld", (long long)key->id);
    const char *params[] = {region, id, request, actor};
    return shard_write(shard, statement, params, request, op, rows, f);
}

/* A global row: every shard is asked whether it could, then the copies forget it, then the authority. */
static int delete_copies(struct store *store, const struct shard *authority, const struct row_key *key,
                         const char *actor, const struct op *op, struct fail *f)
{
    static const struct pg_statement preview = {
        "preview_delete_categories",
        "SELECT preview_delete_categories($1::smallint, $2::bigint, $3::uuid, $4::text)", 4};
    const struct pg_statement *real = &collection_numbered(key->collection)->delete;
    size_t n = cluster_shards(store->cluster);
    int r = 0;
    for (size_t i = 0; r == 0 && i < 2 * n; i++) {
        struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
        struct shard *shard = cluster_shard(store->cluster, i % n);
        if (i < n || shard != authority)
            r = call_delete(shard, i < n ? &preview : real, key, actor, op, &rows, f);
    }
    return r;
}

/* What lies in MongoDB is bound to its row by no constraint. When that cannot be asked, the row stays. */
static int check_media(struct store *store, const struct collection *collection, const struct row_key *key,
                       const struct op *op, struct fail *f)
{
    const char *region = NULL;
    bool has = false;
    for (size_t i = 0; i < store->config->nregions; i++)
        if (store->config->regions[i].number == key->region)
            region = store->config->regions[i].name;
    if (!collection->has_media || !store->mongo || !region)
        return 0;
    int r = media_course_has_files(store->mongo, region, key->id, op, &has, f);
    if (r == 0 && has)
        r = fail_set(f, EBUSY, "there are still files in regions/%s/media/%lld: remove or move them first",
                     region, (long long)key->id);
    return r;
}

int store_delete(struct store *store, const struct row_key *key, const char *actor, const struct op *op,
                 struct fail *f)
{
    const struct collection *collection = collection_numbered(key->collection);
    struct shard *shard = store_shard(store, key->collection, key->region);
    if (collection->of_users)
        return preferences_delete(store, key, op, f);
    int writable = may_write(store, shard, f);
    if (writable < 0)
        return writable;
    int r = check_media(store, collection, key, op, f);
    if (r == 0 && collection->global)
        r = delete_copies(store, shard, key, actor, op, f);
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    if (r == 0)
        r = call_delete(shard, &collection->delete, key, actor, op, &rows, f);
    if (r < 0)
        return r;
    freshness_note_change(store_fresh(store, shard), key);
    cache_drop(store->cache, key, 0);
    runs_drop(store->runs, key->collection, key->region);
    const char *outcome = rows && pg_rows_count(rows) ? pg_rows_text(rows, 0, 0) : "deleted";
    if (outcome && strcmp(outcome, "missing") == 0)
        return fail_set(f, ENOENT, "no such row");
    preferences_user_deleted(store, key, true);
    return 0;
}

/* A global row is saved again on every shard, its text and time as they were: no document has less than that.
 */
static int undelete_everywhere(struct store *store, const struct row_key *key, const char *actor,
                               const struct op *op, struct put_result *result, struct fail *f)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    struct revision there;
    int r = store_deleted_get(store, key, op, &document, f);
    if (r < 0)
        return r;
    r = store_stat(store, key, op, &there, NULL);
    if (r == 0)
        return fail_set(f, EEXIST, "there is such a row again");
    if (r != -ENOENT)
        return r;
    struct put put = {.key = *key,
                      .text = document->text,
                      .at_us = document->revision.mtime_us,
                      .base_us = STORE_TIME_NONE,
                      .actor = actor};
    return store_put(store, &put, op, result, f);
}

int store_undelete(struct store *store, const struct row_key *key, const char *actor, const struct op *op,
                   struct put_result *result, struct fail *f)
{
    const struct collection *collection = collection_numbered(key->collection);
    struct shard *shard = store_shard(store, key->collection, key->region);
    *result = (struct put_result){0};
    int writable = may_write(store, shard, f);
    if (writable < 0)
        return writable;
    if (collection->global)
        return undelete_everywhere(store, key, actor, op, result, f);
    uint64_t epoch = freshness_epoch(store_fresh(store, shard));
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = call_delete(shard, &collection->undelete, key, actor, op, &rows, f);
    if (r < 0)
        return r;
    if (rows && pg_rows_count(rows) == 0)
        return fail_set(f, ENOENT, "no such row was deleted within the last day");
    freshness_note_change(store_fresh(store, shard), key);
    runs_drop(store->runs, key->collection, key->region);
    if (rows)
        store_take_result(store, shard, epoch, key->collection, key->region, rows, result);
    else
        cache_drop(store->cache, key, 0);
    preferences_user_deleted(store, key, false);
    return 0;
}

int store_forget(struct store *store, const struct row_key *key, const char *actor, const struct op *op,
                 struct fail *f)
{
    static const struct pg_statement statement = {
        "forget_deleted", "SELECT forget_deleted($1::smallint, $2::smallint, $3::bigint, $4::uuid, $5::text)",
        5};
    const struct collection *collection = collection_numbered(key->collection);
    struct shard *home = store_shard(store, key->collection, key->region);
    const char *outcome = NULL;
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    if (!home)
        return fail_set(f, ENOENT, "no such region");
    if (store->config->read_only)
        return fail_set(f, EROFS, "the mount is read-only");
    /* A global row was deleted on every shard, on the one that is asked for it last. */
    for (size_t i = cluster_shards(store->cluster); i-- > 0;) {
        char request[UUID_TEXT], number[NUMBER_TEXT], region[NUMBER_TEXT], id[NUMBER_TEXT];
        struct shard *shard = cluster_shard(store->cluster, i);
        if (shard != home && !collection->global)
            continue;
        int r = uuid_new(request);
        if (r < 0)
            return r;
        snprintf(number, sizeof number, "%u", key->collection);
        snprintf(region, sizeof region, "%u", key->region);
        snprintf(id, sizeof id, "%lld", (long long)key->id);
        const char *params[] = {number, region, id, request, actor};
        pg_rows_free(STEAL(rows));
        r = shard_write(shard, &statement, params, request, op, &rows, f);
        if (r < 0)
            return r;
        outcome = rows && pg_rows_count(rows) ? pg_rows_text(rows, 0, 0) : "deleted";
    }
    return outcome && strcmp(outcome, "missing") == 0 ? fail_set(f, ENOENT, "no such row was deleted") : 0;
}

int store_next_id(struct store *store, unsigned collection, unsigned region, const struct op *op, int64_t *id,
                  struct fail *f)
{
    static const struct pg_statement next = {"next_id", "SELECT next_id($1::smallint)", 1};
    struct shard *shard = store_shard(store, collection, region);
    int writable = may_write(store, shard, f);
    if (writable < 0)
        return writable;
    char collection_text[NUMBER_TEXT];
    snprintf(collection_text, sizeof collection_text, "%u", collection);
    const char *params[] = {collection_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = shard_draw(shard, &next, params, op, &rows, f);
    if (r < 0)
        return r;
    if (!rows || pg_rows_count(rows) != 1)
        return fail_set(f, EIO, "the shard %s gave no id", shard_name(shard));
    *id = pg_rows_i64(rows, 0, 0, 0);
    return 0;
}
