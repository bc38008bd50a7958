#include "media/gridfs.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "media/media_error.h"
#include "media/mongo_client.h"

enum { HEARTBEAT_EVERY_MS = 10000, DELETE_SLICE = 256 };

struct gridfs_upload {
    struct mongo *mongo;
    bson_oid_t id;
    char *region, *filename; /* owned */
    EVP_MD_CTX *sha256;      /* owned */
    uint8_t *batch;          /* owned: GRIDFS_BATCH chunks */
    size_t fill;             /* bytes in it */
    int64_t length;          /* bytes written so far */
    int32_t sent;            /* chunks acknowledged */
    int64_t heartbeat;       /* clock_now_ms() of the last one */
};

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * One insert of documents that have their _id. The first attempt whose answer was lost may have been applied:
 * then the next one finds its own documents, and a duplicate is success.
 */
static int insert_all(struct gridfs_upload *u, const char *part, const bson_t **documents, size_t n,
                      const char *what, const struct op *op, struct fail *f)
{
    enum { DUPLICATE = 11000 };
    CLEANUP(mongo_collection_close) struct mongo_collection to;
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("ordered", BCON_BOOL(false));
    bson_error_t error;
    bool again = false;
    int r = mongo_part_open(u->mongo, u->region, part, &to, f);
    while (r == 0) {
        if (mongoc_collection_insert_many(to.handle, documents, n, opts, NULL, &error))
            return 0;
        if (again && error.domain == MONGOC_ERROR_SERVER && error.code == DUPLICATE)
            return 0;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, what);
        again = true;
    }
    return r;
}

static int delete_matching(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                           const struct op *op, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection from;
    bson_error_t error;
    int r = mongo_part_open(mongo, region, part, &from, f);
    if (r < 0)
        return r;
    do
        if (mongoc_collection_delete_many(from.handle, filter, NULL, NULL, &error))
            return 0;
    while (mongo_try_again(&error, op));
    return media_error_set(f, &error, "cannot delete from GridFS");
}

static int journal(struct gridfs_upload *u, const struct op *op, struct fail *f)
{
    char host[65] = "", owner[96];
    gethostname(host, sizeof(host) - 1);
    snprintf(owner, sizeof(owner), "%s:%ld", host, (long)getpid());
    CLEANUP(bson_destroyp)
    bson_t *entry = BCON_NEW("_id", BCON_OID(&u->id), "path", BCON_UTF8(u->filename), "owner",
                             BCON_UTF8(owner), "heartbeat", BCON_DATE_TIME(wall_ms()));
    u->heartbeat = clock_now_ms();
    return insert_all(u, "uploads", (const bson_t *[]){entry}, 1, "cannot journal an upload", op, f);
}

int gridfs_upload_open(struct mongo *mongo, const char *region, const char *filename,
                       const uint8_t id[GRIDFS_ID], const struct op *op, struct gridfs_upload **out,
                       struct fail *f)
{
    CLEANUP(gridfs_upload_closep) struct gridfs_upload *u = calloc(1, sizeof(*u));
    if (!u)
        return -ENOMEM;
    u->mongo = mongo;
    u->region = strdup(region);
    u->filename = strdup(filename);
    u->batch = malloc((size_t)GRIDFS_CHUNK * GRIDFS_BATCH);
    u->sha256 = EVP_MD_CTX_new();
    if (!u->region || !u->filename || !u->batch || !u->sha256 ||
        !EVP_DigestInit_ex(u->sha256, EVP_sha256(), NULL))
        return -ENOMEM;
    if (id)
        bson_oid_init_from_data(&u->id, id);
    else
        bson_oid_init(&u->id, NULL);
    int r = journal(u, op, f);
    if (r == 0)
        *out = STEAL(u);
    return r;
}

void gridfs_upload_close(struct gridfs_upload *u)
{
    if (!u)
        return;
    EVP_MD_CTX_free(u->sha256);
    free(u->region);
    free(u->filename);
    free(u->batch);
    free(u);
}

static int keep_lease(struct gridfs_upload *u, struct fail *f)
{
    if (clock_now_ms() - u->heartbeat < HEARTBEAT_EVERY_MS)
        return 0;
    CLEANUP(mongo_collection_close) struct mongo_collection uploads;
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("_id", BCON_OID(&u->id));
    CLEANUP(bson_destroyp) bson_t *beat = BCON_NEW("$set", "{", "heartbeat", BCON_DATE_TIME(wall_ms()), "}");
    bson_error_t error;
    int r = mongo_part_open(u->mongo, u->region, "uploads", &uploads, f);
    if (r < 0)
        return r;
    u->heartbeat = clock_now_ms();
    if (!mongoc_collection_update_one(uploads.handle, filter, beat, NULL, NULL, &error))
        return media_error_set(f, &error, "cannot renew an upload's lease");
    return 0;
}

static int send_batch(struct gridfs_upload *u, const struct op *op, struct fail *f)
{
    bson_t *documents[GRIDFS_BATCH];
    size_t n = 0;
    for (size_t at = 0; at < u->fill; at += GRIDFS_CHUNK, n++) {
        size_t len = u->fill - at < GRIDFS_CHUNK ? u->fill - at : GRIDFS_CHUNK;
        bson_oid_t id;
        bson_oid_init(&id, NULL);
        documents[n] = BCON_NEW("_id", BCON_OID(&id), "files_id", BCON_OID(&u->id), "n",
                                BCON_INT32(u->sent + (int32_t)n), "data",
                                BCON_BIN(BSON_SUBTYPE_BINARY, u->batch + at, (uint32_t)len));
    }
    int r = n ? insert_all(u, "chunks", (const bson_t **)documents, n, "cannot write a chunk", op, f) : 0;
    for (size_t i = 0; i < n; i++)
        bson_destroy(documents[i]);
    if (r < 0)
        return r;
    u->sent += (int32_t)n;
    u->fill = 0;
    return keep_lease(u, f);
}

