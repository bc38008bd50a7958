#include "media/bucket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "media/document.h"
#include "media/media_error.h"

enum { DUPLICATE = 11000, CLOCK_KNOWN_MS = 1000 };

int64_t bucket_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t boot_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* By what the server said last, if that was just now. */
static bool is_known(struct mongo_clock *clock, int64_t *now)
{
    pthread_mutex_lock(&clock->lock);
    int64_t since = boot_ms() - clock->told_at;
    bool known = clock->told_at > 0 && since < CLOCK_KNOWN_MS;
    *now = clock->server_ms + since;
    pthread_mutex_unlock(&clock->lock);
    return known;
}

static void was_told(struct mongo_clock *clock, int64_t now)
{
    pthread_mutex_lock(&clock->lock);
    clock->server_ms = now;
    clock->told_at = boot_ms();
    pthread_mutex_unlock(&clock->lock);
}

int bucket_server_ms(struct mongo *mongo, const struct op *op, int64_t *now, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *hello = BCON_NEW("isMaster", BCON_INT32(1));
    mongoc_client_t *client;
    if (is_known(mongo_clock_of(mongo), now))
        return 0;
    int r = mongo_pop(mongo, &client, f);
    while (r == 0) {
        bson_error_t error;
        bson_iter_t at;
        bson_t reply;
        bool done = mongoc_client_command_simple(client, "admin", hello, NULL, &reply, &error);
        if (done)
            *now = media_field(&reply, "localTime", &at) && BSON_ITER_HOLDS_DATE_TIME(&at)
                       ? bson_iter_date_time(&at)
                       : bucket_now_ms();
        bson_destroy(&reply);
        if (done) {
            was_told(mongo_clock_of(mongo), *now);
            break;
        }
        if (!mongo_try_again(&error, op))
            r = media_error_set(f, &error, "cannot ask for the time");
    }
    mongo_push(mongo, client);
    return r;
}

/* The options of a write; the caller's to destroy, and to add to. A lost majority must not be waited for. */
static bson_t *write_options(const struct op *op)
{
    int64_t left = op_left_ms(op);
    return BCON_NEW("writeConcern", "{", "w", BCON_UTF8("majority"), "j", BCON_BOOL(true), "wtimeout",
                    BCON_INT64(left > 0 ? left : 1), "}");
}

static int64_t reply_number(const bson_t *reply, const char *key)
{
    bson_iter_t at;
    int64_t number = 0;
    return media_field(reply, key, &at) && media_number(&at, &number) ? number : 0;
}

/* Whether duplicates are all that a reply complains of. */
static bool only_duplicates(const bson_t *reply, const bson_error_t *error)
{
    bson_iter_t at, list, code;
    bool any = false;
    if (error->domain != MONGOC_ERROR_SERVER || error->code != DUPLICATE ||
        !media_field(reply, "writeErrors", &at) || !bson_iter_recurse(&at, &list))
        return false;
    for (; bson_iter_next(&list); any = true)
        if (!bson_iter_recurse(&list, &code) || !bson_iter_find(&code, "code") ||
            bson_iter_as_int64(&code) != DUPLICATE)
            return false;
    return any;
}

/* Whether a document has the bytes of a file that another describes. */
static bool same_file(const bson_t *a, const bson_t *b)
{
    bson_iter_t x, y;
    int64_t m, n;
    if (!media_field(a, "length", &x) || !media_field(b, "length", &y) || !media_number(&x, &m) ||
        !media_number(&y, &n) || m != n)
        return false;
    return bson_iter_init(&x, a) && bson_iter_init(&y, b) &&
           bson_iter_find_descendant(&x, "metadata.sha256", &x) &&
           bson_iter_find_descendant(&y, "metadata.sha256", &y) && BSON_ITER_HOLDS_UTF8(&x) &&
           BSON_ITER_HOLDS_UTF8(&y) && strcmp(bson_iter_utf8(&x, NULL), bson_iter_utf8(&y, NULL)) == 0;
}

/* What stands under the _ids of documents: how many there are, and how many of these are the very files (a
 * single document's). False when it cannot be read. */
