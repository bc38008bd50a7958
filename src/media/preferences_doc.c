#include "media/preferences_doc.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/map.h"
#include "base/sql.h"
#include "base/utc.h"
#include "media/json_schema.h"

enum {
    DEPTH_MAX = 100, /* levels of a document, also of what other writers stored */
    DIGITS_MAX = 15, /* significant digits that a double keeps */
    US_A_MS = 1000,
};
#define REV_MASK ((UINT64_C(1) << 62) - 1)

static struct {
    pthread_once_t once;
    struct json_schema *schema;
    bson_t *defaults;
    int64_t defaults_us; /* their updated_at */
    int result;
    struct fail fail;
} model = {.once = PTHREAD_ONCE_INIT};

static bool is_private(const char *name)
{
    return name[0] == '_';
}

static bool is_special(const char *name)
{
    return strcmp(name, "user_id") == 0 || strcmp(name, "updated_at") == 0;
}

static void load(void)
{
    static const char file[] = "mongo/preferences.defaults.json";
    bson_error_t error = {.message = "no such file"};
    const char *text = sql_text(file);
    bson_iter_t at;
    model.result = json_schema_load("mongo/preferences.schema.json", &model.schema, &model.fail);
    if (model.result < 0)
        return;
    model.defaults = text ? bson_new_from_json((const uint8_t *)text, -1, &error) : NULL;
    if (!model.defaults || !bson_iter_init_find(&at, model.defaults, "updated_at") ||
        !BSON_ITER_HOLDS_DATE_TIME(&at))
        model.result = fail_set(&model.fail, EINVAL, "sql/%s: %s", file,
                                model.defaults ? "has no updated_at" : error.message);
    else
        model.defaults_us = bson_iter_date_time(&at) * US_A_MS;
}

int preferences_doc_prepare(struct fail *f)
{
    pthread_once(&model.once, load);
    if (model.result < 0 && f && f->err == 0)
        *f = model.fail;
    return model.result;
}

/* BSON as JSON text */

/* The shortest text that reads back as the number, with a fraction so that it stays one. */
static int add_double(struct buf *out, double number, bool plain)
{
    char text[40];
    if (!isfinite(number))
        return buf_add_text(out, "null"); /* JSON has no word for it */
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    int r = buf_add_text(out, text);
    return r == 0 && !plain && !strpbrk(text, ".e") ? buf_add_text(out, ".0") : r;
}

/* What JSON has no type for, as MongoDB's extended JSON writes it. */
static int add_extended(struct buf *out, const bson_iter_t *value)
{
    bson_t one = BSON_INITIALIZER;
    size_t len;
    bson_append_iter(&one, "x", 1, value);
    char *text = bson_as_relaxed_extended_json(&one, &len);
    const char *from = text ? strchr(text, ':') : NULL, *end = text ? strrchr(text, '}') : NULL;
    int r = from && end > from ? buf_add(out, from + 1, (size_t)(end - from - 1)) : -EIO;
    bson_free(text);
    bson_destroy(&one);
    return r;
}

static int add_value(struct buf *out, const bson_iter_t *value, unsigned depth, bool plain);

static int add_key(struct buf *out, bool first, const char *key)
{
    int r = first ? 0 : buf_add_char(out, ',');
    if (r == 0)
        r = json_add_string(out, key, strlen(key));
    return r < 0 ? r : buf_add_char(out, ':');
}

static int add_container(struct buf *out, const bson_iter_t *value, unsigned depth, bool plain)
{
    bool array = BSON_ITER_HOLDS_ARRAY(value), first = true;
    bson_iter_t item;
    if (depth > DEPTH_MAX || !bson_iter_recurse(value, &item))
        return -EIO;
    int r = buf_add_char(out, array ? '[' : '{');
    for (; r == 0 && bson_iter_next(&item); first = false) {
        r = !array ? add_key(out, first, bson_iter_key(&item)) : first ? 0 : buf_add_char(out, ',');
        if (r == 0)
            r = add_value(out, &item, depth + 1, plain);
    }
    return r < 0 ? r : buf_add_char(out, array ? ']' : '}');
}

