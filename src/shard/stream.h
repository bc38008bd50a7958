/*
 * The stream of a shard's commits: logical replication from its primary, fenced by timeline as writes are.
 * What to do about what it says is entity/follow.h's business.
 *
 * One user at a time. Errors: -EROFS without a primary in use, else those of postgres/replication.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "postgres/replication.h"
#include "shard/cluster.h"

struct stream;

/* Connects to the primary. */
int stream_open(struct shard *shard, const struct op *op, struct stream **out, struct fail *f);
/* Closes at once; the server then drops the slot. Takes NULL. */
void stream_close(struct stream *stream);

/*
 * Makes the slot, which waits for the transactions that are open on the server, and begins the stream. From
 * then on all that is committed will be told, and reads see all that was committed before: the shard's token
 * is moved there. A transaction that waits for a synchronous standby may be in neither: *newest is the last
 * of those that were under way behind the begin, as snapshots number them; 0 = there was none.
 */
int stream_begin(struct stream *stream, const struct op *op, uint64_t *newest, struct fail *f);

/* The node's name. */
const char *stream_node(const struct stream *stream);
/* False when the shard has another primary by now, or a newer timeline: then the stream is that of a past. */
bool stream_is_current(const struct stream *stream);

/* The primary was heard, and had come to there: that is a place in the trail. */
void stream_heard(const struct stream *stream, uint64_t lsn);
/*
 * Whether a transaction that was streamed, of this number (the low half of it), can be seen on the primary.
 * Its commit is streamed as soon as it is written, which may be long before: a synchronous standby may have
 * to confirm it. The server is asked each time, but where no commit waits for a standby at most ten times a
 * second; there it can be seen as well when nobody answers.
 */
bool stream_is_visible(struct stream *stream, uint32_t xid, const struct op *op);

/* Reads from here on see what was committed up to there. */
void stream_reached(struct stream *stream, uint64_t lsn);

/*
 * How long ago the primary was first seen (trail.h) at a place behind `lsn`, in milliseconds, and how far
 * behind it is now, in bytes; 0 when it has not been.
 */
int64_t stream_lag(const struct stream *stream, uint64_t lsn, int64_t *bytes);

/* For poll(), replication_read() and replication_confirm(). */
struct replication *stream_replication(struct stream *stream);
