/*
 * The thread that keeps the index as the database is. What an event or a scan says of a document is taken
 * only where this mount did nothing to it since the reading began: its own knowledge is newer then.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "media/document.h"
#include "media/index_internal.h"
#include "media/media_error.h"
#include "media/mongo_client.h"
#include "media/names.h"
#include "media/path.h"

enum {
    AWAIT_MS = 500,                /* how long the server holds back an answer without events */
    TICK_MS = 1000,                /* how often a polling thread looks whether the server is there, and
                                      any thread tries again after a failure */
    SCAN_ANEW_MS = 10 * 60 * 1000, /* with a change stream: should it ever have lost something */
    IDLE_MS = 5 * 60 * 1000,
    PATIENCE_MAX_MS = 60000,
    BURST = 100, /* events in a burst that are looked up one by one: behind them one scan costs less */
    SCAN_REST_MS = 500,
    SCAN_STEP = 256, /* documents between two confirmations that the server is there */
};

struct feed {
    struct media_index *index;
    mongoc_client_t *client;
    mongoc_collection_t *files, *folders;
    mongoc_change_stream_t *stream; /* NULL while polling */
    int64_t scanned_at, scan_took_ms;
    unsigned burst;  /* events one after the other, without a pause */
    bool scan_due;   /* an event said that more than a document has changed */
    bool no_streams; /* the server of this connection has none */
};

static bson_t *projection(void)
{
    return BCON_NEW("projection", "{", "filename", BCON_INT32(1), "length", BCON_INT32(1), "chunkSize",
                    BCON_INT32(1), "uploadDate", BCON_INT32(1), "metadata.mtime", BCON_INT32(1),
                    "metadata.mode", BCON_INT32(1), "metadata.owner", BCON_INT32(1), "metadata.sha256",
                    BCON_INT32(1), "metadata.revision", BCON_INT32(1), "}");
}

/* ---- what is read, and what of it is taken ---- */

static void reading_begins(struct media_index *index)
{
    index_lock(index);
    while (index->holds > 0 && !index->ending)
        pthread_cond_wait(&index->changed, &index->lock);
    index->reading = true;
    index->ntouched = 0;
    index->touched_lost = false;
    index_unlock(index);
}

static void reading_ends(struct media_index *index)
{
    index_lock(index);
    index->reading = false;
    index_unlock(index);
}

static void confirm(struct media_index *index, bool live)
{
    index_lock(index);
    index->confirmed_at = clock_now_ms();
    if (live && index->state != INDEX_LIVE) {
        index->state = INDEX_LIVE;
        pthread_cond_broadcast(&index->changed);
    }
    index_unlock(index);
}

static int take_file(struct media_index *index, const bson_t *doc)
{
    CLEANUP(media_revision_unrefp) struct media_revision *revision = NULL;
    int r = media_revision_parse(doc, &revision);
    if (r < 0)
        return r;
    index_lock(index);
    if (!index_is_touched(index, revision->id_hash))
        r = index_apply(index, revision);
    index_unlock(index);
    return r;
}

bool media_marker_parse(const bson_t *doc, const char **path, struct media_marker *marker)
{
    bson_iter_t at;
    int64_t number;
    uint32_t len;
    memset(marker, 0, sizeof(*marker)); /* compared by its bytes */
    marker->mode = -1;
    marker->uid = marker->gid = -1;
    if (!media_field(doc, "_id", &at) || !BSON_ITER_HOLDS_UTF8(&at))
        return false;
    *path = bson_iter_utf8(&at, &len);
    if (media_field(doc, "mtime", &at) && media_number(&at, &number))
        marker->mtime_ns = number;
    if (media_field(doc, "at", &at) && BSON_ITER_HOLDS_DATE_TIME(&at))
        marker->at_ms = bson_iter_date_time(&at);
    if (media_field(doc, "mode", &at) && media_number(&at, &number) && number >= 0)
        marker->mode = (int32_t)(number & 07777);
    if (media_field(doc, "uid", &at) && media_number(&at, &number) && number >= 0)
        marker->uid = number;
    if (media_field(doc, "gid", &at) && media_number(&at, &number) && number >= 0)
        marker->gid = number;
    return strlen(*path) == len;
}

static int take_folder(struct media_index *index, const bson_t *doc)
{
    struct media_marker marker;
    const char *path;
    int r = 0;
    if (!media_marker_parse(doc, &path, &marker))
        return 0;
    index_lock(index);
    if (!index_is_touched(index, index_path_hash(path)))
        r = index_mark(index, path, &marker);
    index_unlock(index);
    return r;
}

