/* Saving: a text becomes fields of one files document, which says when that was. */
#include "media/meta_private.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/utc.h"
#include "media/bucket.h"
#include "media/document.h"

enum {
    TRIES = 20,       /* against others who change the same document */
    TRY_EVERY_MS = 50 /* until the index has heard of a revision that is gone */
};

/* What somebody wrote: texts are borrowed from the object. */
struct written {
    json_t *object; /* owned */
    const char *title, *language, *content_type;
    int64_t duration_ms; /* -1 = null */
    int64_t base_us;     /* MEDIA_META_TIME_NONE = none given */
};

static void written_clear(struct written *written)
{
    json_decref(written->object);
}

/* ---- what was written ---- */

/* What the schema needs to judge a value: of containers only that they are some. */
static void append_value(bson_t *to, const char *key, const json_t *value)
{
    bson_t empty = BSON_INITIALIZER;
    switch (json_typeof(value)) {
    case JSON_STRING:
        bson_append_utf8(to, key, -1, json_string_value(value), (int)json_string_length(value));
        break;
    case JSON_INTEGER:
        BSON_APPEND_INT64(to, key, json_integer_value(value));
        break;
    case JSON_REAL:
        BSON_APPEND_DOUBLE(to, key, json_real_value(value));
        break;
    case JSON_NULL:
        BSON_APPEND_NULL(to, key);
        break;
    case JSON_OBJECT:
        BSON_APPEND_DOCUMENT(to, key, &empty);
        break;
    case JSON_ARRAY:
        BSON_APPEND_ARRAY(to, key, &empty);
        break;
    default:
        BSON_APPEND_BOOL(to, key, json_is_true(value));
    }
}

