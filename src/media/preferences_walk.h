/*
 * A walk over the documents of `preferences`, whose users may be gone. Who calls it knows the users and says
 * what becomes of each document; one that was changed since it was read stays.
 *
 * And the lease by which one mount does so and no other: a document of the collection `leases`. Errors are
 * those of media_error_set().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/op.h"
#include "media/mongo.h"

enum { PREFERENCES_WALK_PAGE = 512 };

enum preferences_fate {
    PREFERENCES_AS_IS,
    PREFERENCES_STAYS,      /* a mark of before is taken away */
    PREFERENCES_GOES,       /* now */
    PREFERENCES_GOES_LATER, /* marked: the server deletes it a day later (sql/mongo/collections.json) */
};

struct preferences_owner {
    int64_t user_id;
    bool marked;
    enum preferences_fate fate; /* PREFERENCES_AS_IS unless it is set */
};

struct preferences_walk {
    bool write;      /* false: only looks */
    int64_t step_ms; /* how long one message may take */
    /* Sets the fates of at most PREFERENCES_WALK_PAGE documents; what it returns but 0 ends the walk. */
    int (*judge)(void *arg, struct preferences_owner *owners, size_t n, struct fail *f);
    void *arg;
    uint64_t seen, removed, marked; /* so far */
    int64_t now_ms; /* the walk's: the server's time when it began, which marks get: it deletes by that */
};

/* preferences_doc_prepare() has been called. All documents, or those of n <= PREFERENCES_WALK_PAGE users.
 * Uses one client of the pool meanwhile. */
int preferences_walk(struct mongo *mongo, const int64_t *user_ids, size_t n, struct preferences_walk *walk,
                     struct fail *f);

/* Takes or renews the lease of an owner for so long, by the server's clock; -EEXIST while another has it. */
int preferences_lease_take(struct mongo *mongo, const char *owner, int64_t lasts_ms, struct fail *f);
/* So that another need not wait until it ends. */
void preferences_lease_end(struct mongo *mongo, const char *owner);