struct found {
    size_t n, same;
};
static bool look_for(mongoc_collection_t *collection, const bson_t **documents, size_t n, bool file,
                     const struct op *op, struct found *found)
{
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(op, (int64_t)n);
    struct media_in in;
    media_in_begin(&in, "_id");
    for (size_t i = 0; i < n; i++)
        media_in_add_id(&in, documents[i]);
    CLEANUP(bson_destroyp) bson_t *filter = media_in_end(&in);
    if (!file)
        BCON_APPEND(opts, "projection", "{", "_id", BCON_INT32(1), "}");
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, filter, opts, NULL);
    const bson_t *doc;
    bson_error_t error;
    *found = (struct found){0};
    while (mongoc_cursor_next(cursor, &doc)) {
        found->n++;
        found->same += file && same_file(doc, documents[0]);
    }
    return !mongoc_cursor_error(cursor, &error);
}

/* Whether the server has refused a document for what it is: then it was not stored. */
static bool was_refused(const bson_t *reply)
{
    bson_iter_t at, list;
    return media_field(reply, "writeErrors", &at) && bson_iter_recurse(&at, &list) && bson_iter_next(&list);
}

/* `unsure` is not NULL for a file: see bucket_insert_file(). */
static int insert(struct mongo *mongo, const char *region, const char *part, const bson_t **documents,
                  size_t n, bool *unsure, const char *what, const struct op *op, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection to = {0};
    int r = mongo_part_open(mongo, region, part, &to, f);
    bool perhaps = false;
    while (r == 0) {
        CLEANUP(bson_destroyp) bson_t *opts = write_options(op);
        bson_error_t error;
        bson_t reply;
        BSON_APPEND_BOOL(opts, "ordered", false);
        bool done = mongoc_collection_insert_many(to.handle, documents, n, opts, &reply, &error);
        bool duplicates = !done && only_duplicates(&reply, &error);
        perhaps = perhaps || (!done && !was_refused(&reply) && !media_error_undone(&error));
        bson_destroy(&reply);
        if (done)
            return 0;
        struct found found;
        if (duplicates && look_for(to.handle, documents, n, unsure, op, &found)) {
            if ((unsure ? found.same : found.n) == n)
                return 0;
            perhaps = perhaps || found.n > 0;
        } else {
            perhaps = perhaps || duplicates;
        }
        if (!mongo_try_again(&error, op))
            r = media_error_set(f, &error, what);
    }
    if (unsure)
        *unsure = perhaps;
    return r;
}

int bucket_insert(struct mongo *mongo, const char *region, const char *part, const bson_t **documents,
                  size_t n, const char *what, const struct op *op, struct fail *f)
{
    return insert(mongo, region, part, documents, n, NULL, what, op, f);
}

int bucket_insert_file(struct mongo *mongo, const char *region, const bson_t *document, bool *unsure,
                       const struct op *op, struct fail *f)
{
    *unsure = false;
    return insert(mongo, region, "files", (const bson_t *[]){document}, 1, unsure, "cannot publish a file",
                  op, f);
}

int bucket_update(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                  const bson_t *update, bool upsert, int64_t *matched, const char *what, const struct op *op,
                  struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection in = {0};
    int r = mongo_part_open(mongo, region, part, &in, f);
    if (r < 0)
        return r;
    for (;;) {
        CLEANUP(bson_destroyp) bson_t *opts = write_options(op);
        bson_error_t error;
        bson_t reply;
        if (upsert)
            BSON_APPEND_BOOL(opts, "upsert", true);
        bool done = mongoc_collection_update_many(in.handle, filter, update, opts, &reply, &error);
        if (matched)
            *matched = reply_number(&reply, "matchedCount");
        bson_destroy(&reply);
        if (done)
            return 0;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, what);
    }
}

int bucket_delete(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                  int64_t *deleted, const struct op *op, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection from = {0};
    int r = mongo_part_open(mongo, region, part, &from, f);
    if (r < 0)
        return r;
    for (;;) {
        CLEANUP(bson_destroyp) bson_t *opts = write_options(op);
        bson_error_t error;
        bson_t reply;
        bool done = mongoc_collection_delete_many(from.handle, filter, opts, &reply, &error);
        if (deleted)
            *deleted = reply_number(&reply, "deletedCount");
        bson_destroy(&reply);
        if (done)
            return 0;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, "cannot delete from GridFS");
    }
}

