/* Renaming folders: document by document, under a journal. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "media/bucket.h"
#include "media/document.h"
#include "media/names_private.h"

enum {
    ROUNDS = 100,                /* a folder that is being written to is followed so often */
    BATCH = 128,                 /* documents an update message renames */
    RECOVERED = 64,              /* entries of the journal that one look finishes */
    RENAME_LEASE_MS = 60 * 1000, /* a journal entry without a heartbeat for so long is nobody's */
};

struct move {
    struct names *n;
    bson_oid_t id; /* the journal's entry */
    char from[MEDIA_FILENAME_MAX + 1], to[MEDIA_FILENAME_MAX + 1];
    int64_t step_ms;
};

/* ---- the journal ---- */

static void owner_text(char *out, size_t size)
{
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    snprintf(out, size, "%s:%ld", host, (long)getpid());
}

/* It began by this machine's clock, as what it publishes is dated; it lives by the server's, which others
 * share. */
static int journal(struct move *move)
{
    char owner[96];
    int64_t began = bucket_now_ms(), now;
    int r = bucket_server_ms(move->n->mongo, move->n->op, &now, move->n->f);
    if (r < 0)
        return r;
    owner_text(owner, sizeof(owner));
    bson_oid_init(&move->id, NULL);
    CLEANUP(bson_destroyp)
    bson_t *doc =
        BCON_NEW("_id", BCON_OID(&move->id), "from", BCON_UTF8(move->from), "to", BCON_UTF8(move->to),
                 "began", BCON_DATE_TIME(began), "heartbeat", BCON_DATE_TIME(now), "owner", BCON_UTF8(owner));
    return bucket_insert(move->n->mongo, move->n->region, "renames", (const bson_t *[]){doc}, 1,
                         "cannot journal a rename", move->n->op, move->n->f);
}

static int heartbeat(struct move *move, const struct op *op)
{
    int64_t now;
    int r = bucket_server_ms(move->n->mongo, op, &now, move->n->f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("_id", BCON_OID(&move->id));
    CLEANUP(bson_destroyp) bson_t *update = BCON_NEW("$set", "{", "heartbeat", BCON_DATE_TIME(now), "}");
    return bucket_update(move->n->mongo, move->n->region, "renames", filter, update, false, NULL,
                         "cannot renew a rename's lease", op, move->n->f);
}

static int journal_done(struct move *move, const struct op *op)
{
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("_id", BCON_OID(&move->id));
    return bucket_delete(move->n->mongo, move->n->region, "renames", filter, NULL, op, move->n->f);
}

/* ---- the documents ---- */

/* Gives files their names under the new path, one message. */
static int rename_batch(struct move *move, const struct media_item *items, size_t n, const struct op *op)
{
    CLEANUP(mongo_collection_close) struct mongo_collection files = {0};
    int64_t course = media_path_course(move->to, media_path_name(move->to));
    int r = mongo_part_open(move->n->mongo, move->n->region, "files", &files, move->n->f);
    while (r == 0) {
        CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("ordered", BCON_BOOL(false));
        mongoc_bulk_operation_t *bulk = mongoc_collection_create_bulk_operation_with_opts(files.handle, opts);
        bson_error_t error = {0};
        bool added = true;
        for (size_t i = 0; i < n; i++) {
            char path[2 * MEDIA_FILENAME_MAX + 1], old[2 * MEDIA_FILENAME_MAX + 1];
            snprintf(path, sizeof(path), "%s%s", move->to, items[i].suffix);
            snprintf(old, sizeof(old), "%s%s", move->from, items[i].suffix);
            CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(items[i].revision, "_id");
            CLEANUP(bson_destroyp) bson_t *ours = media_id_filter(items[i].revision, "_id");
            BSON_APPEND_UTF8(filter, "filename", old); /* not one that has been renamed meanwhile */
            BCON_APPEND(ours, "filename", "{", "$in", "[", BCON_UTF8(old), BCON_UTF8(path), "]", "}");
            CLEANUP(bson_destroyp) bson_t *name = BCON_NEW("$set", "{", "filename", BCON_UTF8(path), "}");
            CLEANUP(bson_destroyp)
            bson_t *id = BCON_NEW("$set", "{", "metadata.courseId", BCON_INT64(course), "}");
            BCON_APPEND(ours, "metadata.courseId", "{", "$exists", BCON_BOOL(true), "}");
            added = added && mongoc_bulk_operation_update_one_with_opts(bulk, filter, name, NULL, &error) &&
                    mongoc_bulk_operation_update_one_with_opts(bulk, ours, id, NULL, &error);
        }
        bool done = added && mongoc_bulk_operation_execute(bulk, NULL, &error) != 0;
        mongoc_bulk_operation_destroy(bulk);
        if (done)
            return 0;
        if (!mongo_try_again(&error, op))
            r = media_error_set(move->n->f, &error, "cannot rename files");
    }
    return r;
}

/* A folder's document lies under its path: a new one, then the old one goes. */
static int move_marker(struct move *move, const struct media_item *item, const struct op *op)
{
    char path[2 * MEDIA_FILENAME_MAX + 1];
    struct names n = *move->n;
    n.op = op;
    snprintf(path, sizeof(path), "%s%s", move->to, item->suffix);
    int r = names_insert_marker(&n, path, &item->marker);
    r = r == -EEXIST ? 0 : r;
    snprintf(path, sizeof(path), "%s%s", move->from, item->suffix);
    return r < 0 ? r : names_delete_marker(&n, path);
}

static int move_documents(struct move *move, const struct media_below *below)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < below->n;) {
        struct op op = op_within(move->step_ms);
        if (!below->list[i].revision) {
            r = move_marker(move, &below->list[i++], &op);
            continue;
        }
        size_t n = 0;
        while (n < BATCH && i + n < below->n && below->list[i + n].revision)
            n++;
        r = rename_batch(move, &below->list[i], n, &op);
        i += n;
        if (r == 0 && i < below->n)
            r = heartbeat(move, &op);
    }
    return r;
}

