/*
 * The yardsticks of media: what a plain client of libmongoc takes on one connection for the work that a mount
 * does. Writes are acknowledged by the majority's journals, in batches of 16 chunks, and reads come by
 * windows of as many, as a mount asks for them; nothing is hashed, counted, checked or kept.
 *
 *     raw_mongo URI BUCKET write MIB          inserts that many MiB of chunks and a files document; removes
 * them again raw_mongo URI BUCKET read FILENAME      all chunks of its newest revision, thrown away raw_mongo
 * URI BUCKET random FILENAME N  single chunks of it, in random order raw_mongo URI BUCKET first FILENAME N
 * for FILENAME-0 ... -N-1 each: its files document, then its first chunk raw_mongo URI BUCKET list all files
 * documents, projected to what a listing shows
 *
 * Prints one line of JSON: seconds, count (of documents), bytes (of chunks), and of single steps the
 * percentiles.
 */
#include <mongoc/mongoc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sample.h"

enum { CHUNK = 255 * 1024, BATCH = 16, SLICE = 256 };

struct bucket {
    mongoc_collection_t *files, *chunks;
};

/* What a loop has done. */
struct done {
    double seconds;
    int64_t count, bytes;
    int64_t *latency_ns; /* of each of so many steps; NULL = nobody asks */
    size_t steps;
};

static void fail(const bson_error_t *error)
{
    fprintf(stderr, "raw_mongo: %s\n", error->message);
    exit(1);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        abort();
    return memory;
}

/* ---- writing ---- */

static void insert_batch(const struct bucket *to, const bson_oid_t *file, const uint8_t *data, int first,
                         int n, const bson_t *opts)
{
    bson_t *documents[BATCH];
    bson_error_t error;
    for (int i = 0; i < n; i++)
        documents[i] = BCON_NEW("files_id", BCON_OID(file), "n", BCON_INT32(first + i), "data",
                                BCON_BIN(BSON_SUBTYPE_BINARY, data + (size_t)i * CHUNK, CHUNK));
    if (!mongoc_collection_insert_many(to->chunks, (const bson_t **)documents, (size_t)n, opts, NULL, &error))
        fail(&error);
    for (int i = 0; i < n; i++)
        bson_destroy(documents[i]);
}

static void publish(const struct bucket *to, const bson_oid_t *file, int64_t length, const bson_t *opts)
{
    bson_error_t error;
    bson_t *document =
        BCON_NEW("_id", BCON_OID(file), "filename", BCON_UTF8("0/bench"), "length", BCON_INT64(length),
                 "chunkSize", BCON_INT32(CHUNK), "uploadDate", BCON_DATE_TIME(0));
    if (!mongoc_collection_insert_one(to->files, document, opts, NULL, &error))
        fail(&error);
    bson_destroy(document);
}

static void clean_up(const struct bucket *from, const bson_oid_t *file, int chunks)
{
    bson_error_t error;
    bson_t *id = BCON_NEW("_id", BCON_OID(file));
    if (!mongoc_collection_delete_one(from->files, id, NULL, NULL, &error))
        fail(&error);
    bson_destroy(id);
    for (int first = 0; first < chunks; first += SLICE) {
        bson_t *slice = BCON_NEW("files_id", BCON_OID(file), "n", "{", "$gte", BCON_INT32(first), "$lt",
                                 BCON_INT32(first + SLICE), "}");
        if (!mongoc_collection_delete_many(from->chunks, slice, NULL, NULL, &error))
            fail(&error);
        bson_destroy(slice);
    }
}

/* Noise, so that no server makes it smaller. */
static uint8_t *noise(size_t size)
{
    uint8_t *data = allocate(size);
    uint64_t x = 88172645463325252;
    for (size_t i = 0; i < size; i += sizeof(x)) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(data + i, &x, sizeof(x));
    }
    return data;
}

