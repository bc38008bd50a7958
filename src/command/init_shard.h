/* One shard's part of `campusfs init`. */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/config.h"
#include "base/fail.h"
#include "base/op.h"

struct init_shard {
    const struct config *config;
    size_t shard; /* index into config->shards */
    /* What comes of it: */
    const char *node;   /* the primary's name, NULL when none was found */
    unsigned from, to;  /* schema versions; `from` is 0 for an empty database */
    unsigned files;     /* that were run */
    struct buf changes; /* a line for each, the caller's to clear */
    struct buf notes;   /* a line for what is odd but no failure */
    struct fail fail;   /* err 0 when all went well */
};

/*
 * Finds the primary of the shard by its role, makes the database when there is none, and brings it to the
 * schema of this program in one transaction. `step` is called, possibly on several threads at once, for each
 * file that was run. The result is in the structure: -EPROTO for a newer schema or another shard's, -EEXIST
 * for regions that contradict the database, -EIO, -EACCES, and what SQLSTATEs become.
 */
void init_shard(struct init_shard *init, const struct op *op, void (*step)(void *), void *arg);

/* How many files an empty database takes. */
unsigned init_shard_files(void);