/* All documents of a collection below a path (for folders, that itself, too): as items. */
static int list_below(struct names *n, const char *part, const char *path, const bson_t *filter, bool files,
                      struct media_below **out)
{
    CLEANUP(mongo_collection_close) struct mongo_collection in = {0};
    int r = mongo_part_open(n->mongo, n->region, part, &in, n->f);
    if (r < 0)
        return r;
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(in.handle, filter, NULL, NULL);
    const bson_t *doc;
    bson_error_t error;
    size_t cap = 0;
    while (r == 0 && mongoc_cursor_next(cursor, &doc)) {
        struct media_item item = {0};
        const char *itself;
        bson_iter_t at;
        uint32_t len = 0;
        const char *name = media_field(doc, files ? "filename" : "_id", &at) && BSON_ITER_HOLDS_UTF8(&at)
                               ? bson_iter_utf8(&at, &len)
                               : "";
        if (media_path_wrong(name, len, !files) || len < strlen(path))
            continue; /* it is shown nowhere, and stays */
        if (!*out || (*out)->n == cap) {
            cap = cap ? 2 * cap : 64;
            struct media_below *more = realloc(*out, sizeof(*more) + cap * sizeof(item));
            if (!more)
                return -ENOMEM;
            more->n = *out ? (*out)->n : 0;
            *out = more;
        }
        item.suffix = strdup(name + strlen(path));
        r = !item.suffix ? -ENOMEM : files ? media_revision_parse(doc, &item.revision) : 0;
        if (!files)
            media_marker_parse(doc, &itself, &item.marker);
        (*out)->list[(*out)->n++] = item;
    }
    if (r == 0 && mongoc_cursor_error(cursor, &error))
        r = media_error_set(n->f, &error, "cannot read what a rename has left");
    return r;
}

