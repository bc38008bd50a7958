/*
 * One revision of a file, as a document of <bucket>.files describes it. A file's revisions are the documents
 * of one filename, the newest of them (uploadDate, then _id) being the file; each has chunks of its own, and
 * what is published never changes. So a revision is immutable, and whoever has it open keeps its bytes.
 *
 * Files of other drivers are as good as ours: an id may be any BSON value, numbers may have any numeric type,
 * metadata may be absent or anything. A document that contradicts itself is no error of parsing: the revision
 * says in `broken` what is wrong with it, is shown with what size it has, and cannot be opened.
 *
 * Ours, in `metadata`: schema, courseId, title, contentType, durationMs, language, revision, mtime (ns since
 * the epoch, int64; a BSON date is understood, too), mode, owner {uid, gid}, sha256 (of the content, 64 hex
 * digits).
 *
 * References are counted atomically; all else is constant after parsing, so any thread may read it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/fail.h"

struct _bson_t; /* libbson's bson_t */

enum {
    MEDIA_CHUNK_MAX = 16 << 20, /* bytes; a document cannot hold more */
    MEDIA_FILENAME_MAX = 4095,  /* bytes; what is longer is no path */
};

struct media_revision {
    unsigned references; /* atomic */
    uint64_t id_hash;    /* of the _id, well mixed: stable everywhere */
    uint64_t bytes_hash; /* of what media_revision_same_bytes() compares, well mixed */
    const uint8_t *id;   /* a BSON document of one element, the _id as it was found */
    uint32_t id_len;
    const char *filename;  /* NUL-terminated; NULL when it is not a text or longer than MEDIA_FILENAME_MAX */
    uint32_t filename_len; /* it may hold NUL bytes */
    int64_t length;        /* bytes, 0 when it has no valid one */
    int64_t chunk_size;    /* 1 to MEDIA_CHUNK_MAX; meaningless when broken */
    int64_t uploaded_ms;   /* uploadDate since the epoch, 0 when there is none; times that 64 bits
                            * of nanoseconds cannot hold are the last that they can */
    int64_t mtime_ns;      /* since the epoch: the metadata's, else the upload's */
    int32_t mode;          /* permission bits, -1 = none given */
    int64_t uid, gid;      /* of the owner, -1 = none given */
    int64_t number;        /* that people know it by among the revisions of its file; 0 = none given */
    bool has_sha256;
    uint8_t sha256[32];
    const char *broken; /* static words; NULL for a file that can be read */
};

/* A new revision with one reference, from any document. -ENOMEM; -EINVAL when it has no _id, as no stored
 * document can. */
int media_revision_parse(const struct _bson_t *document, struct media_revision **out);
struct media_revision *media_revision_ref(struct media_revision *revision);
void media_revision_unref(struct media_revision *revision);
DEFINE_CLEANUP(struct media_revision, media_revision_unref)

/* Whether they have one _id. */
bool media_revision_same(const struct media_revision *a, const struct media_revision *b);
/* Whether their bytes are the same as well, in one region: drivers may delete a file and upload another under
 * its _id, which tells by its date or size. */
bool media_revision_same_bytes(const struct media_revision *a, const struct media_revision *b);
/* <0, 0, >0 as memcmp(): the order of uploads, in which the last of a filename is the file. */
int media_revision_order(const struct media_revision *a, const struct media_revision *b);
/* The id for people and for ETags: 24 hex digits of an ObjectId, else its extended JSON, cut to fit. */
void media_revision_id_text(const struct media_revision *revision, char *out, size_t size);

/* The number of chunks, and the bytes that chunk n has. */
int64_t media_revision_chunks(const struct media_revision *revision);
size_t media_revision_chunk_len(const struct media_revision *revision, int64_t n);

/*
 * All revisions of a file, the newest first. The number that people know one by is the one kept with it,
 * where that is larger than the number of the one before; else it is the next: so numbers stay when older
 * revisions go. Zero-initialised is empty.
 */
struct media_revisions {
    struct media_revision **list; /* owned, each a reference */
    int64_t *numbers;             /* owned */
    size_t n;
};
/* Takes over a list with its references; -ENOMEM, and it is freed. */
int media_revisions_make(struct media_revision **list, size_t n, struct media_revisions *out);
void media_revisions_clear(struct media_revisions *revisions);

/* What else our metadata may say of a file. Zero-initialised is empty; cleared by media_details_clear(). */
struct media_details {
    int64_t course_id;                     /* 0 = none */
    int64_t duration_ms;                   /* -1 = none */
    char *title, *content_type, *language; /* owned, NULL = none */
    uint8_t *metadata;                     /* owned: the whole document, BSON; NULL = none */
};
/* The same document's; what has another type is as if it were not there. -ENOMEM. */
int media_details_parse(const struct _bson_t *document, struct media_details *out);
void media_details_clear(struct media_details *details);