static int add_value(struct buf *out, const bson_iter_t *value, unsigned depth, bool plain)
{
    uint32_t len;
    const char *text;
    switch (bson_iter_type(value)) {
    case BSON_TYPE_NULL:
        return buf_add_text(out, "null");
    case BSON_TYPE_BOOL:
        return buf_add_text(out, bson_iter_bool(value) ? "true" : "false");
    case BSON_TYPE_INT32:
    case BSON_TYPE_INT64:
        return buf_printf(out, "%lld", (long long)bson_iter_as_int64(value));
    case BSON_TYPE_DOUBLE:
        return add_double(out, bson_iter_double(value), plain);
    case BSON_TYPE_UTF8:
        text = bson_iter_utf8(value, &len);
        return json_add_string(out, text, len);
    case BSON_TYPE_DOCUMENT:
    case BSON_TYPE_ARRAY:
        return add_container(out, value, depth, plain);
    default:
        return add_extended(out, value);
    }
}

/* Finds a field of a document that may be NULL. */
static bool find(const bson_t *document, const char *name, bson_iter_t *at)
{
    return document && bson_iter_init_find(at, document, name);
}

/* A document in a document; false when it is none. `out` needs no clearing. */
static bool sub_document(const bson_iter_t *at, bson_t *out)
{
    uint32_t len;
    const uint8_t *data;
    if (!BSON_ITER_HOLDS_DOCUMENT(at))
        return false;
    bson_iter_document(at, &len, &data);
    return bson_init_static(out, data, len);
}

static int add_object(struct buf *out, const struct json_schema *schema, const bson_t *document,
                      const bson_t *defaults, bool plain, bool *first);

static int add_property(struct buf *out, const struct json_schema *schema, const bson_t *document,
                        const bson_t *defaults, bool plain, bool *first)
{
    bson_iter_t value, fallback;
    bson_t below, below_defaults;
    bool given = find(document, schema->name, &value), known = find(defaults, schema->name, &fallback);
    if (!given && !known)
        return 0;
    int r = add_key(out, *first, schema->name);
    *first = false;
    if (r < 0)
        return r;
    bool object = schema->nproperties > 0 && (!given || sub_document(&value, &below));
    if (!object)
        return add_value(out, given ? &value : &fallback, 1, plain);
    known = known && sub_document(&fallback, &below_defaults);
    bool inner = true;
    r = buf_add_char(out, '{');
    if (r == 0)
        r = add_object(out, schema, given ? &below : NULL, known ? &below_defaults : NULL, plain, &inner);
    return r < 0 ? r : buf_add_char(out, '}');
}

/* The fields of the schema in its order, then what other writers have added, in theirs. */
static int add_object(struct buf *out, const struct json_schema *schema, const bson_t *document,
                      const bson_t *defaults, bool plain, bool *first)
{
    bson_iter_t other;
    int r = 0;
    for (size_t i = 0; r == 0 && i < schema->nproperties; i++)
        if (!is_private(schema->properties[i].name) && !is_special(schema->properties[i].name))
            r = add_property(out, &schema->properties[i], document, defaults, plain, first);
    if (r < 0 || !document || !bson_iter_init(&other, document))
        return r;
    while (r == 0 && bson_iter_next(&other)) {
        const char *key = bson_iter_key(&other);
        if (json_schema_property(schema, key) || is_private(key))
            continue;
        r = add_key(out, *first, key);
        *first = false;
        if (r == 0)
            r = add_value(out, &other, 1, plain);
    }
    return r;
}

/* {user_id, the fields, updated_at}; without the time and with plain numbers to be compared. */
static int render(const bson_t *document, int64_t user_id, int64_t updated_us, bool plain, struct buf *out)
{
    char when[UTC_TEXT];
    bool first = false;
    int r = buf_printf(out, "{\"user_id\":%lld", (long long)user_id);
    if (r == 0)
        r = add_object(out, model.schema, document, model.defaults, plain, &first);
    if (r == 0 && !plain)
        r = utc_text(updated_us, when) == 0 ? buf_printf(out, ",\"updated_at\":\"%s\"", when) : -EIO;
    return r < 0 ? r : buf_add_char(out, '}');
}

/* Reading */

static int64_t own_number(const bson_t *stored, const char *path, int64_t otherwise)
{
    bson_iter_t iter, at;
    return bson_iter_init(&iter, stored) && bson_iter_find_descendant(&iter, path, &at) &&
                   BSON_ITER_HOLDS_INT64(&at)
               ? bson_iter_int64(&at)
               : otherwise;
}