static struct done write_chunks(const struct bucket *to, int64_t mib)
{
    int total = (int)((mib * 1024 * 1024 + CHUNK - 1) / CHUNK);
    uint8_t *data = noise((size_t)BATCH * CHUNK);
    bson_oid_t file;
    bson_oid_init(&file, NULL);
    bson_t *opts = BCON_NEW("writeConcern", "{", "w", BCON_UTF8("majority"), "j", BCON_BOOL(true), "}");
    bson_t *unordered = bson_copy(opts);
    BSON_APPEND_BOOL(unordered, "ordered", false);
    int64_t started = sample_clock_ns();
    for (int first = 0; first < total; first += BATCH)
        insert_batch(to, &file, data, first, total - first < BATCH ? total - first : BATCH, unordered);
    publish(to, &file, (int64_t)total * CHUNK, opts);
    struct done done = {.seconds = (double)(sample_clock_ns() - started) / 1e9,
                        .count = total,
                        .bytes = (int64_t)total * CHUNK};
    clean_up(to, &file, total);
    bson_destroy(opts);
    bson_destroy(unordered);
    free(data);
    return done;
}

/* ---- reading ---- */

/* Reads all documents of one answer; bytes of their data. */
static int64_t drain(mongoc_cursor_t *cursor, int64_t *count)
{
    const bson_t *doc;
    bson_error_t error;
    int64_t bytes = 0;
    while (mongoc_cursor_next(cursor, &doc)) {
        bson_iter_t at;
        uint32_t len = 0;
        const uint8_t *data;
        if (bson_iter_init_find(&at, doc, "data") && BSON_ITER_HOLDS_BINARY(&at))
            bson_iter_binary(&at, NULL, &len, &data);
        bytes += len;
        ++*count;
    }
    if (mongoc_cursor_error(cursor, &error))
        fail(&error);
    mongoc_cursor_destroy(cursor);
    return bytes;
}

/* Chunks first..first+n-1, in order. */
static void read_window(const struct bucket *from, const bson_value_t *file, int64_t first, int64_t n,
                        struct done *done)
{
    bson_t *filter = bson_new();
    bson_append_value(filter, "files_id", -1, file);
    BCON_APPEND(filter, "n", "{", "$gte", BCON_INT64(first), "$lt", BCON_INT64(first + n), "}");
    bson_t *opts = BCON_NEW("sort", "{", "n", BCON_INT32(1), "}", "limit", BCON_INT64(n), "batchSize",
                            BCON_INT64(n), "singleBatch", BCON_BOOL(true));
    done->bytes += drain(mongoc_collection_find_with_opts(from->chunks, filter, opts, NULL), &done->count);
    bson_destroy(filter);
    bson_destroy(opts);
}

/* The newest revision of a name: its id, to be destroyed, and its length. */
static void look_up(const struct bucket *from, const char *filename, bson_value_t *file, int64_t *length)
{
    const bson_t *doc;
    bson_iter_t at;
    bson_t *filter = BCON_NEW("filename", BCON_UTF8(filename));
    bson_t *opts = BCON_NEW("sort", "{", "uploadDate", BCON_INT32(-1), "}", "limit", BCON_INT64(1));
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(from->files, filter, opts, NULL);
    if (!mongoc_cursor_next(cursor, &doc) || !bson_iter_init_find(&at, doc, "_id")) {
        fprintf(stderr, "raw_mongo: there is no %s\n", filename);
        exit(1);
    }
    bson_value_copy(bson_iter_value(&at), file);
    *length = bson_iter_init_find(&at, doc, "length") ? bson_iter_as_int64(&at) : 0;
    mongoc_cursor_destroy(cursor);
    bson_destroy(filter);
    bson_destroy(opts);
}

static struct done read_chunks(const struct bucket *from, const char *filename)
{
    struct done done = {0};
    bson_value_t file;
    int64_t length;
    look_up(from, filename, &file, &length);
    int64_t started = sample_clock_ns();
    for (int64_t first = 0; first * CHUNK < length; first += BATCH)
        read_window(from, &file, first, BATCH, &done);
    done.seconds = (double)(sample_clock_ns() - started) / 1e9;
    bson_value_destroy(&file);
    if (done.bytes != length) {
        fprintf(stderr, "raw_mongo: %s has %lld bytes in its chunks\n", filename, (long long)done.bytes);
        exit(1);
    }
    return done;
}

