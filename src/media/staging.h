/*
 * Writing media: a staged file is a revision in the making, private to who writes it, over the revision that
 * it begins with (its base). Bytes are written anywhere; what is not in memory yet lies in the database as
 * chunks of an id that no files document names, so nobody else sees it. Publishing brings every chunk of the
 * new revision together, copies of the base's untouched ones included, and inserts the files document: the
 * one atomic switch. What is published never changes.
 *
 * Memory is bounded for all staged files of a mount together: each holds up to two batches of GRIDFS_BATCH
 * chunks, on their way or being filled; threads of the staging send them, one message of a file at a time.
 * Who writes faster than the server takes waits, with his deadline. When memory is short, idle files' chunks
 * are sent first.
 *
 * The first chunks that are sent make a journal entry (media/bucket.h), whose lease a thread renews. What was
 * not published when a staged file is freed is deleted by that thread; what a crash leaves, by the sweep.
 *
 * Errors are those of media_error_set(), -EIO when a deadline passes, -EFBIG beyond 2^31-1 chunks, -ENOMEM. A
 * chunk that could not be sent fails the staged file for good: each later call tells the same error, and
 * nothing of it becomes visible. Thread-safe: calls on one staged file wait for each other, by the op's
 * deadline; no lock is held while the database works.
 */
#pragma once

#include "media/gridfs.h"
#include "media/revision.h"

struct staging;
struct staged;

struct staging_options {
    size_t memory;   /* bytes for chunks, all files together; at least a batch */
    int64_t step_ms; /* how long each message of what takes many may take: sending, publishing */
};

/* Starts its threads. Borrows the pool of clients, which needs STAGING_CLIENTS for it. */
enum { STAGING_SENDERS = 4, STAGING_CLIENTS = STAGING_SENDERS + 1 };
int staging_open(struct mongo *mongo, const struct staging_options *options, struct staging **out);
/* Every staged file has been freed. What was given up is deleted, but for no longer than a step. Takes NULL.
 */
void staging_close(struct staging *staging);

struct staging_stats {
    size_t memory;    /* bytes in use */
    unsigned uploads; /* staged files that have something in the database */
    uint64_t sent;    /* bytes of chunks sent since the start */
};
void staging_stats(struct staging *staging, struct staging_stats *stats);

/*
 * A staged file of region's media/<filename>, with the content of `base` (a reference is taken; NULL: empty).
 * Asks the database nothing.
 */
int staged_new(struct staging *staging, const char *region, const char *filename, struct media_revision *base,
               struct staged **out);
/* Gives up what was not published. May wait for what is on its way, two messages at most, each as long as a
 * step. Takes NULL. */
void staged_free(struct staged *staged);

int64_t staged_length(struct staged *staged);

/* *got bytes at an offset, fewer than `size` only at the end. */
int staged_read(struct staged *staged, void *out, size_t size, int64_t offset, size_t *got,
                const struct op *op, struct fail *f);
/* At any offset; what lies between the end and it reads as zeros. */
int staged_write(struct staged *staged, const void *data, size_t len, int64_t offset, const struct op *op,
                 struct fail *f);
int staged_truncate(struct staged *staged, int64_t length, const struct op *op, struct fail *f);
/* Makes a range zeros, as far as it lies within the file. */
int staged_zero(struct staged *staged, int64_t offset, int64_t len, const struct op *op, struct fail *f);

/* Sends what is in memory and waits until the majority has it on disk. Not visible before it is published. */
int staged_sync(struct staged *staged, const struct op *op, struct fail *f);

/* What a published revision says of itself beside its content. */
struct staged_meta {
    const char *filename; /* may differ from the one it began with */
    int64_t course_id;
    int64_t number; /* that people know the revision by (media_revisions) */
    int64_t mtime_ns;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};
/*
 * Makes it the newest revision of its name, as *published (a reference of the caller's), which becomes its
 * base. What the database has as the newest then is replaced, which need not be the base: its metadata are
 * kept, but for what follows from the content, and it is retired. The content type follows from the first
 * bytes, unless somebody chose one (contentTypeGiven).
 *
 * Takes as long as it makes progress, each message within a step, and is not interrupted; abandoned (struct
 * op), it ends with -EINTR before the switch, never after it. A failure leaves everything as it was, to be
 * published once more or given up. But when no server has said within a step whether it did the very switch,
 * the staged file has failed for good: it may become visible all the same, and the sweep deletes its chunks
 * only when it has not. The same when its lease was lost just then.
 */
int staged_publish(struct staged *staged, const struct staged_meta *meta, const struct op *op,
                   struct media_revision **published, struct fail *f);
