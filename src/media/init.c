#include "media/init.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/sql.h"
#include "media/capability.h"
#include "media/media_error.h"
#include "media/mongo_client.h"

/* What all steps of one run share. */
struct init {
    mongoc_client_t *client;
    mongoc_database_t *database;
    const char *name; /* the database's */
    struct buf *changes;
    struct fail *f;
};

/* Whether the server does not have the command or the option at all, which FerretDB and others say of
 * validators. */
static bool unsupported(const bson_error_t *error)
{
    return media_error_errno(error) == ENOTSUP;
}

static int fail_step(struct init *in, const bson_error_t *error, const char *step, const char *collection)
{
    char what[160];
    snprintf(what, sizeof(what), "cannot %s %s", step, collection);
    return media_error_set(in->f, error, what);
}

/* The parsed file of sql/mongo; those files are part of the program, so a mistake in one is ours. */
static int load_file(const char *file, bson_t **out, struct fail *f)
{
    char name[96];
    snprintf(name, sizeof(name), "mongo/%s", file);
    const char *text = sql_text(name);
    bson_error_t error = {.message = "no such file"};
    bson_t *doc = text ? bson_new_from_json((const uint8_t *)text, -1, &error) : NULL;
    if (!doc)
        return fail_set(f, EINVAL, "sql/%s: %s", name, error.message);
    *out = doc;
    return 0;
}

/* {"$jsonSchema": schema without the words for people, which some servers refuse}. */
static int load_validator(const char *file, bson_t **out, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *schema = NULL;
    int r = load_file(file, &schema, f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *validator = bson_new();
    bson_t inner;
    bson_append_document_begin(validator, "$jsonSchema", -1, &inner);
    bson_copy_to_excluding_noinit(schema, &inner, "title", "description", NULL);
    bson_append_document_end(validator, &inner);
    *out = STEAL(validator);
    return 0;
}

static const char *text_at(const bson_t *doc, const char *path)
{
    bson_iter_t iter, at;
    if (!bson_iter_init(&iter, doc) || !bson_iter_find_descendant(&iter, path, &at) ||
        !BSON_ITER_HOLDS_UTF8(&at))
        return NULL;
    return bson_iter_utf8(&at, NULL);
}

/* A view of the document at a path; false when there is none. Lives as long as doc. */
static bool doc_at(const bson_t *doc, const char *path, bson_t *out)
{
    bson_iter_t iter, at;
    const uint8_t *data;
    uint32_t len;
    if (!bson_iter_init(&iter, doc) || !bson_iter_find_descendant(&iter, path, &at))
        return false;
    if (BSON_ITER_HOLDS_ARRAY(&at))
        bson_iter_array(&at, &len, &data);
    else if (BSON_ITER_HOLDS_DOCUMENT(&at))
        bson_iter_document(&at, &len, &data);
    else
        return false;
    return bson_init_static(out, data, len);
}

static bool true_at(const bson_t *doc, const char *key)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, doc, key) && bson_iter_as_bool(&iter);
}

/* The collection's entry in listCollections, a copy; NULL in *out when it does not exist. */
static int find_collection(struct init *in, const char *name, bson_t **out)
{
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("filter", "{", "name", BCON_UTF8(name), "}");
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_database_find_collections_with_opts(in->database, opts);
    const bson_t *doc;
    bson_error_t error;
    *out = NULL;
    while (mongoc_cursor_next(cursor, &doc)) {
        const char *found = text_at(doc, "name");
        if (!*out && found && !strcmp(found, name))
            *out = bson_copy(doc);
    }
    if (mongoc_cursor_error(cursor, &error))
        return fail_step(in, &error, "look up", name);
    return 0;
}

/* What breaks the rules already, as files of other programs may, can be renamed and mended. */
static const char LEVEL[] = "moderate";

/* Runs create or collMod, without the validator if the server knows none; *validated says which it was. */
static int run_with_validator(struct init *in, const char *command, const char *name, const bson_t *validator,
                              bool *validated)
{
    bson_error_t error;
    CLEANUP(bson_destroyp) bson_t *plain = BCON_NEW(command, BCON_UTF8(name));
    *validated = false;
    if (validator) {
        CLEANUP(bson_destroyp) bson_t *full = bson_copy(plain);
        BSON_APPEND_DOCUMENT(full, "validator", validator);
        BSON_APPEND_UTF8(full, "validationLevel", LEVEL);
        BSON_APPEND_UTF8(full, "validationAction", "error");
        *validated = mongoc_database_write_command_with_opts(in->database, full, NULL, NULL, &error);
        if (*validated)
            return 0;
        if (!unsupported(&error))
            return fail_step(in, &error, command, name);
    }
    enum { NAMESPACE_EXISTS = 48 };
    if (!strcmp(command, "collMod") ||
        mongoc_database_write_command_with_opts(in->database, plain, NULL, NULL, &error) ||
        (error.domain == MONGOC_ERROR_SERVER && error.code == NAMESPACE_EXISTS))
        return 0;
    return fail_step(in, &error, command, name);
}

