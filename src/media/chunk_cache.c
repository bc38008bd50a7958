#include "media/chunk_cache.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/map.h"
#include "media/chunks.h"
#include "media/mongo_job.h"
#include "media/recycle.h"

enum {
    PIECE = 4 << 20,       /* bytes read ahead at once: a message of chunks_fetch() */
    AHEAD_MAX = 2 * PIECE, /* read ahead for one reader */
    NEAR = 8 << 20,        /* bytes: the kernel's own reading ahead comes in any order */
    IN_ORDER = 2,          /* reads in order before anything is read ahead */
};

/* A chunk in memory or on its way. Under the cache's lock, but for the bytes, which are constant. */
struct cached {
    struct map_entry entry;
    struct cached *newer, *older; /* in the order of use, while ready */
    const char *region;
    struct media_revision *revision;
    int64_t n;
    size_t len;
    uint8_t *data;  /* owned; NULL while it is on its way, or failed */
    int failed;     /* errno: it did not come, and is in the map no more */
    char *why;      /* owned: in words; NULL when there are none */
    unsigned users; /* that wait for it, or copy from it */
};

struct chunk_cache {
    struct mongo *mongo;
    size_t size;
    int64_t fetch_ms;
    unsigned references; /* atomic: the owner's, and one of each fetch */

    pthread_mutex_t lock;   /* guards all below */
    pthread_cond_t arrived; /* a chunk came, did not come, or can give up its place */
    struct map map;
    struct cached *newest, *oldest;
    size_t bytes;     /* of all chunks in the map */
    size_t loading;   /* of those on their way */
    unsigned streams; /* readers for which is read ahead */
    uint64_t hits, misses, ahead, read_bytes;
};

struct media_reader {
    struct chunk_cache *cache;
    const char *region;
    struct media_revision *revision;
    /* Under the cache's lock: */
    int64_t start, next; /* what is being read in order: from where, and the offset behind it */
    int64_t covered;     /* bytes of it that were read */
    unsigned reads;      /* how many reads that took */
    int64_t asked_to;    /* chunks before this one have been asked for ahead */
    bool streams;        /* counted in the cache's */
};

int chunk_cache_open(struct mongo *mongo, size_t size, int64_t fetch_ms, struct chunk_cache **out)
{
    struct chunk_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return -ENOMEM;
    cache->mongo = mongo;
    cache->size = size;
    cache->fetch_ms = fetch_ms;
    cache->references = 1;
    pthread_mutex_init(&cache->lock, NULL);
    pthread_cond_init(&cache->arrived, NULL);
    *out = cache;
    return 0;
}

/* ---- the map and the order of use; all under the lock ---- */

struct key {
    const char *region;
    const struct media_revision *revision;
    int64_t n;
};

static uint64_t key_hash(const struct media_revision *revision, int64_t n)
{
    return map_hash_number(revision->bytes_hash + (uint64_t)n * UINT64_C(0x9e3779b97f4a7c15));
}

static bool key_equal(const struct map_entry *entry, const void *arg)
{
    const struct key *key = arg;
    const struct cached *c = MAP_ELEMENT(entry, struct cached, entry);
    return c->n == key->n && media_revision_same_bytes(c->revision, key->revision) &&
           strcmp(c->region, key->region) == 0;
}

static struct cached *find(struct chunk_cache *cache, const char *region,
                           const struct media_revision *revision, int64_t n)
{
    struct key key = {region, revision, n};
    struct map_entry *e = map_find(&cache->map, key_hash(revision, n), key_equal, &key);
    return e ? MAP_ELEMENT(e, struct cached, entry) : NULL;
}

static void order_remove(struct chunk_cache *cache, struct cached *c)
{
    *(c->newer ? &c->newer->older : &cache->newest) = c->older;
    *(c->older ? &c->older->newer : &cache->oldest) = c->newer;
    c->newer = c->older = NULL;
}

