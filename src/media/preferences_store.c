#include "media/preferences_store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/uuid.h"
#include "media/bucket.h"
#include "media/document.h"
#include "media/media_error.h"
#include "media/mongo_client.h"
#include "media/mongo_job.h"

enum {
    TRIES = 20,      /* of a save that others are faster than */
    NOTE_MS = 10000, /* for what nobody waits for */
    REV_BITS = 62,
    MESSAGE_DOCS = 256, /* a message of a listing, of 16 MiB at most whatever they are */
    LIST_BYTES = 16 << 20,
};

/* The years 1 to 9999. */
#define FIRST_US INT64_C(-62135596800000000)
#define LAST_US INT64_C(253402300799999999)

static const char collection_name[] = "preferences";

void preferences_list_clear(struct preferences_list *list)
{
    for (size_t i = 0; list->docs && i < list->n; i++)
        preferences_doc_clear(&list->docs[i]);
    free(list->docs);
    free(list->broken);
    *list = (struct preferences_list){0};
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static bson_t *of_user(int64_t user_id)
{
    return BCON_NEW("user_id", BCON_INT64(user_id));
}

/* Reading */

struct read_job {
    struct mongo_job job;
    size_t n;
    size_t bytes; /* of texts in the list, but for the first user's */
    struct preferences_list list;
    int64_t ids[];
};

static void read_release(struct mongo_job *job)
{
    struct read_job *self = (struct read_job *)(void *)job;
    preferences_list_clear(&self->list);
    free(self);
}

static int compare_ids(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* user_id of other writers may be any number. */
static int64_t user_of(const bson_t *stored)
{
    bson_iter_t at;
    return bson_iter_init_find(&at, stored, "user_id") ? bson_iter_as_int64(&at) : 0;
}

static int bound_text(struct read_job *self, struct preferences_doc *doc)
{
    CLEANUP(buf_clear) struct buf text = {0};
    self->bytes += doc->len;
    if (self->bytes <= LIST_BYTES)
        return 0;
    self->bytes -= doc->len;
    int r = json_layout(doc->text, doc->len, &text);
    if (r < 0)
        return r;
    doc->laid_out = text.len;
    free(doc->text);
    doc->text = NULL;
    return 0;
}

/* Takes one document of the answer; of two of one user, which no index forbids yet, the first. */
static int take_doc(struct read_job *self, const bson_t *stored, int64_t user_id)
{
    const int64_t *found = bsearch(&user_id, self->ids, self->n, sizeof user_id, compare_ids);
    struct preferences_doc *doc = found ? &self->list.docs[found - self->ids] : NULL;
    if (!doc || doc->user_id)
        return 0;
    int r = preferences_doc_read(stored, user_id, doc, NULL);
    if (r == -ENOMEM)
        return r;
    doc->user_id = user_id;
    if (r == 0 && found != self->ids)
        r = bound_text(self, doc);
    self->list.broken[found - self->ids] = r < 0;
    return r == -ENOMEM ? r : 0;
}

static bson_t *of_users(const int64_t *ids, size_t n)
{
    struct media_in in;
    media_in_begin(&in, "user_id");
    for (size_t i = 0; i < n; i++)
        media_in_add_int64(&in, ids[i]);
    return media_in_end(&in);
}

static int read_answer(struct read_job *self, mongoc_cursor_t *cursor, bson_error_t *error)
{
    const bson_t *stored;
    int r = 0;
    while (r == 0 && mongoc_cursor_next(cursor, &stored))
        r = take_doc(self, stored, user_of(stored));
    return r == 0 && mongoc_cursor_error(cursor, error) ? -EIO : r;
}

static int read_once(struct read_job *self, struct mongo *mongo, const struct op *op, bson_error_t *error,
                     struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection from;
    error->domain = 0;
    int r = mongo_collection_open(mongo, collection_name, &from, f);
    if (r < 0)
        return r;
    int64_t left = op_left_ms(op);
    CLEANUP(bson_destroyp) bson_t *filter = of_users(self->ids, self->n);
    CLEANUP(bson_destroyp)
    bson_t *opts =
        BCON_NEW("batchSize", BCON_INT64(MESSAGE_DOCS), "maxTimeMS", BCON_INT64(left > 0 ? left : 1));
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(from.handle, filter, opts, NULL);
    return read_answer(self, cursor, error);
}

static int fill_defaults(struct read_job *self, struct fail *f)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < self->n; i++)
        if (!self->list.docs[i].user_id)
            r = preferences_doc_read(NULL, self->ids[i], &self->list.docs[i], f);
    return r;
}

