#include "media/revision.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "media/document.h"
#include "media/mongo_client.h"

#define NUMBER_MAX (INT64_C(1) << 40) /* of a revision: others count on from it */

bool media_number(const bson_iter_t *at, int64_t *out)
{
    double value;
    bson_decimal128_t decimal;
    char text[BSON_DECIMAL128_STRING];
    switch (bson_iter_type(at)) {
    case BSON_TYPE_INT32:
        *out = bson_iter_int32(at);
        return true;
    case BSON_TYPE_INT64:
        *out = bson_iter_int64(at);
        return true;
    case BSON_TYPE_DOUBLE:
        value = bson_iter_double(at);
        break;
    case BSON_TYPE_DECIMAL128:
        if (!bson_iter_decimal128(at, &decimal))
            return false;
        bson_decimal128_to_string(&decimal, text);
        value = strtod(text, NULL);
        break;
    default:
        return false;
    }
    if (!(fabs(value) <= 9007199254740992.0) || value != floor(value)) /* 2^53; a NaN fails, too */
        return false;
    *out = (int64_t)value;
    return true;
}

void media_where(bson_t *filter, const char *field, const bson_iter_t *value)
{
    bson_t equal;
    if (!BSON_ITER_HOLDS_DOCUMENT(value) && !BSON_ITER_HOLDS_REGEX(value)) {
        bson_append_iter(filter, field, -1, value);
        return;
    }
    BSON_APPEND_DOCUMENT_BEGIN(filter, field, &equal);
    bson_append_iter(&equal, "$eq", -1, value);
    bson_append_document_end(filter, &equal);
}

void media_in_begin(struct media_in *in, const char *field)
{
    *in = (struct media_in){.field = field, .list = bson_new()};
}

void media_in_add(struct media_in *in, const bson_value_t *value)
{
    char buffer[16];
    const char *key;
    size_t len = bson_uint32_to_string(in->n++, &key, buffer, sizeof(buffer));
    bson_append_value(in->list, key, (int)len, value);
}

bson_t *media_in_end(struct media_in *in)
{
    bson_t *filter = BCON_NEW(in->field, "{", "$in", BCON_ARRAY(in->list), "}");
    bson_destroy(in->list);
    return filter;
}

void media_in_add_id(struct media_in *in, const bson_t *document)
{
    bson_iter_t at;
    if (media_field(document, "_id", &at))
        media_in_add(in, bson_iter_value(&at));
}

void media_in_add_int64(struct media_in *in, int64_t value)
{
    media_in_add(in, &(bson_value_t){.value_type = BSON_TYPE_INT64, .value.v_int64 = value});
}

bson_t *media_id_filter(const struct media_revision *revision, const char *field)
{
    bson_t id, *filter = bson_new();
    bson_iter_t at;
    if (bson_init_static(&id, revision->id, revision->id_len) && bson_iter_init_find(&at, &id, "_id"))
        media_where(filter, field, &at);
    return filter;
}

bson_t *media_metadata_filter(const struct media_revision *revision)
{
    bson_t *filter = media_id_filter(revision, "_id");
    BCON_APPEND(filter, "$or", "[", "{", "metadata", "{", "$exists", BCON_BOOL(false), "}", "}", "{",
                "metadata", "{", "$type", BCON_UTF8("object"), "}", "}", "]");
    return filter;
}

/* ---- a files document ---- */

/* The metadata, when it is a document: borrowed from it. */
static bool metadata_of(const bson_t *document, bson_t *out)
{
    bson_iter_t at;
    const uint8_t *data;
    uint32_t len;
    if (!media_field(document, "metadata", &at) || !BSON_ITER_HOLDS_DOCUMENT(&at))
        return false;
    bson_iter_document(&at, &len, &data);
    return bson_init_static(out, data, len);
}

/* What does not fit into 64 bits of nanoseconds becomes the last or first that does: year 2262 or 1677. */
static int64_t bound_ms(int64_t ms)
{
    const int64_t most = INT64_MAX / 1000000;
    return ms > most ? most : ms < -most ? -most : ms;
}

