#include "entity/cache.h"

#include <pthread.h>
#include <string.h>
#include <zstd.h>

#include "base/map.h"

enum {
    SAMPLE_MAX = 32 * 1024, /* bytes of documents that the others of the collection are compressed against */
    COMPRESSION_LEVEL = 1,
    STACK_DOCUMENT = 8 * 1024, /* compressed on the stack below that size */
    PLAIN_SHARE = 4,           /* of the limit, at most, for what is kept as it is */
};

struct cached {
    struct map_entry entry;
    struct cached *newer, *older; /* in order of use */
    struct row_key key;
    struct revision revision;
    bool plain;    /* kept as it is although it could be compressed */
    size_t stored; /* bytes of data; revision.size when it is not compressed */
    char data[];
};

/* Written once under the lock, then only read: contexts of all threads share it. */
struct sample {
    ZSTD_CDict *compress;
    ZSTD_DDict *expand;
};

struct cache {
    pthread_mutex_t lock; /* guards all below but the contents of the samples */
    struct map rows;
    struct cached *newest, *oldest;
    size_t plain_bytes; /* of all that are plain */
    struct cache_counters counters;
    struct contexts *idle;                   /* owned; who compresses takes one */
    struct sample *samples[COLLECTIONS_MAX]; /* set once, read atomically */
};

/*
 * zstd's working memory, 100 KB, used by one thread at a time. There are as many as have been in use at once.
 * Not one a thread: threads come and go, and may outlive the cache by a moment.
 */
struct contexts {
    struct contexts *next;
    ZSTD_CCtx *compress;
    ZSTD_DCtx *expand;
};

static void contexts_free(struct contexts *contexts)
{
    if (!contexts)
        return;
    ZSTD_freeCCtx(contexts->compress);
    ZSTD_freeDCtx(contexts->expand);
    free(contexts);
}

/* To be given back; NULL when memory is out. */
static struct contexts *contexts_take(struct cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    struct contexts *contexts = cache->idle;
    if (contexts)
        cache->idle = contexts->next;
    pthread_mutex_unlock(&cache->lock);
    if (contexts)
        return contexts;
    contexts = calloc(1, sizeof *contexts);
    if (!contexts)
        return NULL;
    contexts->compress = ZSTD_createCCtx();
    contexts->expand = ZSTD_createDCtx();
    if (contexts->compress && contexts->expand)
        return contexts;
    contexts_free(contexts);
    return NULL;
}

static void contexts_give(struct cache *cache, struct contexts *contexts)
{
    if (!contexts)
        return;
    pthread_mutex_lock(&cache->lock);
    contexts->next = cache->idle;
    cache->idle = contexts;
    pthread_mutex_unlock(&cache->lock);
}

struct cache *cache_new(size_t limit)
{
    struct cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    pthread_mutex_init(&cache->lock, NULL);
    cache->counters.limit = limit;
    return cache;
}

static size_t cost(const struct cached *row)
{
    return sizeof *row + row->stored + 2 * sizeof(void *);
}

static void unlink_use(struct cache *cache, struct cached *row)
{
    *(row->newer ? &row->newer->older : &cache->newest) = row->older;
    *(row->older ? &row->older->newer : &cache->oldest) = row->newer;
}

static void link_newest(struct cache *cache, struct cached *row)
{
    row->newer = NULL;
    row->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = row;
    cache->newest = row;
}

/* Under the lock. */
static void forget(struct cache *cache, struct cached *row)
{
    map_remove(&cache->rows, &row->entry);
    unlink_use(cache, row);
    cache->counters.entries--;
    cache->counters.bytes -= cost(row);
    cache->plain_bytes -= row->plain ? cost(row) : 0;
    free(row);
}

