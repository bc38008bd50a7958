/*
 * Connections to MongoDB: one pool for the program, or a client of one's own for a single job. All waits are
 * bounded (selection 5 s, connect 3 s, socket 15 s, a free client 5 s; an option in the URI wins), writes are
 * acknowledged by the majority, errors speak error API 2. The driver's log is silenced: whatever goes wrong
 * is returned.
 *
 * The pool is thread-safe; a client belongs to one thread at a time. Open it after the daemon has forked: the
 * driver starts a thread for each pool.
 */
#pragma once

#include <mongoc/mongoc.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/op.h"

struct mongo;

/*
 * Makes a pool of at most `clients` clients; contacts no server. The database is the one that the URI names,
 * else "campusfs". Fails with -EINVAL for a URI that is none; its text is never quoted when it holds
 * credentials.
 */
int mongo_open(const char *uri, unsigned clients, struct mongo **out, struct fail *f);
void mongo_close(struct mongo *mongo);

/* The name of the database; borrowed from the pool. */
const char *mongo_database(const struct mongo *mongo);

/* Takes a client, to be given back with mongo_push() after its cursors are gone; -EIO when none became free.
 */
int mongo_pop(struct mongo *mongo, mongoc_client_t **out, struct fail *f);
void mongo_push(struct mongo *mongo, mongoc_client_t *client);

/*
 * A client outside any pool, whose waits end by the op's deadline; *database is a copy of the database's
 * name. The caller frees both (mongoc_client_destroy, free).
 */
int mongo_client(const char *uri, const struct op *op, mongoc_client_t **out, char **database,
                 struct fail *f);

/* The URI without user, password and options, fit to be shown; the caller frees it. NULL when out of memory.
 */
char *mongo_uri_shown(const char *uri);

DEFINE_CLEANUP(struct mongo, mongo_close)
DEFINE_CLEANUP(mongoc_client_t, mongoc_client_destroy)
DEFINE_CLEANUP(mongoc_collection_t, mongoc_collection_destroy)
DEFINE_CLEANUP(mongoc_database_t, mongoc_database_destroy)
DEFINE_CLEANUP(mongoc_cursor_t, mongoc_cursor_destroy)
DEFINE_CLEANUP(mongoc_uri_t, mongoc_uri_destroy)
DEFINE_CLEANUP(bson_t, bson_destroy)