/* {files_id: the id, n: {$gte: from, $lt: to}}; `id` has one element, _id. The caller's to destroy. */
static bson_t *chunks_filter(const bson_t *id, int64_t from, int64_t to)
{
    bson_t *filter = bson_new();
    bson_iter_t at;
    if (media_field(id, "_id", &at))
        media_where(filter, "files_id", &at);
    BCON_APPEND(filter, "n", "{", "$gte", BCON_INT64(from), "$lt", BCON_INT64(to), "}");
    return filter;
}

int bucket_delete_chunks(struct mongo *mongo, const char *region, const bson_t *id, int64_t from, int64_t to,
                         int64_t step_ms, const struct op *op, struct fail *f)
{
    int r = 0;
    for (; r == 0 && from < to; from += BUCKET_SLICE) {
        if (op_interrupted(op))
            return -EINTR;
        int64_t end = to - from < BUCKET_SLICE ? to : from + BUCKET_SLICE;
        CLEANUP(bson_destroyp) bson_t *slice = chunks_filter(id, from, end);
        struct op step = op_step(op, step_ms);
        r = bucket_delete(mongo, region, "chunks", slice, NULL, &step, f);
    }
    return r;
}

int bucket_find_one(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                    const bson_t *more, bson_t **out, const char *what, const struct op *op, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection in = {0};
    int r = mongo_part_open(mongo, region, part, &in, f);
    bson_error_t error;
    const bson_t *document;
    *out = NULL;
    while (r == 0) {
        CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(op, 1);
        if (more)
            bson_concat(opts, more);
        CLEANUP(mongoc_cursor_destroyp)
        mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(in.handle, filter, opts, NULL);
        if (mongoc_cursor_next(cursor, &document)) {
            *out = bson_copy(document);
            return 0;
        }
        if (!mongoc_cursor_error(cursor, &error))
            return 0;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, what);
    }
    return r;
}

/* The first chunk of the id, by its number, from a number on; with -1 any, also one that has none. NULL when
 * there is none. */
static int find_chunk(struct mongo *mongo, const char *region, const bson_t *id, int64_t from,
                      const struct op *op, bson_t **out, struct fail *f)
{
    bson_iter_t at;
    CLEANUP(bson_destroyp) bson_t *filter = bson_new();
    CLEANUP(bson_destroyp)
    bson_t *opts = BCON_NEW("projection", "{", "n", BCON_INT32(1), "}", "sort", "{", "n", BCON_INT32(1), "}");
    if (media_field(id, "_id", &at))
        media_where(filter, "files_id", &at);
    if (from >= 0)
        BCON_APPEND(filter, "n", "{", "$gte", BCON_INT64(from), "}");
    return bucket_find_one(mongo, region, "chunks", filter, opts, out, "cannot look into GridFS", op, f);
}

/* The slice in which a chunk lies; false when its number is none: another program may write anything. */
static bool slice_of(const bson_t *chunk, int64_t *from)
{
    bson_iter_t at;
    int64_t n;
    if (!media_field(chunk, "n", &at) || !media_number(&at, &n) || n < 0 || n > INT64_MAX / 2)
        return false;
    *from = n - n % BUCKET_SLICE;
    return true;
}

/* Deletes a chunk that lies in no slice. */
static int delete_chunk(struct mongo *mongo, const char *region, const bson_t *chunk, const struct op *op,
                        int64_t *gone, struct fail *f)
{
    bson_iter_t at;
    CLEANUP(bson_destroyp) bson_t *filter = bson_new();
    *gone = 0;
    if (!media_field(chunk, "_id", &at))
        return 0;
    media_where(filter, "_id", &at);
    return bucket_delete(mongo, region, "chunks", filter, gone, op, f);
}