static void parse_sha256(struct media_revision *r, const bson_iter_t *at)
{
    uint32_t len;
    const char *hex = BSON_ITER_HOLDS_UTF8(at) ? bson_iter_utf8(at, &len) : NULL;
    if (!hex || len != 64 || strspn(hex, "0123456789abcdefABCDEF") != 64)
        return;
    for (size_t i = 0; i < 32; i++) {
        const char digits[3] = {hex[2 * i], hex[2 * i + 1]};
        r->sha256[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    r->has_sha256 = true;
}

static void parse_owner(struct media_revision *r, const bson_iter_t *at)
{
    bson_iter_t inner;
    int64_t number;
    if (!BSON_ITER_HOLDS_DOCUMENT(at) || !bson_iter_recurse(at, &inner))
        return;
    while (bson_iter_next(&inner)) {
        if (!media_number(&inner, &number) || number < 0 || number >= UINT32_MAX)
            continue;
        if (strcmp(bson_iter_key(&inner), "uid") == 0)
            r->uid = number;
        else if (strcmp(bson_iter_key(&inner), "gid") == 0)
            r->gid = number;
    }
}

static void parse_metadata(struct media_revision *r, const bson_t *metadata)
{
    bson_iter_t at;
    int64_t number;
    if (media_field(metadata, "mtime", &at)) {
        if (BSON_ITER_HOLDS_DATE_TIME(&at))
            r->mtime_ns = bound_ms(bson_iter_date_time(&at)) * 1000000;
        else if (media_number(&at, &number))
            r->mtime_ns = number;
    }
    if (media_field(metadata, "mode", &at) && media_number(&at, &number) && number >= 0)
        r->mode = (int32_t)(number & 07777);
    if (media_field(metadata, "revision", &at) && media_number(&at, &number) && number > 0 &&
        number <= NUMBER_MAX)
        r->number = number;
    if (media_field(metadata, "owner", &at))
        parse_owner(r, &at);
    if (media_field(metadata, "sha256", &at))
        parse_sha256(r, &at);
}

/* Length and chunk size, and whether they can be true. */
static const char *parse_size(struct media_revision *r, const bson_t *document)
{
    bson_iter_t at;
    if (!media_field(document, "length", &at) || !media_number(&at, &r->length) || r->length < 0) {
        r->length = 0;
        return "its length is no whole number from 0 on";
    }
    if (!media_field(document, "chunkSize", &at) || !media_number(&at, &r->chunk_size) || r->chunk_size < 1)
        return "its chunkSize is no whole number from 1 on";
    if (r->chunk_size > MEDIA_CHUNK_MAX) {
        if (r->length > MEDIA_CHUNK_MAX)
            return "its chunkSize is more than a document can hold";
        r->chunk_size = MEDIA_CHUNK_MAX; /* all lies in one chunk */
    }
    if (media_revision_chunks(r) > INT32_MAX)
        return "its length needs more than 2147483647 chunks";
    return NULL;
}

static struct media_revision *revision_new(const bson_t *id, const char *filename, uint32_t filename_len)
{
    struct media_revision *r = calloc(1, sizeof(*r) + id->len + filename_len + 1);
    if (!r)
        return NULL;
    uint8_t *tail = (uint8_t *)(r + 1);
    r->references = 1;
    r->id = memcpy(tail, bson_get_data(id), id->len);
    r->id_len = id->len;
    r->id_hash = map_hash_bytes(r->id, r->id_len, 0);
    if (filename) {
        r->filename = memcpy(tail + id->len, filename, filename_len);
        r->filename_len = filename_len;
    }
    r->mode = -1;
    r->uid = r->gid = -1;
    return r;
}

static uint64_t hash_of_bytes(const struct media_revision *r)
{
    uint64_t hash = map_hash_number(r->id_hash ^ (uint64_t)r->uploaded_ms);
    hash = map_hash_number(hash ^ (uint64_t)r->length);
    return map_hash_number(hash ^ (uint64_t)r->chunk_size);
}

int media_revision_parse(const struct _bson_t *document, struct media_revision **out)
{
    bson_iter_t at;
    bson_t metadata;
    const char *filename = NULL;
    uint32_t len = 0;
    if (!media_field(document, "_id", &at))
        return -EINVAL;
    CLEANUP(bson_destroyp) bson_t *id = bson_new();
    if (!bson_append_iter(id, "_id", -1, &at))
        return -ENOMEM;
    if (media_field(document, "filename", &at) && BSON_ITER_HOLDS_UTF8(&at))
        filename = bson_iter_utf8(&at, &len);
    if (len > MEDIA_FILENAME_MAX) {
        filename = NULL;
        len = 0;
    }
    struct media_revision *r = revision_new(id, filename, len);
    if (!r)
        return -ENOMEM;
    if (media_field(document, "uploadDate", &at) && BSON_ITER_HOLDS_DATE_TIME(&at))
        r->uploaded_ms = bound_ms(bson_iter_date_time(&at));
    r->mtime_ns = r->uploaded_ms * 1000000;
    r->broken = parse_size(r, document);
    r->bytes_hash = hash_of_bytes(r);
    if (metadata_of(document, &metadata))
        parse_metadata(r, &metadata);
    *out = r;
    return 0;
}

struct media_revision *media_revision_ref(struct media_revision *revision)
{
    if (revision)
        __atomic_add_fetch(&revision->references, 1, __ATOMIC_RELAXED);
    return revision;
}

void media_revision_unref(struct media_revision *revision)
{
    if (revision && __atomic_sub_fetch(&revision->references, 1, __ATOMIC_ACQ_REL) == 0)
        free(revision);
}

/* ---- ids and chunks ---- */

bool media_revision_same(const struct media_revision *a, const struct media_revision *b)
{
    return a == b || (a->id_hash == b->id_hash && a->id_len == b->id_len && !memcmp(a->id, b->id, a->id_len));
}

bool media_revision_same_bytes(const struct media_revision *a, const struct media_revision *b)
{
    return media_revision_same(a, b) && a->uploaded_ms == b->uploaded_ms && a->length == b->length &&
           a->chunk_size == b->chunk_size;
}

/* The order that a server sorts ids in, as far as two ids of one type go: drivers do not mix them. */
static int order_ids(const struct media_revision *a, const struct media_revision *b)
{
    bson_t x, y;
    bson_iter_t i, j;
    int64_t m, n;
    if (bson_init_static(&x, a->id, a->id_len) && bson_init_static(&y, b->id, b->id_len) &&
        bson_iter_init_find(&i, &x, "_id") && bson_iter_init_find(&j, &y, "_id")) {
        if (media_number(&i, &m) && media_number(&j, &n))
            return (m > n) - (m < n);
        if (BSON_ITER_HOLDS_UTF8(&i) && BSON_ITER_HOLDS_UTF8(&j))
            return strcmp(bson_iter_utf8(&i, NULL), bson_iter_utf8(&j, NULL));
    }
    size_t both = a->id_len < b->id_len ? a->id_len : b->id_len;
    int r = memcmp(a->id, b->id, both);
    return r ? r : (a->id_len > b->id_len) - (a->id_len < b->id_len);
}

int media_revision_order(const struct media_revision *a, const struct media_revision *b)
{
    if (a->uploaded_ms != b->uploaded_ms)
        return a->uploaded_ms < b->uploaded_ms ? -1 : 1;
    return order_ids(a, b);
}

void media_revision_id_text(const struct media_revision *revision, char *out, size_t size)
{
    bson_t id;
    bson_iter_t at;
    *out = '\0';
    if (!bson_init_static(&id, revision->id, revision->id_len) || !bson_iter_init_find(&at, &id, "_id"))
        return;
    if (BSON_ITER_HOLDS_OID(&at) && size > 24) {
        bson_oid_to_string(bson_iter_oid(&at), out);
        return;
    }
    char *json = bson_as_relaxed_extended_json(&id, NULL); /* { "_id" : VALUE } */
    const char *value = json ? strchr(json, ':') : NULL;
    size_t len = value ? strlen(value) : 0;
    if (len > 4)
        snprintf(out, size, "%.*s", (int)(len - 4), value + 2);
    bson_free(json);
}

int64_t media_revision_chunks(const struct media_revision *r)
{
    return r->length / r->chunk_size + (r->length % r->chunk_size != 0);
}

size_t media_revision_chunk_len(const struct media_revision *r, int64_t n)
{
    int64_t left = r->length - n * r->chunk_size;
    return (size_t)(left < r->chunk_size ? left : r->chunk_size);
}

int media_revisions_make(struct media_revision **list, size_t n, struct media_revisions *out)
{
    *out = (struct media_revisions){list, malloc(n * sizeof(*out->numbers) + 1), n};
    if (!out->numbers) {
        media_revisions_clear(out);
        return -ENOMEM;
    }
    int64_t last = 0;
    for (size_t i = n; i-- > 0;)
        out->numbers[i] = last = list[i]->number > last ? list[i]->number : last + 1;
    return 0;
}

void media_revisions_clear(struct media_revisions *revisions)
{
    for (size_t i = 0; i < revisions->n; i++)
        media_revision_unref(revisions->list[i]);
    free(revisions->list);
    free(revisions->numbers);
    *revisions = (struct media_revisions){0};
}

/* ---- details ---- */

/* A text of the document; what holds a NUL byte is none. */
static int copy_text(const bson_t *document, const char *name, char **out)
{
    bson_iter_t at;
    uint32_t len;
    if (!media_field(document, name, &at) || !BSON_ITER_HOLDS_UTF8(&at))
        return 0;
    const char *text = bson_iter_utf8(&at, &len);
    if (strlen(text) != len)
        return 0;
    *out = strdup(text);
    return *out ? 0 : -ENOMEM;
}

static void parse_numbers(const bson_t *metadata, struct media_details *out)
{
    bson_iter_t at;
    int64_t number;
    if (media_field(metadata, "courseId", &at) && media_number(&at, &number) && number > 0)
        out->course_id = number;
    if (media_field(metadata, "durationMs", &at) && media_number(&at, &number) && number >= 0)
        out->duration_ms = number;
}

int media_details_parse(const struct _bson_t *document, struct media_details *out)
{
    bson_t metadata;
    *out = (struct media_details){.duration_ms = -1};
    if (!metadata_of(document, &metadata))
        return copy_text(document, "contentType", &out->content_type); /* where old drivers put it */
    parse_numbers(&metadata, out);
    int r = copy_text(&metadata, "title", &out->title);
    r = r < 0 ? r : copy_text(&metadata, "language", &out->language);
    r = r < 0 ? r : copy_text(&metadata, "contentType", &out->content_type);
    if (r == 0 && !out->content_type)
        r = copy_text(document, "contentType", &out->content_type);
    if (r == 0 && !(out->metadata = malloc(metadata.len)))
        r = -ENOMEM;
    if (r < 0) {
        media_details_clear(out);
        return r;
    }
    memcpy(out->metadata, bson_get_data(&metadata), metadata.len);
    return 0;
}

void media_details_clear(struct media_details *details)
{
    free(details->title);
    free(details->content_type);
    free(details->language);
    free(details->metadata);
    *details = (struct media_details){.duration_ms = -1};
}