static struct done read_at_random(const struct bucket *from, const char *filename, size_t times)
{
    bson_value_t file;
    int64_t length;
    look_up(from, filename, &file, &length);
    uint32_t *order = sample_order((size_t)(length / CHUNK), &times, 1);
    struct done done = {.latency_ns = allocate((times + 1) * sizeof(int64_t)), .steps = times};
    int64_t started = sample_clock_ns();
    for (size_t i = 0; i < times; i++) {
        int64_t begun = sample_clock_ns();
        read_window(from, &file, order[i], 1, &done);
        done.latency_ns[i] = sample_clock_ns() - begun;
    }
    done.seconds = (double)(sample_clock_ns() - started) / 1e9;
    bson_value_destroy(&file);
    free(order);
    return done;
}

static struct done read_first(const struct bucket *from, const char *prefix, size_t times)
{
    struct done done = {.latency_ns = allocate((times + 1) * sizeof(int64_t)), .steps = times};
    int64_t started = sample_clock_ns();
    for (size_t i = 0; i < times; i++) {
        char filename[256];
        bson_value_t file;
        int64_t length;
        snprintf(filename, sizeof(filename), "%s-%zu", prefix, i);
        int64_t begun = sample_clock_ns();
        look_up(from, filename, &file, &length);
        read_window(from, &file, 0, 1, &done);
        done.latency_ns[i] = sample_clock_ns() - begun;
        bson_value_destroy(&file);
    }
    done.seconds = (double)(sample_clock_ns() - started) / 1e9;
    return done;
}

static struct done list(const struct bucket *from)
{
    struct done done = {0};
    bson_t all = BSON_INITIALIZER;
    bson_t *opts = BCON_NEW("projection", "{", "filename", BCON_INT32(1), "length", BCON_INT32(1),
                            "uploadDate", BCON_INT32(1), "metadata.mtime", BCON_INT32(1), "}");
    int64_t started = sample_clock_ns();
    drain(mongoc_collection_find_with_opts(from->files, &all, opts, NULL), &done.count);
    done.seconds = (double)(sample_clock_ns() - started) / 1e9;
    bson_destroy(opts);
    return done;
}

static bool run(const struct bucket *bucket, int argc, char **argv, struct done *done)
{
    const char *what = argv[3];
    if (strcmp(what, "write") == 0 && argc == 5)
        *done = write_chunks(bucket, atoll(argv[4]));
    else if (strcmp(what, "read") == 0 && argc == 5)
        *done = read_chunks(bucket, argv[4]);
    else if (strcmp(what, "random") == 0 && argc == 6)
        *done = read_at_random(bucket, argv[4], (size_t)atoll(argv[5]));
    else if (strcmp(what, "first") == 0 && argc == 6)
        *done = read_first(bucket, argv[4], (size_t)atoll(argv[5]));
    else if (strcmp(what, "list") == 0 && argc == 4)
        *done = list(bucket);
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    char files[160], chunks[160];
    struct done done;
    bool known = argc >= 4;
    if (known) {
        mongoc_init();
        mongoc_client_t *client = mongoc_client_new(argv[1]);
        if (!client)
            return 1;
        snprintf(files, sizeof(files), "%s.files", argv[2]);
        snprintf(chunks, sizeof(chunks), "%s.chunks", argv[2]);
        struct bucket bucket = {mongoc_client_get_collection(client, "campusfs", files),
                                mongoc_client_get_collection(client, "campusfs", chunks)};
        known = run(&bucket, argc, argv, &done);
        mongoc_collection_destroy(bucket.files);
        mongoc_collection_destroy(bucket.chunks);
        mongoc_client_destroy(client);
        mongoc_cleanup();
    }
    if (!known) {
        fprintf(
            stderr,
            "Usage: raw_mongo URI BUCKET write MIB | read FILENAME | random FILENAME N | first FILENAME N "
            "| list\n");
        return 64;
    }
    printf("{\"seconds\": %.6f, \"count\": %lld, \"bytes\": %lld", done.seconds, (long long)done.count,
           (long long)done.bytes);
    if (done.latency_ns) {
        printf(", ");
        sample_print(stdout, done.latency_ns, done.steps);
    }
    printf("}\n");
    free(done.latency_ns);
    return 0;
}
