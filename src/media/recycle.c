#include "media/recycle.h"

#include <bson/bson.h>
#include <malloc.h>
#include <pthread.h>
#include <sanitizer/asan_interface.h> /* what waits is nobody's: a use of it is found, by the sanitized build */
#include <stdlib.h>
#include <string.h>

enum { BLOCKS_MAX = RECYCLE_BYTES / RECYCLE_LEAST };

/* Blocks that wait for another use, the oldest first. */
static struct {
    pthread_mutex_t lock; /* guards all below */
    size_t n, bytes;
    struct {
        void *block;
        size_t size;
    } kept[BLOCKS_MAX];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Under the lock. */
static void *take(size_t i)
{
    void *block = pool.kept[i].block;
    ASAN_UNPOISON_MEMORY_REGION(block, pool.kept[i].size);
    pool.bytes -= pool.kept[i].size;
    pool.n--;
    memmove(&pool.kept[i], &pool.kept[i + 1], (pool.n - i) * sizeof pool.kept[0]);
    return block;
}

/* The smallest that is large enough, and not twice so; NULL when there is none. */
static void *take_fitting(size_t size)
{
    void *block = NULL;
    pthread_mutex_lock(&pool.lock);
    size_t best = pool.n;
    for (size_t i = 0; i < pool.n; i++)
        if (pool.kept[i].size >= size && pool.kept[i].size / 2 <= size &&
            (best == pool.n || pool.kept[i].size < pool.kept[best].size))
            best = i;
    if (best < pool.n)
        block = take(best);
    pthread_mutex_unlock(&pool.lock);
    return block;
}

void *recycle_get(size_t size)
{
    void *block = size >= RECYCLE_LEAST ? take_fitting(size) : NULL;
    return block ? block : malloc(size ? size : 1);
}

void recycle_put(void *block)
{
    size_t size = malloc_usable_size(block);
    if (size < RECYCLE_LEAST || size > RECYCLE_BYTES) {
        free(block);
        return;
    }
    void *given_back[BLOCKS_MAX];
    size_t n = 0;
    pthread_mutex_lock(&pool.lock);
    while (pool.n == BLOCKS_MAX || pool.bytes + size > RECYCLE_BYTES)
        given_back[n++] = take(0);
    pool.kept[pool.n].block = block;
    pool.kept[pool.n++].size = size;
    pool.bytes += size;
    ASAN_POISON_MEMORY_REGION(block, size);
    pthread_mutex_unlock(&pool.lock);
    while (n > 0)
        free(given_back[--n]);
}

/* ---- the driver's ---- */

static void *driver_calloc(size_t n, size_t size)
{
    return calloc(n, size); /* zeros are cheapest fresh */
}

/* Buffers grow by doubling: one that becomes large goes on in a block that is there, if there is one. */
static void *driver_realloc(void *block, size_t size)
{
    size_t was = malloc_usable_size(block);
    void *larger = size > was && size >= RECYCLE_LEAST ? take_fitting(size) : NULL;
    if (!larger)
        return realloc(block, size);
    if (block)
        memcpy(larger, block, was);
    recycle_put(block);
    return larger;
}

void recycle_for_driver(void)
{
    static const bson_mem_vtable_t vtable = {.malloc = recycle_get,
                                             .calloc = driver_calloc,
                                             .realloc = driver_realloc,
                                             .free = recycle_put,
                                             .aligned_alloc = aligned_alloc};
    bson_mem_set_vtable(&vtable);
}
