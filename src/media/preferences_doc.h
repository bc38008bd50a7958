/*
 * A user's preferences as a document: BSON in MongoDB, text in the tree. sql/mongo/preferences.schema.json
 * says which fields there are, in which order, and what they may be; sql/mongo/preferences.defaults.json what
 * a user has who has chosen nothing, and what stands for a field that is missing.
 *
 * Fields that begin with "_" are ours and never shown. Other writers need not know them: a document without
 * them, or changed since we wrote it, gets its revision from a hash of what it shows.
 */
#pragma once

#include <bson/bson.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/fail.h"

/* "None" and "any" of times, which are µs since the epoch; the same as entity/store.h's. */
#define PREFERENCES_TIME_NONE INT64_MIN
#define PREFERENCES_TIME_FOREVER INT64_MAX

/* What is read of a document. */
struct preferences_doc {
    int64_t user_id;
    uint64_t rev;       /* positive, below 2^62; differs whenever a byte of the text does */
    int64_t updated_us; /* as shown */
    bool stored;        /* false: the user has none, these are the defaults */
    bool deleted;       /* the user was deleted when this was written */
    char *text;         /* compact JSON, owned; NULL for one of a list that had no room for it */
    size_t len;
    size_t laid_out; /* bytes as json_layout() writes it; set where there is no text */
};

/* Reads what MongoDB has of a user, NULL for nothing. -EIO when it cannot be shown, -ENOMEM. */
int preferences_doc_read(const bson_t *stored, int64_t user_id, struct preferences_doc *out, struct fail *f);
void preferences_doc_clear(struct preferences_doc *doc);

/* What somebody wrote. */
struct preferences_written {
    bson_t fields;   /* all fields of the schema but updated_at, in order; initialised, owned */
    int64_t base_us; /* its updated_at, or PREFERENCES_TIME_NONE */
};

/*
 * Reads a text that json_check() has passed; what is missing gets its default. -EINVAL with the field and
 * what it may be: an unknown field, a wrong type or value, a number that would be rounded, another user's id.
 */
int preferences_doc_parse(const char *text, size_t len, int64_t user_id, struct preferences_written *out,
                          struct fail *f);
void preferences_written_clear(struct preferences_written *written);

/* Whether a text that was written says what a document shows, the time aside; 1.0 is 1. -ENOMEM. */
int preferences_doc_same(const struct preferences_written *written, const bson_t *stored, bool *same,
                         struct fail *f);

/* Completes it to what is stored: `id` is the document's _id, NULL = the user's. The caller's to destroy. */
bson_t *preferences_doc_build(const struct preferences_written *written, const bson_value_t *id,
                              int64_t user_id, uint64_t rev, int64_t updated_us, const char *request);

/* Who wrote a stored document last: the request's name, NULL when it was not us. Borrowed. */
const char *preferences_doc_request(const bson_t *stored);

/* An update of a document applies to exactly this one: each field as it was read. The caller's to destroy. */
bson_t *preferences_doc_filter(const bson_t *stored);

/* Loads the schema and the defaults, once; before anything else. -EINVAL with words: a mistake in sql/. */
int preferences_doc_prepare(struct fail *f);
