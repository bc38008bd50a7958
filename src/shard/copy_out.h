/*
 * COPY ... TO STDOUT from a node that may be read: one statement, so one snapshot, row by row as they are
 * asked for. Who begins one holds a connection of the pool until its end, and the server keeps the snapshot:
 * a standby that replays may end it (40001), and would rather not be kept from that. So nobody is to sit on
 * one that he does not read; whoever wants the rest later begins another behind the last row he had.
 *
 * The statement may run for COPY_OUT_S, then the server ends it (57014). One thread at a time uses a copy.
 * Errors as of shard_read(); never repeated here once rows have come.
 */
#pragma once

#include "postgres/copy_row.h"
#include "shard/cluster.h"

enum { COPY_OUT_S = 3600 };

struct shard_copy;

/*
 * `copy` is the statement, in FORMAT binary. COPY takes no parameters: what is in it is of our own making.
 * *out is the caller's.
 */
int shard_copy_open(struct shard *shard, const char *copy, const struct op *op, struct shard_copy **out,
                    struct fail *f);

/*
 * The next row, of n columns: 1, or 0 at the end. The fields are the copy's until the next call. At the end
 * the shard's token covers what was read, so that no later read of this mount shows less.
 */
int shard_copy_next(struct shard_copy *copy, struct copy_field *fields, size_t n, const struct op *op,
                    struct fail *f);

/* Gives the connection back; before the end the server is told to stop. Takes NULL. */
void shard_copy_close(struct shard_copy *copy);