static int ensure_collection(struct init *in, const char *name, const char *schema)
{
    CLEANUP(bson_destroyp) bson_t *validator = NULL;
    CLEANUP(bson_destroyp) bson_t *existing = NULL;
    int r = schema ? load_validator(schema, &validator, in->f) : 0;
    if (r == 0)
        r = find_collection(in, name, &existing);
    if (r < 0)
        return r;
    bool validated;
    bson_t current;
    if (!existing) {
        r = run_with_validator(in, "create", name, validator, &validated);
        if (r == 0)
            r = buf_printf(in->changes, "created collection %s.%s%s\n", in->name, name,
                           !validator  ? ""
                           : validated ? " with its validator"
                                       : " without a validator, which this server does not have");
        return r;
    }
    const char *level = text_at(existing, "options.validationLevel");
    if (!validator || (doc_at(existing, "options.validator", &current) && bson_equal(&current, validator) &&
                       (!level || strcmp(level, LEVEL) == 0)))
        return 0;
    r = run_with_validator(in, "collMod", name, validator, &validated);
    if (r == 0 && validated)
        r = buf_printf(in->changes, "replaced the validator of %s.%s\n", in->name, name);
    return r;
}

/* Whether an index key of the server, whose numbers may have any type, is the one asked for. */
static bool same_key(const bson_t *a, const bson_t *b)
{
    bson_iter_t i, j;
    if (bson_count_keys(a) != bson_count_keys(b) || !bson_iter_init(&i, a) || !bson_iter_init(&j, b))
        return false;
    while (bson_iter_next(&i) && bson_iter_next(&j))
        if (strcmp(bson_iter_key(&i), bson_iter_key(&j)) != 0 ||
            bson_iter_as_int64(&i) != bson_iter_as_int64(&j))
            return false;
    return true;
}

/* -1 = what is in the index stays. */
static int64_t expiry_of(const bson_t *index)
{
    bson_iter_t at;
    return bson_iter_init_find(&at, index, "expireAfterSeconds") ? bson_iter_as_int64(&at) : -1;
}

enum index_state { INDEX_MISSING, INDEX_DIFFERS, INDEX_SAME };

static int find_index(struct init *in, const char *collection, const bson_t *wanted, enum index_state *state)
{
    CLEANUP(mongoc_collection_destroyp)
    mongoc_collection_t *handle = mongoc_database_get_collection(in->database, collection);
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_indexes_with_opts(handle, NULL);
    const bson_t *doc;
    bson_t key, wanted_key;
    bson_error_t error;
    *state = INDEX_MISSING;
    while (mongoc_cursor_next(cursor, &doc)) {
        const char *name = text_at(doc, "name");
        if (!name || strcmp(name, text_at(wanted, "name")) != 0)
            continue;
        bool same = doc_at(doc, "key", &key) && doc_at(wanted, "key", &wanted_key) &&
                    same_key(&key, &wanted_key) && true_at(doc, "unique") == true_at(wanted, "unique") &&
                    expiry_of(doc) == expiry_of(wanted);
        *state = same ? INDEX_SAME : INDEX_DIFFERS;
    }
    if (mongoc_cursor_error(cursor, &error))
        return fail_step(in, &error, "list the indexes of", collection);
    return 0;
}

static int ensure_index(struct init *in, const char *collection, const bson_t *wanted)
{
    enum index_state state;
    const char *name = text_at(wanted, "name");
    int r = find_index(in, collection, wanted, &state);
    if (r < 0 || state == INDEX_SAME)
        return r;
    bson_error_t error;
    if (state == INDEX_DIFFERS) {
        CLEANUP(bson_destroyp)
        bson_t *drop = BCON_NEW("dropIndexes", BCON_UTF8(collection), "index", BCON_UTF8(name));
        if (!mongoc_database_write_command_with_opts(in->database, drop, NULL, NULL, &error))
            return fail_step(in, &error, "replace an index of", collection);
    }
    CLEANUP(bson_destroyp)
    bson_t *create =
        BCON_NEW("createIndexes", BCON_UTF8(collection), "indexes", "[", BCON_DOCUMENT(wanted), "]");
    if (!mongoc_database_write_command_with_opts(in->database, create, NULL, NULL, &error))
        return fail_step(in, &error, "create an index of", collection);
    return buf_printf(in->changes, "%s index %s of %s.%s\n", state == INDEX_DIFFERS ? "replaced" : "created",
                      name, in->name, collection);
}

static int ensure_entry(struct init *in, const char *collection, const bson_t *entry)
{
    int r = ensure_collection(in, collection, text_at(entry, "schema"));
    bson_t indexes;
    bson_iter_t iter;
    if (r < 0 || !doc_at(entry, "indexes", &indexes) || !bson_iter_init(&iter, &indexes))
        return r;
    while (r == 0 && bson_iter_next(&iter)) {
        const uint8_t *data;
        uint32_t len;
        bson_t wanted;
        bson_iter_document(&iter, &len, &data);
        r = bson_init_static(&wanted, data, len) ? ensure_index(in, collection, &wanted) : -EINVAL;
    }
    return r;
}

