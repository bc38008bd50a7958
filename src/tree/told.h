/*
 * Which revision of each row the kernel was last told of, so that it can be told when that is outdated: a
 * nodeid names a revision, and what has changed is known by row. Two bytes a row, in chunks of
 * neighbouring ids. Bounded: the oldest chunk is given up, and the kernel told that its rows are outdated.
 *
 * Thread-safe; no lock is held while the kernel is told.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "entity/collection.h"

struct told;

/* At most that many chunks of 568 bytes, each for 256 rows whose ids are 1000 apart, as sequences give them.
 * NULL when memory is out. `outdated` is called with a row and the lowest 16 bits of the mark told. */
struct told *told_new(size_t chunks_max,
                      void (*outdated)(void *arg, const struct row_key *key, uint64_t mark), void *arg);
void told_free(struct told *told);

/* The kernel is about to be told of the revision of that mark (entity/document.h). -ENOMEM: it may not
 * believe it. */
int told_add(struct told *told, const struct row_key *key, uint64_t mark);
/*
 * Calls `outdated` for the revision last told of a row, unless that is `mark` (0 = not known): the kernel has
 * been told of it already. Id 0: for every row of the collection (0 = of any) and region.
 */
void told_outdated(struct told *told, const struct row_key *key, uint64_t mark);