static void order_add(struct chunk_cache *cache, struct cached *c)
{
    c->older = cache->newest;
    c->newer = NULL;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = c;
    cache->newest = c;
}

static void cached_free(struct cached *c)
{
    media_revision_unref(c->revision);
    recycle_put(c->data);
    free(c->why);
    free(c);
}

/* Out of the map; freed, unless somebody still uses it. */
static void drop(struct chunk_cache *cache, struct cached *c)
{
    map_remove(&cache->map, &c->entry);
    cache->bytes -= c->len;
    if (c->users == 0)
        cached_free(c);
}

static void unuse(struct chunk_cache *cache, struct cached *c)
{
    if (--c->users > 0)
        return;
    if (c->failed)
        cached_free(c);
    else if (cache->loading > 0 || cache->bytes > cache->size)
        pthread_cond_broadcast(&cache->arrived); /* it can make room */
}

/* Makes room for so many bytes; false when what could go is in use or on its way. */
static bool make_room(struct chunk_cache *cache, size_t len)
{
    struct cached *c = cache->oldest, *newer;
    for (; c && cache->bytes + len > cache->size; c = newer) {
        newer = c->newer;
        if (c->users)
            continue;
        order_remove(cache, c);
        drop(cache, c);
    }
    return cache->bytes + len <= cache->size || cache->loading == 0;
}

/* Takes the place of a chunk that is not there. */
static int claim(struct media_reader *reader, int64_t n)
{
    struct chunk_cache *cache = reader->cache;
    struct media_revision *revision = reader->revision;
    struct cached *c = calloc(1, sizeof(*c));
    if (!c || map_add(&cache->map, &c->entry, key_hash(revision, n)) < 0) {
        free(c);
        return -ENOMEM;
    }
    c->region = reader->region;
    c->revision = media_revision_ref(revision);
    c->n = n;
    c->len = media_revision_chunk_len(revision, n);
    cache->bytes += c->len;
    cache->loading += c->len;
    return 0;
}

/* ---- fetching: jobs of the pool's threads, which fill places that were taken ---- */

struct fetch {
    struct mongo_job job;
    struct chunk_cache *cache;
    const char *region;
    struct media_revision *revision; /* a reference */
    int64_t next, last;              /* chunks that are still to come */
    uint8_t *came;                   /* owned: the first of them, once it has; only who fetches */
};

/* The chunk that came last is right: into its place. */
static void settle(struct fetch *fetch)
{
    struct chunk_cache *cache = fetch->cache;
    if (!fetch->came)
        return;
    pthread_mutex_lock(&cache->lock);
    struct cached *c = find(cache, fetch->region, fetch->revision, fetch->next);
    c->data = STEAL(fetch->came);
    cache->loading -= c->len;
    cache->read_bytes += c->len;
    order_add(cache, c);
    fetch->next++;
    pthread_cond_broadcast(&cache->arrived);
    pthread_mutex_unlock(&cache->lock);
}

/* A chunk has come: nobody sees it before it is known what comes behind it. */
static int fill(void *arg, int64_t n, const void *data, size_t len)
{
    struct fetch *fetch = arg;
    (void)n;
    if (!data) {
        recycle_put(STEAL(fetch->came));
        return 0;
    }
    settle(fetch);
    fetch->came = recycle_get(len);
    if (!fetch->came)
        return -ENOMEM;
    memcpy(fetch->came, data, len);
    return 0;
}

/* Places whose chunks do not come are given back; under the lock. */
static void give_up(struct fetch *fetch, int err, const struct fail *f)
{
    struct chunk_cache *cache = fetch->cache;
    for (; fetch->next <= fetch->last; fetch->next++) {
        struct cached *c = find(cache, fetch->region, fetch->revision, fetch->next);
        c->failed =
            err == ESTALE ? EIO : err; /* the kernel's word for looking a name up again, never a user's */
        c->why = f && f->err ? strdup(f->message) : NULL;
        cache->loading -= c->len;
        drop(cache, c);
    }
    pthread_cond_broadcast(&cache->arrived);
}

