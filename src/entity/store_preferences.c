#include "entity/store_preferences.h"

#include <string.h>

#include "base/json.h"
#include "base/list.h"
#include "base/map.h"
#include "entity/store_internal.h"
#include "media/preferences_store.h"

_Static_assert(STORE_TIME_NONE == PREFERENCES_TIME_NONE && STORE_TIME_FOREVER == PREFERENCES_TIME_FOREVER,
               "times are handed on as they are");

enum {
    KNOWN_MAX = 4096,        /* documents kept, the oldest goes */
    KNOWN_BYTES = 64 * 1024, /* a larger one is not */
};

struct known {
    struct map_entry entry;
    struct known *newer; /* admitted after this one */
    int64_t id;
    int64_t read_at;           /* clock_now_ms() when its query began */
    struct document *document; /* a reference */
};

struct known_preferences {
    pthread_mutex_t lock; /* guards all below */
    struct map map;       /* struct known by id */
    struct known *oldest, **end;
    uint64_t epoch;     /* own saves so far: what was being read meanwhile is not kept */
    int64_t changed_us; /* the newest updated_at that was saved here */
};

bool store_is_preferences(unsigned collection)
{
    const struct collection *c = collection_numbered(collection);
    return c && c->of_users;
}

/* What is known */

struct known_preferences *known_preferences_new(void)
{
    struct known_preferences *known = calloc(1, sizeof *known);
    if (!known)
        return NULL;
    known->end = &known->oldest;
    pthread_mutex_init(&known->lock, NULL);
    return known;
}

static void forget_oldest(struct known_preferences *known)
{
    struct known *one = known->oldest;
    known->oldest = one->newer;
    if (!known->oldest)
        known->end = &known->oldest;
    map_remove(&known->map, &one->entry);
    document_unref(one->document);
    free(one);
}

void known_preferences_free(struct known_preferences *known)
{
    if (!known)
        return;
    while (known->oldest)
        forget_oldest(known);
    map_clear(&known->map);
    pthread_mutex_destroy(&known->lock);
    free(known);
}

static bool known_equal(const struct map_entry *entry, const void *id)
{
    return MAP_ELEMENT(entry, struct known, entry)->id == *(const int64_t *)id;
}

/* Under the lock. */
static struct known *known_find(struct known_preferences *known, int64_t id)
{
    struct map_entry *entry = map_find(&known->map, map_hash_number((uint64_t)id), known_equal, &id);
    return entry ? MAP_ELEMENT(entry, struct known, entry) : NULL;
}

/* Under the lock: one more, without a document yet; NULL when memory is out. */
static struct known *known_add(struct known_preferences *known, int64_t id)
{
    struct known *one = calloc(1, sizeof *one);
    if (!one)
        return NULL;
    one->id = id;
    if (map_add(&known->map, &one->entry, map_hash_number((uint64_t)id)) < 0) {
        free(one);
        return NULL;
    }
    *known->end = one;
    known->end = &one->newer;
    if (known->map.count > KNOWN_MAX)
        forget_oldest(known);
    return one;
}

static uint64_t known_epoch(struct known_preferences *known)
{
    pthread_mutex_lock(&known->lock);
    uint64_t epoch = known->epoch;
    pthread_mutex_unlock(&known->lock);
    return epoch;
}

/* Remembers what was read since an epoch, unless something was saved since. */
static void known_keep(struct known_preferences *known, int64_t id, uint64_t epoch, int64_t read_at,
                       struct document *document)
{
    pthread_mutex_lock(&known->lock);
    struct known *one = known_find(known, id);
    if (known->epoch == epoch && document->revision.size <= KNOWN_BYTES) {
        one = one ? one : known_add(known, id);
        if (one) {
            document_unref(one->document);
            one->document = document_ref(document);
            one->read_at = read_at;
        }
    }
    pthread_mutex_unlock(&known->lock);
}

/* A save of ours: what was known is outdated. */
static void known_changed(struct known_preferences *known, int64_t id, const struct document *document)
{
    pthread_mutex_lock(&known->lock);
    struct known *one = known_find(known, id);
    known->epoch++;
    if (one) {
        document_unref(one->document);
        one->document = NULL;
    }
    if (document && document->revision.mtime_us > known->changed_us)
        known->changed_us = document->revision.mtime_us;
    pthread_mutex_unlock(&known->lock);
}

/* A reference to what was read later than that; NULL when nothing was. */
static struct document *known_since(struct known_preferences *known, int64_t id, int64_t since)
{
    pthread_mutex_lock(&known->lock);
    struct known *one = known_find(known, id);
    struct document *document =
        one && one->document && one->read_at > since ? document_ref(one->document) : NULL;
    pthread_mutex_unlock(&known->lock);
    return document;
}

