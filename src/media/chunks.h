/*
 * Reading the chunks of one revision: closed ranges of them, every chunk checked before anybody sees it.
 *
 * The server is distrusted. A chunk that is missing, there twice, shorter or longer than the revision's
 * length and chunkSize say, whose n is no whole number or whose data is not binary, and one more behind the
 * last (unless it is empty, as old drivers leave it) are -EIO with words. A missing chunk of a revision whose
 * files document is gone as well is -ESTALE: it was deleted under its reader.
 *
 * Reads go to the primary, read concern local. Transient errors are tried again until the op's deadline; a
 * server that does not answer costs at most that. Other errors are media_error_set()'s, -EINTR when the op is
 * interrupted between two messages. Thread-safe.
 */
#pragma once

#include "media/mongo.h"
#include "media/revision.h"

/* Gets each chunk's bytes, which are valid during the call. 0, or -errno, which ends the fetch and is
 * returned. `data` NULL: the chunk that it was given last counts no more, for it is there twice, or was the
 * last one and is not; what this returns then is not asked for, and the fetch ends with an error. No lock of
 * the caller's is held by it; the connection is. */
typedef int (*chunk_take)(void *arg, int64_t n, const void *data, size_t len);

/*
 * Hands over chunks first..last, 0 <= first <= last < media_revision_chunks(), in order and each exactly
 * once, a message of at most 4 MiB (or one chunk) at a time. After a failure those before it have been handed
 * over. A broken revision is -EIO.
 */
int chunks_fetch(struct mongo *mongo, const char *region, const struct media_revision *revision,
                 int64_t first, int64_t last, chunk_take take, void *arg, const struct op *op,
                 struct fail *f);
