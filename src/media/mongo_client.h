/*
 * The driver's side of the pool, for the other files of media/ only: clients, which belong to one thread at a
 * time and speak error API 2, and cleanups for what is made with them.
 */
#pragma once

#include <mongoc/mongoc.h>

#include "media/mongo.h"

/* Takes a client, to be given back with mongo_push() after its cursors are gone; -EIO when none became free.
 */
int mongo_pop(struct mongo *mongo, mongoc_client_t **out, struct fail *f);
/* NULL is allowed. */
void mongo_push(struct mongo *mongo, mongoc_client_t *client);

/*
 * A client outside any pool, whose waits end by the op's deadline; *database is a copy of the database's
 * name. The caller frees both (mongoc_client_destroy, free).
 */
int mongo_client(const char *uri, const struct op *op, mongoc_client_t **out, char **database,
                 struct fail *f);

/*
 * One more connection to the pool's server, beside the pool, no answer of which takes longer than `wait_ms`;
 * for a thread that is to keep one to itself. The caller frees it (mongoc_client_destroy).
 */
int mongo_own_client(struct mongo *mongo, int64_t wait_ms, mongoc_client_t **out, struct fail *f);

/* What bucket_server_ms() knows of the server's clock. */
struct mongo_clock {
    pthread_mutex_t lock; /* guards all below */
    int64_t server_ms;    /* since the epoch, when it was told */
    int64_t told_at;      /* CLOCK_BOOTTIME in milliseconds; 0 = never */
};
struct mongo_clock *mongo_clock_of(struct mongo *mongo);

/* A collection of the pool's database and the client it was got from. Zero-initialised is none. */
struct mongo_collection {
    struct mongo *mongo;
    mongoc_client_t *client;
    mongoc_collection_t *handle;
};
/* Pops a client for one collection; the caller closes it soon, for nobody else has that client meanwhile. */
int mongo_collection_open(struct mongo *mongo, const char *name, struct mongo_collection *out,
                          struct fail *f);
void mongo_collection_close(struct mongo_collection *collection);
/* The same for a part of a region's GridFS bucket, media_<region>.<part>: files, chunks, ... */
int mongo_part_open(struct mongo *mongo, const char *region, const char *part, struct mongo_collection *out,
                    struct fail *f);

/* Whether a failed step may be tried again: a transient error, and time is left. Waits 50 ms when so. */
bool mongo_try_again(const bson_error_t *error, const struct op *op);

/* Options of a find whose answer of at most `limit` documents (0 = all that fit) comes in one message, within
 * the op's deadline. The caller's to destroy, and to add to. */
bson_t *mongo_find_options(const struct op *op, int64_t limit);

DEFINE_CLEANUP(mongoc_client_t, mongoc_client_destroy)
DEFINE_CLEANUP(mongoc_database_t, mongoc_database_destroy)
DEFINE_CLEANUP(mongoc_collection_t, mongoc_collection_destroy)
DEFINE_CLEANUP(mongoc_cursor_t, mongoc_cursor_destroy)
DEFINE_CLEANUP(mongoc_uri_t, mongoc_uri_destroy)
DEFINE_CLEANUP(bson_t, bson_destroy)