static int64_t floor_ms(int64_t us)
{
    return us / US_A_MS - (us % US_A_MS < 0);
}

/* updated_at; a BSON date has milliseconds, and the rest is ours as long as nobody else has set it since. */
static int64_t updated_of(const bson_t *stored)
{
    bson_iter_t at;
    int64_t ms = bson_iter_init_find(&at, stored, "updated_at") && BSON_ITER_HOLDS_DATE_TIME(&at)
                     ? bson_iter_date_time(&at)
                     : 0;
    int64_t us = own_number(stored, "_campusfs.updated_us", INT64_MIN);
    if (us != INT64_MIN && floor_ms(us) == ms)
        return us;
    return ms > INT64_MAX / US_A_MS || ms < INT64_MIN / US_A_MS ? 0 : ms * US_A_MS;
}

static uint64_t hash_of(const char *text, size_t len)
{
    uint64_t hash = map_hash_bytes(text, len, 0) & REV_MASK;
    return hash ? hash : 1;
}

/* The rev that we gave it, when nothing has changed since; else a hash. */
static uint64_t rev_of(const bson_t *stored, uint64_t hash)
{
    int64_t rev = stored ? own_number(stored, "_campusfs.rev", 0) : 0;
    return rev > 0 && (uint64_t)own_number(stored, "_campusfs.check", 0) == hash ? (uint64_t)rev & REV_MASK
                                                                                 : hash;
}

int preferences_doc_read(const bson_t *stored, int64_t user_id, struct preferences_doc *out, struct fail *f)
{
    struct buf text CLEANUP(buf_clear) = {0};
    bson_iter_t at;
    int64_t updated_us = stored ? updated_of(stored) : model.defaults_us;
    int r = render(stored, user_id, updated_us, false, &text);
    if (r < 0)
        return fail_set(f, -r, "the preferences of user %lld in MongoDB cannot be shown", (long long)user_id);
    *out = (struct preferences_doc){.user_id = user_id,
                                    .rev = rev_of(stored, hash_of(text.data, text.len)),
                                    .updated_us = updated_us,
                                    .stored = stored != NULL,
                                    .deleted = find(stored, "_deleted_at", &at),
                                    .text = text.data,
                                    .len = text.len};
    text = (struct buf){0};
    return 0;
}

void preferences_doc_clear(struct preferences_doc *doc)
{
    free(doc->text);
    *doc = (struct preferences_doc){0};
}

/* JSON as BSON */

/* Finds the first number in a JSON text that a double would round. */
static bool finds_rounded(const char *text, size_t len, char *out, size_t size)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"') {
            for (i++; i < len && text[i] != '"'; i++)
                i += text[i] == '\\';
            continue;
        }
        if (!memchr("-0123456789", text[i], 11))
            continue;
        size_t start = i, digits = 0;
        bool real = false, exponent = false;
        for (; i < len && memchr("+-.0123456789eE", text[i], 15); i++) {
            exponent = exponent || text[i] == 'e' || text[i] == 'E';
            real = real || exponent || text[i] == '.';
            digits += !exponent && text[i] >= '0' && text[i] <= '9' && (digits > 0 || text[i] != '0');
        }
        if (real && digits > DIGITS_MAX) {
            snprintf(out, size, "%.*s", (int)(i - start), text + start);
            return true;
        }
        i--;
    }
    return false;
}

static int append_json(bson_t *to, const char *key, const json_t *value, unsigned depth, struct fail *f);

static int append_container(bson_t *to, const char *key, const json_t *value, unsigned depth, struct fail *f)
{
    bson_t below;
    int r = 0;
    if (depth > DEPTH_MAX)
        return fail_set(f, EINVAL, "nested too deep: at most %d levels", DEPTH_MAX);
    if (json_is_array(value)) {
        BSON_APPEND_ARRAY_BEGIN(to, key, &below);
        for (size_t i = 0; r == 0 && i < json_array_size(value); i++) {
            char index[24];
            snprintf(index, sizeof index, "%zu", i);
            r = append_json(&below, index, json_array_get(value, i), depth + 1, f);
        }
        bson_append_array_end(to, &below);
        return r;
    }
    BSON_APPEND_DOCUMENT_BEGIN(to, key, &below);
    for (void *at = json_object_iter((json_t *)value); r == 0 && at;
         at = json_object_iter_next((json_t *)value, at))
        r = append_json(&below, json_object_iter_key(at), json_object_iter_value(at), depth + 1, f);
    bson_append_document_end(to, &below);
    return r;
}

