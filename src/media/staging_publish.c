/*
 * Publishing: every chunk of the new revision under its id, all counted, and then the insert of the files
 * document, which is the switch.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "media/chunks.h"
#include "media/content_type.h"
#include "media/document.h"
#include "media/staging_private.h"

enum {
    HASH_CHUNKS = 256, /* chunks hashed within one step */
    RIVALS_MAX = 64,   /* revisions that were published at the same time */
};

/* What a publication goes by. */
struct publication {
    struct staged *s;
    const struct staged_meta *meta;
    struct op op; /* interrupted when the caller is abandoned, and not any more after the switch */
    struct fail *f;
    int64_t chunks;
    size_t tail; /* bytes of the last chunk, 0 = it is whole */
    char sha256[65];
    /* The newest revision of the name, as the database has it just before the switch; a reference, NULL =
     * none. And its metadata, owned, NULL = none: they are kept, but for what follows from the content. */
    struct media_revision *previous;
    bson_t *inherited;
};

static struct op step_of(const struct publication *p)
{
    return op_step(&p->op, p->s->staging->options.step_ms);
}

static bool is_somewhere(struct staged *s, int64_t n)
{
    pthread_mutex_lock(&s->lock);
    bool is = staged_slot(s, n) || spans_has(&s->sent, n);
    pthread_mutex_unlock(&s->lock);
    return is;
}

static bool in_memory(struct staged *s, int64_t n)
{
    pthread_mutex_lock(&s->lock);
    bool is = staged_slot(s, n) != NULL;
    pthread_mutex_unlock(&s->lock);
    return is;
}

/* Each message within a step. */
static int wait_sent(struct publication *p)
{
    struct op step = step_of(p);
    int r = staged_wait_sending(p->s, GRIDFS_BATCH, &step, p->f); /* more than a batch are two messages */
    step = step_of(p);
    return r < 0 ? r : staged_wait_sent(p->s, &step, p->f);
}

/* Copies what is the base's or a hole, sent by the batch meanwhile; and has the last chunk in memory unless
 * it is whole, since it is sent by its true length. */
static int complete(struct publication *p)
{
    struct staged *s = p->s;
    struct buffer *buffer;
    int r = 0;
    for (int64_t n = 0; r == 0 && n < p->chunks; n++) {
        struct op step = step_of(p);
        if (op_interrupted(&step))
            r = -EINTR;
        else if (!is_somewhere(s, n))
            r = staged_open_slot(s, n, staged_chunk_len(s, n), &step, &buffer, p->f);
    }
    if (r == 0)
        r = wait_sent(p);
    struct op step = step_of(p);
    if (r == 0 && p->tail && !in_memory(s, p->chunks - 1))
        r = staged_open_slot(s, p->chunks - 1, p->tail, &step, &buffer, p->f);
    return r < 0 ? r : wait_sent(p); /* memory may have been short */
}

/* Sends the rest here. A last chunk that is not whole stays in memory: if this fails, it may still grow. */
static int send_rest(struct publication *p)
{
    struct staged *s = p->s;
    struct buffer *buffers[SLOTS_MAX];
    pthread_mutex_lock(&s->lock);
    size_t n = s->nslots;
    memcpy(buffers, s->slots, n * sizeof(*buffers));
    pthread_mutex_unlock(&s->lock);
    struct op step = step_of(p);
    int r = staging_send(s, buffers, n, p->tail, &step, p->f);
    if (r < 0)
        return r;
    n -= p->tail && n > 0;
    return staged_sent(s, buffers, n, 0);
}

static int hash_chunk(void *arg, int64_t n, const void *data, size_t len)
{
    struct staged *s = arg;
    if (!EVP_DigestUpdate(s->sha256, data, len))
        return -EIO;
    s->hashed = n + 1;
    return 0;
}

