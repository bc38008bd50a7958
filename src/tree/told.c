#include "tree/told.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/map.h"

/* Ids of one sequence are that far apart: each shard's begin with its number. */
enum { ID_STEP = 1000, CHUNK_ROWS = 256, WORD = 64 };

struct chunk {
    struct map_entry entry;
    struct chunk *newer; /* made after this one */
    uint64_t key;
    uint64_t present[CHUNK_ROWS / WORD];
    uint16_t marks[CHUNK_ROWS];
};

struct told {
    void (*outdated)(void *arg, const struct row_key *key, uint64_t mark);
    void *arg;
    size_t max;
    pthread_mutex_t lock; /* guards what follows; innermost */
    struct map chunks;
    struct chunk *oldest, **end;
};

/* collection 4 bits, region 6, rest of the id 10, number of the chunk 21 */
enum { CHUNK_BITS = 21, REST_BITS = 10, REGION_BITS = 6 };
enum { REST_AT = CHUNK_BITS, REGION_AT = REST_AT + REST_BITS, COLLECTION_AT = REGION_AT + REGION_BITS };
_Static_assert(ROW_ID_END / ID_STEP / CHUNK_ROWS < 1 << CHUNK_BITS, "all chunks have a number");
_Static_assert(ID_STEP <= 1 << REST_BITS, "so have the rests");

static uint64_t chunk_key(const struct row_key *key)
{
    return (uint64_t)key->collection << COLLECTION_AT | (uint64_t)key->region << REGION_AT |
           (uint64_t)(key->id % ID_STEP) << REST_AT | (uint64_t)(key->id / ID_STEP / CHUNK_ROWS);
}

static unsigned chunk_index(const struct row_key *key)
{
    return (unsigned)(key->id / ID_STEP % CHUNK_ROWS);
}

static uint64_t bit_of(unsigned index)
{
    return UINT64_C(1) << index % WORD;
}

static struct row_key row_of(uint64_t chunk, unsigned index)
{
    int64_t number = (int64_t)(chunk & ((1 << CHUNK_BITS) - 1)) * CHUNK_ROWS + index;
    return (struct row_key){.collection = (uint8_t)(chunk >> COLLECTION_AT & 0xf),
                            .region = (uint8_t)(chunk >> REGION_AT & ((1 << REGION_BITS) - 1)),
                            .id = number * ID_STEP + (int64_t)(chunk >> REST_AT & ((1 << REST_BITS) - 1))};
}

struct told *told_new(size_t chunks_max,
                      void (*outdated)(void *arg, const struct row_key *key, uint64_t mark), void *arg)
{
    struct told *told = calloc(1, sizeof *told);
    if (!told)
        return NULL;
    *told = (struct told){.outdated = outdated, .arg = arg, .max = chunks_max};
    told->end = &told->oldest;
    pthread_mutex_init(&told->lock, NULL);
    return told;
}

void told_free(struct told *told)
{
    if (!told)
        return;
    for (struct chunk *chunk = told->oldest, *next; chunk; chunk = next) {
        next = chunk->newer;
        free(chunk);
    }
    map_clear(&told->chunks);
    pthread_mutex_destroy(&told->lock);
    free(told);
}

static bool chunk_equal(const struct map_entry *entry, const void *key)
{
    return MAP_ELEMENT(entry, struct chunk, entry)->key == *(const uint64_t *)key;
}

static struct chunk *chunk_find(const struct told *told, uint64_t key)
{
    struct map_entry *entry = map_find(&told->chunks, map_hash_number(key), chunk_equal, &key);
    return entry ? MAP_ELEMENT(entry, struct chunk, entry) : NULL;
}

static void chunk_outdated(const struct told *told, const struct chunk *chunk)
{
    for (unsigned i = 0; i < CHUNK_ROWS; i++) {
        if (!(chunk->present[i / WORD] & bit_of(i)))
            continue;
        struct row_key key = row_of(chunk->key, i);
        told->outdated(told->arg, &key, chunk->marks[i]);
    }
}

/* Under the lock: makes a chunk; the one that has to go for it, if any, in *gone, the caller's. */
static struct chunk *chunk_new(struct told *told, uint64_t key, struct chunk **gone)
{
    struct chunk *chunk = calloc(1, sizeof *chunk);
    if (!chunk)
        return NULL;
    chunk->key = key;
    if (map_add(&told->chunks, &chunk->entry, map_hash_number(key)) < 0) {
        free(chunk);
        return NULL;
    }
    *told->end = chunk;
    told->end = &chunk->newer;
    if (told->chunks.count > told->max) {
        *gone = told->oldest;
        told->oldest = told->oldest->newer;
        map_remove(&told->chunks, &(*gone)->entry);
    }
    return chunk;
}

int told_add(struct told *told, const struct row_key *key, uint64_t mark)
{
    struct chunk *gone CLEANUP(freep) = NULL;
    uint64_t wanted = chunk_key(key);
    unsigned index = chunk_index(key);
    pthread_mutex_lock(&told->lock);
    struct chunk *chunk = chunk_find(told, wanted);
    if (!chunk)
        chunk = chunk_new(told, wanted, &gone);
    if (chunk) {
        chunk->present[index / WORD] |= bit_of(index);
        chunk->marks[index] = (uint16_t)(mark & 0xffff);
    }
    pthread_mutex_unlock(&told->lock);
    if (gone)
        chunk_outdated(told, gone);
    return chunk ? 0 : -ENOMEM;
}

static void row_outdated(struct told *told, const struct row_key *key, uint64_t mark)
{
    unsigned index = chunk_index(key);
    bool outdated = false;
    uint16_t former = 0;
    pthread_mutex_lock(&told->lock);
    struct chunk *chunk = chunk_find(told, chunk_key(key));
    if (chunk && chunk->present[index / WORD] & bit_of(index) &&
        (mark == 0 || chunk->marks[index] != (mark & 0xffff))) {
        former = chunk->marks[index];
        outdated = true;
    }
    pthread_mutex_unlock(&told->lock);
    if (outdated)
        told->outdated(told->arg, key, former);
}

/* The keys of the chunks of a folder, to be freed; NULL when there are none, or memory is out. */
static uint64_t *chunks_of(struct told *told, const struct row_key *key, size_t *n)
{
    *n = 0;
    pthread_mutex_lock(&told->lock);
    uint64_t *keys = malloc((told->chunks.count + 1) * sizeof *keys);
    for (const struct chunk *chunk = told->oldest; keys && chunk; chunk = chunk->newer) {
        struct row_key row = row_of(chunk->key, 0);
        if ((key->collection == 0 || key->collection == row.collection) && key->region == row.region)
            keys[(*n)++] = chunk->key;
    }
    pthread_mutex_unlock(&told->lock);
    return keys;
}

void told_outdated(struct told *told, const struct row_key *key, uint64_t mark)
{
    if (key->id) {
        row_outdated(told, key, mark);
        return;
    }
    size_t n;
    uint64_t *keys CLEANUP(freep) = chunks_of(told, key, &n);
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&told->lock);
        struct chunk *chunk = chunk_find(told, keys[i]);
        struct chunk copy = chunk ? *chunk : (struct chunk){.key = keys[i]};
        pthread_mutex_unlock(&told->lock);
        chunk_outdated(told, &copy);
    }
}