static int append_json(bson_t *to, const char *key, const json_t *value, unsigned depth, struct fail *f)
{
    bool done = true;
    json_int_t number;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
    case JSON_ARRAY:
        return append_container(to, key, value, depth, f);
    case JSON_STRING:
        done = bson_append_utf8(to, key, -1, json_string_value(value), (int)json_string_length(value));
        break;
    case JSON_INTEGER:
        number = json_integer_value(value);
        done = number >= INT32_MIN && number <= INT32_MAX ? BSON_APPEND_INT32(to, key, (int32_t)number)
                                                          : BSON_APPEND_INT64(to, key, number);
        break;
    case JSON_REAL:
        done = BSON_APPEND_DOUBLE(to, key, json_real_value(value));
        break;
    case JSON_NULL:
        done = BSON_APPEND_NULL(to, key);
        break;
    default:
        done = BSON_APPEND_BOOL(to, key, json_is_true(value));
    }
    return done ? 0 : fail_set(f, EFBIG, "the document is too large");
}

static int take_user_id(const json_t *value, int64_t user_id, struct fail *f)
{
    if (!value || (json_is_integer(value) && json_integer_value(value) == user_id))
        return 0;
    if (f && f->err == 0)
        snprintf(f->column, sizeof f->column, "user_id");
    return fail_set(f, EINVAL, "user_id: must be %lld, as the file is named", (long long)user_id);
}

static int take_updated_at(const json_t *value, int64_t *us, struct fail *f)
{
    *us = PREFERENCES_TIME_NONE;
    if (!value || (json_is_string(value) && utc_parse(json_string_value(value), us) == 0))
        return 0;
    if (f && f->err == 0)
        snprintf(f->column, sizeof f->column, "updated_at");
    return fail_set(f, EINVAL, "updated_at: must be a time such as \"2026-11-22T15:48:30.123456Z\"");
}

/* Appends an object's properties in the order of the schema, with defaults for what is missing, and whatever
 * else is there: the check says that it must not. */
static int append_ordered(bson_t *to, const struct json_schema *schema, const json_t *object,
                          const bson_t *defaults, unsigned depth, struct fail *f)
{
    const char *key;
    json_t *value;
    bson_iter_t fallback;
    int r = 0;
    for (size_t i = 0; r == 0 && i < schema->nproperties; i++) {
        const struct json_schema *property = &schema->properties[i];
        value = json_object_get(object, property->name);
        bool known = find(defaults, property->name, &fallback);
        if (is_private(property->name) || is_special(property->name) || (!value && !known))
            continue;
        if (!value) {
            bson_append_iter(to, NULL, 0, &fallback);
        } else if (property->nproperties > 0 && json_is_object(value)) {
            bson_t below, below_defaults;
            known = known && sub_document(&fallback, &below_defaults);
            BSON_APPEND_DOCUMENT_BEGIN(to, property->name, &below);
            r = append_ordered(&below, property, value, known ? &below_defaults : NULL, depth + 1, f);
            bson_append_document_end(to, &below);
        } else {
            r = append_json(to, property->name, value, depth + 1, f);
        }
    }
    json_object_foreach((json_t *)object, key, value)
    {
        bool ours = is_private(key) || !json_schema_property(schema, key);
        if (r == 0 && ours)
            r = append_json(to, key, value, depth + 1, f);
    }
    return r;
}

/* The private fields are the schema's, but nobody's who writes a text. */
static int refuse_private(const bson_t *fields, struct fail *f)
{
    bson_iter_t at;
    bson_iter_init(&at, fields);
    while (bson_iter_next(&at)) {
        if (!is_private(bson_iter_key(&at)))
            continue;
        if (f && f->err == 0)
            snprintf(f->column, sizeof f->column, "%s", bson_iter_key(&at));
        return fail_set(f, EINVAL, "%s: there is no such field", bson_iter_key(&at));
    }
    return 0;
}

