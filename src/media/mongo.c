#include "media/mongo_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "media/media_error.h"
#include "media/mongo_job.h"
#include "media/recycle.h"

enum { SELECTION_MS = 5000, CONNECT_MS = 3000, SOCKET_MS = 15000, HEARTBEAT_MS = 5000, WAIT_MS = 5000 };

struct mongo {
    mongoc_client_pool_t *pool;
    struct mongo_jobs *jobs; /* owned */
    char *database, *uri;    /* owned; the URI holds credentials */
    unsigned clients;
    struct mongo_clock clock;
};

static void driver_start(void)
{
    recycle_for_driver();
    mongoc_init();
    mongoc_log_set_handler(NULL, NULL);
    mongoc_handshake_data_append("campusfs", CAMPUSFS_VERSION, NULL);
}

static void driver_start_once(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, driver_start);
}

/* The bound of one kind of wait: the URI's own, else ours, neither longer than `most` (0 = any). */
static void bound_wait(mongoc_uri_t *uri, const char *option, int32_t ours, int64_t most)
{
    int32_t ms = mongoc_uri_get_option_as_int32(uri, option, ours);
    if (most > 0 && (ms <= 0 || ms > most))
        ms = (int32_t)most;
    mongoc_uri_set_option_as_int32(uri, option, ms);
}

/*
 * Whatever the URI says: what is acknowledged is on disk at a majority, and what is decided by (which
 * revision is the newest, what nobody needs any more) is read where it was written.
 */
static void set_concerns(mongoc_uri_t *uri)
{
    mongoc_write_concern_t *write = mongoc_write_concern_new();
    mongoc_read_concern_t *read = mongoc_read_concern_new();
    mongoc_read_prefs_t *prefs = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_write_concern_set_w(write, MONGOC_WRITE_CONCERN_W_MAJORITY);
    mongoc_write_concern_set_journal(write, true);
    mongoc_uri_set_write_concern(uri, write);
    mongoc_uri_set_read_concern(uri, read);
    mongoc_uri_set_read_prefs_t(uri, prefs);
    mongoc_write_concern_destroy(write);
    mongoc_read_concern_destroy(read);
    mongoc_read_prefs_destroy(prefs);
}

static int parse_uri(const char *text, int64_t most, mongoc_uri_t **out, struct fail *f)
{
    driver_start_once();
    bson_error_t error;
    CLEANUP(mongoc_uri_destroyp) mongoc_uri_t *uri = mongoc_uri_new_with_error(text, &error);
    if (!uri)
        return fail_set(f, EINVAL, "mongodb_uri is not a MongoDB URI: %s",
                        strchr(text, '@') ? "check its escapes (it holds credentials, so it is not quoted)"
                                          : error.message);
    bound_wait(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, SELECTION_MS, most);
    bound_wait(uri, MONGOC_URI_CONNECTTIMEOUTMS, CONNECT_MS, most);
    bound_wait(uri, MONGOC_URI_SOCKETTIMEOUTMS, SOCKET_MS, most);
    bound_wait(uri, MONGOC_URI_HEARTBEATFREQUENCYMS, HEARTBEAT_MS, 0);
    bound_wait(uri, MONGOC_URI_WAITQUEUETIMEOUTMS, WAIT_MS, most);
    set_concerns(uri);
    *out = STEAL(uri);
    return 0;
}

static char *database_of(const mongoc_uri_t *uri)
{
    const char *name = mongoc_uri_get_database(uri);
    return strdup(name && *name ? name : "campusfs");
}

/*
 * What a mount waits for ends by a file operation's deadline, and the driver does not try again by itself:
 * its second try would take as long as the first, and whoever calls knows how much time is left.
 */
static void bound_operation(mongoc_uri_t *uri, int64_t operation_ms)
{
    static const char *const waits[] = {MONGOC_URI_SERVERSELECTIONTIMEOUTMS, MONGOC_URI_CONNECTTIMEOUTMS,
                                        MONGOC_URI_WAITQUEUETIMEOUTMS};
    for (size_t i = 0; i < sizeof(waits) / sizeof(*waits); i++)
        bound_wait(uri, waits[i], SELECTION_MS, (operation_ms + 1) / 2);
    bound_wait(uri, MONGOC_URI_SOCKETTIMEOUTMS, SOCKET_MS, operation_ms);
    mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYREADS, false);
    mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYWRITES, false);
}

int mongo_open(const char *text, unsigned clients, int64_t operation_ms, struct mongo **out, struct fail *f)
{
    CLEANUP(mongoc_uri_destroyp) mongoc_uri_t *uri = NULL;
    int r = parse_uri(text, 0, &uri, f);
    if (r < 0)
        return r;
    if (operation_ms > 0)
        bound_operation(uri, operation_ms);
    mongoc_uri_set_option_as_int32(uri, MONGOC_URI_MAXPOOLSIZE, (int32_t)clients);
    CLEANUP(mongo_closep) struct mongo *mongo = calloc(1, sizeof(*mongo));
    if (!mongo || !(mongo->database = database_of(uri)) || !(mongo->uri = strdup(text)))
        return -ENOMEM;
    bson_error_t error;
    pthread_mutex_init(&mongo->clock.lock, NULL);
    mongo->clients = clients;
    mongo->pool = mongoc_client_pool_new_with_error(uri, &error);
    if (!mongo->pool)
        return media_error_set(f, &error, "cannot use mongodb_uri");
    mongoc_client_pool_set_error_api(mongo->pool, MONGOC_ERROR_API_VERSION_2);
    mongo->jobs = mongo_jobs_new(mongo, clients);
    if (!mongo->jobs)
        return -ENOMEM;
    *out = STEAL(mongo);
    return 0;
}