/* An entry named "media_{region}.files" stands for one collection a region. */
static int ensure_regions(struct init *in, const struct config *config, const bson_t *entry)
{
    static const char place[] = "{region}";
    const char *pattern = text_at(entry, "collection");
    const char *at = strstr(pattern, place);
    if (!at)
        return ensure_entry(in, pattern, entry);
    int r = 0;
    for (size_t i = 0; r == 0 && i < config->nregions; i++) {
        char collection[128];
        snprintf(collection, sizeof(collection), "%.*s%s%s", (int)(at - pattern), pattern,
                 config->regions[i].name, at + strlen(place));
        r = ensure_entry(in, collection, entry);
    }
    return r;
}

int media_init(const struct config *config, const struct op *op, struct buf *changes, struct fail *f)
{
    if (!config->mongodb_uri || !*config->mongodb_uri)
        return 0;
    CLEANUP(mongoc_client_destroyp) mongoc_client_t *client = NULL;
    CLEANUP(freep) char *name = NULL;
    CLEANUP(bson_destroyp) bson_t *file = NULL;
    int r = load_file("collections.json", &file, f);
    if (r == 0)
        r = mongo_client(config->mongodb_uri, op, &client, &name, f);
    if (r < 0)
        return r;
    CLEANUP(mongoc_database_destroyp) mongoc_database_t *database = mongoc_client_get_database(client, name);
    struct init in = {client, database, name, changes, f};
    bson_t list;
    bson_iter_t iter;
    if (!doc_at(file, "collections", &list) || !bson_iter_init(&iter, &list))
        return fail_set(f, EINVAL, "sql/mongo/collections.json: no collections");
    while (r == 0 && bson_iter_next(&iter)) {
        const uint8_t *data;
        uint32_t len;
        bson_t entry;
        bson_iter_document(&iter, &len, &data);
        r = bson_init_static(&entry, data, len) ? ensure_regions(&in, config, &entry) : -EINVAL;
    }
    return r;
}

/* A find that has to touch storage: a server whose disk is full still answers ping. */
static bool read_something(mongoc_client_t *client, const char *database, const struct op *op,
                           int64_t *took_ms, bson_error_t *error)
{
    CLEANUP(mongoc_collection_destroyp)
    mongoc_collection_t *collection = mongoc_client_get_collection(client, database, "preferences");
    int64_t left = op_left_ms(op), started = clock_now_ms();
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("user_id", "{", "$gt", BCON_INT64(0), "}");
    CLEANUP(bson_destroyp)
    bson_t *opts = BCON_NEW("limit", BCON_INT64(1), "singleBatch", BCON_BOOL(true), "maxTimeMS",
                            BCON_INT64(left > 0 ? left : 1));
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, filter, opts, NULL);
    const bson_t *doc;
    while (mongoc_cursor_next(cursor, &doc))
        continue;
    *took_ms = clock_now_ms() - started;
    return !mongoc_cursor_error(cursor, error);
}

static int add_uri(json_t *out, const char *uri)
{
    CLEANUP(freep) char *shown = mongo_uri_shown(uri);
    return shown ? json_object_set_new(out, "uri", json_string(shown)) : -1;
}

static int probe(const char *uri, const struct op *op, json_t *out, struct fail *f)
{
    CLEANUP(mongoc_client_destroyp) mongoc_client_t *client = NULL;
    CLEANUP(freep) char *database = NULL;
    int r = mongo_client(uri, op, &client, &database, f);
    if (r < 0)
        return r;
    bson_error_t error;
    struct capabilities can;
    int64_t took_ms = 0;
    if (!capabilities_ask(client, database, &can, &error) ||
        !read_something(client, database, op, &took_ms, &error))
        return media_error_set(f, &error, "MongoDB");
    json_object_set_new(out, "reachable", json_true());
    json_object_set_new(out, "server", json_string(can.server));
    json_object_set_new(out, "version", can.version[0] ? json_string(can.version) : json_null());
    json_object_set_new(out, "latency_ms", json_integer(took_ms));
    json_object_set_new(out, "capabilities", capabilities_json(&can));
    return 0;
}

int media_ping(const char *uri, const struct op *op, json_t **out)
{
    struct fail f = {0};
    json_t *o = json_pack("{s:b, s:n, s:n, s:n, s:n, s:n, s:n}", "reachable", 0, "server", "version", "uri",
                          "latency_ms", "capabilities", "error");
    if (!o || add_uri(o, uri) < 0) {
        json_decref(o);
        return -ENOMEM;
    }
    int r = probe(uri, op, o, &f);
    if (r < 0)
        json_object_set_new(o, "error", json_string(f.message[0] ? f.message : strerror(-r)));
    *out = o;
    return r == -ENOMEM ? (json_decref(o), -ENOMEM) : 0;
}
