#include "entity/runs.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"

struct run {
    struct map_entry entry;
    struct run *newer; /* in order of age */
    struct run_key key;
    size_t count;
    struct run_row rows[];
};

struct runs {
    pthread_mutex_t lock; /* guards all below but the limit */
    struct map map;
    struct run *oldest, **newest;
    size_t bytes, limit;
};

struct runs *runs_new(size_t limit)
{
    struct runs *runs = calloc(1, sizeof *runs);
    if (!runs)
        return NULL;
    pthread_mutex_init(&runs->lock, NULL);
    runs->newest = &runs->oldest;
    runs->limit = limit;
    return runs;
}

static size_t cost(const struct run *run)
{
    return sizeof *run + run->count * sizeof run->rows[0];
}

/* Under the lock. */
static void forget(struct runs *runs, struct run **place)
{
    struct run *run = *place;
    *place = run->newer;
    if (!run->newer)
        runs->newest = place;
    runs->bytes -= cost(run);
    map_remove(&runs->map, &run->entry);
    free(run);
}

void runs_free(struct runs *runs)
{
    if (!runs)
        return;
    while (runs->oldest)
        forget(runs, &runs->oldest);
    map_clear(&runs->map);
    pthread_mutex_destroy(&runs->lock);
    free(runs);
}

static uint64_t key_hash(const struct run_key *key)
{
    return map_hash_number((uint64_t)key->after << 10 ^ (uint64_t)key->region << 4 ^ key->collection ^
                           (uint64_t)key->limit << 48);
}

static bool key_equal(const struct map_entry *entry, const void *wanted)
{
    const struct run_key *a = &MAP_ELEMENT(entry, struct run, entry)->key, *b = wanted;
    return a->after == b->after && a->limit == b->limit && a->region == b->region &&
           a->collection == b->collection;
}

void runs_put(struct runs *runs, const struct run_key *key, const struct run_row *rows, size_t n)
{
    struct run *run = calloc(1, sizeof *run + n * sizeof run->rows[0]);
    if (!run)
        return;
    run->key = *key;
    run->count = n;
    memcpy(run->rows, rows, n * sizeof run->rows[0]);
    pthread_mutex_lock(&runs->lock);
    bool fits = cost(run) <= runs->limit && !map_find(&runs->map, key_hash(key), key_equal, key) &&
                map_add(&runs->map, &run->entry, key_hash(key)) == 0;
    if (fits) {
        *runs->newest = run;
        runs->newest = &run->newer;
        runs->bytes += cost(run);
        while (runs->bytes > runs->limit)
            forget(runs, &runs->oldest);
    } else {
        free(run);
    }
    pthread_mutex_unlock(&runs->lock);
}

struct run_row *runs_get(struct runs *runs, const struct run_key *key, size_t *n)
{
    struct run_row *rows = NULL;
    pthread_mutex_lock(&runs->lock);
    struct map_entry *entry = map_find(&runs->map, key_hash(key), key_equal, key);
    if (entry) {
        const struct run *run = MAP_ELEMENT(entry, struct run, entry);
        rows = malloc((run->count + 1) * sizeof *rows);
        if (rows)
            memcpy(rows, run->rows, run->count * sizeof *rows);
        *n = run->count;
    }
    pthread_mutex_unlock(&runs->lock);
    return rows;
}

void runs_drop(struct runs *runs, unsigned collection, unsigned region)
{
    pthread_mutex_lock(&runs->lock);
    for (struct run **place = &runs->oldest; *place;) {
        const struct run_key *key = &(*place)->key;
        if ((collection == 0 || key->collection == collection) && (region == 0 || key->region == region))
            forget(runs, place);
        else
            place = &(*place)->newer;
    }
    pthread_mutex_unlock(&runs->lock);
}
