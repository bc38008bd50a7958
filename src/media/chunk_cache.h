/*
 * Reading files: a cache of chunks for all readers of a mount, least recently used out first, and reading
 * ahead for those that read in order.
 *
 * A chunk is fetched once, however many wait for it. Memory is bounded by the cache's size, chunks on their
 * way included: who needs one when all is on its way waits. A chunk that is larger than the whole cache is
 * taken alone. After two reads in order, up to two pieces of 4 MiB behind the current place are on their
 * way; a read anywhere else costs the chunks that it touches and nothing more.
 *
 * Thread-safe, also one reader. Errors are those of chunks_fetch(): -EIO with words for a damaged file or a
 * server that does not answer by the op's deadline, or for one deleted under its reader, -EINTR.
 */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "media/mongo.h"
#include "media/revision.h"

struct chunk_cache;

/* `fetch_ms`: how long fetching may take. Borrows the pool, whose threads do it. */
int chunk_cache_open(struct mongo *mongo, size_t size, int64_t fetch_ms, struct chunk_cache **out);
/* All readers are closed; what is still being fetched keeps it a little longer. Takes NULL. */
void chunk_cache_close(struct chunk_cache *cache);
/* Prometheus text. */
int chunk_cache_metrics(struct chunk_cache *cache, struct buf *out);

/* One open file: a revision, whose bytes it keeps reading whatever becomes of the name. */
struct media_reader;

/* Asks nobody. Takes a reference; `region` is borrowed for as long as the cache lives. -EIO with words for a broken revision. */
int media_reader_open(struct chunk_cache *cache, const char *region, struct media_revision *revision,
                      struct media_reader **out, struct fail *f);
void media_reader_close(struct media_reader *reader);
struct media_revision *media_reader_revision(const struct media_reader *reader);

/* The bytes at an offset: how many, fewer than `size` only at the end. */
ssize_t media_reader_read(struct media_reader *reader, void *out, size_t size, int64_t offset,
                          const struct op *op, struct fail *f);