static int fetch_run(struct mongo_job *job, struct mongo *mongo, const struct op *op, struct fail *f)
{
    struct fetch *fetch = (struct fetch *)job;
    int r = chunks_fetch(mongo, fetch->region, fetch->revision, fetch->next, fetch->last, fill, fetch, op, f);
    settle(fetch);
    if (r == 0)
        return 0;
    pthread_mutex_lock(&fetch->cache->lock);
    give_up(fetch, -r, f);
    pthread_mutex_unlock(&fetch->cache->lock);
    return r;
}

/* Also when the pool ends, or is too busy, before it was run: under no lock. */
static void fetch_release(struct mongo_job *job)
{
    struct fetch *fetch = (struct fetch *)job;
    pthread_mutex_lock(&fetch->cache->lock);
    give_up(fetch, EIO, NULL);
    pthread_mutex_unlock(&fetch->cache->lock);
    media_revision_unref(fetch->revision);
    chunk_cache_close(fetch->cache);
    free(fetch);
}

/* Has chunks fetched whose places were just taken. Under the lock, which is let go meanwhile. */
static int begin_fetch(struct media_reader *reader, int64_t first, int64_t last, struct fail *f)
{
    struct chunk_cache *cache = reader->cache;
    struct fetch *fetch = calloc(1, sizeof(*fetch));
    if (!fetch) {
        struct fetch none = {.cache = cache,
                             .region = reader->region,
                             .revision = reader->revision,
                             .next = first,
                             .last = last};
        give_up(&none, ENOMEM, NULL);
        return -ENOMEM;
    }
    fetch->job = (struct mongo_job){.run = fetch_run, .release = fetch_release};
    fetch->cache = cache;
    __atomic_add_fetch(&cache->references, 1, __ATOMIC_RELAXED);
    fetch->region = reader->region;
    fetch->revision = media_revision_ref(reader->revision);
    fetch->next = first;
    fetch->last = last;
    struct op op = op_within(cache->fetch_ms);
    pthread_mutex_unlock(&cache->lock);
    int r = mongo_do_later(cache->mongo, &fetch->job, &op);
    pthread_mutex_lock(&cache->lock);
    return r < 0 ? fail_set(f, -r, "too many operations wait for MongoDB") : 0;
}

/* Takes the places of chunks from `first` on that are not there, up to `last`, as far as there is room; under
 * the lock. The last one taken, first-1 for none. */
static int64_t claim_run(struct media_reader *reader, int64_t first, int64_t last)
{
    struct chunk_cache *cache = reader->cache;
    int64_t n = first;
    while (n <= last && !find(cache, reader->region, reader->revision, n) &&
           make_room(cache, media_revision_chunk_len(reader->revision, n)) && claim(reader, n) == 0)
        n++;
    return n - 1;
}

/* Waits for something to happen, under the lock: 0, or why it is no use. */
static int wait_arrival(struct chunk_cache *cache, const struct op *op, struct fail *f)
{
    int r = op_wait(&cache->arrived, &cache->lock, op);
    return r == -EIO ? fail_set(f, EIO, "MongoDB did not answer in time") : r;
}

/* ---- reading ahead ---- */

/* Chunks from..until-1: those that are not there and nobody fetches, a piece at a time. Under the lock. */
static void fetch_ahead(struct media_reader *reader, int64_t from, int64_t until)
{
    struct chunk_cache *cache = reader->cache;
    int64_t per = PIECE / reader->revision->chunk_size;
    per = per < 1 ? 1 : per;
    for (int64_t n = from; n < until; n++) {
        int64_t last = until - n > per ? n + per - 1 : until - 1;
        int64_t end = claim_run(reader, n, last);
        if (end < n) /* there, or on its way, or no room */
            continue;
        cache->ahead += (uint64_t)(end - n + 1);
        if (begin_fetch(reader, n, end, NULL) < 0)
            return;
        n = end;
    }
}