static int read_run(struct mongo_job *job, struct mongo *mongo, const struct op *op, struct fail *f)
{
    struct read_job *self = (struct read_job *)(void *)job;
    bson_error_t error;
    for (;;) {
        self->bytes = 0;
        self->list = (struct preferences_list){.docs = calloc(self->n, sizeof *self->list.docs),
                                               .broken = calloc(self->n, sizeof *self->list.broken),
                                               .n = self->n};
        if (!self->list.docs || !self->list.broken)
            return fail_set(f, ENOMEM, "out of memory");
        int r = read_once(self, mongo, op, &error, f);
        if (r == 0)
            return fill_defaults(self, f);
        if (!error.domain)
            return r;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, "cannot read preferences");
        preferences_list_clear(&self->list);
    }
}

int preferences_read(struct mongo *mongo, const int64_t *user_ids, size_t n, const struct op *op,
                     struct preferences_list *out, struct fail *f)
{
    *out = (struct preferences_list){0};
    struct read_job *self = calloc(1, sizeof *self + n * sizeof self->ids[0]);
    if (!self)
        return fail_set(f, ENOMEM, "out of memory");
    self->job.run = read_run;
    self->job.release = read_release;
    self->n = n;
    memcpy(self->ids, user_ids, n * sizeof self->ids[0]);
    int r = mongo_do(mongo, &self->job, op, f);
    if (r == 0) {
        *out = self->list;
        self->list = (struct preferences_list){0};
    }
    mongo_job_unref(&self->job);
    return r;
}

/* Saving */

struct save_job {
    struct mongo_job job;
    int64_t user_id, at_us, base_us;
    struct preferences_written written;
    char request[UUID_TEXT];
    struct preferences_doc doc; /* the answer */
    bool unchanged;
};

static void save_release(struct mongo_job *job)
{
    struct save_job *self = (struct save_job *)(void *)job;
    preferences_written_clear(&self->written);
    preferences_doc_clear(&self->doc);
    free(self);
}

/* What one user has now; NULL in *stored when nothing. */
static bool find_stored(const struct mongo_collection *in, int64_t user_id, const struct op *op,
                        bson_t **stored, bson_error_t *error)
{
    CLEANUP(bson_destroyp) bson_t *filter = of_user(user_id);
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(op, 1);
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(in->handle, filter, opts, NULL);
    const bson_t *doc;
    *stored = mongoc_cursor_next(cursor, &doc) ? bson_copy(doc) : NULL;
    return !mongoc_cursor_error(cursor, error);
}

static int conflict(const struct save_job *self, const struct preferences_doc *was, struct fail *f)
{
    int64_t seen = self->written.base_us;
    if (!was->stored || seen == PREFERENCES_TIME_NONE || was->updated_us <= seen ||
        was->updated_us <= self->base_us)
        return 0;
    if (f && f->err == 0) {
        snprintf(f->column, sizeof f->column, "updated_at");
        snprintf(f->hint, sizeof f->hint,
                 "Read it again and repeat the edit; a document without updated_at replaces what is there.");
    }
    return fail_set(
        f, ECANCELED,
        "the preferences of user %lld were changed after the version that this document is based on",
        (long long)self->user_id);
}

/* The document that the save makes of what was read; NULL when memory is out. */
static bson_t *successor(const struct save_job *self, const bson_t *stored, const struct preferences_doc *was)
{
    bson_iter_t at;
    int64_t now = now_us();
    int64_t updated_us = self->at_us != PREFERENCES_TIME_NONE ? self->at_us
                         : now > was->updated_us              ? now
                                                              : was->updated_us + 1;
    /* A first document's rev is a time: the one before it, if there was one, is another. */
    uint64_t rev = stored ? was->rev + 1 : (uint64_t)now;
    rev &= (UINT64_C(1) << REV_BITS) - 1;
    bool has_id = stored && bson_iter_init_find(&at, stored, "_id");
    return preferences_doc_build(&self->written, has_id ? bson_iter_value(&at) : NULL, self->user_id,
                                 rev ? rev : 1, updated_us, self->request);
}

