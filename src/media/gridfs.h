/*
 * Writing files to GridFS by its specification, with plain inserts and deletes: the driver's own uploader
 * publishes files whose chunks it lost. A region's files lie in the bucket media_<region>.
 *
 * An upload is a new revision under an id of its own. Its chunks are inserted first, in batches; the insert
 * of the files document at the end is the one atomic publish, and nothing that is published ever changes.
 * Until then the upload stands in <bucket>.uploads ({_id, path, owner, heartbeat}), so that what a crash
 * leaves can be swept.
 *
 * An upload belongs to one thread at a time; it holds a client of the pool only while it talks to the server.
 * All errors are those of media_error_set(); transient ones are tried again until the op's deadline.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "media/mongo.h"

enum {
    GRIDFS_CHUNK = 255 * 1024, /* bytes a chunk, GridFS's usual size */
    GRIDFS_BATCH = 16, /* chunks an insert: just under 4 MiB, which is also what an upload holds in memory */
    GRIDFS_SCHEMA = 1, /* version of our metadata */
    GRIDFS_ID = 12,    /* bytes of a file's id, an ObjectId */
};

/* Bytes that 2^31-1 chunks hold: no file has more. */
#define GRIDFS_LENGTH_MAX ((int64_t)INT32_MAX * GRIDFS_CHUNK)

/* What the files document tells of the file. */
struct gridfs_meta {
    int64_t course_id;
    const char *title;        /* NULL = none */
    const char *content_type; /* NULL = none */
    int64_t duration_ms;      /* of sound and film, -1 = none */
    int64_t mtime_ns;    /* since the epoch, kept as a 64-bit integer: a BSON date has only milliseconds */
    mode_t mode;         /* permission bits */
    int64_t uploaded_ms; /* uploadDate, since the epoch */
};

struct gridfs_upload;

/*
 * Begins an upload of media/<filename> ("<course id>/path"). `id` NULL takes a fresh one; a given one must
 * not be in use in the bucket (gridfs_remove() it first).
 */
int gridfs_upload_open(struct mongo *mongo, const char *region, const char *filename,
                       const uint8_t id[GRIDFS_ID], const struct op *op, struct gridfs_upload **out,
                       struct fail *f);

/* Appends bytes; sends a batch of chunks whenever one is full. */
int gridfs_upload_write(struct gridfs_upload *upload, const void *data, size_t len, const struct op *op,
                        struct fail *f);

/* Sends the rest and publishes. Afterwards the upload can only be closed; after a failure nothing is visible.
 */
int gridfs_upload_publish(struct gridfs_upload *upload, const struct gridfs_meta *meta, const struct op *op,
                          struct fail *f);

/* Frees it; NULL is allowed. What was not published stays in the journal for the sweep. */
void gridfs_upload_close(struct gridfs_upload *upload);
DEFINE_CLEANUP(struct gridfs_upload, gridfs_upload_close)

/* Deletes a file by id, files document first, chunks by slices. 0 also when there is none. */
int gridfs_remove(struct mongo *mongo, const char *region, const uint8_t id[GRIDFS_ID], const struct op *op,
                  struct fail *f);
