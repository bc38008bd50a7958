/*
 * The yardstick of writing media: a plain loop of inserts of a file's chunks, 16 at a time, one connection,
 * acknowledged by the majority as campusfs asks for it.
 *
 *     raw_mongo URI BUCKET MIB
 *
 * Prints the seconds that the inserts took; deletes the chunks afterwards.
 */
#include <mongoc/mongoc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { CHUNK = 255 * 1024, BATCH = 16, SLICE = 256 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const bson_error_t *error)
{
    fprintf(stderr, "raw_mongo: %s\n", error->message);
    exit(1);
}

static void insert_batch(mongoc_collection_t *chunks, const bson_oid_t *file, const uint8_t *data, int first,
                         int n, const bson_t *opts)
{
    bson_t *documents[BATCH];
    bson_error_t error;
    for (int i = 0; i < n; i++)
        documents[i] = BCON_NEW("files_id", BCON_OID(file), "n", BCON_INT32(first + i), "data",
                                BCON_BIN(BSON_SUBTYPE_BINARY, data, CHUNK));
    if (!mongoc_collection_insert_many(chunks, (const bson_t **)documents, (size_t)n, opts, NULL, &error))
        die(&error);
    for (int i = 0; i < n; i++)
        bson_destroy(documents[i]);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "Usage: raw_mongo URI BUCKET MIB\n");
        return 64;
    }
    char name[160];
    snprintf(name, sizeof name, "%s.chunks", argv[2]);
    int total = (int)(atoll(argv[3]) * 1024 * 1024 / CHUNK);
    mongoc_init();
    mongoc_client_t *client = mongoc_client_new(argv[1]);
    if (!client)
        return 1;
    mongoc_collection_t *chunks = mongoc_client_get_collection(client, "campusfs", name);
    bson_t *opts = BCON_NEW("ordered", BCON_BOOL(false), "writeConcern", "{", "w", "majority", "j",
                            BCON_BOOL(true), "}");
    uint8_t *data = malloc(CHUNK);
    for (int i = 0; data && i < CHUNK; i++)
        data[i] = (uint8_t)(i * 7919 >> 3);
    bson_oid_t file;
    bson_oid_init(&file, NULL);
    double started = now();
    for (int first = 0; first < total; first += BATCH)
        insert_batch(chunks, &file, data, first, total - first < BATCH ? total - first : BATCH, opts);
    printf("%.3f\n", now() - started);
    for (int first = 0; first < total; first += SLICE) {
        bson_error_t error;
        bson_t *slice = BCON_NEW("files_id", BCON_OID(&file), "n", "{", "$gte", BCON_INT32(first), "$lt",
                                 BCON_INT32(first + SLICE), "}");
        if (!mongoc_collection_delete_many(chunks, slice, NULL, NULL, &error))
            die(&error);
        bson_destroy(slice);
    }
    free(data);
    bson_destroy(opts);
    mongoc_collection_destroy(chunks);
    mongoc_client_destroy(client);
    mongoc_cleanup();
    return 0;
}