static void set_streams(struct media_reader *reader, bool streams)
{
    reader->cache->streams += (unsigned)streams - (unsigned)reader->streams;
    reader->streams = streams;
}

/* Notes a read, under the lock: whether the file is being read in order. */
static bool note_read(struct media_reader *reader, int64_t offset, int64_t end)
{
    int64_t distance = offset - reader->next;
    if (distance > NEAR || distance < -NEAR) {
        reader->start = reader->next = offset;
        reader->covered = reader->asked_to = 0;
        reader->reads = 0;
        set_streams(reader, false);
    }
    reader->covered += end - offset;
    reader->reads++;
    if (end <= reader->next) /* nearby, but not on */
        return false;
    reader->next = end;
    return reader->reads >= IN_ORDER && reader->covered >= (end - reader->start) / 2;
}

/*
 * Notes a read, and asks for what will be wanted next when it is in order: as much as was read so far, within
 * bounds, since unread chunks of many readers must not drive out each other. Under the lock, which is let go
 * meanwhile.
 */
static void look_ahead(struct media_reader *reader, int64_t offset, int64_t end)
{
    const struct media_revision *revision = reader->revision;
    if (!note_read(reader, offset, end))
        return;
    set_streams(reader, true);
    int64_t bytes = (int64_t)(reader->cache->size / 4 / reader->cache->streams);
    bytes = bytes < AHEAD_MAX ? bytes : AHEAD_MAX;
    bytes = bytes < reader->covered ? bytes : reader->covered;
    int64_t ahead = bytes / revision->chunk_size, per = PIECE / revision->chunk_size;
    int64_t current = reader->next / revision->chunk_size, all = media_revision_chunks(revision);
    int64_t from = reader->asked_to > current ? reader->asked_to : current;
    int64_t until = current + ahead < all ? current + ahead : all;
    if (from - current > ahead / 2 || from >= until)
        return;
    if (until - from > per && per > 0) /* whole messages */
        until -= (until - from) % per;
    reader->asked_to = until;
    fetch_ahead(reader, from, until);
}

