/*
 * Loading one shard: rows by COPY, in transactions of at most 10,000 rows, so that logical decoding and other
 * sessions are never held up for long. Each transaction also counts itself in seed_log, so that a run that
 * was interrupted goes on behind the last one committed. Triggers are told that every derived value comes
 * along (campusfs.caller_keeps).
 *
 * One thread at a time.
 */
#pragma once

#include "base/config.h"
#include "base/fail.h"
#include "command/seed_make.h"
#include "postgres/conn.h"

/* What a shard holds before anything is written. */
enum seed_found {
    SEED_FOUND_NOTHING,
    SEED_FOUND_ROWS,       /* of somebody else; `filled` names a collection */
    SEED_FOUND_OTHER,      /* another seed's or scale's data; `seed` and `users` are that one's */
    SEED_FOUND_UNFINISHED, /* an interrupted run of this one */
    SEED_FOUND_FINISHED,
};

struct seed_loader {
    const struct config *config;
    const struct seed_plan *plan;
    const struct seed_shard *shard;
    const char (*hashes)[SEED_HASH_SIZE]; /* seed_hash_make()'s, needed by seed_load_rows(); borrowed */
    struct conn *conn;                    /* owned, to the primary */
    const char *node;                     /* its name */
    enum seed_found found;
    int64_t seed, users;
    char filled[64];
    int steps;    /* committed so far */
    int64_t rows; /* written by this run */
    struct fail fail;
};

/*
 * Connects to the shard's primary as admin_user and looks what is there; takes the lock that keeps a second
 * seed away
 * (-EBUSY). -EPROTO when the schema is not this program's, -EROFS without a primary, -EIO, -EACCES. As all
 * that follow, it says why in loader->fail.
 */
int seed_load_open(struct seed_loader *loader);
/* Writes all that is not there yet. `done` hears how many things more are. */
int seed_load_rows(struct seed_loader *loader, void (*done)(void *arg, int64_t n), void *arg);
/* Marks the shard as finished and brings the planner's statistics up to date. */
int seed_load_finish(struct seed_loader *loader);
void seed_load_close(struct seed_loader *loader);

/* How many things a shard has, for a progress bar. */
int64_t seed_load_count(const struct seed_shard *shard);