/* Reads back what was not hashed on its way; the last chunk, where not whole, is hashed apart. */
static int hash_rest(struct publication *p)
{
    struct staged *s = p->s;
    int64_t whole = p->chunks - (p->tail > 0);
    int r = 0;
    if (s->rehash)
        s->hashed = 0;
    if (s->hashed == 0)
        r = staged_hash_begin(s);
    s->rehash = false;
    while (r == 0 && s->hashed < whole) {
        int64_t last = whole - s->hashed < HASH_CHUNKS ? whole : s->hashed + HASH_CHUNKS;
        struct op step = step_of(p);
        r = chunks_fetch(s->staging->mongo, s->region, s->own, s->hashed, last - 1, hash_chunk, s, &step,
                         p->f);
    }
    return r;
}

static int checksum(struct publication *p)
{
    struct staged *s = p->s;
    uint8_t sum[EVP_MAX_MD_SIZE];
    int r = hash_rest(p);
    if (r < 0)
        return r;
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    bool done = copy && EVP_MD_CTX_copy_ex(copy, s->sha256);
    if (done && p->tail) {
        pthread_mutex_lock(&s->lock);
        struct buffer *buffer = staged_slot(s, p->chunks - 1);
        done = buffer && EVP_DigestUpdate(copy, buffer_data(buffer), p->tail);
        pthread_mutex_unlock(&s->lock);
    }
    done = done && EVP_DigestFinal_ex(copy, sum, NULL);
    EVP_MD_CTX_free(copy);
    for (size_t i = 0; done && i < 32; i++)
        snprintf(p->sha256 + 2 * i, 3, "%02x", sum[i]);
    return done ? 0 : fail_set(p->f, ENOMEM, "cannot compute a checksum");
}

/* Chunks that a longer version of the file had. */
static int delete_behind(struct publication *p, const bson_t *id)
{
    struct staged *s = p->s;
    int64_t end = s->touched.n ? s->touched.list[s->touched.n - 1].to : 0;
    s->counted = s->counted < p->chunks ? s->counted : p->chunks;
    int r = bucket_delete_chunks(s->staging->mongo, s->region, id, p->chunks, end,
                                 s->staging->options.step_ms, &p->op, p->f);
    return r < 0 ? r : spans_remove(&s->touched, p->chunks, end);
}

void staged_count_ahead(struct staged *s, const struct op *op)
{
    int64_t from = s->counted, to = from + BUCKET_SLICE, count = 0;
    pthread_mutex_lock(&s->lock);
    bool due = !s->miscounted && !s->failed && spans_cover(&s->sent, from, to);
    pthread_mutex_unlock(&s->lock);
    if (!due || !staging_may_count(s->staging))
        return;
    CLEANUP(bson_destroyp) bson_t *id = staged_id(s);
    struct op half = op_within(op_left_ms(op) / 2);
    int r = bucket_count_chunks(s->staging->mongo, s->region, id, from, to, op_left_ms(&half), &half, &count,
                                NULL);
    staging_has_counted(s->staging);
    if (r == 0 && count == to - from)
        s->counted = to;
    else
        s->miscounted = true;
}

/* All chunks are there. What was counted ahead still is: hold_lease() comes after this, and a sweep takes the
 * lease away first. */
static int verify(struct publication *p, const bson_t *id)
{
    struct staged *s = p->s;
    int64_t count, known = s->counted;
    int r = bucket_count_chunks(s->staging->mongo, s->region, id, known, p->chunks,
                                s->staging->options.step_ms, &p->op, &count, p->f);
    if (r == 0 && known + count != p->chunks)
        return fail_set(p->f, EIO, "of %lld chunks that MongoDB acknowledged it has %lld",
                        (long long)p->chunks, (long long)(known + count));
    return r;
}

/* ---- the files document ---- */