/* All documents of a collection that match, each taken. */
static int read_all(struct feed *feed, mongoc_collection_t *from, const bson_t *filter,
                    int (*take)(struct media_index *, const bson_t *), struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *opts = projection();
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(from, filter, from == feed->files ? opts : NULL, NULL);
    const bson_t *doc;
    bson_error_t error;
    size_t n = 0;
    int r = 0;
    while (r == 0 && mongoc_cursor_next(cursor, &doc)) {
        r = take(feed->index, doc);
        if (++n % SCAN_STEP == 0) {
            confirm(feed->index, false);
            if (__atomic_load_n(&feed->index->ending, __ATOMIC_RELAXED))
                return -EINTR;
        }
    }
    if (r == 0 && mongoc_cursor_error(cursor, &error))
        r = media_error_set(f, &error, "cannot read the names of files");
    return r;
}

static int scan(struct feed *feed, struct fail *f)
{
    struct media_index *index = feed->index;
    CLEANUP(bson_destroyp) bson_t *all = bson_new();
    int64_t began = clock_now_ms();
    reading_begins(index);
    index_lock(index);
    index->scan++;
    index_unlock(index);
    int r = read_all(feed, feed->files, all, take_file, f);
    r = r < 0 ? r : read_all(feed, feed->folders, all, take_folder, f);
    if (r < 0)
        return r;
    index_lock(index);
    index_sweep(index);
    index->scans++;
    index->reading = false;
    index_unlock(index);
    feed->scan_due = false;
    feed->scanned_at = clock_now_ms();
    feed->scan_took_ms = feed->scanned_at - began;
    confirm(index, true);
    return 0;
}

/* ---- events ---- */

/* A filter for the document, and its key alone; false when there is none. */
static bool event_key(const bson_t *event, bson_t *key, bson_t *filter)
{
    bson_iter_t at, id;
    const uint8_t *data;
    uint32_t len;
    bson_t document;
    if (!media_field(event, "documentKey", &at) || !BSON_ITER_HOLDS_DOCUMENT(&at))
        return false;
    bson_iter_document(&at, &len, &data);
    if (!bson_init_static(&document, data, len) || !bson_iter_init_find(&id, &document, "_id"))
        return false;
    bson_append_iter(key, "_id", -1, &id);
    media_where(filter, "_id", &id);
    return true;
}

static void forget_file(struct media_index *index, const bson_t *key)
{
    index_lock(index);
    struct known *known = index_known_id(index, bson_get_data(key), key->len);
    if (known && !index_is_touched(index, known->revision->id_hash))
        index_forget(index, known);
    index_unlock(index);
}

static void forget_folder(struct media_index *index, const bson_t *key)
{
    bson_iter_t at;
    uint32_t len;
    const char *path =
        media_field(key, "_id", &at) && BSON_ITER_HOLDS_UTF8(&at) ? bson_iter_utf8(&at, &len) : NULL;
    if (!path || strlen(path) != len || media_path_wrong(path, len, true))
        return;
    index_lock(index);
    struct entry *entry = index_find_path(index, path);
    if (entry && entry->marked && !index_is_touched(index, index_path_hash(path)))
        index_unmark(index, entry);
    index_unlock(index);
}

/* A document may have changed: it is as the database says now, or gone. */
static int read_one(struct feed *feed, bool file, const bson_t *key, const bson_t *filter, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *opts = projection();
    BCON_APPEND(opts, "limit", BCON_INT64(1), "singleBatch", BCON_BOOL(true));
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(file ? feed->files : feed->folders, filter,
                                                               file ? opts : NULL, NULL);
    const bson_t *doc;
    bson_error_t error;
    if (mongoc_cursor_next(cursor, &doc))
        return file ? take_file(feed->index, doc) : take_folder(feed->index, doc);
    if (mongoc_cursor_error(cursor, &error))
        return media_error_set(f, &error, "cannot read a file's document");
    if (file)
        forget_file(feed->index, key);
    else
        forget_folder(feed->index, key);
    return 0;
}

static bool is_known(struct media_index *index, const bson_t *key)
{
    index_lock(index);
    bool known = index_known_id(index, bson_get_data(key), key->len) != NULL;
    index_unlock(index);
    return known;
}

