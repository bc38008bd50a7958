/* Reading: a files document, and what the index has of the other revisions, as a text. */
#include "media/meta_private.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/utc.h"
#include "media/bucket.h"
#include "media/content_type.h"
#include "media/document.h"

enum { REVISIONS_MAX = 1000 }; /* that the text tells of, the newest ones */

static struct {
    pthread_once_t once;
    struct json_schema *schema;
    int result;
    struct fail fail;
} model = {.once = PTHREAD_ONCE_INIT};

static void load(void)
{
    model.result = json_schema_load("mongo/media_meta.schema.json", &model.schema, &model.fail);
}

int media_meta_schema(const struct json_schema **out, struct fail *f)
{
    pthread_once(&model.once, load);
    if (model.result < 0 && f && f->err == 0)
        *f = model.fail;
    *out = model.schema;
    return model.result;
}

void media_meta_clear(struct media_meta *meta)
{
    free(meta->text);
    *meta = (struct media_meta){0};
}

/* ---- fields ---- */

void media_meta_fields_clear(struct media_meta_fields *fields)
{
    free(fields->title);
    free(fields->language);
    free(fields->content_type);
    *fields = (struct media_meta_fields){.duration_ms = -1};
}

/* A text of another program counts where it is one that could be saved. */
static void keep_if_valid(const struct json_schema *schema, const char *name, char **text)
{
    CLEANUP(bson_destroyp) bson_t *one = bson_new();
    if (*text && bson_utf8_validate(*text, strlen(*text), false) && BSON_APPEND_UTF8(one, name, *text) &&
        json_schema_check(schema, one, NULL) == 0)
        return;
    free(*text);
    *text = NULL;
}

static void parse_own(const bson_t *document, struct media_meta_fields *out)
{
    bson_iter_t at, inner;
    if (!media_field(document, "metadata", &at) || !BSON_ITER_HOLDS_DOCUMENT(&at) ||
        !bson_iter_recurse(&at, &inner))
        return;
    while (bson_iter_next(&inner)) {
        const char *key = bson_iter_key(&inner);
        if (strcmp(key, "contentTypeGiven") == 0)
            out->given = BSON_ITER_HOLDS_BOOL(&inner) && bson_iter_bool(&inner);
        else if (strcmp(key, "updatedAt") == 0 && BSON_ITER_HOLDS_DATE_TIME(&inner) &&
                 bson_iter_date_time(&inner) < INT64_MAX / 1000 &&
                 bson_iter_date_time(&inner) > INT64_MIN / 1000)
            out->updated_us = bson_iter_date_time(&inner) * 1000;
    }
}

int media_meta_fields(const bson_t *document, struct media_meta_fields *out)
{
    const struct json_schema *schema;
    struct media_details details;
    *out = (struct media_meta_fields){.duration_ms = -1, .updated_us = MEDIA_META_TIME_NONE};
    int r = media_meta_schema(&schema, NULL);
    r = r < 0 ? r : media_details_parse(document, &details);
    if (r < 0)
        return r;
    out->title = STEAL(details.title);
    out->language = STEAL(details.language);
    out->content_type = STEAL(details.content_type);
    out->duration_ms = details.duration_ms;
    media_details_clear(&details);
    keep_if_valid(schema, "title", &out->title);
    keep_if_valid(schema, "language", &out->language);
    keep_if_valid(schema, "content_type", &out->content_type);
    parse_own(document, out);
    out->given = out->given && out->content_type;
    return 0;
}

void media_meta_projection(bson_t *opts)
{
    BCON_APPEND(opts, "projection", "{", "metadata", BCON_INT32(1), "contentType", BCON_INT32(1), "}");
}

int media_meta_document(struct media *media, unsigned region, const struct media_revision *revision,
                        const struct op *op, bson_t **out, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(revision, "_id");
    CLEANUP(bson_destroyp) bson_t *opts = bson_new();
    media_meta_projection(opts);
    return bucket_find_one(media_mongo(media), media_region(media, region), "files", filter, opts, out,
                           "cannot look into GridFS", op, f);
}

char *media_meta_find_type(struct media *media, unsigned region, struct media_revision *revision,
                           const struct op *op)
{
    char type[CONTENT_TYPE_MAX + 1];
    struct media_reader *reader = NULL;
    char *found = NULL, *head = revision->broken || revision->length == 0 ? NULL : malloc(CONTENT_TYPE_BYTES);
    if (head &&
        media_reader_open(media_chunks(media), media_region(media, region), revision, &reader, NULL) == 0) {
        ssize_t n = media_reader_read(reader, head, CONTENT_TYPE_BYTES, 0, op, NULL);
        if (n > 0 && content_type_of(head, (size_t)n, type))
            found = strdup(type);
    }
    media_reader_close(reader);
    free(head);
    return found;
}