/* Reading */

static struct revision revision_of(const struct preferences_doc *doc, size_t size)
{
    return (struct revision){
        .rev = doc->rev, .mtime_us = doc->updated_us, .content_us = doc->updated_us, .size = size};
}

static int document_of(const struct preferences_doc *doc, struct document **out, struct fail *f)
{
    struct buf text CLEANUP(buf_clear) = {0};
    int r = json_layout(doc->text, doc->len, &text);
    struct document *document = r == 0 ? document_new(text.len) : NULL;
    if (!document)
        return fail_set(f, r == -EPROTO ? EIO : ENOMEM, "cannot lay out preferences");
    document->revision = revision_of(doc, text.len);
    memcpy(document->text, text.data, text.len);
    *out = document;
    return 0;
}

/* What is between the query and the caller: documents that enter what is known, and the page's rows. */
struct reading {
    struct store *store;
    const struct preferences_list *list;
    uint64_t epoch;
    int64_t read_at;
};

/* One user's, as a document; a deleted user's of whom there is a user is noted to stay. */
static int take_one(const struct reading *reading, size_t i, struct document **out, struct fail *f)
{
    const struct preferences_doc *doc = &reading->list->docs[i];
    if (reading->list->broken[i])
        return fail_set(f, EIO, "the preferences of user %lld in MongoDB cannot be shown",
                        (long long)doc->user_id);
    int r = document_of(doc, out, f);
    if (r < 0)
        return r;
    known_keep(reading->store->preferences, doc->user_id, reading->epoch, reading->read_at, *out);
    if (doc->deleted && !reading->store->config->read_only)
        preferences_note_deleted(reading->store->mongo, doc->user_id, false);
    return 0;
}

/* Asks for the preferences of the users of a page. */
static int read_page(struct store *store, const struct page *users, const struct op *op,
                     struct reading *reading, struct preferences_list *list, struct fail *f)
{
    int64_t *ids CLEANUP(freep) = malloc((users->count + 1) * sizeof *ids);
    if (!ids)
        return fail_set(f, ENOMEM, "out of memory");
    for (size_t i = 0; i < users->count; i++)
        ids[i] = users->rows[i].id;
    *reading = (struct reading){
        .store = store, .list = list, .epoch = known_epoch(store->preferences), .read_at = clock_now_ms()};
    return users->count ? preferences_read(store->mongo, ids, users->count, op, list, f) : 0;
}

static unsigned users_number(void)
{
    return collection_of_folder("users")->number;
}

static struct row_key user_of(const struct row_key *key)
{
    return (struct row_key){.collection = (uint8_t)users_number(), .region = key->region, .id = key->id};
}

/*
 * A page of the region's users, whose preferences take their place in it. One that cannot be shown is listed,
 * and says so when it is looked at.
 */
int preferences_page(struct store *store, unsigned region, int64_t after, size_t limit, const struct op *op,
                     struct page **out, struct fail *f)
{
    struct preferences_list list CLEANUP(preferences_list_clear) = {0};
    struct page *page CLEANUP(freep) = NULL;
    struct reading reading;
    int r = store_page(store, users_number(), region, after, limit, op, &page, f);
    if (r == 0)
        r = read_page(store, page, op, &reading, &list, f);
    for (size_t i = 0; r == 0 && i < list.n; i++) {
        struct document *document CLEANUP(document_unrefp) = NULL;
        const struct preferences_doc *doc = &list.docs[i];
        r = list.broken[i] || !doc->text ? 0 : take_one(&reading, i, &document, f);
        page->rows[i].revision = document          ? document->revision
                                 : !list.broken[i] ? revision_of(doc, doc->laid_out)
                                                   : (struct revision){.rev = 1};
    }
    if (r < 0)
        return r;
    page->epoch = 0;
    *out = STEAL(page);
    return 0;
}

/* The user's own, and those of the users behind it, which are likely to be asked for next. */
static int fetch(struct store *store, const struct row_key *key, size_t rows, const struct op *op,
                 int64_t *last_id, struct document **out, struct fail *f)
{
    struct preferences_list list CLEANUP(preferences_list_clear) = {0};
    struct page *page CLEANUP(freep) = NULL;
    struct reading reading;
    int r = 0;
    if (rows > 1)
        r = store_page(store, users_number(), key->region, key->id - 1, rows, op, &page, f);
    if (r == 0 && (!page || page->count == 0 || page->rows[0].id != key->id)) {
        free(STEAL(page));
        page = calloc(1, sizeof *page + sizeof page->rows[0]);
        if (!page)
            return fail_set(f, ENOMEM, "out of memory");
        page->count = 1;
        page->rows[0].id = key->id;
    }
    if (r == 0)
        r = read_page(store, page, op, &reading, &list, f);
    if (r == 0)
        r = take_one(&reading, 0, out, f);
    *last_id = r == 0 ? page->rows[page->count - 1].id : 0;
    for (size_t i = 1; r == 0 && i < list.n; i++) {
        struct document *document CLEANUP(document_unrefp) = NULL;
        if (!list.broken[i] && list.docs[i].text)
            take_one(&reading, i, &document, NULL);
    }
    return r;
}