static const char *text_of(const bson_t *doc, const char *path)
{
    bson_iter_t iter, at;
    if (!bson_iter_init(&iter, doc) || !bson_iter_find_descendant(&iter, path, &at) ||
        !BSON_ITER_HOLDS_UTF8(&at))
        return "";
    return bson_iter_utf8(&at, NULL);
}

static int take_event(struct feed *feed, const bson_t *event, struct fail *f)
{
    const char *what = text_of(event, "operationType"), *collection = text_of(event, "ns.coll");
    CLEANUP(bson_destroyp) bson_t *key = bson_new();
    CLEANUP(bson_destroyp) bson_t *filter = bson_new();
    bool file = strcmp(collection, mongoc_collection_get_name(feed->files)) == 0;
    index_lock(feed->index);
    feed->index->events++;
    index_unlock(feed->index);
    if (!event_key(event, key, filter)) { /* a collection was dropped or renamed */
        feed->scan_due = true;
        return 0;
    }
    /* Its own doing comes back as an event, and needs no second look. */
    bool known = file && is_known(feed->index, key);
    if (file && ((known && strcmp(what, "insert") == 0) || (!known && strcmp(what, "delete") == 0)))
        return 0;
    if (++feed->burst > BURST) {
        feed->scan_due = true;
        return 0;
    }
    reading_begins(feed->index);
    int r = read_one(feed, file, key, filter, f);
    reading_ends(feed->index);
    return r;
}

/* Opens the change stream; without one (an error that is the server's word, not its absence) the thread
 * polls.
 */
static int open_stream(struct feed *feed, struct fail *f)
{
    const char *files = mongoc_collection_get_name(feed->files);
    CLEANUP(mongoc_database_destroyp)
    mongoc_database_t *database =
        mongoc_client_get_database(feed->client, mongo_database(feed->index->mongo));
    CLEANUP(bson_destroyp)
    bson_t *pipeline = BCON_NEW("pipeline", "[", "{", "$match", "{", "ns.coll", "{", "$in", "[",
                                BCON_UTF8(files), BCON_UTF8(mongoc_collection_get_name(feed->folders)), "]",
                                "}", "}", "}", "{", "$project", "{", "operationType", BCON_INT32(1),
                                "documentKey", BCON_INT32(1), "ns", BCON_INT32(1), "}", "}", "]");
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("maxAwaitTimeMS", BCON_INT64(AWAIT_MS));
    feed->stream = mongoc_database_watch(database, pipeline, opts);
    bson_error_t error;
    if (!mongoc_change_stream_error_document(feed->stream, &error, NULL))
        return 0;
    mongoc_change_stream_destroy(STEAL(feed->stream));
    if (error.domain == MONGOC_ERROR_SERVER && !media_error_retry(&error)) {
        feed->no_streams = true;
        return 0;
    }
    return media_error_set(f, &error, "cannot follow changes of files");
}

/* One look at the stream: what has happened, or nothing for AWAIT_MS. */
static int follow(struct feed *feed, struct fail *f)
{
    const bson_t *event;
    bson_error_t error;
    if (mongoc_change_stream_next(feed->stream, &event)) {
        int r = take_event(feed, event, f);
        if (r == 0)
            confirm(feed->index, true);
        return r;
    }
    if (mongoc_change_stream_error_document(feed->stream, &error, NULL))
        return media_error_set(f, &error, "cannot follow changes of files");
    feed->burst = 0;
    confirm(feed->index, true);
    return 0;
}

/* ---- the thread ---- */

/* Waits under the lock, not longer than a tick; false when it is time to end. */
static bool rest(struct media_index *index)
{
    if (!index->ending)
        wait_until(&index->changed, &index->lock, clock_now_ms() + TICK_MS);
    return !index->ending;
}

static bool wanted(struct media_index *index)
{
    index_lock(index);
    bool yes = !index->ending && clock_now_ms() - index->used_at < IDLE_MS;
    index_unlock(index);
    return yes;
}