static int check_fields(json_t *object, struct fail *f)
{
    const struct json_schema *schema;
    const char *key;
    json_t *value;
    int r = media_meta_schema(&schema, f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *fields = bson_new();
    json_object_foreach(object, key, value) append_value(fields, key, value);
    return json_schema_check(schema, fields, f);
}

static int take_updated_at(const json_t *value, int64_t *us, struct fail *f)
{
    *us = MEDIA_META_TIME_NONE;
    if (!value || json_is_null(value) ||
        (json_is_string(value) && utc_parse(json_string_value(value), us) == 0))
        return 0;
    if (f && f->err == 0)
        snprintf(f->column, sizeof f->column, "updated_at");
    return fail_set(f, EINVAL, "updated_at: must be a time such as \"2026-11-22T15:48:30.123456Z\"");
}

static int parse(const struct media_meta_put *put, struct written *out, struct fail *f)
{
    json_error_t error;
    out->object = json_loadb(put->text, put->len, JSON_REJECT_DUPLICATES, &error);
    if (!out->object)
        return fail_set(f, EINVAL, "not valid JSON: %s", error.text);
    int r = check_fields(out->object, f);
    r = r < 0 ? r : take_updated_at(json_object_get(out->object, "updated_at"), &out->base_us, f);
    const json_t *duration = json_object_get(out->object, "duration_ms");
    out->title = json_string_value(json_object_get(out->object, "title"));
    out->language = json_string_value(json_object_get(out->object, "language"));
    out->content_type = json_string_value(json_object_get(out->object, "content_type"));
    out->duration_ms = json_is_integer(duration) ? json_integer_value(duration) : -1;
    return r;
}

/* ---- what is to be done ---- */

struct saving {
    struct media *media;
    unsigned region;
    const struct media_meta_put *put;
    struct written written;
    bool settled; /* it was saved once: what follows only brings it to later revisions */
    int64_t updated_us;
    const struct op *op;
    struct fail *f;
};

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static int conflict(const struct saving *s, int64_t shown_us)
{
    int64_t seen = s->written.base_us;
    if (s->settled || seen == MEDIA_META_TIME_NONE || shown_us <= seen || shown_us <= s->put->base_us)
        return 0;
    if (s->f && s->f->err == 0) {
        snprintf(s->f->column, sizeof s->f->column, "updated_at");
        snprintf(s->f->hint, sizeof s->f->hint,
                 "Read it again and repeat the edit; a document without updated_at replaces what is there.");
    }
    return fail_set(s->f, ECANCELED, "this was changed after the version that the document is based on");
}

/* The fields that a save changes, as `metadata` has them. */
static const char *const stored[] = {"title",       "language",         "durationMs",
                                     "contentType", "contentTypeGiven", "updatedAt"};
enum { NSTORED = sizeof(stored) / sizeof(*stored) };

/* Exactly this document, as far as a save changes it. */
static bson_t *filter_of(const struct media_revision *revision, const bson_t *metadata)
{
    bson_t *filter = media_id_filter(revision, "_id");
    bson_iter_t at;
    if (!metadata) {
        BSON_APPEND_NULL(filter, "metadata"); /* also where there is none */
        return filter;
    }
    for (size_t i = 0; i < NSTORED; i++) {
        char path[64];
        snprintf(path, sizeof path, "metadata.%s", stored[i]);
        if (media_field(metadata, stored[i], &at))
            media_where(filter, path, &at);
        else
            BCON_APPEND(filter, path, "{", "$exists", BCON_BOOL(false), "}");
    }
    return filter;
}

/* A text that is null goes from the document. */
static void set_text(bson_t *set, bson_t *unset, const char *path, const char *text)
{
    if (text)
        BSON_APPEND_UTF8(set, path, text);
    else
        BSON_APPEND_INT32(unset, path, 1);
}

/* `prefix`: where the fields lie. A field that stays is not touched, whatever is there. */
static void changes(const struct saving *s, const struct media_meta_fields *was, const char *type, bool given,
                    const char *prefix, bson_t *set, bson_t *unset)
{
    const struct written *w = &s->written;
    char path[64];
#define PATH(name) (snprintf(path, sizeof path, "%s" name, prefix), path)
    if (!same_text(w->title, was->title))
        set_text(set, unset, PATH("title"), w->title);
    if (!same_text(w->language, was->language))
        set_text(set, unset, PATH("language"), w->language);
    if (w->duration_ms != was->duration_ms && w->duration_ms >= 0)
        BSON_APPEND_INT64(set, PATH("durationMs"), w->duration_ms);
    else if (w->duration_ms != was->duration_ms)
        BSON_APPEND_INT32(unset, PATH("durationMs"), 1);
    if (!same_text(type, was->content_type) || was->found)
        set_text(set, unset, PATH("contentType"), type);
    if (given && !was->given)
        BSON_APPEND_BOOL(set, PATH("contentTypeGiven"), true);
    else if (!given && was->given)
        BSON_APPEND_INT32(unset, PATH("contentTypeGiven"), 1);
    BSON_APPEND_DATE_TIME(set, PATH("updatedAt"), s->updated_us / 1000);
#undef PATH
}

static bson_t *update_of(const struct saving *s, const struct media_meta_fields *was, const char *type,
                         bool given, bool has_metadata)
{
    CLEANUP(bson_destroyp) bson_t *set = bson_new();
    CLEANUP(bson_destroyp) bson_t *unset = bson_new();
    bson_t *update = bson_new();
    changes(s, was, type, given, has_metadata ? "metadata." : "", set, unset);
    if (!has_metadata) {
        BCON_APPEND(update, "$set", "{", "metadata", BCON_DOCUMENT(set), "}");
        return update;
    }
    BSON_APPEND_DOCUMENT(update, "$set", set);
    if (!bson_empty(unset))
        BSON_APPEND_DOCUMENT(update, "$unset", unset);
    return update;
}

/* ---- one document ---- */

enum step { STEP_SAVED, STEP_SAME, STEP_AGAIN };

/* *metadata is borrowed from the document; false in *has where it has none. */
static int metadata_in(const struct saving *s, const bson_t *document, bson_t *metadata, bool *has)
{
    bson_iter_t at;
    const uint8_t *data;
    uint32_t len;
    *has = media_field(document, "metadata", &at) && !BSON_ITER_HOLDS_NULL(&at);
    if (!*has)
        return 0;
    if (!BSON_ITER_HOLDS_DOCUMENT(&at))
        return fail_set(s->f, EINVAL,
                        "another program has stored metadata of this file that are no document: they are "
                        "left alone");
    bson_iter_document(&at, &len, &data);
    return bson_init_static(metadata, data, len) ? 0 : fail_set(s->f, EIO, "its document is damaged");
}

/* What the save makes of the content type: null goes back to what the bytes say; what was shown and is
 * written again is nobody's choice. */
static int choose_type(const struct saving *s, struct media_revision *revision,
                       const struct media_meta_fields *was, char **type, bool *given)
{
    const char *wanted = s->written.content_type;
    *given = wanted && (was->given || !same_text(wanted, was->content_type));
    *type = wanted ? strdup(wanted) : media_meta_find_type(s->media, s->region, revision, s->op);
    return wanted && !*type ? -ENOMEM : 0;
}

static int64_t next_time(int64_t shown_us)
{
    int64_t now = bucket_now_ms() * 1000;
    return now > shown_us ? now : shown_us + 1000;
}

/* A null that stays null is no change, though the type could be found out. */
static bool says_same(const struct written *w, const struct media_meta_fields *was)
{
    return same_text(w->title, was->title) && same_text(w->language, was->language) &&
           w->duration_ms == was->duration_ms && same_text(w->content_type, was->content_type);
}

static int save_once(struct saving *s, struct media_revision *revision, enum step *step)
{
    CLEANUP(media_meta_fields_clear) struct media_meta_fields was = {0};
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    char *type CLEANUP(freep) = NULL;
    bson_t metadata;
    bool has, given;
    int64_t matched = 0;
    *step = STEP_AGAIN;
    int r = media_meta_document(s->media, s->region, revision, s->op, &document, s->f);
    if (r < 0 || !document)
        return r;
    r = media_meta_fields(document, &was);
    if (r == 0 && !was.content_type) {
        was.content_type = media_meta_find_type(s->media, s->region, revision, s->op);
        was.found = was.content_type;
    }
    int64_t shown_us = was.updated_us != MEDIA_META_TIME_NONE ? was.updated_us : revision->uploaded_ms * 1000;
    if (r == 0 && says_same(&s->written, &was)) {
        *step = STEP_SAME;
        s->updated_us = shown_us;
        return 0;
    }
    r = r < 0 ? r : conflict(s, shown_us);
    r = r < 0 ? r : metadata_in(s, document, &metadata, &has);
    r = r < 0 ? r : choose_type(s, revision, &was, &type, &given);
    if (r < 0)
        return r;
    s->updated_us = next_time(shown_us);
    CLEANUP(bson_destroyp) bson_t *filter = filter_of(revision, has ? &metadata : NULL);
    CLEANUP(bson_destroyp) bson_t *update = update_of(s, &was, type, given, has);
    r = bucket_update(media_mongo(s->media), media_region(s->media, s->region), "files", filter, update,
                      false, &matched, "cannot save what is known of the file", s->op, s->f);
    if (r == 0 && matched == 1)
        *step = STEP_SAVED;
    return r;
}

/* ---- all of it ---- */

/* The newest revision of a name in the database itself, which the index may not have heard of yet; NULL when
 * there is none. */
static int find_newest(const struct saving *s, const char *filename, struct media_revision **out)
{
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("filename", BCON_UTF8(filename));
    CLEANUP(bson_destroyp)
    bson_t *opts = BCON_NEW("sort", "{", "uploadDate", BCON_INT32(-1), "_id", BCON_INT32(-1), "}");
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    int r = bucket_find_one(media_mongo(s->media), media_region(s->media, s->region), "files", filter, opts,
                            &document, "cannot look into GridFS", s->op, s->f);
    return r == 0 && document ? media_revision_parse(document, out) : r;
}

/*
 * A revision that was published while this was being saved began with what was there before: it gets this,
 * too, and so on until the one that has it is the newest. Who publishes looks for the reverse
 * (staging_publish.c).
 */
static int follow(struct saving *s, struct media_revision *first)
{
    CLEANUP(media_revision_unrefp) struct media_revision *saved = media_revision_ref(first);
    s->settled = true;
    for (unsigned tries = 0; tries < TRIES; tries++) {
        CLEANUP(media_revision_unrefp) struct media_revision *last = NULL;
        enum step step;
        int r = find_newest(s, first->filename, &last);
        if (r < 0 || !last || media_revision_same(last, saved))
            return r;
        r = save_once(s, last, &step);
        if (r < 0)
            return r;
        if (step != STEP_AGAIN) {
            media_revision_unref(saved);
            saved = STEAL(last);
        }
    }
    return 0;
}

static void wait_a_little(void)
{
    struct timespec pause = {.tv_nsec = TRY_EVERY_MS * 1000000};
    nanosleep(&pause, NULL);
}

static int save(struct saving *s, uint64_t ino, bool *unchanged)
{
    struct media_index *index = media_index(s->media, s->region);
    for (unsigned tries = 0; tries < TRIES && op_left_ms(s->op) > 0; tries++) {
        struct media_info info = {0};
        char name[MEDIA_NAME_MAX + 1];
        uint64_t folder;
        enum step step = STEP_AGAIN;
        int r = index ? media_index_file_of(index, ino, s->op, &info, &folder, name, s->f) : -ESTALE;
        if (r == -ESTALE)
            return fail_set(s->f, ECANCELED, "the file has been removed, or another has its place");
        r = r < 0 ? r : save_once(s, info.revision, &step);
        *unchanged = step == STEP_SAME;
        if (r == 0 && step == STEP_SAVED)
            r = follow(s, info.revision);
        media_info_clear(&info);
        if (r < 0 || step != STEP_AGAIN)
            return r;
        wait_a_little();
    }
    return fail_set(s->f, EAGAIN, "others change this again and again");
}

int media_meta_save(struct media *media, unsigned region, uint64_t ino, const struct media_meta_put *put,
                    const struct op *op, int64_t *updated_us, bool *unchanged, struct fail *f)
{
    struct saving s = {.media = media, .region = region, .put = put, .op = op, .f = f};
    *unchanged = false;
    int r = parse(put, &s.written, f);
    r = r < 0 ? r : save(&s, ino, unchanged);
    written_clear(&s.written);
    *updated_us = s.updated_us;
    return r;
}
