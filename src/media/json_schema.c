#include "media/json_schema.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/sql.h"

enum { PATH_MAX_BYTES = 256, DEPTH_MAX = 64, REQUIRED_MAX = 64 };

/* MongoDB's names of types. */
static const struct {
    const char *alias;
    bson_type_t type;
    const char *words;
} types[] = {
    {"double", BSON_TYPE_DOUBLE, "a number with a fraction"},
    {"string", BSON_TYPE_UTF8, "a text"},
    {"object", BSON_TYPE_DOCUMENT, "an object"},
    {"array", BSON_TYPE_ARRAY, "an array"},
    {"bool", BSON_TYPE_BOOL, "true or false"},
    {"date", BSON_TYPE_DATE_TIME, "a time"},
    {"null", BSON_TYPE_NULL, "null"},
    {"int", BSON_TYPE_INT32, "a whole number"},
    {"long", BSON_TYPE_INT64, "a large whole number"},
};
enum { NTYPES = sizeof types / sizeof types[0] };

/* Loading */

static int not_supported(const char *what, struct fail *f)
{
    return fail_set(f, EINVAL, "a schema of sql/mongo uses %s, which is not supported", what);
}

static int add_type(struct json_schema *schema, const char *alias, struct fail *f)
{
    for (size_t i = 0; i < NTYPES; i++) {
        if (strcmp(types[i].alias, alias) == 0) {
            schema->types |= UINT32_C(1) << i;
            return 0;
        }
    }
    return not_supported(alias, f);
}

static int load_types(struct json_schema *schema, bson_iter_t *at, struct fail *f)
{
    bson_iter_t item;
    if (BSON_ITER_HOLDS_UTF8(at))
        return add_type(schema, bson_iter_utf8(at, NULL), f);
    int r = BSON_ITER_HOLDS_ARRAY(at) && bson_iter_recurse(at, &item) ? 0 : not_supported("bsonType", f);
    while (r == 0 && bson_iter_next(&item))
        r = BSON_ITER_HOLDS_UTF8(&item) ? add_type(schema, bson_iter_utf8(&item, NULL), f)
                                        : not_supported("bsonType", f);
    return r;
}

static int load_allowed(struct json_schema *schema, bson_iter_t *at, struct fail *f)
{
    uint32_t len;
    const uint8_t *data;
    if (!BSON_ITER_HOLDS_ARRAY(at))
        return not_supported("enum", f);
    bson_iter_array(at, &len, &data);
    schema->allowed = bson_new_from_data(data, len);
    return schema->allowed ? 0 : -ENOMEM;
}

static int load_pattern(struct json_schema *schema, bson_iter_t *at, struct fail *f)
{
    const char *text = BSON_ITER_HOLDS_UTF8(at) ? bson_iter_utf8(at, NULL) : NULL;
    if (!text || regcomp(&schema->regex, text, REG_EXTENDED | REG_NOSUB) != 0)
        return not_supported("pattern", f);
    schema->pattern = strdup(text);
    if (!schema->pattern)
        regfree(&schema->regex);
    return schema->pattern ? 0 : -ENOMEM;
}

static int load_required(struct json_schema *schema, bson_iter_t *at, struct fail *f)
{
    bson_iter_t item;
    if (!BSON_ITER_HOLDS_ARRAY(at) || !bson_iter_recurse(at, &item))
        return not_supported("required", f);
    while (bson_iter_next(&item)) {
        if (schema->nrequired == REQUIRED_MAX)
            return not_supported("that many required fields", f);
        char **grown = realloc(schema->required, (schema->nrequired + 1) * sizeof *grown);
        if (!grown || !BSON_ITER_HOLDS_UTF8(&item))
            return grown ? not_supported("required", f) : -ENOMEM;
        schema->required = grown;
        grown[schema->nrequired] = strdup(bson_iter_utf8(&item, NULL));
        if (!grown[schema->nrequired++])
            return -ENOMEM;
    }
    return 0;
}

static int load_level(struct json_schema *schema, const char *name, const bson_iter_t *at, unsigned depth,
                      struct fail *f);