int bucket_delete_all_chunks(struct mongo *mongo, const char *region, const bson_t *id, int64_t step_ms,
                             const struct op *op, int64_t *deleted, struct fail *f)
{
    int64_t from = 0, gone = 0;
    *deleted = 0;
    for (;;) {
        if (op_interrupted(op))
            return -EINTR;
        CLEANUP(bson_destroyp) bson_t *slice = chunks_filter(id, from, from + BUCKET_SLICE);
        CLEANUP(bson_destroyp) bson_t *left = NULL;
        struct op step = op_step(op, step_ms);
        int r = bucket_delete(mongo, region, "chunks", slice, &gone, &step, f);
        if (r < 0)
            return r;
        *deleted += gone;
        int64_t last = from;
        from += BUCKET_SLICE;
        if (gone == BUCKET_SLICE)
            continue;
        step = op_step(op, step_ms);
        r = find_chunk(mongo, region, id, -1, &step, &left, f); /* the end, or a gap */
        if (r < 0 || !left)
            return r;
        if (slice_of(left, &from)) {
            gone = from != last;
        } else {
            step = op_step(op, step_ms);
            r = delete_chunk(mongo, region, left, &step, &gone, f);
            *deleted += gone;
        }
        if (r < 0 || gone == 0)
            return r < 0 ? r : fail_set(f, EIO, "MongoDB does not delete chunks");
    }
}

static int count_slice(struct mongo *mongo, const char *region, const bson_t *filter, const struct op *op,
                       int64_t *count, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection chunks = {0};
    int r = mongo_part_open(mongo, region, "chunks", &chunks, f);
    bson_error_t error;
    while (r == 0) {
        int64_t left = op_left_ms(op);
        CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("maxTimeMS", BCON_INT64(left > 0 ? left : 1));
        int64_t n = mongoc_collection_count_documents(chunks.handle, filter, opts, NULL, NULL, &error);
        if (n >= 0) {
            *count += n;
            return 0;
        }
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, "cannot count chunks");
    }
    return r;
}

int bucket_count_chunks(struct mongo *mongo, const char *region, const bson_t *id, int64_t from, int64_t to,
                        int64_t step_ms, const struct op *op, int64_t *count, struct fail *f)
{
    int r = 0;
    *count = 0;
    while (r == 0 && from < to) {
        if (op_interrupted(op))
            return -EINTR;
        int64_t before = *count, next = to - from < BUCKET_SLICE ? to : from + BUCKET_SLICE;
        CLEANUP(bson_destroyp) bson_t *slice = chunks_filter(id, from, next);
        CLEANUP(bson_destroyp) bson_t *behind = NULL;
        struct op step = op_step(op, step_ms);
        r = count_slice(mongo, region, slice, &step, count, f);
        from = next;
        if (r == 0 && *count == before && from < to) { /* a gap: a document may promise 2^31 chunks */
            step = op_step(op, step_ms);
            r = find_chunk(mongo, region, id, from, &step, &behind, f);
            if (r < 0 || !behind || !slice_of(behind, &next))
                return r;
            from = next > from ? next : from;
        }
    }
    return r;
}

/* ---- the journal ---- */

static void owner_text(char *out, size_t size)
{
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    snprintf(out, size, "%s:%ld", host, (long)getpid());
}

int bucket_journal(struct mongo *mongo, const char *region, const bson_oid_t *id, const char *path,
                   const struct op *op, struct fail *f)
{
    char owner[96];
    int64_t now;
    int r = bucket_server_ms(mongo, op, &now, f);
    if (r < 0)
        return r;
    owner_text(owner, sizeof(owner));
    CLEANUP(bson_destroyp)
    bson_t *entry = BCON_NEW("_id", BCON_OID(id), "path", BCON_UTF8(path), "owner", BCON_UTF8(owner),
                             "heartbeat", BCON_DATE_TIME(now));
    return bucket_insert(mongo, region, "uploads", (const bson_t *[]){entry}, 1, "cannot journal an upload",
                         op, f);
}