int gridfs_upload_write(struct gridfs_upload *u, const void *data, size_t len, const struct op *op,
                        struct fail *f)
{
    const size_t full = (size_t)GRIDFS_CHUNK * GRIDFS_BATCH;
    const uint8_t *from = data;
    while (len > 0) {
        int r = u->fill == full ? send_batch(u, op, f) : 0;
        if (r < 0)
            return r;
        size_t part = len < full - u->fill ? len : full - u->fill;
        memcpy(u->batch + u->fill, from, part);
        if (!EVP_DigestUpdate(u->sha256, from, part))
            return fail_set(f, EIO, "cannot compute a checksum");
        u->fill += part;
        u->length += (int64_t)part;
        from += part;
        len -= part;
    }
    return 0;
}

static int checksum(struct gridfs_upload *u, char hex[65], struct fail *f)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    if (!EVP_DigestFinal_ex(u->sha256, sum, NULL))
        return fail_set(f, EIO, "cannot compute a checksum");
    for (size_t i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    return 0;
}

static bson_t *files_document(const struct gridfs_upload *u, const struct gridfs_meta *meta,
                              const char *sha256)
{
    bson_t *doc = BCON_NEW("_id", BCON_OID(&u->id), "length", BCON_INT64(u->length), "chunkSize",
                           BCON_INT32(GRIDFS_CHUNK), "uploadDate", BCON_DATE_TIME(meta->uploaded_ms),
                           "filename", BCON_UTF8(u->filename));
    bson_t inner;
    BSON_APPEND_DOCUMENT_BEGIN(doc, "metadata", &inner);
    BSON_APPEND_INT32(&inner, "schema", GRIDFS_SCHEMA);
    BSON_APPEND_INT64(&inner, "courseId", meta->course_id);
    if (meta->title)
        BSON_APPEND_UTF8(&inner, "title", meta->title);
    if (meta->content_type)
        BSON_APPEND_UTF8(&inner, "contentType", meta->content_type);
    if (meta->duration_ms >= 0)
        BSON_APPEND_INT64(&inner, "durationMs", meta->duration_ms);
    BSON_APPEND_INT64(&inner, "mtime", meta->mtime_ns);
    BSON_APPEND_INT32(&inner, "mode", (int32_t)(meta->mode & 07777));
    BSON_APPEND_UTF8(&inner, "sha256", sha256);
    bson_append_document_end(doc, &inner);
    return doc;
}

int gridfs_upload_publish(struct gridfs_upload *u, const struct gridfs_meta *meta, const struct op *op,
                          struct fail *f)
{
    char sha256[65];
    int r = send_batch(u, op, f);
    if (r == 0)
        r = checksum(u, sha256, f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *document = files_document(u, meta, sha256);
    r = insert_all(u, "files", (const bson_t *[]){document}, 1, "cannot publish a file", op, f);
    if (r < 0)
        return r;
    /* The file is published: an entry that stays behind is dropped by the sweep, which finds the files
     * document. */
    CLEANUP(bson_destroyp) bson_t *entry = BCON_NEW("_id", BCON_OID(&u->id));
    delete_matching(u->mongo, u->region, "uploads", entry, op, NULL);
    return 0;
}

/* The number of chunks that a files document promises; 0 when the file does not exist. */
static int count_chunks(struct mongo *mongo, const char *region, const bson_t *filter, int64_t *n,
                        struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection files;
    int r = mongo_part_open(mongo, region, "files", &files, f);
    *n = 0;
    if (r < 0)
        return r;
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(files.handle, filter, NULL, NULL);
    const bson_t *doc;
    bson_iter_t length, chunk;
    bson_error_t error;
    while (mongoc_cursor_next(cursor, &doc))
        if (bson_iter_init_find(&length, doc, "length") && bson_iter_init_find(&chunk, doc, "chunkSize") &&
            bson_iter_as_int64(&chunk) > 0)
            *n = (bson_iter_as_int64(&length) + bson_iter_as_int64(&chunk) - 1) / bson_iter_as_int64(&chunk);
    return mongoc_cursor_error(cursor, &error) ? media_error_set(f, &error, "cannot look for a file") : 0;
}

int gridfs_remove(struct mongo *mongo, const char *region, const uint8_t id[GRIDFS_ID], const struct op *op,
                  struct fail *f)
{
    bson_oid_t oid;
    bson_oid_init_from_data(&oid, id);
    CLEANUP(bson_destroyp) bson_t *by_id = BCON_NEW("_id", BCON_OID(&oid));
    int64_t n;
    int r = count_chunks(mongo, region, by_id, &n, f);
    r = r < 0 ? r : delete_matching(mongo, region, "files", by_id, op, f);
    /* At least one slice, for chunks whose files document was never written. */
    for (int64_t from = 0; r == 0 && (from == 0 || from < n); from += DELETE_SLICE) {
        CLEANUP(bson_destroyp)
        bson_t *slice = BCON_NEW("files_id", BCON_OID(&oid), "n", "{", "$gte", BCON_INT64(from), "$lt",
                                 BCON_INT64(from + DELETE_SLICE), "}");
        r = delete_matching(mongo, region, "chunks", slice, op, f);
    }
    return r < 0 ? r : delete_matching(mongo, region, "uploads", by_id, op, f);
}