void chunk_cache_close(struct chunk_cache *cache)
{
    if (!cache || __atomic_sub_fetch(&cache->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    struct map_entry *e;
    while ((e = map_next(&cache->map, NULL)))
        drop(cache, MAP_ELEMENT(e, struct cached, entry));
    map_clear(&cache->map);
    pthread_cond_destroy(&cache->arrived);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

int chunk_cache_metrics(struct chunk_cache *cache, struct buf *out)
{
    pthread_mutex_lock(&cache->lock);
    unsigned long long hits = cache->hits, misses = cache->misses, ahead = cache->ahead,
                       bytes = cache->read_bytes;
    size_t used = cache->bytes;
    pthread_mutex_unlock(&cache->lock);
    return buf_printf(
        out,
        "# TYPE campusfs_media_cache_bytes gauge\ncampusfs_media_cache_bytes %zu\n"
        "# TYPE campusfs_media_cache_limit_bytes gauge\ncampusfs_media_cache_limit_bytes %zu\n"
        "# TYPE campusfs_media_chunk_hits_total counter\ncampusfs_media_chunk_hits_total %llu\n"
        "# TYPE campusfs_media_chunk_misses_total counter\n"
        "campusfs_media_chunk_misses_total %llu\n"
        "# TYPE campusfs_media_chunks_ahead_total counter\n"
        "campusfs_media_chunks_ahead_total %llu\n"
        "# TYPE campusfs_media_read_bytes_total counter\ncampusfs_media_read_bytes_total %llu\n",
        used, cache->size, hits, misses, ahead, bytes);
}

/* ---- readers ---- */

int media_reader_open(struct chunk_cache *cache, const char *region, struct media_revision *revision,
                      struct media_reader **out, struct fail *f)
{
    if (revision->broken)
        return fail_set(f, EIO, "the file is damaged: %s", revision->broken);
    struct media_reader *reader = calloc(1, sizeof(*reader));
    if (!reader)
        return -ENOMEM;
    reader->cache = cache;
    reader->region = region;
    reader->revision = media_revision_ref(revision);
    *out = reader;
    return 0;
}

void media_reader_close(struct media_reader *reader)
{
    if (!reader)
        return;
    pthread_mutex_lock(&reader->cache->lock);
    set_streams(reader, false);
    pthread_mutex_unlock(&reader->cache->lock);
    media_revision_unref(reader->revision);
    free(reader);
}

struct media_revision *media_reader_revision(const struct media_reader *reader)
{
    return reader->revision;
}

/* Waits until a chunk in use has come, or not; under the lock. */
static int await(struct chunk_cache *cache, struct cached *c, const struct op *op, struct fail *f)
{
    int r = 0;
    while (r == 0 && !c->data && !c->failed)
        r = wait_arrival(cache, op, f);
    return r;
}

/*
 * The chunk, in use; fetched if need be, with those behind it up to `last` that are not there either. One
 * that somebody else had fetched and did not get is tried once more, and the error is this reader's own then.
 */
static int get(struct media_reader *reader, int64_t n, int64_t last, const struct op *op, struct cached **out,
               struct fail *f)
{
    struct chunk_cache *cache = reader->cache;
    bool missed = false;
    for (;;) {
        struct cached *c = find(cache, reader->region, reader->revision, n);
        bool own = !c;
        if (c && c->data) {
            order_remove(cache, c);
            order_add(cache, c);
        }
        *(c && c->data && !missed ? &cache->hits : &cache->misses) += !missed;
        missed = true;
        int r = 0;
        int64_t end = c ? n : claim_run(reader, n, last);
        if (end < n) { /* no room */
            if ((r = wait_arrival(cache, op, f)) < 0)
                return r;
            continue;
        }
        c = find(cache, reader->region, reader->revision, n);
        c->users++;
        r = own ? begin_fetch(reader, n, end, f) : 0;
        r = r < 0 ? r : await(cache, c, op, f);
        if (r == 0 && c->data) {
            *out = c;
            return 0;
        }
        if (r == 0 && own)
            r = c->why ? fail_set(f, c->failed, "%s", c->why) : -c->failed;
        unuse(cache, c);
        if (r < 0)
            return r;
    }
}

ssize_t media_reader_read(struct media_reader *reader, void *out, size_t size, int64_t offset,
                          const struct op *op, struct fail *f)
{
    const struct media_revision *revision = reader->revision;
    struct chunk_cache *cache = reader->cache;
    if (offset < 0 || offset >= revision->length || size == 0)
        return 0;
    int64_t end = revision->length - offset < (int64_t)size ? revision->length : offset + (int64_t)size;
    int64_t last = (end - 1) / revision->chunk_size;
    uint8_t *to = out;
    int r = 0;
    pthread_mutex_lock(&cache->lock);
    look_ahead(reader, offset, end);
    for (int64_t at = offset; at < end;) {
        struct cached *c;
        int64_t n = at / revision->chunk_size;
        if ((r = get(reader, n, last, op, &c, f)) < 0)
            break;
        size_t skip = (size_t)(at - n * revision->chunk_size), len = c->len - skip;
        if (skip >= c->len) { /* never: but what lies outside a block must not be read, whatever is wrong */
            unuse(cache, c);
            r = fail_set(f, EIO, "a chunk in memory is not the file's");
            break;
        }
        pthread_mutex_unlock(&cache->lock);
        if ((int64_t)len > end - at)
            len = (size_t)(end - at);
        memcpy(to, c->data + skip, len);
        to += len;
        at += (int64_t)len;
        pthread_mutex_lock(&cache->lock);
        unuse(cache, c);
    }
    pthread_mutex_unlock(&cache->lock);
    return r < 0 ? r : end - offset;
}