void mongo_close(struct mongo *mongo)
{
    if (!mongo)
        return;
    mongo_jobs_free(mongo->jobs);
    if (mongo->pool)
        mongoc_client_pool_destroy(mongo->pool);
    pthread_mutex_destroy(&mongo->clock.lock);
    free(mongo->database);
    free(mongo->uri);
    free(mongo);
}

struct mongo_clock *mongo_clock_of(struct mongo *mongo)
{
    return &mongo->clock;
}

struct mongo_jobs *mongo_jobs_of(struct mongo *mongo)
{
    return mongo->jobs;
}

const char *mongo_database(const struct mongo *mongo)
{
    return mongo->database;
}

int mongo_pop(struct mongo *mongo, mongoc_client_t **out, struct fail *f)
{
    *out = mongoc_client_pool_pop(mongo->pool);
    if (!*out)
        return fail_set(f, EIO, "all %u MongoDB connections are busy", mongo->clients);
    return 0;
}

void mongo_push(struct mongo *mongo, mongoc_client_t *client)
{
    if (client)
        mongoc_client_pool_push(mongo->pool, client);
}

static int new_client(const mongoc_uri_t *uri, mongoc_client_t **out, struct fail *f)
{
    bson_error_t error;
    *out = mongoc_client_new_from_uri_with_error(uri, &error);
    if (!*out)
        return media_error_set(f, &error, "cannot use mongodb_uri");
    mongoc_client_set_error_api(*out, MONGOC_ERROR_API_VERSION_2);
    return 0;
}

int mongo_client(const char *text, const struct op *op, mongoc_client_t **out, char **database,
                 struct fail *f)
{
    CLEANUP(mongoc_uri_destroyp) mongoc_uri_t *uri = NULL;
    CLEANUP(mongoc_client_destroyp) mongoc_client_t *client = NULL;
    int64_t left = op_left_ms(op);
    int r = parse_uri(text, left > 0 ? left : 1, &uri, f);
    r = r < 0 ? r : new_client(uri, &client, f);
    if (r == 0 && !(*database = database_of(uri)))
        r = -ENOMEM;
    if (r == 0)
        *out = STEAL(client);
    return r;
}

int mongo_own_client(struct mongo *mongo, int64_t wait_ms, mongoc_client_t **out, struct fail *f)
{
    CLEANUP(mongoc_uri_destroyp) mongoc_uri_t *uri = NULL;
    int r = parse_uri(mongo->uri, 0, &uri, f);
    if (r < 0)
        return r;
    bound_operation(uri, wait_ms);
    mongoc_uri_set_option_as_int32(uri, MONGOC_URI_SOCKETTIMEOUTMS, (int32_t)wait_ms);
    return new_client(uri, out, f);
}

char *mongo_uri_shown(const char *uri)
{
    const char *hosts = strstr(uri, "://");
    size_t scheme = hosts ? (size_t)(hosts - uri) + 3 : 0;
    hosts = uri + scheme;
    /* An unescaped '/' or '@' may stand in a password, so nothing before the last '@' is shown. */
    const char *at = strrchr(hosts, '@');
    if (at)
        hosts = at + 1;
    char *shown = NULL;
    if (asprintf(&shown, "%.*s%.*s", (int)scheme, uri, (int)strcspn(hosts, "?"), hosts) < 0)
        return NULL;
    return shown;
}

int mongo_collection_open(struct mongo *mongo, const char *name, struct mongo_collection *out, struct fail *f)
{
    *out = (struct mongo_collection){.mongo = mongo};
    int r = mongo_pop(mongo, &out->client, f);
    if (r == 0)
        out->handle = mongoc_client_get_collection(out->client, mongo->database, name);
    return r;
}

void mongo_collection_close(struct mongo_collection *collection)
{
    mongoc_collection_destroy(collection->handle);
    mongo_push(collection->mongo, collection->client);
    *collection = (struct mongo_collection){0};
}

int mongo_part_open(struct mongo *mongo, const char *region, const char *part, struct mongo_collection *out,
                    struct fail *f)
{
    char name[128];
    snprintf(name, sizeof(name), "media_%s.%s", region, part);
    return mongo_collection_open(mongo, name, out, f);
}

bool mongo_try_again(const bson_error_t *error, const struct op *op)
{
    if (!media_error_retry(error) || op_left_ms(op) < 100 || op_interrupted(op))
        return false;
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    return true;
}

bson_t *mongo_find_options(const struct op *op, int64_t limit)
{
    int64_t left = op_left_ms(op);
    return BCON_NEW("limit", BCON_INT64(limit), "batchSize", BCON_INT64(limit), "singleBatch",
                    BCON_BOOL(true), "maxTimeMS", BCON_INT64(left > 0 ? left : 1));
}

int mongo_has_documents(struct mongo *mongo, const char *name, const struct op *op, bool *has, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection collection;
    int r = mongo_collection_open(mongo, name, &collection, f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *all = bson_new();
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(op, 1);
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection.handle, all, opts, NULL);
    const bson_t *doc;
    bson_error_t error;
    *has = mongoc_cursor_next(cursor, &doc);
    return mongoc_cursor_error(cursor, &error) ? media_error_set(f, &error, "cannot read MongoDB") : 0;
}