/* While it polls: a scan when it is time, and otherwise a look whether the server is there. */
static int poll_once(struct feed *feed, struct fail *f)
{
    struct media_index *index = feed->index;
    int64_t every =
        index->options.poll_ms > 5 * feed->scan_took_ms ? index->options.poll_ms : 5 * feed->scan_took_ms;
    int64_t now = clock_now_ms(), until = now + TICK_MS;
    index_lock(index);
    while (clock_now_ms() < until && feed->scanned_at + every > clock_now_ms() && rest(index))
        continue;
    index_unlock(index);
    if (feed->scanned_at + every <= clock_now_ms())
        return 0;
    CLEANUP(bson_destroyp) bson_t *ping = BCON_NEW("ping", BCON_INT32(1));
    bson_error_t error;
    if (!mongoc_client_command_simple(feed->client, "admin", ping, NULL, NULL, &error))
        return media_error_set(f, &error, "MongoDB");
    confirm(index, true);
    return 0;
}

static bool scan_wanted(struct media_index *index)
{
    index_lock(index);
    bool is = index->scan_wanted;
    index->scan_wanted = false;
    index_unlock(index);
    return is;
}

/* First of all what a rename that ended half way has left is finished; where that cannot be, names are read
 * all the same. */
static int read_anew(struct feed *feed, struct fail *f)
{
    struct media_index *index = feed->index;
    index_lock(index);
    bool own = index->holds == 0;
    index_unlock(index);
    if (index->options.may_write)
        media_names_recover(index->mongo, index->options.region, index->options.wait_ms, own, NULL);
    return scan(feed, f);
}

/* Whether it is time for a scan; one that a burst asks for comes behind the burst, or now and then within it.
 */
static bool is_due(const struct feed *feed)
{
    const struct media_index *index = feed->index;
    int64_t rest = 5 * feed->scan_took_ms, age = clock_now_ms() - feed->scanned_at;
    int64_t every = feed->stream                    ? SCAN_ANEW_MS
                    : index->options.poll_ms > rest ? index->options.poll_ms
                                                    : rest;
    return age >= every || (feed->scan_due && (feed->burst == 0 || age > SCAN_REST_MS + rest));
}

static int feed_until_failure(struct feed *feed, struct fail *f)
{
    struct media_index *index = feed->index;
    char name[128];
    const char *database = mongo_database(index->mongo);
    snprintf(name, sizeof(name), "media_%s.files", index->options.region);
    feed->files = mongoc_client_get_collection(feed->client, database, name);
    snprintf(name, sizeof(name), "media_%s.folders", index->options.region);
    feed->folders = mongoc_client_get_collection(feed->client, database, name);
    int r = feed->no_streams || index->options.once ? 0 : open_stream(feed, f);
    index_lock(index);
    index->streaming = feed->stream != NULL;
    index_unlock(index);
    r = r < 0 ? r : read_anew(feed, f);
    while (r == 0 && wanted(index)) {
        if (scan_wanted(index)) /* a rename failed half way */
            r = read_anew(feed, f);
        else if (is_due(feed))
            r = scan(feed, f);
        else
            r = feed->stream ? follow(feed, f) : poll_once(feed, f);
    }
    return r;
}

static void feed_close(struct feed *feed)
{
    mongoc_change_stream_destroy(feed->stream);
    mongoc_collection_destroy(feed->files);
    mongoc_collection_destroy(feed->folders);
    mongoc_client_destroy(feed->client);
    *feed = (struct feed){.index = feed->index};
}

void *index_feed(void *arg)
{
    struct media_index *index = arg;
    struct feed feed = {.index = index};
    int64_t patience = index->options.wait_ms;
    index_lock(index);
    while (!index->ending) {
        if (clock_now_ms() - index->used_at >= IDLE_MS) {
            index->state = INDEX_UNKNOWN;
            rest(index);
            continue;
        }
        index_unlock(index);
        struct fail f = {0};
        int64_t began = clock_now_ms();
        int r = mongo_own_client(index->mongo, patience, &feed.client, &f);
        r = r < 0 ? r : feed_until_failure(&feed, &f);
        bool scanned = feed.scanned_at != 0;
        feed_close(&feed);
        /* A scan that needs longer than an answer may take gets more time with each try. */
        if (r < 0 && !scanned && clock_now_ms() - began >= patience)
            patience = 2 * patience < PATIENCE_MAX_MS ? 2 * patience : PATIENCE_MAX_MS;
        index_lock(index);
        index->reading = false;
        if (r < 0) {
            if (f.err == 0)
                fail_set(&f, -r, "the names of region %s cannot be read: %s", index->options.region,
                         strerrordesc_np(-r));
            index->state = INDEX_AWAY;
            index->why = f;
            index->tried_at = clock_now_ms();
            pthread_cond_broadcast(&index->changed);
            rest(index);
        }
    }
    index_unlock(index);
    return NULL;
}