/* Writes one version over another. *written is false when somebody else was faster. */
static bool write_doc(const struct mongo_collection *to, const bson_t *stored, const bson_t *next,
                      bool *written, bson_error_t *error)
{
    enum { DUPLICATE_KEY = 11000 };
    if (!stored) {
        *written = mongoc_collection_insert_one(to->handle, next, NULL, NULL, error);
        return *written || error->code == DUPLICATE_KEY;
    }
    CLEANUP(bson_destroyp) bson_t *filter = preferences_doc_filter(stored);
    bson_t reply;
    bson_iter_t at;
    bool done = mongoc_collection_replace_one(to->handle, filter, next, NULL, &reply, error);
    *written = done && bson_iter_init_find(&at, &reply, "matchedCount") && bson_iter_as_int64(&at) > 0;
    bson_destroy(&reply);
    return done;
}

enum step { STEP_DONE, STEP_AGAIN, STEP_FAILED };

/* The save has been made: by this try, or by one before whose answer was lost. */
static enum step saved(struct save_job *self, const bson_t *stored, int *r, struct fail *f)
{
    *r = preferences_doc_read(stored, self->user_id, &self->doc, f);
    return *r < 0 ? STEP_FAILED : STEP_DONE;
}

/* Reads, decides, and writes once. */
static enum step save_step(struct save_job *self, struct mongo_collection *in, const struct op *op, int *r,
                           bson_error_t *error, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *stored = NULL;
    CLEANUP(preferences_doc_clear) struct preferences_doc was = {0};
    bool written, same = false;
    error->domain = 0;
    if (!find_stored(in, self->user_id, op, &stored, error))
        return STEP_FAILED;
    const char *last = stored ? preferences_doc_request(stored) : NULL;
    if (last && strcmp(last, self->request) == 0)
        return saved(self, stored, r, f);
    if ((*r = preferences_doc_read(stored, self->user_id, &was, f)) < 0 ||
        (*r = conflict(self, &was, f)) < 0 ||
        (*r = preferences_doc_same(&self->written, stored, &same, f)) < 0)
        return STEP_FAILED;
    if (same && (self->at_us == PREFERENCES_TIME_NONE || self->at_us == was.updated_us)) {
        self->unchanged = true;
        return saved(self, stored, r, f);
    }
    CLEANUP(bson_destroyp) bson_t *next = successor(self, stored, &was);
    if (!next) {
        *r = fail_set(f, ENOMEM, "out of memory");
        return STEP_FAILED;
    }
    if (!write_doc(in, stored, next, &written, error))
        return STEP_FAILED;
    return written ? saved(self, next, r, f) : STEP_AGAIN;
}

/* What the server's own validator says is a document of an older schema; all else is as anywhere. */
static int refused(const bson_error_t *error, struct fail *f)
{
    int err = media_error_errno(error);
    if (err == EINVAL && f && f->err == 0)
        snprintf(f->hint, sizeof f->hint, "`campusfs init` brings MongoDB to the current schema.");
    return media_error_set(f, error,
                           err == EIO ? "cannot save preferences; whether they were is not known"
                                      : "cannot save preferences");
}

static int save_run(struct mongo_job *job, struct mongo *mongo, const struct op *op, struct fail *f)
{
    struct save_job *self = (struct save_job *)(void *)job;
    for (unsigned tries = 0; tries < TRIES;) {
        CLEANUP(mongo_collection_close) struct mongo_collection in;
        bson_error_t error;
        int r = mongo_collection_open(mongo, collection_name, &in, f);
        if (r < 0)
            return r;
        enum step step = save_step(self, &in, op, &r, &error, f);
        if (step == STEP_DONE)
            return 0;
        if (step == STEP_AGAIN)
            tries++;
        else if (!error.domain)
            return r;
        else if (!mongo_try_again(&error, op))
            return refused(&error, f);
    }
    return fail_set(f, EAGAIN, "others change the preferences of user %lld again and again",
                    (long long)self->user_id);
}

