#include "media/capability.h"

#include <stdio.h>
#include <string.h>

enum {
    WIRE_CHANGE_STREAMS = 6, /* MongoDB 3.6 */
    WIRE_TRANSACTIONS = 7,   /* 4.0 */
};

static bool find(const bson_t *doc, const char *path, bson_iter_t *at)
{
    bson_iter_t iter;
    return bson_iter_init(&iter, doc) && bson_iter_find_descendant(&iter, path, at);
}

static const char *text_at(const bson_t *doc, const char *path)
{
    bson_iter_t at;
    return find(doc, path, &at) && BSON_ITER_HOLDS_UTF8(&at) ? bson_iter_utf8(&at, NULL) : NULL;
}

/* What the server calls itself: MongoDB, unless buildInfo has a key that only another product gives. */
static void describe_server(const bson_t *info, struct capabilities *out)
{
    static const char *const others[][2] = {
        {"secantusVersion", "SecantusDB"}, {"ferretdbVersion", "FerretDB"}, {"ferretdb.version", "FerretDB"}};
    const char *server = "MongoDB", *version = text_at(info, "version");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        const char *found = text_at(info, others[i][0]);
        if (found) {
            server = others[i][1];
            version = found;
        }
    }
    snprintf(out->server, sizeof out->server, "%s", server);
    snprintf(out->version, sizeof out->version, "%s", version ? version : "");
}

/* Only what keeps a log of its operations has change streams and transactions. */
static bool describe_kind(const bson_t *hello, struct capabilities *out)
{
    bson_iter_t at;
    const char *message = text_at(hello, "msg");
    bool several = text_at(hello, "setName") || (message && strcmp(message, "isdbgrid") == 0);
    out->wire = find(hello, "maxWireVersion", &at) ? (int32_t)bson_iter_as_int64(&at) : 0;
    out->transactions =
        several && out->wire >= WIRE_TRANSACTIONS && find(hello, "logicalSessionTimeoutMinutes", &at);
    return several && out->wire >= WIRE_CHANGE_STREAMS;
}

static bool can_watch(mongoc_client_t *client, const char *database)
{
    CLEANUP(mongoc_collection_destroyp)
    mongoc_collection_t *collection = mongoc_client_get_collection(client, database, "preferences");
    CLEANUP(bson_destroyp) bson_t *pipeline = bson_new();
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("maxAwaitTimeMS", BCON_INT64(1));
    mongoc_change_stream_t *stream = mongoc_collection_watch(collection, pipeline, opts);
    bson_error_t error;
    const bson_t *reply;
    bool can = !mongoc_change_stream_error_document(stream, &error, &reply);
    mongoc_change_stream_destroy(stream);
    return can;
}

static bool has_validator(mongoc_client_t *client, const char *name, bool *has, bson_error_t *error)
{
    CLEANUP(mongoc_database_destroyp) mongoc_database_t *database = mongoc_client_get_database(client, name);
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("filter", "{", "name", BCON_UTF8("preferences"), "}");
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_database_find_collections_with_opts(database, opts);
    const bson_t *doc;
    bson_iter_t at;
    *has = false;
    while (mongoc_cursor_next(cursor, &doc)) {
        const char *found = text_at(doc, "name");
        *has = *has || (found && strcmp(found, "preferences") == 0 && find(doc, "options.validator", &at));
    }
    return !mongoc_cursor_error(cursor, error);
}

bool capabilities_ask(mongoc_client_t *client, const char *database, struct capabilities *out,
                      bson_error_t *error)
{
    CLEANUP(bson_destroyp) bson_t *hello = BCON_NEW("isMaster", BCON_INT32(1));
    CLEANUP(bson_destroyp) bson_t *info = BCON_NEW("buildInfo", BCON_INT32(1));
    bson_t reply;
    *out = (struct capabilities){0};
    bool ok = mongoc_client_command_simple(client, "admin", info, NULL, &reply, error);
    if (ok)
        describe_server(&reply, out);
    bson_destroy(&reply);
    if (!ok)
        return false;
    ok = mongoc_client_command_simple(client, "admin", hello, NULL, &reply, error);
    bool may_watch = ok && describe_kind(&reply, out);
    bson_destroy(&reply);
    ok = ok && has_validator(client, database, &out->validators, error);
    out->change_streams = ok && may_watch && can_watch(client, database);
    return ok;
}

json_t *capabilities_json(const struct capabilities *capabilities)
{
    return json_pack("{s:i, s:b, s:b, s:b}", "wire", (int)capabilities->wire, "transactions",
                     capabilities->transactions, "change_streams", capabilities->change_streams, "validators",
                     capabilities->validators);
}