static int check_fields(const bson_t *fields, struct fail *f)
{
    bson_t whole = BSON_INITIALIZER;
    bson_concat(&whole, fields);
    BSON_APPEND_DATE_TIME(&whole, "updated_at", 0);
    int r = refuse_private(fields, f);
    if (r == 0)
        r = json_schema_check(model.schema, &whole, f);
    bson_destroy(&whole);
    return r;
}

int preferences_doc_parse(const char *text, size_t len, int64_t user_id, struct preferences_written *out,
                          struct fail *f)
{
    char rounded[64];
    json_error_t error;
    bson_init(&out->fields);
    if (finds_rounded(text, len, rounded, sizeof rounded))
        return fail_set(f, EINVAL, "the number %s would be rounded", rounded);
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        return fail_set(f, EINVAL, "not valid JSON: %s", error.text);
    int r = take_user_id(json_object_get(object, "user_id"), user_id, f);
    if (r == 0)
        r = take_updated_at(json_object_get(object, "updated_at"), &out->base_us, f);
    BSON_APPEND_INT64(&out->fields, "user_id", user_id);
    if (r == 0)
        r = append_ordered(&out->fields, model.schema, object, model.defaults, 0, f);
    json_decref(object);
    return r < 0 ? r : check_fields(&out->fields, f);
}

void preferences_written_clear(struct preferences_written *written)
{
    bson_destroy(&written->fields);
}

int preferences_doc_same(const struct preferences_written *written, const bson_t *stored, bool *same,
                         struct fail *f)
{
    struct buf a CLEANUP(buf_clear) = {0}, b CLEANUP(buf_clear) = {0};
    int r = render(&written->fields, 0, 0, true, &a);
    if (r == 0)
        r = render(stored, 0, 0, true, &b);
    *same = r == 0 && a.len == b.len && memcmp(a.data, b.data, a.len) == 0;
    return r == -ENOMEM ? fail_set(f, ENOMEM, "out of memory") : 0;
}

bson_t *preferences_doc_build(const struct preferences_written *written, const bson_value_t *id,
                              int64_t user_id, uint64_t rev, int64_t updated_us, const char *request)
{
    struct buf text CLEANUP(buf_clear) = {0};
    bson_t *doc = bson_new(), own;
    bool done = id ? BSON_APPEND_VALUE(doc, "_id", id) : BSON_APPEND_INT64(doc, "_id", user_id);
    done = done && bson_concat(doc, &written->fields) &&
           BSON_APPEND_DATE_TIME(doc, "updated_at", floor_ms(updated_us)) &&
           render(&written->fields, user_id, updated_us, false, &text) == 0;
    if (done) {
        BSON_APPEND_DOCUMENT_BEGIN(doc, "_campusfs", &own);
        BSON_APPEND_INT64(&own, "rev", (int64_t)rev);
        BSON_APPEND_INT64(&own, "updated_us", updated_us);
        BSON_APPEND_INT64(&own, "check", (int64_t)hash_of(text.data, text.len));
        BSON_APPEND_UTF8(&own, "request", request);
        done = bson_append_document_end(doc, &own);
    }
    if (done)
        return doc;
    bson_destroy(doc);
    return NULL;
}

const char *preferences_doc_request(const bson_t *stored)
{
    bson_iter_t iter, at;
    return bson_iter_init(&iter, stored) && bson_iter_find_descendant(&iter, "_campusfs.request", &at) &&
                   BSON_ITER_HOLDS_UTF8(&at)
               ? bson_iter_utf8(&at, NULL)
               : NULL;
}

bson_t *preferences_doc_filter(const bson_t *stored)
{
    bson_iter_t at;
    bson_t *filter = bson_new(), condition;
    bson_iter_init(&at, stored);
    while (bson_iter_next(&at)) {
        if (strpbrk(bson_iter_key(&at), ".$")) /* it would be a path, not a name */
            continue;
        BSON_APPEND_DOCUMENT_BEGIN(filter, bson_iter_key(&at), &condition);
        bson_append_iter(&condition, "$eq", 3, &at);
        bson_append_document_end(filter, &condition);
    }
    for (size_t i = 0; i < model.schema->nproperties; i++) {
        const char *name = model.schema->properties[i].name;
        if (bson_has_field(stored, name))
            continue;
        BSON_APPEND_DOCUMENT_BEGIN(filter, name, &condition);
        BSON_APPEND_BOOL(&condition, "$exists", false);
        bson_append_document_end(filter, &condition);
    }
    return filter;
}
