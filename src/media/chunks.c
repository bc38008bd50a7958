#include "media/chunks.h"

#include <errno.h>
#include <stdio.h>

#include "media/document.h"
#include "media/media_error.h"
#include "media/mongo_client.h"

enum {
    MESSAGE_MAX = 4 << 20, /* bytes of chunks in one answer: a server cuts it at 16 MiB */
    MESSAGE_CHUNKS = 4096, /* the same for chunks of a few bytes */
};

/* What all messages of one fetch share. */
struct fetch {
    const char *region;
    const struct media_revision *revision;
    struct mongo_collection chunks;
    int64_t next, last; /* the chunk that comes next, and the last one wanted */
    bool gap;           /* the answer goes on without it */
    chunk_take take;
    void *arg;
    const struct op *op;
    struct fail *f;
};

static int damaged(const struct fetch *fetch, int64_t n, const char *what)
{
    char id[96];
    media_revision_id_text(fetch->revision, id, sizeof(id));
    return fail_set(fetch->f, EIO, "the file is damaged: chunk %lld of revision %s %s", (long long)n, id,
                    what);
}

/* What comes behind the chunk that was handed over last says that this one may be wrong. */
static int spoiled(struct fetch *fetch, int64_t n, const char *what)
{
    fetch->take(fetch->arg, fetch->next - 1, NULL, 0);
    return damaged(fetch, n, what);
}

/* Whether the revision's files document is still there. */
static int still_published(struct fetch *fetch, struct mongo *mongo, bool *out)
{
    CLEANUP(mongo_collection_close) struct mongo_collection files = {0};
    int r = mongo_part_open(mongo, fetch->region, "files", &files, fetch->f);
    if (r < 0)
        return r;
    const bson_t *doc;
    bson_error_t error;
    CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(fetch->revision, "_id");
    do {
        CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(fetch->op, 1);
        CLEANUP(mongoc_cursor_destroyp)
        mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(files.handle, filter, opts, NULL);
        *out = mongoc_cursor_next(cursor, &doc);
        if (!mongoc_cursor_error(cursor, &error))
            return 0;
    } while (mongo_try_again(&error, fetch->op));
    return media_error_set(fetch->f, &error, "cannot look for a file");
}

static int missing(struct fetch *fetch)
{
    struct mongo *mongo = fetch->chunks.mongo;
    int64_t n = fetch->next;
    bool published;
    mongo_collection_close(&fetch->chunks); /* the look needs a client, too: never two at a time */
    int r = still_published(fetch, mongo, &published);
    if (r < 0)
        return r;
    if (!published)
        return fail_set(fetch->f, ESTALE, "the file was deleted while it was being read");
    return damaged(fetch, n, "is missing");
}

/* One chunk of the answer: checked, and handed over when it is the one that comes next. */
static int take_chunk(struct fetch *fetch, const bson_t *doc)
{
    bson_iter_t at;
    int64_t n;
    uint32_t len;
    const uint8_t *data;
    if (!media_field(doc, "n", &at) || !media_number(&at, &n))
        return damaged(fetch, fetch->next, "has no whole number");
    if (!media_field(doc, "data", &at) || !BSON_ITER_HOLDS_BINARY(&at))
        return damaged(fetch, n, "has no binary data");
    bson_iter_binary(&at, NULL, &len, &data);
    int64_t chunks = media_revision_chunks(fetch->revision);
    if (n >= chunks && len > 0) {
        static const char what[] = "lies behind the end of the file";
        return fetch->next == chunks ? spoiled(fetch, n, what) : damaged(fetch, n, what);
    }
    if (n >= chunks)
        return 0;
    if (n < fetch->next)
        return spoiled(fetch, n, "is there twice");
    if (n > fetch->next) {
        fetch->gap = true;
        return 0;
    }
    size_t right = media_revision_chunk_len(fetch->revision, n);
    if (len != right)
        return damaged(fetch, n, len < right ? "is too short" : "is too long");
    int r = fetch->take(fetch->arg, n, data, len);
    if (r == 0)
        fetch->next++;
    return r;
}

/* All that came. */
static int take_all(struct fetch *fetch, mongoc_cursor_t *cursor)
{
    const bson_t *doc;
    int r = 0;
    while (r == 0 && !fetch->gap && mongoc_cursor_next(cursor, &doc))
        r = take_chunk(fetch, doc);
    return r;
}

/* One message: some of the chunks from `next` on. */
static int fetch_message(struct fetch *fetch, bson_error_t *error, bool *failed)
{
    int64_t per = MESSAGE_MAX / fetch->revision->chunk_size, until = fetch->last;
    int64_t end = media_revision_chunks(fetch->revision) - 1;
    per = per < 1 ? 1 : per > MESSAGE_CHUNKS ? MESSAGE_CHUNKS : per;
    if (until - fetch->next >= per)
        until = fetch->next + per - 1;
    int64_t wanted = until - fetch->next + 1;
    if (until == end) { /* see whether there is one too many */
        until++;
        wanted++;
    }
    CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(fetch->revision, "files_id");
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(fetch->op, wanted + 1);
    BCON_APPEND(filter, "n", "{", "$gte", BCON_INT64(fetch->next), "$lte", BCON_INT64(until), "}");
    BCON_APPEND(opts, "sort", "{", "n", BCON_INT32(1), "}", "projection", "{", "_id", BCON_INT32(0), "n",
                BCON_INT32(1), "data", BCON_INT32(1), "}");
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(fetch->chunks.handle, filter, opts, NULL);
    int64_t before = fetch->next;
    int r = take_all(fetch, cursor);
    *failed = r == 0 && !fetch->gap && mongoc_cursor_error(cursor, error);
    if (r < 0 || *failed || (!fetch->gap && fetch->next > before))
        return r;
    mongoc_cursor_destroy(STEAL(cursor)); /* before its client is given back */
    return missing(fetch);
}

static int fetch_all(struct fetch *fetch)
{
    while (fetch->next <= fetch->last) {
        bson_error_t error;
        bool failed;
        if (op_interrupted(fetch->op))
            return -EINTR;
        if (op_left_ms(fetch->op) == 0)
            return fail_set(fetch->f, EIO, "MongoDB did not answer in time");
        int r = fetch_message(fetch, &error, &failed);
        if (r < 0)
            return r;
        if (failed && !mongo_try_again(&error, fetch->op))
            return media_error_set(fetch->f, &error, "cannot read a file");
    }
    return 0;
}

int chunks_fetch(struct mongo *mongo, const char *region, const struct media_revision *revision,
                 int64_t first, int64_t last, chunk_take take, void *arg, const struct op *op, struct fail *f)
{
    struct fetch fetch = {.region = region,
                          .revision = revision,
                          .next = first,
                          .last = last,
                          .take = take,
                          .arg = arg,
                          .op = op,
                          .f = f};
    if (revision->broken)
        return fail_set(f, EIO, "the file is damaged: %s", revision->broken);
    int r = mongo_part_open(mongo, region, "chunks", &fetch.chunks, f);
    r = r < 0 ? r : fetch_all(&fetch);
    mongo_collection_close(&fetch.chunks);
    return r;
}
