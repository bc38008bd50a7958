/*
 * Users' preferences in MongoDB's collection `preferences`, one document a user: read, save, reset. Who the
 * users are, and of which region, is not known here.
 *
 * Every call waits no longer than its op says, whatever the server does (mongo_job.h), and returns 0 or
 * -errno with words: -EIO when no server answers in time, and media_error_set()'s. Reads are the primary's.
 * Thread-safe; no lock is held while a server is asked.
 */
#pragma once

#include "base/op.h"
#include "media/mongo.h"
#include "media/preferences_doc.h"

/* What users have; free each with preferences_doc_clear(), and the array. */
struct preferences_list {
    struct preferences_doc *docs; /* one for each id that was asked, in that order */
    bool *broken;                 /* this one cannot be shown, and has no text */
    size_t n;
};
void preferences_list_clear(struct preferences_list *list);

/*
 * Those of n users, 1 <= n <= 10000, ascending; with defaults for who has none. The first has its text; beyond
 * that one a list holds 16 MiB of texts, and of further documents what a listing tells of them: other programs'
 * may have 16 MB each.
 */
int preferences_read(struct mongo *mongo, const int64_t *user_ids, size_t n, const struct op *op,
                     struct preferences_list *out, struct fail *f);

struct preferences_put {
    int64_t user_id;
    const char *text; /* that json_check() has passed */
    size_t len;
    int64_t at_us;   /* the time to set, or PREFERENCES_TIME_NONE */
    int64_t base_us; /* the version it is based on when later than its updated_at; PREFERENCES_TIME_NONE, or
                        PREFERENCES_TIME_FOREVER: never a conflict */
};

/*
 * A text becomes a user's preferences, by one conditional write of one document. -EINVAL as
 * preferences_doc_parse(), -ECANCELED when they have changed since what the text is based on, -EAGAIN when
 * others change them again and again. An answer that is lost is looked up by the request; -EIO with words
 * when it cannot be known. *unchanged: they said that already, and nothing was written.
 */
int preferences_save(struct mongo *mongo, const struct preferences_put *put, const struct op *op,
                     struct preferences_doc *out, bool *unchanged, struct fail *f);

/* Back to the defaults; no error when there is nothing to delete. */
int preferences_reset(struct mongo *mongo, int64_t user_id, const struct op *op, struct fail *f);

/*
 * Notes that a user was deleted, or is there again, and waits for nobody: the server deletes the document a
 * day after the former (an index of sql/mongo/collections.json). What is lost on the way does no harm: nobody
 * is shown preferences of a user who is not there, and who reads those of one who is notes that once more.
 */
void preferences_note_deleted(struct mongo *mongo, int64_t user_id, bool deleted);
