/*
 * Sending: chunks of a staged file under its new id. A chunk that was never sent before is inserted, as the
 * document that its buffer is; one that was is replaced, which nobody but its writer can see.
 */
#include <errno.h>
#include <string.h>

#include "media/document.h"
#include "media/media_error.h"
#include "media/staging_private.h"

bson_t *staged_id(const struct staged *s)
{
    return BCON_NEW("_id", BCON_OID(&s->id));
}

/* How the chunks of the id are read: a revision that is never published, and has no end. */
static int own_revision(struct staged *s)
{
    CLEANUP(bson_destroyp)
    bson_t *document = BCON_NEW("_id", BCON_OID(&s->id), "length", BCON_INT64(GRIDFS_LENGTH_MAX), "chunkSize",
                                BCON_INT32(GRIDFS_CHUNK));
    return media_revision_parse(document, &s->own);
}

/* The new id, and its entry in the journal: before anything else of it is in the database. */
static int begin(struct staged *s, const struct op *op, struct fail *f)
{
    if (s->journalled)
        return 0;
    bson_oid_init(&s->id, NULL);
    int r = own_revision(s);
    if (r == 0)
        r = bucket_journal(s->staging->mongo, s->region, &s->id, s->filename, op, f);
    if (r < 0) {
        media_revision_unref(s->own);
        s->own = NULL;
        return r;
    }
    s->journalled = true;
    __atomic_store_n(&s->heartbeat, clock_now_ms(), __ATOMIC_RELEASE);
    staging_count(s->staging, 1);
    return 0;
}

static void put_int32(uint8_t **at, int32_t value)
{
    uint32_t little = BSON_UINT32_TO_LE((uint32_t)value);
    memcpy(*at, &little, sizeof(little));
    *at += sizeof(little);
}

static void put_bytes(uint8_t **at, const void *bytes, size_t len)
{
    memcpy(*at, bytes, len);
    *at += len;
}

/* Makes the buffer the document {_id, files_id, n, data}; the data lie where they are. */
static void as_document(struct staged *s, struct buffer *buffer, size_t len, bson_t *out)
{
    bson_oid_t id;
    bson_oid_init(&id, NULL);
    uint8_t *at = buffer->raw;
    size_t total = CHUNK_HEAD + len + 1;
    put_int32(&at, (int32_t)total);
    put_bytes(&at, "\x07_id", 5);
    put_bytes(&at, id.bytes, sizeof(id.bytes));
    put_bytes(&at,
              "\x07"
              "files_id",
              10);
    put_bytes(&at, s->id.bytes, sizeof(s->id.bytes));
    put_bytes(&at, "\x10n", 3);
    put_int32(&at, (int32_t)buffer->n);
    put_bytes(&at,
              "\x05"
              "data",
              6);
    put_int32(&at, (int32_t)len);
    *at = BSON_SUBTYPE_BINARY;
    buffer->raw[total - 1] = 0;
    bson_init_static(out, buffer->raw, total);
}

static int insert(struct staged *s, struct buffer **buffers, const size_t *lens, size_t n,
                  const struct op *op, struct fail *f)
{
    bson_t documents[SLOTS_MAX];
    const bson_t *list[SLOTS_MAX];
    for (size_t i = 0; i < n; i++) {
        as_document(s, buffers[i], lens[i], &documents[i]);
        list[i] = &documents[i];
    }
    return n ? bucket_insert(s->staging->mongo, s->region, "chunks", list, n, "cannot write chunks", op, f)
             : 0;
}

static int replace(struct staged *s, struct buffer *buffer, size_t len, const struct op *op, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *id = staged_id(s);
    CLEANUP(bson_destroyp)
    bson_t *filter = BCON_NEW("files_id", BCON_OID(&s->id), "n", BCON_INT32((int32_t)buffer->n));
    CLEANUP(bson_destroyp)
    bson_t *data =
        BCON_NEW("$set", "{", "data", BCON_BIN(BSON_SUBTYPE_BINARY, buffer_data(buffer), (uint32_t)len), "}");
    return bucket_update(s->staging->mongo, s->region, "chunks", filter, data, true, NULL,
                         "cannot write a chunk", op, f);
}