int preferences_save(struct mongo *mongo, const struct preferences_put *put, const struct op *op,
                     struct preferences_doc *out, bool *unchanged, struct fail *f)
{
    struct save_job *self = calloc(1, sizeof *self);
    if (!self)
        return fail_set(f, ENOMEM, "out of memory");
    self->job.run = save_run;
    self->job.release = save_release;
    self->job.references = 1;
    self->user_id = put->user_id;
    self->at_us = put->at_us;
    self->base_us = put->base_us;
    int r = preferences_doc_parse(put->text, put->len, put->user_id, &self->written, f);
    if (r == 0 && put->at_us != PREFERENCES_TIME_NONE && (put->at_us < FIRST_US || put->at_us > LAST_US))
        r = fail_set(f, EINVAL, "a time outside the years 1 to 9999");
    if (r == 0)
        r = uuid_new(self->request);
    if (r == 0)
        r = mongo_do(mongo, &self->job, op, f);
    if (r == 0) {
        *out = self->doc;
        self->doc = (struct preferences_doc){0};
        *unchanged = self->unchanged;
    }
    mongo_job_unref(&self->job);
    return r;
}

/* Deleting */

struct note_job {
    struct mongo_job job;
    int64_t user_id;
    enum { NOTE_RESET, NOTE_DELETED, NOTE_THERE } kind;
};

static void note_release(struct mongo_job *job)
{
    free(job);
}

static bool write_note(const struct note_job *self, mongoc_collection_t *to, int64_t now, bson_error_t *error)
{
    CLEANUP(bson_destroyp) bson_t *filter = of_user(self->user_id);
    if (self->kind == NOTE_RESET)
        return mongoc_collection_delete_one(to, filter, NULL, NULL, error);
    CLEANUP(bson_destroyp)
    bson_t *update = self->kind == NOTE_THERE
                         ? BCON_NEW("$unset", "{", "_deleted_at", BCON_INT32(1), "}")
                         : BCON_NEW("$set", "{", "_deleted_at", BCON_DATE_TIME(now), "}");
    return mongoc_collection_update_one(to, filter, update, NULL, NULL, error);
}

static int note_run(struct mongo_job *job, struct mongo *mongo, const struct op *op, struct fail *f)
{
    const struct note_job *self = (struct note_job *)(void *)job;
    for (;;) {
        CLEANUP(mongo_collection_close) struct mongo_collection to = {0};
        bson_error_t error;
        int64_t now = 0; /* the server's: it deletes by its own clock */
        int r = self->kind == NOTE_DELETED ? bucket_server_ms(mongo, op, &now, f) : 0;
        r = r < 0 ? r : mongo_collection_open(mongo, collection_name, &to, f);
        if (r < 0)
            return r;
        if (write_note(self, to.handle, now, &error))
            return 0;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, "cannot delete preferences");
    }
}

static struct note_job *note_new(int64_t user_id)
{
    struct note_job *self = calloc(1, sizeof *self);
    if (!self)
        return NULL;
    self->job.run = note_run;
    self->job.release = note_release;
    self->user_id = user_id;
    return self;
}

int preferences_reset(struct mongo *mongo, int64_t user_id, const struct op *op, struct fail *f)
{
    struct note_job *self = note_new(user_id);
    if (!self)
        return fail_set(f, ENOMEM, "out of memory");
    self->kind = NOTE_RESET;
    int r = mongo_do(mongo, &self->job, op, f);
    mongo_job_unref(&self->job);
    return r;
}

void preferences_note_deleted(struct mongo *mongo, int64_t user_id, bool deleted)
{
    struct op op = op_within(NOTE_MS);
    struct note_job *self = note_new(user_id);
    if (!self)
        return;
    self->kind = deleted ? NOTE_DELETED : NOTE_THERE;
    mongo_do_later(mongo, &self->job, &op);
}
