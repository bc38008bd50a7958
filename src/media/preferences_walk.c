#include "media/preferences_walk.h"

#include <errno.h>
#include <stdlib.h>

#include "media/bucket.h"
#include "media/document.h"
#include "media/media_error.h"
#include "media/mongo_client.h"
#include "media/preferences_doc.h"

/* Another program's document may have 16 MB: a page ends with the one that reaches this. */
enum { PAGE_BYTES = 16 << 20, ASK_MS = 5000 };

/* A page of the walk. */
struct page {
    bson_t *docs[PREFERENCES_WALK_PAGE];
    struct preferences_owner owners[PREFERENCES_WALK_PAGE];
    size_t n, bytes;
};

static void page_clear(struct page *page)
{
    for (size_t i = 0; i < page->n; i++)
        bson_destroy(page->docs[i]);
    page->n = page->bytes = 0;
}

static void page_free(struct page *page)
{
    if (page)
        page_clear(page);
    free(page);
}
DEFINE_CLEANUP(struct page, page_free)

/* One of no user that a number can be is somebody else's business. */
static void page_add(struct page *page, const bson_t *doc)
{
    bson_iter_t at;
    int64_t user_id;
    if (!media_field(doc, "user_id", &at) || !media_number(&at, &user_id) || user_id <= 0)
        return;
    page->owners[page->n] =
        (struct preferences_owner){.user_id = user_id, .marked = bson_has_field(doc, "_deleted_at")};
    page->docs[page->n++] = bson_copy(doc);
    page->bytes += doc->len;
}

/* Only what is still as it was read. */
static bool apply_one(const struct mongo_collection *in, const struct preferences_owner *owner,
                      const bson_t *doc, struct preferences_walk *walk, bson_error_t *error)
{
    CLEANUP(bson_destroyp) bson_t *filter = preferences_doc_filter(doc);
    CLEANUP(bson_destroyp) bson_t *update = NULL;
    bson_t reply = BSON_INITIALIZER;
    bson_iter_t at;
    bool done = true;
    const char *counted = "modifiedCount";
    uint64_t *count = &walk->marked;
    if (owner->fate == PREFERENCES_GOES) {
        counted = "deletedCount";
        count = &walk->removed;
        bson_destroy(&reply);
        done = mongoc_collection_delete_one(in->handle, filter, NULL, &reply, error);
    } else if (owner->fate == PREFERENCES_GOES_LATER && !owner->marked) {
        update = BCON_NEW("$set", "{", "_deleted_at", BCON_DATE_TIME(walk->now_ms), "}");
    } else if (owner->fate == PREFERENCES_STAYS && owner->marked) {
        update = BCON_NEW("$unset", "{", "_deleted_at", BCON_INT32(1), "}");
    }
    if (update) {
        bson_destroy(&reply);
        done = mongoc_collection_update_one(in->handle, filter, update, NULL, &reply, error);
    }
    if (done && owner->fate != PREFERENCES_STAYS && bson_iter_init_find(&at, &reply, counted))
        *count += (uint64_t)bson_iter_as_int64(&at);
    bson_destroy(&reply);
    return done;
}

static int apply_page(const struct mongo_collection *in, struct page *page, struct preferences_walk *walk,
                      struct fail *f)
{
    int r = page->n ? walk->judge(walk->arg, page->owners, page->n, f) : 0;
    for (size_t i = 0; r == 0 && walk->write && i < page->n; i++) {
        struct op op = op_within(walk->step_ms);
        bson_error_t error;
        while (r == 0 && !apply_one(in, &page->owners[i], page->docs[i], walk, &error))
            if (!mongo_try_again(&error, &op))
                r = media_error_set(f, &error, "cannot delete preferences");
    }
    walk->seen += page->n;
    page_clear(page);
    return r;
}

static bson_t *filter_of(const int64_t *ids, size_t n)
{
    struct media_in in;
    if (n == 0)
        return bson_new();
    media_in_begin(&in, "user_id");
    for (size_t i = 0; i < n; i++)
        media_in_add_int64(&in, ids[i]);
    return media_in_end(&in);
}

int preferences_walk(struct mongo *mongo, const int64_t *user_ids, size_t n, struct preferences_walk *walk,
                     struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection in = {0};
    CLEANUP(page_freep) struct page *page = calloc(1, sizeof *page);
    if (!page)
        return fail_set(f, ENOMEM, "out of memory");
    struct op op = op_within(walk->step_ms);
    int r = bucket_server_ms(mongo, &op, &walk->now_ms, f);
    r = r < 0 ? r : mongo_collection_open(mongo, "preferences", &in, f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp) bson_t *filter = filter_of(user_ids, n);
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("batchSize", BCON_INT64(PREFERENCES_WALK_PAGE));
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(in.handle, filter, opts, NULL);
    const bson_t *doc;
    bson_error_t error;
    while (r == 0 && mongoc_cursor_next(cursor, &doc)) {
        page_add(page, doc);
        if (page->n == PREFERENCES_WALK_PAGE || page->bytes >= PAGE_BYTES)
            r = apply_page(&in, page, walk, f);
    }
    if (r == 0 && mongoc_cursor_error(cursor, &error))
        return media_error_set(f, &error, "cannot read preferences");
    return r == 0 ? apply_page(&in, page, walk, f) : r;
}

/* ---- the lease ---- */

int preferences_lease_take(struct mongo *mongo, const char *owner, int64_t lasts_ms, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection leases = {0};
    struct op op = op_within(ASK_MS);
    int64_t now;
    bson_error_t error;
    int r = bucket_server_ms(mongo, &op, &now, f);
    r = r < 0 ? r : mongo_collection_open(mongo, "leases", &leases, f);
    if (r < 0)
        return r;
    CLEANUP(bson_destroyp)
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("preferences"), "$or", "[", "{", "owner", BCON_UTF8(owner),
                              "}", "{", "until", "{", "$lt", BCON_DATE_TIME(now), "}", "}", "]");
    CLEANUP(bson_destroyp)
    bson_t *update =
        BCON_NEW("$set", "{", "owner", BCON_UTF8(owner), "until", BCON_DATE_TIME(now + lasts_ms), "}");
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("upsert", BCON_BOOL(true));
    if (!mongoc_collection_update_one(leases.handle, filter, update, opts, NULL, &error))
        return media_error_set(f, &error, "cannot take the lease of the sweep of preferences");
    return 0;
}

void preferences_lease_end(struct mongo *mongo, const char *owner)
{
    CLEANUP(mongo_collection_close) struct mongo_collection leases = {0};
    if (mongo_collection_open(mongo, "leases", &leases, NULL) < 0)
        return;
    CLEANUP(bson_destroyp)
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("preferences"), "owner", BCON_UTF8(owner));
    mongoc_collection_delete_one(leases.handle, filter, NULL, NULL, NULL);
}