void buffers_sort(struct buffer **buffers, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct buffer *buffer = buffers[i];
        size_t j = i;
        for (; j > 0 && buffers[j - 1]->n > buffer->n; j--)
            buffers[j] = buffers[j - 1];
        buffers[j] = buffer;
    }
}

int staged_hash_begin(struct staged *s)
{
    if (!s->sha256 && !(s->sha256 = EVP_MD_CTX_new()))
        return -ENOMEM;
    return EVP_DigestInit_ex(s->sha256, EVP_sha256(), NULL) ? 0 : -ENOMEM;
}

/* Hashes what comes next in order, as far as it is whole; what is changed afterwards is hashed anew. */
static int hash_in_order(struct staged *s, struct buffer **buffers, size_t n)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (buffers[i]->hashed || buffers[i]->n != s->hashed || buffers[i]->len != GRIDFS_CHUNK)
            continue;
        if (s->hashed == 0)
            r = staged_hash_begin(s);
        if (r == 0 && !EVP_DigestUpdate(s->sha256, buffer_data(buffers[i]), GRIDFS_CHUNK))
            r = -EIO;
        if (r == 0)
            __atomic_store_n(&s->hashed, s->hashed + 1, __ATOMIC_RELAXED);
    }
    return r;
}

int staged_hash_ahead(struct staged *s)
{
    struct buffer *buffers[SLOTS_MAX];
    size_t n = 0;
    bool ours = true;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->nslots; i++) {
        if (!s->slots[i]->sending)
            buffers[n++] = s->slots[i];
        else
            ours = ours && s->slots[i]->hashed;
    }
    pthread_mutex_unlock(&s->lock);
    if (!ours)
        return 0;
    buffers_sort(buffers, n);
    int r = hash_in_order(s, buffers, n);
    for (size_t i = 0; i < n; i++)
        buffers[i]->hashed = true;
    return r;
}

int staging_send(struct staged *s, struct buffer **buffers, size_t n, size_t tail, const struct op *op,
                 struct fail *f)
{
    struct buffer *fresh[SLOTS_MAX], *again[SLOTS_MAX];
    size_t fresh_lens[SLOTS_MAX], again_lens[SLOTS_MAX], nfresh = 0, nagain = 0;
    if (n == 0)
        return 0;
    int r = begin(s, op, f);
    buffers_sort(buffers, n);
    if (r == 0)
        r = hash_in_order(s, buffers, n);
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct buffer *buffer = buffers[i];
        size_t len = tail && i == n - 1 ? tail : GRIDFS_CHUNK;
        buffer->hashed = true;
        if (buffer->len < len)
            memset(buffer_data(buffer) + buffer->len, 0, len - buffer->len);
        bool known = spans_has(&s->touched, buffer->n);
        (known ? again : fresh)[known ? nagain : nfresh] = buffer;
        (known ? again_lens : fresh_lens)[known ? nagain++ : nfresh++] = len;
        r = spans_add(&s->touched, buffer->n, buffer->n + 1);
    }
    pthread_mutex_unlock(&s->lock);
    if (r == 0)
        r = insert(s, fresh, fresh_lens, nfresh, op, f);
    for (size_t i = 0; r == 0 && i < nagain; i++)
        r = replace(s, again[i], again_lens[i], op, f);
    return r < 0 ? fail_set(f, -r, "out of memory") : 0;
}

int staged_sent(struct staged *s, struct buffer **buffers, size_t n, int r)
{
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < n && r == 0; i++)
        r = spans_add(&s->sent, buffers[i]->n, buffers[i]->n + 1);
    for (size_t i = 0; i < n; i++)
        staged_drop_slot(s, buffers[i]);
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < n; i++)
        buffer_put(s->staging, buffers[i]);
    if (r == 0)
        __atomic_add_fetch(&s->staging->sent, n * (uint64_t)GRIDFS_CHUNK, __ATOMIC_RELAXED);
    return r;
}
