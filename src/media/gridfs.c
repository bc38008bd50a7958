#include "media/gridfs.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "media/bucket.h"

enum { HEARTBEAT_EVERY_MS = 10000, STEP_MS = 60000 };

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
    u->heartbeat = clock_now_ms();
    int r = bucket_journal(mongo, region, &u->id, filename, op, f);
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

static int keep_lease(struct gridfs_upload *u, const struct op *op, struct fail *f)
{
    if (clock_now_ms() - u->heartbeat < HEARTBEAT_EVERY_MS)
        return 0;
    u->heartbeat = clock_now_ms();
    return bucket_renew(u->mongo, u->region, &u->id, 1, NULL, op, f);
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
    int r = n ? bucket_insert(u->mongo, u->region, "chunks", (const bson_t **)documents, n,
                              "cannot write a chunk", op, f)
              : 0;
    for (size_t i = 0; i < n; i++)
        bson_destroy(documents[i]);
    if (r < 0)
        return r;
    u->sent += (int32_t)n;
    u->fill = 0;
    return keep_lease(u, op, f);
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
    r = bucket_insert(u->mongo, u->region, "files", (const bson_t *[]){document}, 1, "cannot publish a file",
                      op, f);
    if (r < 0)
        return r;
    /* The file is published: an entry that stays behind is dropped by the sweep, which finds the files
     * document. */
    CLEANUP(bson_destroyp) bson_t *entry = BCON_NEW("_id", BCON_OID(&u->id));
    bucket_forget(u->mongo, u->region, entry, op, NULL);
    return 0;
}

/* The number of chunks that a files document promises; 0 when the file does not exist. */
static int promised_chunks(struct mongo *mongo, const char *region, const bson_t *filter, const struct op *op,
                           int64_t *n, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    CLEANUP(media_revision_unrefp) struct media_revision *revision = NULL;
    *n = 0;
    int r =
        bucket_find_one(mongo, region, "files", filter, NULL, &document, "cannot look into GridFS", op, f);
    if (r == 0 && document)
        r = media_revision_parse(document, &revision);
    if (revision && !revision->broken)
        *n = media_revision_chunks(revision);
    return r;
}

int gridfs_remove(struct mongo *mongo, const char *region, const uint8_t id[GRIDFS_ID], const struct op *op,
                  struct fail *f)
{
    bson_oid_t oid;
    bson_oid_init_from_data(&oid, id);
    CLEANUP(bson_destroyp) bson_t *by_id = BCON_NEW("_id", BCON_OID(&oid));
    int64_t n;
    int r = promised_chunks(mongo, region, by_id, op, &n, f);
    r = r < 0 ? r : bucket_delete(mongo, region, "files", by_id, NULL, op, f);
    /* At least one slice, for chunks whose files document was never written. */
    r = r < 0 ? r
              : bucket_delete_chunks(mongo, region, by_id, 0, n < BUCKET_SLICE ? BUCKET_SLICE : n, STEP_MS,
                                     op, f);
    return r < 0 ? r : bucket_forget(mongo, region, by_id, op, f);
}
