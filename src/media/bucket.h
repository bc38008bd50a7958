/*
 * What writing to a region's bucket media_<region> is made of, for the files of media/ only: inserts, updates
 * and deletes that are acknowledged by the majority (and its journals), tried again after transient errors,
 * and end by the op's deadline. Errors are those of media_error_set().
 *
 * The journal <bucket>.uploads has two kinds of entries, both by the _id of a file's revision:
 *   {_id, path, owner, heartbeat}   an upload. Its chunks belong to it while the heartbeat is younger than
 *                                   BUCKET_LEASE_MS; afterwards they are swept, unless a files document of
 *                                   that _id says that it was published. Who sweeps puts `swept` in the
 *                                   heartbeat's place first: a lease that is lost cannot be renewed
 *   {_id, path, owner, retired}     a revision that was replaced or deleted: its readers keep it for a time,
 *                                   then the sweep removes its files document, if it is still there and not
 *                                   the newest of its name, and its chunks
 */
#pragma once

#include "media/mongo_client.h"
#include "media/revision.h"

enum {
    BUCKET_LEASE_MS = 10 * 60 * 1000,
    BUCKET_SLICE = 256, /* chunks deleted or counted at once: more take a server's memory and seconds */
};

/* CLOCK_REALTIME in milliseconds: what the documents hold. */
int64_t bucket_now_ms(void);
/* The same of the server: what the journal holds, for leases are of several machines, whose clocks differ.
 * Asked once a second at most. This machine's where a server does not tell. */
int bucket_server_ms(struct mongo *mongo, const struct op *op, int64_t *now, struct fail *f);

/*
 * Inserts documents that have their _id. An attempt whose answer was lost may have been applied, so where the
 * server finds duplicates that are these very documents they count as inserted; any other is -EEXIST.
 */
int bucket_insert(struct mongo *mongo, const char *region, const char *part, const bson_t **documents,
                  size_t n, const char *what, const struct op *op, struct fail *f);
/*
 * The same of one files document, which is the switch of a publication: the one that is found must have its
 * length and checksum, too. *unsure: it failed, and may be there all the same or be there yet, for no server
 * has said that it did nothing; or another is under its _id. Then its chunks are not the caller's any more.
 */
int bucket_insert_file(struct mongo *mongo, const char *region, const bson_t *document, bool *unsure,
                       const struct op *op, struct fail *f);
/* Updates all that match, one that does not exist made if `upsert`; *matched (may be NULL) how many did. */
int bucket_update(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                  const bson_t *update, bool upsert, int64_t *matched, const char *what, const struct op *op,
                  struct fail *f);
/* Deletes all that match; *deleted (may be NULL) how many the last attempt did. */
int bucket_delete(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                  int64_t *deleted, const struct op *op, struct fail *f);

/*
 * Deletes chunks from..to-1 of an id, slice by slice, each with `step_ms` of its own; -EINTR when the op is
 * interrupted between two.
 */
int bucket_delete_chunks(struct mongo *mongo, const char *region, const bson_t *id, int64_t from, int64_t to,
                         int64_t step_ms, const struct op *op, struct fail *f);
/* The same for all chunks that an id has, however many, and whatever their numbers are; *deleted how many. */
int bucket_delete_all_chunks(struct mongo *mongo, const char *region, const bson_t *id, int64_t step_ms,
                             const struct op *op, int64_t *deleted, struct fail *f);
/* The first document of a collection that matches; NULL when there is none. `opts` (may be NULL) is added to
 * the options of the find. The caller's to destroy. */
int bucket_find_one(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                    const bson_t *opts, bson_t **out, const char *what, const struct op *op, struct fail *f);
/*
 * The number of chunks from..to-1 that there are, counted slice by slice in the same way; what is not there
 * costs nothing.
 */
int bucket_count_chunks(struct mongo *mongo, const char *region, const bson_t *id, int64_t from, int64_t to,
                        int64_t step_ms, const struct op *op, int64_t *count, struct fail *f);

/* The journal's entry of a new upload. */
int bucket_journal(struct mongo *mongo, const char *region, const bson_oid_t *id, const char *path,
                   const struct op *op, struct fail *f);
/* Renews leases; *held how many of them were neither lost nor claimed by a sweep. */
int bucket_renew(struct mongo *mongo, const char *region, const bson_oid_t *ids, size_t n, int64_t *held,
                 const struct op *op, struct fail *f);
/* Drops the entry of an upload that is published; *held whether no sweep had claimed it, as far as one
 * attempt can tell: false also when an attempt before did it and its answer was lost. */
int bucket_published(struct mongo *mongo, const char *region, const bson_t *id, bool *held,
                     const struct op *op, struct fail *f);
/* Drops an entry of whatever kind. */
int bucket_forget(struct mongo *mongo, const char *region, const bson_t *id, const struct op *op,
                  struct fail *f);
/*
 * Notes that a revision is replaced or about to be deleted. To be called before that is done: the sweep looks
 * for itself whether it was.
 */
int bucket_retire(struct mongo *mongo, const char *region, const struct media_revision *revision,
                  const struct op *op, struct fail *f);
/* The same of several, by one message. */
int bucket_retire_all(struct mongo *mongo, const char *region, struct media_revision *const *revisions,
                      size_t n, const struct op *op, struct fail *f);
/* The same, unless the journal has an entry of it, of whatever kind. */
int bucket_retire_once(struct mongo *mongo, const char *region, const struct media_revision *revision,
                       const struct op *op, struct fail *f);
