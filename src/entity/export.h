/*
 * A whole collection of a region as JSON lines: each row's document on one line, as `jq -c .` prints it, by
 * id. A thread for each export reads them by one COPY (shard/copy_out.h), ahead of who reads the lines and no
 * more than EXPORT_BYTES.
 *
 * One COPY is one snapshot of the database. Who does not read for EXPORT_STALL_MS is not waited for: a
 * server's snapshot and connection are given back, and what is behind the last line is copied when he goes
 * on. So it is when a server or connection is lost, then from another. No row comes twice or is left out for
 * that, but those behind are as of later.
 *
 * As many may be open at a time on a shard as half of its pool has connections.
 */
#pragma once

#include <sys/types.h>

#include "entity/store.h"

enum { EXPORT_BYTES = 1 << 20, EXPORT_BACK_BYTES = 256 << 10, EXPORT_STALL_MS = 2000 };

struct export;

/* -ENOENT for what is in no shard, -ENFILE when too many are open, -EAGAIN without a thread, -ENOMEM. *out is
 * the caller's. */
int export_open(struct store *store, unsigned collection, unsigned region, struct export **out,
                struct fail *f);
/*
 * At most `size` bytes from an offset on, waited for: their number, 0 at the end. Read in order; what lies
 * ahead is read and passed over, as far back as EXPORT_BACK_BYTES can be gone (`head` does, for whoever has
 * the file after it), and to the start, which begins another export. -ESPIPE for any other place, -EINTR,
 * -EIO when nothing came in time, and what the shard could not be read for, which is the end of it.
 */
ssize_t export_read(struct export *export, char *to, size_t size, off_t offset, const struct op *op,
                    struct fail *f);
/* Takes NULL. */
void export_close(struct export *export);

/* Prometheus text of all exports: rows copied, COPY statements begun, and those that are open. */
int export_metrics(struct store *store, struct buf *out);