/* Somebody has put something under the new name since it was looked up: both are in that folder. */
static int show_moved(struct move *move, const struct media_below *below, const struct op *op)
{
    struct media_below *files CLEANUP(media_below_freep) = NULL;
    char path[2 * MEDIA_FILENAME_MAX + 1];
    struct names n = *move->n;
    n.op = op;
    CLEANUP(bson_destroyp) bson_t *filter = names_below_filter("filename", move->to);
    int r = list_below(&n, "files", move->to, filter, true, &files);
    for (size_t i = 0; r == 0 && files && i < files->n; i++)
        media_index_put(n.index, files->list[i].revision);
    for (size_t i = 0; r == 0 && i < below->n; i++) {
        const struct media_item *item = &below->list[i];
        if (item->revision)
            continue;
        snprintf(path, sizeof(path), "%s%s", move->to, item->suffix);
        media_index_marked(n.index, path, &item->marker);
        snprintf(path, sizeof(path), "%s%s", move->from, item->suffix);
        media_index_marked(n.index, path, NULL);
    }
    return r;
}

/* ---- renaming ---- */

static int check_lengths(const struct move *move, const struct media_below *below)
{
    size_t len = strlen(move->to);
    for (size_t i = 0; i < below->n; i++)
        if (len + strlen(below->list[i].suffix) > MEDIA_FILENAME_MAX)
            return -ENAMETOOLONG;
    return 0;
}