void cache_free(struct cache *cache)
{
    if (!cache)
        return;
    while (cache->newest)
        forget(cache, cache->newest);
    map_clear(&cache->rows);
    for (size_t i = 0; i < COLLECTIONS_MAX; i++) {
        if (cache->samples[i]) {
            ZSTD_freeCDict(cache->samples[i]->compress);
            ZSTD_freeDDict(cache->samples[i]->expand);
            free(cache->samples[i]);
        }
    }
    while (cache->idle) {
        struct contexts *contexts = cache->idle;
        cache->idle = contexts->next;
        contexts_free(contexts);
    }
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

static uint64_t key_hash(const struct row_key *key)
{
    return map_hash_number((uint64_t)key->id << 10 | (uint64_t)key->region << 4 | key->collection);
}

static bool key_equal(const struct map_entry *entry, const void *wanted)
{
    const struct row_key *a = &MAP_ELEMENT(entry, struct cached, entry)->key, *b = wanted;
    return a->id == b->id && a->region == b->region && a->collection == b->collection;
}

/* Under the lock. */
static struct cached *find(struct cache *cache, const struct row_key *key)
{
    struct map_entry *entry = map_find(&cache->rows, key_hash(key), key_equal, key);
    return entry ? MAP_ELEMENT(entry, struct cached, entry) : NULL;
}

/*
 * The first document of a collection is the sample for all others: their keys and layout are its own. It
 * stays until the cache goes, since entries are read with it.
 */
static const struct sample *sample_of(struct cache *cache, unsigned collection, const char *text, size_t size)
{
    struct sample *sample = __atomic_load_n(&cache->samples[collection], __ATOMIC_ACQUIRE);
    if (sample)
        return sample;
    sample = calloc(1, sizeof *sample);
    if (!sample)
        return NULL;
    size_t used = size < SAMPLE_MAX ? size : SAMPLE_MAX;
    sample->compress = ZSTD_createCDict(text, used, COMPRESSION_LEVEL);
    sample->expand = ZSTD_createDDict(text, used);
    struct sample *none = NULL;
    if (sample->compress && sample->expand &&
        __atomic_compare_exchange_n(&cache->samples[collection], &none, sample, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return sample;
    ZSTD_freeCDict(sample->compress);
    ZSTD_freeDDict(sample->expand);
    free(sample);
    return none;
}

static struct cached *cached_new(const struct row_key *key, const struct revision *revision, const char *data,
                                 size_t stored)
{
    struct cached *row = malloc(sizeof *row + stored);
    if (!row)
        return NULL;
    *row = (struct cached){.key = *key, .revision = *revision, .stored = stored};
    memcpy(row->data, data, stored);
    return row;
}

static struct cached *compress(struct cache *cache, const struct row_key *key,
                               const struct revision *revision, const char *text)
{
    char small[STACK_DOCUMENT];
    size_t room = revision->size < sizeof small ? sizeof small : revision->size, stored = revision->size;
    char *large CLEANUP(freep) = room > sizeof small ? malloc(room) : NULL;
    char *packed = room > sizeof small ? large : small;
    struct contexts *contexts = contexts_take(cache);
    const struct sample *sample = sample_of(cache, key->collection, text, revision->size);
    if (packed && contexts && sample) {
        size_t n = ZSTD_compress_usingCDict(contexts->compress, packed, room, text, revision->size,
                                            sample->compress);
        if (!ZSTD_isError(n) && n < revision->size)
            stored = n;
    }
    contexts_give(cache, contexts);
    return cached_new(key, revision, stored < revision->size ? packed : text, stored);
}

static bool has_room_for_plain(struct cache *cache, size_t size)
{
    pthread_mutex_lock(&cache->lock);
    bool room = cache->plain_bytes + size <= cache->counters.limit / PLAIN_SHARE;
    pthread_mutex_unlock(&cache->lock);
    return room;
}

void cache_put(struct cache *cache, const struct row_key *key, const struct revision *revision,
               const char *text, bool soon)
{
    bool plain = soon && has_room_for_plain(cache, revision->size);
    struct cached *row =
        plain ? cached_new(key, revision, text, revision->size) : compress(cache, key, revision, text);
    if (!row || cost(row) > cache->counters.limit) {
        free(row);
        return;
    }
    row->plain = plain;
    pthread_mutex_lock(&cache->lock);
    struct cached *old = find(cache, key);
    if (old && old->revision.rev > row->revision.rev) {
        pthread_mutex_unlock(&cache->lock);
        free(row);
        return;
    }
    if (old)
        forget(cache, old);
    if (map_add(&cache->rows, &row->entry, key_hash(key)) == 0) {
        link_newest(cache, row);
        cache->counters.entries++;
        cache->counters.bytes += cost(row);
        cache->plain_bytes += plain ? cost(row) : 0;
        while (cache->counters.bytes > cache->counters.limit) {
            forget(cache, cache->oldest);
            cache->counters.evictions++;
        }
    } else {
        free(row);
    }
    pthread_mutex_unlock(&cache->lock);
}

bool cache_stat(struct cache *cache, const struct row_key *key, struct revision *revision)
{
    pthread_mutex_lock(&cache->lock);
    struct cached *row = find(cache, key);
    if (row)
        *revision = row->revision;
    cache->counters.hits += row != NULL;
    cache->counters.misses += row == NULL;
    pthread_mutex_unlock(&cache->lock);
    return row != NULL;
}

/* A private copy of a row's entry, so that it can be expanded outside the lock. */
static struct cached *copy_out(struct cache *cache, const struct row_key *key)
{
    struct cached *copy = NULL;
    pthread_mutex_lock(&cache->lock);
    struct cached *row = find(cache, key);
    if (row) {
        unlink_use(cache, row);
        link_newest(cache, row);
        copy = malloc(sizeof *row + row->stored);
        if (copy)
            memcpy(copy, row, sizeof *row + row->stored);
    }
    cache->counters.hits += row != NULL;
    cache->counters.misses += row == NULL;
    pthread_mutex_unlock(&cache->lock);
    return copy;
}

struct document *cache_get(struct cache *cache, const struct row_key *key)
{
    struct cached *row CLEANUP(freep) = copy_out(cache, key);
    if (!row)
        return NULL;
    struct document *document CLEANUP(document_unrefp) = document_new(row->revision.size);
    if (!document)
        return NULL;
    document->revision = row->revision;
    if (row->stored == row->revision.size) {
        memcpy(document->text, row->data, row->stored);
        return STEAL(document);
    }
    const struct sample *sample = __atomic_load_n(&cache->samples[key->collection], __ATOMIC_ACQUIRE);
    struct contexts *contexts = sample ? contexts_take(cache) : NULL;
    if (!contexts)
        return NULL;
    size_t n = ZSTD_decompress_usingDDict(contexts->expand, document->text, row->revision.size, row->data,
                                          row->stored, sample->expand);
    contexts_give(cache, contexts);
    return n == row->revision.size ? STEAL(document) : NULL;
}

void cache_drop(struct cache *cache, const struct row_key *key, uint64_t unless_rev)
{
    pthread_mutex_lock(&cache->lock);
    struct cached *row = find(cache, key);
    if (row && (unless_rev == 0 || row->revision.rev < unless_rev))
        forget(cache, row);
    pthread_mutex_unlock(&cache->lock);
}

void cache_drop_all(struct cache *cache, unsigned collection, unsigned region)
{
    pthread_mutex_lock(&cache->lock);
    for (struct cached *row = cache->newest, *next; row; row = next) {
        next = row->older;
        if ((collection == 0 || row->key.collection == collection) &&
            (region == 0 || row->key.region == region))
            forget(cache, row);
    }
    pthread_mutex_unlock(&cache->lock);
}

void cache_count(struct cache *cache, struct cache_counters *counters)
{
    pthread_mutex_lock(&cache->lock);
    *counters = cache->counters;
    pthread_mutex_unlock(&cache->lock);
}