static int64_t believed_since(const struct store *store)
{
    return clock_now_ms() - (store->config->cache_ttl_ms - store_kernel_timeout_ms(store));
}

int preferences_get(struct store *store, const struct row_key *key, const struct op *op,
                    struct document **out, struct fail *f)
{
    const struct row_key user = user_of(key);
    struct revision ignored;
    int r = store_stat(store, &user, op, &ignored, f);
    if (r < 0)
        return r;
    *out = known_since(store->preferences, key->id, believed_since(store));
    if (*out)
        return 0;
    size_t rows = store_ahead_rows(store, key);
    int64_t last_id = 0;
    r = fetch(store, key, rows, op, &last_id, out, f);
    if (rows > 1)
        store_ahead_ended(store, key, last_id);
    return r;
}

int preferences_stat(struct store *store, const struct row_key *key, const struct op *op,
                     struct revision *revision, struct fail *f)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    int r = preferences_get(store, key, op, &document, f);
    if (r == 0)
        *revision = document->revision;
    return r;
}

bool preferences_peek(struct store *store, const struct row_key *key, struct revision *revision)
{
    struct document *document CLEANUP(document_unrefp) =
        known_since(store->preferences, key->id, believed_since(store));
    if (document)
        *revision = document->revision;
    return document != NULL;
}

/* That of the users, who decide which files there are, or of the newest save here. */
int preferences_changed_us(struct store *store, unsigned region, const struct op *op, int64_t *us,
                           struct fail *f)
{
    int r = store_changed_us(store, users_number(), region, op, us, f);
    pthread_mutex_lock(&store->preferences->lock);
    if (r == 0 && store->preferences->changed_us > *us)
        *us = store->preferences->changed_us;
    pthread_mutex_unlock(&store->preferences->lock);
    return r;
}

/* Writing */

/* There is such a user; who has gone since the text was read is told apart. */
static int check_user(struct store *store, const struct put *put, const struct op *op,
                      struct put_result *result, struct fail *f)
{
    const struct row_key user = user_of(&put->key);
    struct revision ignored;
    struct fail why = {0};
    int r = store_stat(store, &user, op, &ignored, &why);
    if (r == -ENOENT && put->must_exist) {
        result->deleted = true;
        return fail_set(f, ECANCELED, "the user was deleted since the preferences were read");
    }
    if (r == -ENOENT)
        return fail_set(f, ENOLINK, "there is no user %lld in this region", (long long)put->key.id);
    if (r < 0 && f && f->err == 0)
        *f = why;
    return r;
}

int preferences_put_row(struct store *store, const struct put *put, const struct op *op,
                        struct put_result *result, struct fail *f)
{
    struct preferences_doc doc CLEANUP(preferences_doc_clear) = {0};
    struct revision former;
    *result = (struct put_result){.id = put->key.id};
    if (store->config->read_only)
        return fail_set(f, EROFS, "the mount is read-only");
    int r = check_user(store, put, op, result, f);
    if (r < 0)
        return r;
    if (preferences_peek(store, &put->key, &former))
        result->replaced_rev = former.rev;
    const struct preferences_put save = {.user_id = put->key.id,
                                         .text = put->text,
                                         .len = strlen(put->text),
                                         .at_us = put->at_us,
                                         .base_us = put->base_us};
    r = preferences_save(store->mongo, &save, op, &doc, &result->unchanged, f);
    if (r == 0) /* it is saved, whatever becomes of the copy */
        document_of(&doc, &result->document, NULL);
    if (!result->unchanged) /* after a failure, too: it may have been saved */
        known_changed(store->preferences, put->key.id, result->document);
    return r;
}

int preferences_delete(struct store *store, const struct row_key *key, const struct op *op, struct fail *f)
{
    const struct row_key user = user_of(key);
    struct revision ignored;
    if (store->config->read_only)
        return fail_set(f, EROFS, "the mount is read-only");
    int r = store_stat(store, &user, op, &ignored, f);
    if (r == 0)
        r = preferences_reset(store->mongo, key->id, op, f);
    known_changed(store->preferences, key->id, NULL);
    return r;
}

void preferences_user_deleted(struct store *store, const struct row_key *user, bool deleted)
{
    if (!store->mongo || user->collection != users_number())
        return;
    preferences_note_deleted(store->mongo, user->id, deleted);
}
