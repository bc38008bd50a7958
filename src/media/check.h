/*
 * What `campusfs check media` looks for in a region's bucket:
 *
 *   damaged   a file whose chunks are not as its document says: missing, too many, of a wrong length
 *   checksum  a file whose bytes are not those of its SHA-256
 *   name      a file that is not shown: no path can have its name, or a folder has it
 *   upload    chunks of an upload that ended without being published, its lease long over
 *   retired   a revision that was replaced or deleted, its time long over
 *   orphan    chunks that belong to no file and no upload
 *
 * The last three can be repaired: they are removed. Orphans only when both their file's id and that of the
 * newest of them tell that they are older than 24 hours, for another program may be writing them; all else is
 * for people to decide. Reads the journal of all mounts, and needs none.
 */
#pragma once

#include "base/config.h"
#include "media/mongo.h"

struct media_problem {
    const char *kind;     /* one of the words above */
    const char *filename; /* NULL where there is none */
    const char *id;       /* of the revision */
    const char *detail;
    bool repaired;
};

struct media_check {
    bool repair;
    bool checksums;  /* reads every byte: looks for damaged and checksum alone */
    int64_t keep_ms; /* how long retired revisions stay */
    int64_t step_ms; /* how long one message may take */
    void (*found)(void *arg, const struct media_problem *problem);
    void (*progress)(void *arg, uint64_t files, uint64_t bytes); /* done so far */
    void *arg;
};

struct media_checked {
    uint64_t files, bytes; /* looked at, all revisions */
    uint64_t problems, repaired;
};

/* Checks one region's bucket; errors as media_error_set(). What was found until then has been told. */
int media_check_region(struct mongo *mongo, const char *region, const struct media_check *check,
                       struct media_checked *checked, struct fail *f);
