/*
 * The pool of connections to MongoDB. All waits are bounded (selection 5 s, connect 3 s, socket 15 s, a free
 * client 5 s; an option in the URI wins), writes are acknowledged by the majority. The driver's log is
 * silenced: whatever goes wrong is returned.
 *
 * An operation of the mount waits no longer than its own deadline: it is a job (mongo_job.h) of one of the
 * pool's threads, of which there are as many as clients.
 *
 * Thread-safe. Open it after the daemon has forked: the driver starts a thread for each pool.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/fail.h"
#include "base/op.h"

struct mongo;

/* So many jobs may wait for a thread; more get -EIO at once, so that a frozen server does not keep every
 * thread of the mount. */
enum { MONGO_WAITERS = 64 };

/*
 * Makes a pool of at most `clients` clients; contacts no server. The database is the one that the URI names,
 * else "campusfs". `operation_ms` (0 = none) is how long a file operation may take: no wait is longer then,
 * and the driver repeats nothing by itself, the caller does until its deadline. Fails with -EINVAL for a URI
 * that is none; its text is never quoted when it holds credentials.
 */
int mongo_open(const char *uri, unsigned clients, int64_t operation_ms, struct mongo **out, struct fail *f);
void mongo_close(struct mongo *mongo);
DEFINE_CLEANUP(struct mongo, mongo_close)

/* What the pool is doing and has done. */
struct mongo_counters {
    unsigned size;     /* clients, and threads for jobs */
    unsigned busy;     /* jobs that are being done */
    unsigned waiting;  /* jobs that wait for a thread */
    uint64_t jobs;     /* that were begun */
    uint64_t failed;   /* of these, with an error */
    uint64_t given_up; /* that were not done within their deadline, or interrupted */
    uint64_t took_ms;  /* by all that were done */
};
void mongo_count(struct mongo *mongo, struct mongo_counters *counters);

/* The name of the database; borrowed from the pool. */
const char *mongo_database(const struct mongo *mongo);

/* Whether a collection has any document; one that does not exist has none. Errors as media_error_set(). */
int mongo_has_documents(struct mongo *mongo, const char *collection, const struct op *op, bool *has,
                        struct fail *f);

/* The URI without user, password and options, fit to be shown; the caller frees it. NULL when out of memory.
 */
char *mongo_uri_shown(const char *uri);
