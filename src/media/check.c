#include "media/check.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "media/bucket.h"
#include "media/chunks.h"
#include "media/document.h"
#include "media/index.h"
#include "media/media_error.h"
#include "media/sweep.h"

enum { FIRST_MS = 5000 }; /* a server that does not answer the first question is away */
enum { FILES_AT_ONCE = 1000, NAMES_MS = 10 * 60 * 1000, FOREIGN_MS = 24 * 3600 * 1000, READ_CHUNKS = 64 };

struct run {
    struct mongo *mongo;
    const char *region;
    const struct media_check *check;
    struct media_checked *checked;
    struct fail *f;
    int64_t now_ms; /* the server's, when the check began: this machine's may be a day ahead */
};

static struct op step_of(const struct run *run)
{
    return op_within(run->check->step_ms);
}

static void found(const struct run *run, const struct media_problem *problem)
{
    run->checked->problems++;
    run->checked->repaired += problem->repaired;
    run->check->found(run->check->arg, problem);
}

static void found_file(const struct run *run, const struct media_revision *file, const char *kind,
                       const char *detail)
{
    char id[128];
    media_revision_id_text(file, id, sizeof(id));
    found(run, &(struct media_problem){.kind = kind, .filename = file->filename, .id = id, .detail = detail});
}

/* ---- files ---- */

static int hash_chunk(void *arg, int64_t n, const void *data, size_t len)
{
    (void)n;
    return EVP_DigestUpdate(arg, data, len) ? 0 : -EIO;
}

/* Reads a file, in steps; what is wrong with it in *f. */
static int read_file(const struct run *run, const struct media_revision *file, EVP_MD_CTX *sha256,
                     struct fail *f)
{
    int64_t chunks = media_revision_chunks(file);
    int r = EVP_DigestInit_ex(sha256, EVP_sha256(), NULL) ? 0 : -ENOMEM;
    for (int64_t n = 0; r == 0 && n < chunks; n += READ_CHUNKS) {
        int64_t last = chunks - n < READ_CHUNKS ? chunks - 1 : n + READ_CHUNKS - 1;
        struct op step = step_of(run);
        r = chunks_fetch(run->mongo, run->region, file, n, last, hash_chunk, sha256, &step, f);
    }
    return r;
}

/* Whether an error is of the file and not of the server: that it answers is asked of it once more. */
static int is_damage(const struct run *run, const bson_t *id, bool *damage)
{
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    struct op step = step_of(run);
    int r = bucket_find_one(run->mongo, run->region, "files", id, NULL, &document, "cannot look into GridFS",
                            &step, run->f);
    *damage = r == 0 && document;
    return r;
}

static int check_bytes(const struct run *run, const struct media_revision *file)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    struct fail f = {0};
    EVP_MD_CTX *sha256 = EVP_MD_CTX_new();
    int r = sha256 ? read_file(run, file, sha256, &f) : -ENOMEM;
    bool whole = r == 0 && EVP_DigestFinal_ex(sha256, sum, NULL);
    EVP_MD_CTX_free(sha256);
    if (r == -EIO) {
        CLEANUP(bson_destroyp) bson_t *id = media_id_filter(file, "_id");
        bool damage;
        r = is_damage(run, id, &damage);
        if (damage)
            found_file(run, file, "damaged", f.message);
    } else if (whole && file->has_sha256 && memcmp(sum, file->sha256, sizeof(file->sha256)) != 0) {
        found_file(run, file, "checksum", "its bytes are not those that were written");
    }
    return r == -ESTALE ? 0 : r; /* deleted meanwhile */
}

/* The number of its chunks alone. */
static int check_count(const struct run *run, const struct media_revision *file)
{
    CLEANUP(bson_destroyp) bson_t *id = media_id_filter(file, "_id");
    int64_t want = media_revision_chunks(file), count;
    struct op any = {0};
    char detail[128];
    int r =
        bucket_count_chunks(run->mongo, run->region, id, 0, want, run->check->step_ms, &any, &count, run->f);
    if (r < 0 || count >= want) /* those that are too many are found among all chunks */
        return r;
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    struct op step = step_of(run);
    r = bucket_find_one(run->mongo, run->region, "files", id, NULL, &document, "cannot look into GridFS",
                        &step, run->f);
    if (r < 0 || !document)
        return r; /* deleted meanwhile */
    snprintf(detail, sizeof(detail), "it has %lld chunks and should have %lld", (long long)count,
             (long long)want);
    found_file(run, file, "damaged", detail);
    return 0;
}