static int load_properties(struct json_schema *schema, bson_iter_t *at, unsigned depth, struct fail *f)
{
    bson_iter_t item;
    if (!BSON_ITER_HOLDS_DOCUMENT(at) || !bson_iter_recurse(at, &item))
        return not_supported("properties", f);
    int r = 0;
    while (r == 0 && bson_iter_next(&item)) {
        struct json_schema *grown = realloc(schema->properties, (schema->nproperties + 1) * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        schema->properties = grown;
        r = load_level(&grown[schema->nproperties++], bson_iter_key(&item), &item, depth + 1, f);
    }
    return r;
}

static int load_keyword(struct json_schema *schema, bson_iter_t *at, unsigned depth, struct fail *f)
{
    const char *key = bson_iter_key(at);
    if (strcmp(key, "title") == 0 || strcmp(key, "description") == 0)
        return 0;
    if (strcmp(key, "bsonType") == 0)
        return load_types(schema, at, f);
    if (strcmp(key, "enum") == 0)
        return load_allowed(schema, at, f);
    if (strcmp(key, "pattern") == 0)
        return load_pattern(schema, at, f);
    if (strcmp(key, "required") == 0)
        return load_required(schema, at, f);
    if (strcmp(key, "properties") == 0)
        return load_properties(schema, at, depth, f);
    if (strcmp(key, "additionalProperties") == 0 && BSON_ITER_HOLDS_BOOL(at)) {
        schema->closed = !bson_iter_bool(at);
        return 0;
    }
    if (!BSON_ITER_HOLDS_NUMBER(at))
        return not_supported(key, f);
    if (strcmp(key, "minLength") == 0)
        schema->min_length = bson_iter_as_int64(at);
    else if (strcmp(key, "maxLength") == 0)
        schema->max_length = bson_iter_as_int64(at);
    else if (strcmp(key, "minimum") == 0)
        schema->minimum = bson_iter_as_double(at);
    else if (strcmp(key, "maximum") == 0)
        schema->maximum = bson_iter_as_double(at);
    else
        return not_supported(key, f);
    return 0;
}

/* Whatever fails, what is there can be cleared. */
static int load_level(struct json_schema *schema, const char *name, const bson_iter_t *at, unsigned depth,
                      struct fail *f)
{
    bson_iter_t keyword;
    *schema = (struct json_schema){
        .name = strdup(name), .min_length = -1, .max_length = -1, .minimum = -INFINITY, .maximum = INFINITY};
    if (!schema->name)
        return -ENOMEM;
    if (depth > DEPTH_MAX || !BSON_ITER_HOLDS_DOCUMENT(at) || !bson_iter_recurse(at, &keyword))
        return not_supported(name, f);
    int r = 0;
    while (r == 0 && bson_iter_next(&keyword))
        r = load_keyword(schema, &keyword, depth, f);
    return r;
}

int json_schema_load(const char *file, struct json_schema **out, struct fail *f)
{
    const char *text = sql_text(file);
    bson_error_t error = {.message = "no such file"};
    bson_t *parsed = text ? bson_new_from_json((const uint8_t *)text, -1, &error) : NULL;
    if (!parsed)
        return fail_set(f, EINVAL, "sql/%s: %s", file, error.message);
    bson_t root = BSON_INITIALIZER;
    BSON_APPEND_DOCUMENT(&root, "", parsed);
    bson_destroy(parsed);
    bson_iter_t at;
    struct json_schema *schema CLEANUP(json_schema_freep) = calloc(1, sizeof *schema);
    int r = schema && bson_iter_init(&at, &root) && bson_iter_next(&at) ? 0 : -ENOMEM;
    if (r == 0)
        r = load_level(schema, "", &at, 0, f);
    bson_destroy(&root);
    if (r == 0)
        *out = STEAL(schema);
    return r;
}

static void clear(struct json_schema *schema)
{
    for (size_t i = 0; i < schema->nproperties; i++)
        clear(&schema->properties[i]);
    for (size_t i = 0; i < schema->nrequired; i++)
        free(schema->required[i]);
    if (schema->pattern)
        regfree(&schema->regex);
    if (schema->allowed)
        bson_destroy(schema->allowed);
    free(schema->pattern);
    free(schema->required);
    free(schema->properties);
    free(schema->name);
}

void json_schema_free(struct json_schema *schema)
{
    if (!schema)
        return;
    clear(schema);
    free(schema);
}

const struct json_schema *json_schema_property(const struct json_schema *schema, const char *name)
{
    for (size_t i = 0; i < schema->nproperties; i++)
        if (strcmp(schema->properties[i].name, name) == 0)
            return &schema->properties[i];
    return NULL;
}

/* Checking */

/* Where in the document the check is. */
struct path {
    const struct path *above;
    const char *name;
};

static void path_text(const struct path *path, char *out, size_t size)
{
    const struct path *levels[DEPTH_MAX + 1];
    size_t n = 0, len = 0;
    for (const struct path *p = path; p && n <= DEPTH_MAX; p = p->above)
        levels[n++] = p;
    out[0] = '\0';
    while (n-- > 0 && len + 1 < size)
        len += (size_t)snprintf(out + len, size - len, "%s%s", len ? "." : "", levels[n]->name);
}

__attribute__((format(printf, 3, 4))) static int wrong(const struct path *path, struct fail *f,
                                                       const char *format, ...)
{
    char where[PATH_MAX_BYTES], words[1024];
    va_list arguments;
    path_text(path, where, sizeof where);
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    if (f && f->err == 0)
        snprintf(f->column, sizeof f->column, "%s", where);
    return fail_set(f, EINVAL, "%s%s%s", where, *where ? ": " : "", words);
}

/* "a", "b" or "c" of the n texts that next() gives. */
static void add_choice(struct buf *out, size_t i, size_t n, const char *text)
{
    buf_printf(out, "%s%s", i == 0 ? "" : i + 1 == n ? " or " : ", ", text);
}

static int wrong_type(const struct json_schema *schema, const struct path *path, struct fail *f)
{
    struct buf words CLEANUP(buf_clear) = {0};
    size_t n = (size_t)__builtin_popcount(schema->types), given = 0;
    for (size_t i = 0; i < NTYPES; i++)
        if (schema->types & UINT32_C(1) << i)
            add_choice(&words, given++, n, types[i].words);
    return wrong(path, f, "must be %s", words.data ? words.data : "of another type");
}

static bool has_type(const struct json_schema *schema, const bson_iter_t *value)
{
    for (size_t i = 0; i < NTYPES; i++)
        if (schema->types & UINT32_C(1) << i && bson_iter_type(value) == types[i].type)
            return true;
    return schema->types == 0;
}

static bool is_number(const bson_iter_t *value)
{
    return BSON_ITER_HOLDS_INT32(value) || BSON_ITER_HOLDS_INT64(value) || BSON_ITER_HOLDS_DOUBLE(value);
}

/* Numbers are equal whatever their type, as for the server. */
static bool equal(const bson_iter_t *a, const bson_iter_t *b)
{
    if (is_number(a) && is_number(b))
        return bson_iter_as_double(a) == bson_iter_as_double(b);
    if (BSON_ITER_HOLDS_UTF8(a) && BSON_ITER_HOLDS_UTF8(b)) {
        uint32_t n, m;
        const char *x = bson_iter_utf8(a, &n), *y = bson_iter_utf8(b, &m);
        return n == m && memcmp(x, y, n) == 0;
    }
    return BSON_ITER_HOLDS_BOOL(a) && BSON_ITER_HOLDS_BOOL(b) && bson_iter_bool(a) == bson_iter_bool(b);
}

static int check_allowed(const struct json_schema *schema, const bson_iter_t *value, const struct path *path,
                         struct fail *f)
{
    struct buf words CLEANUP(buf_clear) = {0};
    bson_iter_t allowed;
    size_t n = bson_count_keys(schema->allowed), given = 0;
    bson_iter_init(&allowed, schema->allowed);
    while (bson_iter_next(&allowed)) {
        char number[32];
        if (equal(&allowed, value))
            return 0;
        snprintf(number, sizeof number, "%g", bson_iter_as_double(&allowed));
        add_choice(&words, given++, n,
                   BSON_ITER_HOLDS_UTF8(&allowed) ? bson_iter_utf8(&allowed, NULL) : number);
    }
    return wrong(path, f, "must be one of %s", words.data ? words.data : "nothing");
}

/* Characters, as the server counts them. */
static int64_t characters(const char *text, size_t len)
{
    int64_t n = 0;
    for (size_t i = 0; i < len; i++)
        n += (text[i] & 0xc0) != 0x80;
    return n;
}

static int check_text(const struct json_schema *schema, const bson_iter_t *value, const struct path *path,
                      struct fail *f)
{
    uint32_t len;
    const char *text = bson_iter_utf8(value, &len);
    int64_t n = characters(text, len);
    if (n < schema->min_length || (schema->max_length >= 0 && n > schema->max_length))
        return wrong(path, f, "must have from %lld to %lld characters",
                     (long long)(schema->min_length < 0 ? 0 : schema->min_length),
                     (long long)schema->max_length);
    if (schema->pattern && (strlen(text) != len || regexec(&schema->regex, text, 0, NULL, 0) != 0))
        return wrong(path, f, "must match %s", schema->pattern);
    return 0;
}

static int check_number(const struct json_schema *schema, const bson_iter_t *value, const struct path *path,
                        struct fail *f)
{
    double number = bson_iter_as_double(value);
    if (number >= schema->minimum && number <= schema->maximum)
        return 0;
    return wrong(path, f, "must be a number from %.15g to %.15g", schema->minimum, schema->maximum);
}

static int check_value(const struct json_schema *schema, const bson_iter_t *value, const struct path *path,
                       struct fail *f);

static int unknown_field(const struct json_schema *schema, const struct path *path, struct fail *f)
{
    struct buf words CLEANUP(buf_clear) = {0};
    for (size_t i = 0, n = schema->nproperties; i < n; i++)
        if (schema->properties[i].name[0] != '_')
            add_choice(&words, words.len != 0, n, schema->properties[i].name);
    return wrong(path, f, "there is no such field; the fields are %s", words.data ? words.data : "none");
}

static int check_object(const struct json_schema *schema, bson_iter_t *field, const struct path *path,
                        struct fail *f)
{
    uint64_t seen = 0; /* of the required names */
    while (bson_iter_next(field)) {
        const struct path below = {path, bson_iter_key(field)};
        const struct json_schema *property = json_schema_property(schema, below.name);
        int r = property         ? check_value(property, field, &below, f)
                : schema->closed ? unknown_field(schema, &below, f)
                                 : 0;
        if (r < 0)
            return r;
        for (size_t i = 0; i < schema->nrequired; i++)
            if (strcmp(schema->required[i], below.name) == 0)
                seen |= UINT64_C(1) << i;
    }
    for (size_t i = 0; i < schema->nrequired; i++)
        if (!(seen & UINT64_C(1) << i))
            return wrong(&(struct path){path, schema->required[i]}, f, "is missing");
    return 0;
}

static int check_value(const struct json_schema *schema, const bson_iter_t *value, const struct path *path,
                       struct fail *f)
{
    bson_iter_t field;
    int r = schema->allowed ? check_allowed(schema, value, path, f) : 0;
    if (r == 0 && !has_type(schema, value))
        r = wrong_type(schema, path, f);
    if (r == 0 && BSON_ITER_HOLDS_UTF8(value))
        r = check_text(schema, value, path, f);
    if (r == 0 && is_number(value))
        r = check_number(schema, value, path, f);
    if (r == 0 && BSON_ITER_HOLDS_DOCUMENT(value) && (schema->properties || schema->closed))
        r = bson_iter_recurse(value, &field) ? check_object(schema, &field, path, f) : -EINVAL;
    return r;
}

int json_schema_check(const struct json_schema *schema, const bson_t *document, struct fail *f)
{
    bson_iter_t field;
    return bson_iter_init(&field, document) ? check_object(schema, &field, NULL, f) : -EINVAL;
}