static bool lies_within(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

int names_rename_folder(struct names *n, const struct media_place *from, const struct media_place *to,
                        const struct media_info *source, int64_t step_ms)
{
    struct media_below *below CLEANUP(media_below_freep) = NULL;
    struct move move = {.n = n, .step_ms = step_ms};
    int r = names_path(n, from, move.from);
    r = r < 0 ? r : names_path(n, to, move.to);
    if (r == 0 && lies_within(move.to, move.from))
        return -EINVAL;
    /* What an earlier rename has left must not be done to what this one brings there. */
    r = r < 0 ? r : media_names_recover(n->mongo, n->region, step_ms, !media_index_held(n->index), n->f);
    r = r < 0 ? r : media_index_below(n->index, source->ino, &below);
    r = r < 0 ? r : check_lengths(&move, below);
    if (r == 0 && from->folder != to->folder)
        r = names_keep_folder(n, from->folder);
    if (r < 0)
        return r;
    media_index_hold(n->index, move.from, below);
    r = journal(&move);
    bool begun = r == 0;
    r = r < 0 ? r : move_documents(&move, below);
    for (int round = 0; r == 0 && round < ROUNDS; round++) {
        r = media_index_moved_folder(n->index, move.from, move.to, below);
        if (r != -EAGAIN)
            break;
        media_below_free(below);
        below = NULL;
        r = media_index_below(n->index, source->ino, &below);
        r = r < 0 ? r : move_documents(&move, below);
    }
    struct op op = op_within(step_ms);
    if (r == -EEXIST)
        r = show_moved(&move, below, &op);
    bool left = begun && (r < 0 || journal_done(&move, &op) < 0);
    media_index_release(n->index);
    if (left)
        media_index_scan(n->index); /* half of it may be there, or its entry: finished as after a crash */
    return r;
}

/* ---- recovery ---- */

/* What is still under the old path goes to the new one; what was uploaded since the rename began is not its.
 */
static int finish(struct move *move, int64_t began)
{
    struct media_below *files CLEANUP(media_below_freep) = NULL;
    struct media_below *folders CLEANUP(media_below_freep) = NULL;
    CLEANUP(bson_destroyp) bson_t *older = names_below_filter("filename", move->from);
    CLEANUP(bson_destroyp) bson_t *below = names_below_filter("_id", move->from);
    CLEANUP(bson_destroyp)
    bson_t *or_itself =
        BCON_NEW("$or", "[", "{", "_id", BCON_UTF8(move->from), "}", BCON_DOCUMENT(below), "]");
    BCON_APPEND(older, "uploadDate", "{", "$lte", BCON_DATE_TIME(began), "}");
    int r = list_below(move->n, "files", move->from, older, true, &files);
    r = r < 0 ? r : list_below(move->n, "folders", move->from, or_itself, false, &folders);
    if (r == 0 && files)
        r = move_documents(move, files);
    if (r == 0 && folders)
        r = move_documents(move, folders);
    struct op op = op_within(move->step_ms);
    return r < 0 ? r : journal_done(move, &op);
}

/* Whether whoever renames is dead: on this machine that is known, of others the lease has to run out. `own`:
 * this mount renames nothing now. */
static bool is_left(const bson_t *doc, bool own, int64_t now)
{
    char host[65] = "";
    bson_iter_t at;
    int64_t beat = 0;
    if (media_field(doc, "heartbeat", &at) && BSON_ITER_HOLDS_DATE_TIME(&at))
        beat = bson_iter_date_time(&at);
    if (now - beat > RENAME_LEASE_MS)
        return true;
    gethostname(host, sizeof(host) - 1);
    const char *owner =
        media_field(doc, "owner", &at) && BSON_ITER_HOLDS_UTF8(&at) ? bson_iter_utf8(&at, NULL) : "";
    size_t len = strlen(host);
    if (len == 0 || strncmp(owner, host, len) != 0 || owner[len] != ':')
        return false;
    pid_t pid = (pid_t)strtol(owner + len + 1, NULL, 10);
    return pid > 0 && (pid == getpid() ? own : kill(pid, 0) < 0 && errno == ESRCH);
}

static bool parse_move(const bson_t *doc, struct move *move, int64_t *began)
{
    bson_iter_t id, from, to, at;
    if (!media_field(doc, "_id", &id) || !BSON_ITER_HOLDS_OID(&id) || !media_field(doc, "from", &from) ||
        !BSON_ITER_HOLDS_UTF8(&from) || !media_field(doc, "to", &to) || !BSON_ITER_HOLDS_UTF8(&to) ||
        !media_field(doc, "began", &at) || !BSON_ITER_HOLDS_DATE_TIME(&at))
        return false;
    bson_oid_copy(bson_iter_oid(&id), &move->id);
    *began = bson_iter_date_time(&at);
    snprintf(move->from, sizeof(move->from), "%s", bson_iter_utf8(&from, NULL));
    snprintf(move->to, sizeof(move->to), "%s", bson_iter_utf8(&to, NULL));
    return !media_path_wrong(move->from, strlen(move->from), true) &&
           !media_path_wrong(move->to, strlen(move->to), true);
}

/* The entries of the journal, copied: to finish one takes a connection, too. The list's strings are
 * documents; bounded, since what is beyond is found at the next look. */
static int read_journal(struct names *n, bson_t *list[RECOVERED], size_t *count)
{
    CLEANUP(mongo_collection_close) struct mongo_collection renames = {0};
    CLEANUP(bson_destroyp) bson_t *all = bson_new();
    CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(n->op, RECOVERED);
    int r = mongo_part_open(n->mongo, n->region, "renames", &renames, n->f);
    if (r < 0)
        return r;
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(renames.handle, all, opts, NULL);
    const bson_t *doc;
    bson_error_t error;
    while (*count < RECOVERED && mongoc_cursor_next(cursor, &doc))
        list[(*count)++] = bson_copy(doc);
    return mongoc_cursor_error(cursor, &error)
               ? media_error_set(n->f, &error, "cannot read what renames have left")
               : 0;
}

int media_names_recover(struct mongo *mongo, const char *region, int64_t step_ms, bool own, struct fail *f)
{
    struct op op = op_within(step_ms);
    struct names n = {.mongo = mongo, .region = region, .op = &op, .f = f};
    bson_t *list[RECOVERED];
    size_t count = 0;
    int64_t now = 0;
    int r = read_journal(&n, list, &count);
    if (r == 0 && count > 0)
        r = bucket_server_ms(mongo, &op, &now, f);
    for (size_t i = 0; i < count; i++) {
        struct move move = {.n = &n, .step_ms = step_ms};
        int64_t began;
        if (r == 0 && is_left(list[i], own, now) && parse_move(list[i], &move, &began))
            r = finish(&move, began);
        bson_destroy(list[i]);
    }
    return r;
}