int bucket_renew(struct mongo *mongo, const char *region, const bson_oid_t *ids, size_t n, int64_t *held,
                 const struct op *op, struct fail *f)
{
    int64_t now;
    int r = bucket_server_ms(mongo, op, &now, f);
    if (r < 0)
        return r;
    struct media_in in;
    media_in_begin(&in, "_id");
    for (size_t i = 0; i < n; i++)
        media_in_add(&in, &(bson_value_t){.value_type = BSON_TYPE_OID, .value.v_oid = ids[i]});
    CLEANUP(bson_destroyp) bson_t *filter = media_in_end(&in);
    CLEANUP(bson_destroyp) bson_t *beat = BCON_NEW("$set", "{", "heartbeat", BCON_DATE_TIME(now), "}");
    BCON_APPEND(filter, "heartbeat", "{", "$exists", BCON_BOOL(true), "}"); /* a sweep takes it away first */
    return bucket_update(mongo, region, "uploads", filter, beat, false, held,
                         "cannot renew an upload's lease", op, f);
}

int bucket_published(struct mongo *mongo, const char *region, const bson_t *id, bool *held,
                     const struct op *op, struct fail *f)
{
    int64_t deleted = 0;
    CLEANUP(bson_destroyp) bson_t *filter = bson_copy(id);
    BCON_APPEND(filter, "swept", "{", "$exists", BCON_BOOL(false), "}");
    int r = bucket_delete(mongo, region, "uploads", filter, &deleted, op, f);
    *held = deleted == 1;
    return r;
}

int bucket_forget(struct mongo *mongo, const char *region, const bson_t *id, const struct op *op,
                  struct fail *f)
{
    bson_iter_t at;
    CLEANUP(bson_destroyp) bson_t *filter = bson_new();
    if (!media_field(id, "_id", &at))
        return -EINVAL;
    media_where(filter, "_id", &at);
    return bucket_delete(mongo, region, "uploads", filter, NULL, op, f);
}

static bson_t *retirement(const struct media_revision *revision, const char *how, int64_t now)
{
    char owner[96];
    owner_text(owner, sizeof(owner));
    return BCON_NEW(how, "{", "path", BCON_UTF8(revision->filename ? revision->filename : ""), "owner",
                    BCON_UTF8(owner), "retired", BCON_DATE_TIME(now), "}");
}

int bucket_retire_all(struct mongo *mongo, const char *region, struct media_revision *const *revisions,
                      size_t n, const struct op *op, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection journal = {0};
    int64_t now;
    int r = n ? bucket_server_ms(mongo, op, &now, f) : 0;
    if (r < 0 || n == 0)
        return r;
    r = mongo_part_open(mongo, region, "uploads", &journal, f);
    if (r < 0)
        return r;
    for (;;) {
        CLEANUP(bson_destroyp) bson_t *opts = write_options(op);
        CLEANUP(bson_destroyp) bson_t *upsert = BCON_NEW("upsert", BCON_BOOL(true));
        bson_error_t error = {0};
        bool done = true;
        BSON_APPEND_BOOL(opts, "ordered", false);
        mongoc_bulk_operation_t *bulk =
            mongoc_collection_create_bulk_operation_with_opts(journal.handle, opts);
        for (size_t i = 0; done && i < n; i++) {
            CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(revisions[i], "_id");
            CLEANUP(bson_destroyp) bson_t *update = retirement(revisions[i], "$set", now);
            done = mongoc_bulk_operation_update_one_with_opts(bulk, filter, update, upsert, &error);
        }
        done = done && mongoc_bulk_operation_execute(bulk, NULL, &error) != 0;
        mongoc_bulk_operation_destroy(bulk);
        if (done)
            return 0;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, "cannot journal that revisions are removed");
    }
}

static int retire(struct mongo *mongo, const char *region, const struct media_revision *revision,
                  const char *how, const struct op *op, struct fail *f)
{
    int64_t now;
    int r = bucket_server_ms(mongo, op, &now, f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(revision, "_id");
    CLEANUP(bson_destroyp) bson_t *update = retirement(revision, how, now);
    return bucket_update(mongo, region, "uploads", filter, update, true, NULL,
                         "cannot journal that a revision is replaced", op, f);
}

int bucket_retire(struct mongo *mongo, const char *region, const struct media_revision *revision,
                  const struct op *op, struct fail *f)
{
    return retire(mongo, region, revision, "$set", op, f);
}

int bucket_retire_once(struct mongo *mongo, const char *region, const struct media_revision *revision,
                       const struct op *op, struct fail *f)
{
    return retire(mongo, region, revision, "$setOnInsert", op, f);
}