/* The first bytes of the new revision: how many of CONTENT_TYPE_BYTES; 0 where they cannot be had. */
static size_t read_head(struct publication *p, uint8_t *out)
{
    struct staged *s = p->s;
    size_t len = staged_chunk_len(s, 0);
    struct op step = step_of(p);
    len = len < CONTENT_TYPE_BYTES ? len : CONTENT_TYPE_BYTES;
    pthread_mutex_lock(&s->lock);
    struct buffer *buffer = staged_slot(s, 0);
    if (buffer)
        memcpy(out, buffer_data(buffer), len);
    pthread_mutex_unlock(&s->lock);
    return buffer || staged_load(s, 0, out, len, &step, NULL) == 0 ? len : 0;
}

/* A type that cannot be found out fails no upload. */
static void append_content_type(struct publication *p, bson_t *metadata)
{
    char type[CONTENT_TYPE_MAX + 1];
    uint8_t *head = malloc(CONTENT_TYPE_BYTES);
    if (head && content_type_of(head, read_head(p, head), type))
        BSON_APPEND_UTF8(metadata, "contentType", type);
    free(head);
}

/* Fields of the metadata that follow from the content or are given anew. */
static bool is_given_anew(const char *key)
{
    static const char *const keys[] = {"schema", "courseId", "durationMs", "mtime",
                                       "mode",   "owner",    "sha256",     "revision"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

/* Whether somebody chose the content type, whatever the bytes are. */
static bool has_given_type(const bson_t *metadata)
{
    bson_iter_t at;
    return media_field(metadata, "contentTypeGiven", &at) && BSON_ITER_HOLDS_BOOL(&at) &&
           bson_iter_bool(&at) && media_field(metadata, "contentType", &at) && BSON_ITER_HOLDS_UTF8(&at);
}

/* The metadata of a files document, as a copy; NULL for none. */
static bson_t *metadata_of(const bson_t *document)
{
    bson_iter_t at;
    const uint8_t *data;
    uint32_t len;
    if (!media_field(document, "metadata", &at) || !BSON_ITER_HOLDS_DOCUMENT(&at))
        return NULL;
    bson_iter_document(&at, &len, &data);
    return bson_new_from_data(data, len);
}

/* The revision that is to be replaced. The database is asked, whatever this mount knows: others have
 * published meanwhile, and their clocks differ. */
static int read_previous(struct publication *p)
{
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("filename", BCON_UTF8(p->meta->filename));
    CLEANUP(bson_destroyp)
    bson_t *newest = BCON_NEW("sort", "{", "uploadDate", BCON_INT32(-1), "_id", BCON_INT32(-1), "}");
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    struct op step = step_of(p);
    int r = bucket_find_one(p->s->staging->mongo, p->s->region, "files", filter, newest, &document,
                            "cannot look into GridFS", &step, p->f);
    if (r < 0 || !document)
        return r;
    p->inherited = metadata_of(document);
    return media_revision_parse(document, &p->previous);
}

/* Title, language, what other programs put there. */
static void inherit(const bson_t *previous, bool given_type, bson_t *metadata)
{
    bson_iter_t at;
    if (!previous || !bson_iter_init(&at, previous))
        return;
    while (bson_iter_next(&at)) {
        const char *key = bson_iter_key(&at);
        bool type = strcmp(key, "contentType") == 0 || strcmp(key, "contentTypeGiven") == 0;
        if (!is_given_anew(key) && (given_type || !type))
            bson_append_iter(metadata, NULL, -1, &at);
    }
}

static void make_metadata(struct publication *p, bson_t *metadata)
{
    const struct staged_meta *meta = p->meta;
    bool given_type = p->inherited && has_given_type(p->inherited);
    bson_t owner;
    inherit(p->inherited, given_type, metadata);
    BSON_APPEND_INT32(metadata, "schema", GRIDFS_SCHEMA);
    BSON_APPEND_INT64(metadata, "courseId", meta->course_id);
    if (!given_type)
        append_content_type(p, metadata);
    BSON_APPEND_INT64(metadata, "revision",
                      p->previous && p->previous->number >= meta->number ? p->previous->number + 1
                                                                         : meta->number);
    BSON_APPEND_INT64(metadata, "mtime", meta->mtime_ns);
    BSON_APPEND_INT32(metadata, "mode", (int32_t)(meta->mode & 07777));
    BSON_APPEND_DOCUMENT_BEGIN(metadata, "owner", &owner);
    BSON_APPEND_INT64(&owner, "uid", meta->uid);
    BSON_APPEND_INT64(&owner, "gid", meta->gid);
    bson_append_document_end(metadata, &owner);
    BSON_APPEND_UTF8(metadata, "sha256", p->sha256);
}

/* The newest of its name, whatever other clocks say. */
static int64_t upload_date(const struct publication *p)
{
    int64_t now = bucket_now_ms(), last = p->previous ? p->previous->uploaded_ms : INT64_MIN;
    return last >= now && last < INT64_MAX ? last + 1 : now;
}

static int make_document(struct publication *p, bson_t **out)
{
    CLEANUP(bson_destroyp) bson_t *metadata = bson_new();
    int r = read_previous(p);
    if (r < 0)
        return r;
    make_metadata(p, metadata);
    *out = BCON_NEW("_id", BCON_OID(&p->s->id), "length", BCON_INT64(p->s->length), "chunkSize",
                    BCON_INT32(GRIDFS_CHUNK), "uploadDate", BCON_DATE_TIME(upload_date(p)), "filename",
                    BCON_UTF8(p->meta->filename), "metadata", BCON_DOCUMENT(metadata));
    return 0;
}

/*
 * What was saved of the former revision (media/meta.h) between being read and the switch is the new one's,
 * too, unless something has been saved of that already. Who saves looks for a new revision afterwards: so one
 * of the two sees the other. The file is published, whatever becomes of this.
 */
static void catch_up(struct publication *p, const bson_t *id)
{
    CLEANUP(bson_destroyp) bson_t *of_previous = media_id_filter(p->previous, "_id");
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    struct op step = step_of(p);
    bucket_find_one(p->s->staging->mongo, p->s->region, "files", of_previous, NULL, &document,
                    "cannot look into GridFS", &step, NULL);
    CLEANUP(bson_destroyp) bson_t *now = metadata_of(document);
    bson_iter_t was_at, at;
    bool had = media_field(p->inherited, "updatedAt", &was_at);
    if (!media_field(now, "updatedAt", &at) || (had && bson_iter_type(&was_at) == bson_iter_type(&at) &&
                                                bson_iter_date_time(&was_at) == bson_iter_date_time(&at)))
        return;
    CLEANUP(bson_destroyp) bson_t *filter = bson_copy(id);
    CLEANUP(bson_destroyp) bson_t *metadata = bson_new();
    if (had)
        media_where(filter, "metadata.updatedAt", &was_at);
    else
        BCON_APPEND(filter, "metadata.updatedAt", "{", "$exists", BCON_BOOL(false), "}");
    bson_t *before = p->inherited;
    p->inherited = now;
    make_metadata(p, metadata);
    p->inherited = before;
    CLEANUP(bson_destroyp) bson_t *update = BCON_NEW("$set", "{", "metadata", BCON_DOCUMENT(metadata), "}");
    step = step_of(p);
    bucket_update(p->s->staging->mongo, p->s->region, "files", filter, update, false, NULL, "", &step, NULL);
}

/* ---- the switch ---- */

/*
 * It has failed for good, and its chunks are the sweep's, which goes by what the files say then: the file may
 * become visible yet, or be swept.
 */
static int fail_for_good(struct publication *p, int r)
{
    struct staged *s = p->s;
    fail_set(p->f, -r, "cannot publish a file");
    pthread_mutex_lock(&s->lock);
    s->unsure = true;
    s->failed = -r;
    s->why = *p->f;
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* Right before the switch: whoever sweeps has to wait for longer than the switch may take. */
static int hold_lease(struct publication *p)
{
    struct staged *s = p->s;
    struct op step = step_of(p);
    int64_t held = 0;
    if (!s->journalled) /* empty: there is nothing to be swept */
        return 0;
    int r = bucket_renew(s->staging->mongo, s->region, &s->id, 1, &held, &step, p->f);
    __atomic_store_n(&s->heartbeat, clock_now_ms(), __ATOMIC_RELEASE);
    return r == 0 && held != 1 ? fail_set(p->f, EIO, "%s", STAGED_LEASE_LOST) : r;
}

/* Whether a sweep has come before the switch in spite of the lease, as after a sleep of this machine: the
 * journal's entry is claimed, or gone together with chunks. */
static bool was_swept(struct publication *p, const bson_t *id)
{
    struct mongo *mongo = p->s->staging->mongo;
    CLEANUP(bson_destroyp) bson_t *entry = NULL;
    struct op step = step_of(p);
    int64_t count;
    bool held;
    /* an entry that stays is dropped by the sweep, which finds the files document */
    if (bucket_published(mongo, p->s->region, id, &held, &step, NULL) < 0 || held)
        return false;
    step = step_of(p);
    if (bucket_find_one(mongo, p->s->region, "uploads", id, NULL, &entry, "cannot look into GridFS", &step,
                        NULL) < 0 ||
        entry)
        return entry;
    return bucket_count_chunks(mongo, p->s->region, id, 0, p->chunks, p->s->staging->options.step_ms, &p->op,
                               &count, NULL) == 0 &&
           count != p->chunks;
}

/* Drops the journal's entry. A file whose chunks were swept is taken back: the one before is the file again.
 */
static int confirm(struct publication *p, const bson_t *id)
{
    if (!p->s->journalled || !was_swept(p, id))
        return 0;
    struct op step = step_of(p);
    bucket_delete(p->s->staging->mongo, p->s->region, "files", id, NULL, &step, NULL);
    return fail_for_good(p, fail_set(p->f, EIO, "%s", STAGED_LEASE_LOST));
}

/* Whether a files document has this program's metadata, of any schema. */
static bool is_ours(const bson_t *document)
{
    bson_iter_t at;
    return bson_iter_init(&at, document) && bson_iter_find_descendant(&at, "metadata.schema", &at);
}

/* Of the revisions of the name that were published since the one that was replaced, this included: ours, but
 * for the newest. *n how many, at most `max`. */
static void list_outdated(struct publication *p, struct media_revision **list, size_t max, size_t *n)
{
    struct staged *s = p->s;
    CLEANUP(mongo_collection_close) struct mongo_collection files = {0};
    *n = 0;
    if (mongo_part_open(s->staging->mongo, s->region, "files", &files, NULL) < 0)
        return;
    struct op step = step_of(p);
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("filename", BCON_UTF8(p->meta->filename));
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(&step, (int64_t)max + 1);
    if (p->previous)
        BCON_APPEND(filter, "uploadDate", "{", "$gte", BCON_DATE_TIME(p->previous->uploaded_ms), "}");
    BCON_APPEND(opts, "sort", "{", "uploadDate", BCON_INT32(-1), "_id", BCON_INT32(-1), "}");
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(files.handle, filter, opts, NULL);
    const bson_t *document;
    for (bool newest = true; *n < max && mongoc_cursor_next(cursor, &document); newest = false)
        if (!newest && is_ours(document) && media_revision_parse(document, &list[*n]) == 0)
            ++*n;
}

/*
 * Two that publish one name at a time replace the same revision, and do not know of each other. Each looks
 * after its entry has left the journal, so at least one of them sees both, and retires what is not the
 * newest. The file is published, whatever becomes of this.
 */
static void retire_outdated(struct publication *p)
{
    struct media_revision *list[RIVALS_MAX];
    size_t n;
    list_outdated(p, list, RIVALS_MAX, &n);
    for (size_t i = 0; i < n; i++) {
        struct op step = step_of(p);
        if (!p->previous || !media_revision_same(list[i], p->previous))
            bucket_retire_once(p->s->staging->mongo, p->s->region, list[i], &step, NULL);
        media_revision_unref(list[i]);
    }
}

/* It is the base from now on; the next change begins another revision. */
static void becomes_base(struct staged *s, struct media_revision *revision)
{
    if (s->journalled)
        staging_count(s->staging, -1);
    __atomic_store_n(&s->heartbeat, 0, __ATOMIC_RELEASE);
    s->journalled = false;
    staged_drop_slots(s, 0, INT64_MAX);
    spans_clear(&s->sent);
    spans_clear(&s->touched);
    spans_clear(&s->holes);
    media_revision_unref(s->own);
    s->own = NULL;
    s->hashed = 0;
    s->rehash = false;
    s->counted = 0;
    s->miscounted = false;
    media_revision_unref(s->base);
    s->base = media_revision_ref(revision);
    s->base_end = s->length;
}

static int switch_over(struct publication *p, struct media_revision **published)
{
    struct staged *s = p->s;
    struct mongo *mongo = s->staging->mongo;
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    CLEANUP(media_revision_unrefp) struct media_revision *revision = NULL;
    bool unsure = false;
    int r = make_document(p, &document);
    if (r == 0)
        r = media_revision_parse(document, &revision);
    struct op step = step_of(p);
    if (r == 0 && p->previous)
        r = bucket_retire(mongo, s->region, p->previous, &step, p->f);
    if (r == 0)
        r = hold_lease(p);
    if (r == 0 && op_interrupted(&p->op))
        r = -EINTR;
    p->op.interrupted = p->op.abandoned = NULL; /* from here on nobody would know what became of it */
    step = step_of(p);
    if (r == 0)
        r = bucket_insert_file(mongo, s->region, document, &unsure, &step, p->f);
    if (r < 0)
        return unsure ? fail_for_good(p, r) : r;
    CLEANUP(bson_destroyp) bson_t *id = staged_id(s);
    r = confirm(p, id);
    if (r < 0)
        return r;
    if (p->previous)
        catch_up(p, id);
    retire_outdated(p);
    becomes_base(s, revision);
    *published = STEAL(revision);
    return 0;
}

/* ---- all of it ---- */

static int publish(struct publication *p, struct media_revision **published)
{
    struct staged *s = p->s;
    int r = wait_sent(p);
    if (r == 0)
        r = complete(p);
    if (r == 0)
        r = send_rest(p);
    if (r == 0 && !s->journalled) /* empty: there is nothing to be swept */
        bson_oid_init(&s->id, NULL);
    if (r == 0)
        r = checksum(p);
    CLEANUP(bson_destroyp) bson_t *id = staged_id(s);
    if (r == 0 && s->journalled)
        r = delete_behind(p, id);
    if (r == 0 && s->journalled)
        r = verify(p, id);
    return r < 0 ? r : switch_over(p, published);
}

int staged_publish(struct staged *s, const struct staged_meta *meta, const struct op *op,
                   struct media_revision **published, struct fail *f)
{
    int r = staged_enter(s, op, f);
    if (r < 0)
        return r;
    struct publication p = {.s = s,
                            .meta = meta,
                            .op = {.interrupted = op->abandoned,
                                   .arg = op->waiter,
                                   .abandoned = op->abandoned,
                                   .waiter = op->waiter},
                            .f = f,
                            .chunks = (s->length + GRIDFS_CHUNK - 1) / GRIDFS_CHUNK,
                            .tail = (size_t)(s->length % GRIDFS_CHUNK)};
    r = publish(&p, published);
    if (r < 0 && op_interrupted(&p.op)) { /* whichever wait it was that ended so */
        *f = (struct fail){0};
        r = fail_set(f, EINTR, "given up: whoever closed the file was killed, or the mount has ended");
    }
    bson_destroy(p.inherited);
    media_revision_unref(p.previous);
    staged_leave(s);
    return r;
}