static int check_file(const struct run *run, const struct media_revision *file)
{
    int r = 0;
    if (file->broken)
        found_file(run, file, "damaged", file->broken);
    else
        r = run->check->checksums ? check_bytes(run, file) : check_count(run, file);
    run->checked->files++;
    run->checked->bytes += (uint64_t)file->length;
    run->check->progress(run->check->arg, run->checked->files, run->checked->bytes);
    return r;
}

struct files {
    struct media_revision **list; /* owned, each a reference */
    size_t n, cap;
};

static void files_clear(struct files *files)
{
    for (size_t i = 0; i < files->n; i++)
        media_revision_unref(files->list[i]);
    free(files->list);
}

static int files_add(struct files *files, const bson_t *document)
{
    if (files->n == files->cap) {
        size_t cap = files->cap ? 2 * files->cap : FILES_AT_ONCE;
        struct media_revision **more = reallocarray(files->list, cap, sizeof *more);
        if (!more)
            return -ENOMEM;
        files->list = more;
        files->cap = cap;
    }
    int r = media_revision_parse(document, &files->list[files->n]);
    files->n += r == 0;
    return r;
}

static int list_files(const struct run *run, struct files *out)
{
    CLEANUP(mongo_collection_close) struct mongo_collection files = {0};
    int r = mongo_part_open(run->mongo, run->region, "files", &files, run->f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *all = bson_new();
    CLEANUP(bson_destroyp)
    bson_t *opts = BCON_NEW("batchSize", BCON_INT32(FILES_AT_ONCE), "noCursorTimeout", BCON_BOOL(true));
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(files.handle, all, opts, NULL);
    const bson_t *document;
    bson_error_t error;
    while (r == 0 && mongoc_cursor_next(cursor, &document))
        r = files_add(out, document);
    if (r == 0 && mongoc_cursor_error(cursor, &error))
        r = media_error_set(run->f, &error, "cannot list files");
    return r;
}

/* Listed as a whole before the first is read: a server ends a cursor, or its session, that waits for as long
 * as the bytes of a thousand films take. About 400 bytes a file. */
static int check_files(const struct run *run)
{
    CLEANUP(files_clear) struct files files = {0};
    int r = list_files(run, &files);
    for (size_t i = 0; r == 0 && i < files.n; i++)
        r = check_file(run, files.list[i]);
    return r;
}

/* ---- names ---- */

static void left_out(void *arg, const struct media_revision *file, const char *why)
{
    found_file(arg, file, "name", why);
}

static void outdated(void *arg, bool file, uint64_t number)
{
    (void)arg, (void)file, (void)number; /* no kernel was told of anything */
}

/* A mount's own view of the region says what it does not show. */
static int check_names(struct run *run)
{
    struct media_index *index;
    struct op op = op_within(NAMES_MS);
    int r = media_index_open(run->mongo,
                             &(struct media_index_options){.region = run->region,
                                                           .wait_ms = run->check->step_ms,
                                                           .poll_ms = run->check->step_ms,
                                                           .once = true,
                                                           .outdated = outdated},
                             &index);
    if (r < 0)
        return r;
    int64_t n = media_index_left_out(index, &op, left_out, run, run->f);
    media_index_close(index);
    return n < 0 ? (int)n : 0;
}

/* ---- the journal ---- */

static int count_journal(const struct run *run, const bson_t *filter, const char *kind, const char *detail)
{
    CLEANUP(mongo_collection_close) struct mongo_collection uploads = {0};
    int r = mongo_part_open(run->mongo, run->region, "uploads", &uploads, run->f);
    if (r < 0)
        return r;
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(uploads.handle, filter, NULL, NULL);
    const bson_t *entry;
    bson_error_t error;
    while (mongoc_cursor_next(cursor, &entry)) {
        CLEANUP(media_revision_unrefp) struct media_revision *revision = NULL;
        char id[128];
        bson_iter_t path;
        if (media_revision_parse(entry, &revision) < 0)
            continue;
        media_revision_id_text(revision, id, sizeof(id));
        bool named = media_field(entry, "path", &path) && BSON_ITER_HOLDS_UTF8(&path);
        found(run, &(struct media_problem){.kind = kind,
                                           .filename = named ? bson_iter_utf8(&path, NULL) : NULL,
                                           .id = id,
                                           .detail = detail,
                                           .repaired = run->check->repair});
    }
    return mongoc_cursor_error(cursor, &error)
               ? media_error_set(run->f, &error, "cannot read the journal of uploads")
               : 0;
}

/* What the sweep of a mount would have done long ago: that none runs is the problem. */
static int check_journal(struct run *run)
{
    struct op first = op_within(FIRST_MS);
    int r = bucket_server_ms(run->mongo, &first, &run->now_ms, run->f);
    if (r < 0)
        return r;
    int64_t now = run->now_ms;
    CLEANUP(bson_destroyp)
    bson_t *expired =
        BCON_NEW("$or", "[", "{", "heartbeat", "{", "$lt", BCON_DATE_TIME(now - 2 * BUCKET_LEASE_MS), "}",
                 "}", "{", "swept", "{", "$lt", BCON_DATE_TIME(now - BUCKET_LEASE_MS), "}", "}", "]");
    CLEANUP(bson_destroyp)
    bson_t *retired =
        BCON_NEW("retired", "{", "$lt", BCON_DATE_TIME(now - run->check->keep_ms - BUCKET_LEASE_MS), "}");
    r = count_journal(run, expired, "upload", "its lease is over, and no mount has swept it");
    if (r == 0)
        r = count_journal(run, retired, "retired", "its time is over, and no mount has swept it");
    struct media_sweep_options options = {.keep_ms = run->check->keep_ms, .step_ms = run->check->step_ms};
    bool left = run->check->repair;
    for (unsigned round = 0; r == 0 && run->check->repair && (left || round < 2); round++) {
        struct media_swept swept = {0};
        struct op any = {0};
        r = media_sweep_region(run->mongo, run->region, &options, &any, &swept, &left, run->f);
    }
    return r;
}

/* ---- orphans ---- */

/* When an ObjectId was made, in milliseconds; false for any other id. */
static bool made_at(const bson_t *document, const char *field, int64_t *ms)
{
    bson_iter_t at;
    if (!media_field(document, field, &at) || !BSON_ITER_HOLDS_OID(&at))
        return false;
    *ms = (int64_t)bson_oid_get_time_t(bson_iter_oid(&at)) * 1000;
    return true;
}

/* The document of a file or an upload; false when there is none, or *r says why nobody knows. */
static bool is_known(const struct run *run, const bson_t *filter, const char *part, bson_t **document, int *r)
{
    CLEANUP(bson_destroyp) bson_t *found = NULL;
    struct op step = step_of(run);
    if (*r == 0)
        *r = bucket_find_one(run->mongo, run->region, part, filter, NULL, &found, "cannot look into GridFS",
                             &step, run->f);
    bool known = found != NULL;
    if (document)
        *document = STEAL(found);
    return known;
}

static int64_t number_in(const bson_t *group, const char *field)
{
    bson_iter_t at;
    int64_t number;
    return media_field(group, field, &at) && media_number(&at, &number) ? number : -1;
}

/* Old drivers leave an empty chunk behind the last. */
static int is_empty_chunk(const struct run *run, const struct media_revision *file, int64_t n, bool *empty)
{
    CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(file, "files_id");
    CLEANUP(bson_destroyp) bson_t *chunk = NULL;
    bson_iter_t at;
    uint32_t len = 0;
    const uint8_t *data;
    struct op step = step_of(run);
    BSON_APPEND_INT64(filter, "n", n);
    int r = bucket_find_one(run->mongo, run->region, "chunks", filter, NULL, &chunk,
                            "cannot look into GridFS", &step, run->f);
    bool binary = media_field(chunk, "data", &at) && BSON_ITER_HOLDS_BINARY(&at);
    if (binary)
        bson_iter_binary(&at, NULL, &len, &data);
    *empty = binary && len == 0;
    return r;
}

/* Chunks that the file of a group has no place for, wherever they are. */
static int check_surplus(const struct run *run, const bson_t *document, const bson_t *group)
{
    CLEANUP(media_revision_unrefp) struct media_revision *file = NULL;
    int r = media_revision_parse(document, &file);
    if (r < 0 || file->broken)
        return r;
    int64_t want = media_revision_chunks(file), last = number_in(group, "last");
    int64_t count = number_in(group, "count");
    bool empty = false;
    char detail[128];
    if (number_in(group, "first") >= 0 && last >= 0) {
        if (last == want)
            r = is_empty_chunk(run, file, want, &empty);
        if (r < 0 || (last < want + empty && count <= want + empty))
            return r;
    }
    snprintf(detail, sizeof(detail), "it has more than its %lld chunks", (long long)want);
    found_file(run, file, "damaged", detail);
    return 0;
}

/* One group: {_id: the file's id, chunk: the _id of its newest chunk, first and last: their numbers, count}.
 */
static int check_chunks_of(const struct run *run, const bson_t *group)
{
    CLEANUP(media_revision_unrefp) struct media_revision *revision = NULL;
    int r = media_revision_parse(group, &revision);
    if (r < 0)
        return 0;
    CLEANUP(bson_destroyp) bson_t *id = media_id_filter(revision, "_id");
    CLEANUP(bson_destroyp) bson_t *file = NULL;
    if (is_known(run, id, "files", &file, &r))
        return check_surplus(run, file, group);
    if (is_known(run, id, "uploads", NULL, &r) || r < 0 || is_known(run, id, "files", NULL, &r) || r < 0)
        return r; /* the last: published between the two looks */
    int64_t now = run->now_ms, file_ms = now, chunk_ms = now;
    bool known = made_at(group, "_id", &file_ms) && made_at(group, "chunk", &chunk_ms);
    bool old = known && now - file_ms > FOREIGN_MS && now - chunk_ms > FOREIGN_MS;
    char text[128], detail[128];
    media_revision_id_text(revision, text, sizeof(text));
    snprintf(detail, sizeof(detail), "chunks that belong to no file%s",
             old     ? ""
             : known ? ", but not 24 hours old: somebody may still be writing them"
                     : ", of an age that their ids do not tell");
    if (old && run->check->repair) {
        int64_t deleted;
        struct op any = {0};
        bson_t plain;
        bson_init_static(&plain, revision->id, revision->id_len);
        r = bucket_delete_all_chunks(run->mongo, run->region, &plain, run->check->step_ms, &any, &deleted,
                                     run->f);
    }
    if (r == 0)
        found(run,
              &(struct media_problem){
                  .kind = "orphan", .id = text, .detail = detail, .repaired = old && run->check->repair});
    return r;
}

/* Every id that chunks have, by the index where the server is clever: documents one behind the other. */
static int list_groups(const struct run *run, struct buf *out)
{
    CLEANUP(mongo_collection_close) struct mongo_collection chunks = {0};
    int r = mongo_part_open(run->mongo, run->region, "chunks", &chunks, run->f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp)
    bson_t *pipeline =
        BCON_NEW("pipeline", "[", "{", "$sort", "{", "files_id", BCON_INT32(1), "n", BCON_INT32(1), "}", "}",
                 "{", "$group", "{", "_id", BCON_UTF8("$files_id"), "chunk", "{", "$max", BCON_UTF8("$_id"),
                 "}", "first", "{", "$min", BCON_UTF8("$n"), "}", "last", "{", "$max", BCON_UTF8("$n"), "}",
                 "count", "{", "$sum", BCON_INT32(1), "}", "}", "}", "]");
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("allowDiskUse", BCON_BOOL(true));
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor =
        mongoc_collection_aggregate(chunks.handle, MONGOC_QUERY_NONE, pipeline, opts, NULL);
    const bson_t *group;
    bson_error_t error;
    while (r == 0 && mongoc_cursor_next(cursor, &group))
        r = buf_add(out, bson_get_data(group), group->len);
    if (r == 0 && mongoc_cursor_error(cursor, &error))
        r = media_error_set(run->f, &error, "cannot list chunks");
    return r;
}

/* Listed as a whole as well, about 110 bytes each: what is removed may take hours. */
static int check_orphans(const struct run *run)
{
    CLEANUP(buf_clear) struct buf groups = {0};
    int r = list_groups(run, &groups);
    for (size_t at = 0; r == 0 && at < groups.len;) {
        bson_t group;
        uint32_t len;
        memcpy(&len, groups.data + at, sizeof len);
        len = BSON_UINT32_FROM_LE(len);
        bson_init_static(&group, (const uint8_t *)groups.data + at, len);
        r = check_chunks_of(run, &group);
        at += len;
    }
    return r;
}

int media_check_region(struct mongo *mongo, const char *region, const struct media_check *check,
                       struct media_checked *checked, struct fail *f)
{
    struct run run = {.mongo = mongo, .region = region, .check = check, .checked = checked, .f = f};
    int r = check->checksums ? 0 : check_journal(&run);
    if (r == 0)
        r = check_files(&run);
    if (r == 0 && !check->checksums)
        r = check_names(&run);
    return r < 0 || check->checksums ? r : check_orphans(&run);
}