/* ---- the text ---- */

static int add_text(struct buf *out, const char *key, const char *text)
{
    int r = buf_printf(out, "\"%s\":", key);
    if (r < 0)
        return r;
    r = text ? json_add_string(out, text, strlen(text)) : buf_add_text(out, "null");
    return r < 0 ? r : buf_add_char(out, ',');
}

static int add_time(struct buf *out, const char *key, int64_t us, bool known)
{
    char text[UTC_TEXT];
    return add_text(out, key, known && utc_text(us, text) == 0 ? text : NULL);
}

static int add_sha256(struct buf *out, const struct media_revision *revision)
{
    char hex[65];
    for (size_t i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", revision->sha256[i]);
    return add_text(out, "sha256", revision->has_sha256 ? hex : NULL);
}

static int add_revision(struct buf *out, const struct media_revision *revision, int64_t number, bool current)
{
    int r = buf_printf(out, "{\"n\":%lld,", (long long)number);
    if (r == 0)
        r = add_time(out, "uploaded_at", revision->uploaded_ms * 1000, revision->uploaded_ms != 0);
    if (r == 0)
        r = buf_printf(out, "\"size\":%lld,", (long long)revision->length);
    if (r == 0)
        r = add_sha256(out, revision);
    return r < 0 ? r : buf_printf(out, "\"current\":%s}", current ? "true" : "false");
}

static int add_revisions(struct buf *out, const struct media_revisions *revisions)
{
    int r = buf_add_text(out, "\"revisions\":[");
    for (size_t i = 0; r == 0 && i < revisions->n && i < REVISIONS_MAX; i++) {
        r = i ? buf_add_char(out, ',') : 0;
        if (r == 0)
            r = add_revision(out, revisions->list[i], revisions->numbers[i], i == 0);
    }
    return r < 0 ? r : buf_add_text(out, "],");
}

static int render(const char *name, const struct media_revision *revision,
                  const struct media_meta_fields *fields, const struct media_revisions *revisions,
                  int64_t updated_us, struct buf *out)
{
    char updated[UTC_TEXT];
    int r = buf_add_char(out, '{');
    r = r < 0 ? r : add_text(out, "name", name);
    r = r < 0 ? r : add_text(out, "title", fields->title);
    r = r < 0 ? r : add_text(out, "language", fields->language);
    r = r < 0 ? r : add_text(out, "content_type", fields->content_type);
    if (r == 0 && fields->duration_ms >= 0)
        r = buf_printf(out, "\"duration_ms\":%lld,", (long long)fields->duration_ms);
    else if (r == 0)
        r = add_text(out, "duration_ms", NULL);
    r = r < 0 ? r : buf_printf(out, "\"size\":%lld,", (long long)revision->length);
    r = r < 0 ? r : add_sha256(out, revision);
    r = r < 0 ? r : add_time(out, "modified_at", revision->mtime_ns / 1000, true);
    r = r < 0 ? r : add_revisions(out, revisions);
    if (r == 0 && utc_text(updated_us, updated) == 0)
        return buf_printf(out, "\"updated_at\":\"%s\"}", updated);
    return r < 0 ? r : buf_add_text(out, "\"updated_at\":null}");
}

int media_meta_read(struct media *media, unsigned region, const char *name, const struct media_info *info,
                    const struct media_meta_page *page, const struct op *op, struct media_meta *out,
                    struct fail *f)
{
    CLEANUP(media_meta_fields_clear) struct media_meta_fields fields = {0};
    CLEANUP(media_revisions_clear) struct media_revisions revisions = {0};
    CLEANUP(bson_destroyp) bson_t *asked = NULL;
    struct buf compact CLEANUP(buf_clear) = {0}, text CLEANUP(buf_clear) = {0};
    const bson_t *document = media_meta_page_find(page, info->revision);
    int r = document ? 0 : media_meta_document(media, region, info->revision, op, &asked, f);
    document = document ? document : asked;
    if (r == 0 && !document)
        r = -ESTALE;
    r = r < 0 ? r : media_index_revisions(media_index(media, region), info->node, &revisions);
    r = r < 0 ? r : media_meta_fields(document, &fields);
    if (r < 0)
        return r == -ENOENT ? -ESTALE : r;
    if (!fields.content_type)
        fields.content_type = media_meta_find_type(media, region, info->revision, op);
    out->updated_us =
        fields.updated_us != MEDIA_META_TIME_NONE ? fields.updated_us : info->revision->uploaded_ms * 1000;
    r = render(name, info->revision, &fields, &revisions, out->updated_us, &compact);
    r = r < 0 ? r : json_layout(compact.data, compact.len, &text);
    if (r < 0)
        return r;
    out->text = STEAL(text.data);
    out->len = text.len;
    return 0;
}
