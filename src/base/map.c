#include "base/map.h"

#include <errno.h>
#include <stdlib.h>

enum { MAP_FIRST_BUCKETS = 64 };

struct map_entry *map_find(const struct map *map, uint64_t hash, map_equal equal, const void *key)
{
    if (map->nbuckets == 0)
        return NULL;
    for (struct map_entry *e = map->buckets[hash & (map->nbuckets - 1)]; e; e = e->next)
        if (e->hash == hash && equal(e, key))
            return e;
    return NULL;
}

static int map_grow(struct map *map)
{
    size_t n = map->nbuckets ? 2 * map->nbuckets : MAP_FIRST_BUCKETS;
    struct map_entry **buckets = calloc(n, sizeof(struct map_entry *));
    if (!buckets)
        return -ENOMEM;
    for (size_t i = 0; i < map->nbuckets; i++) {
        for (struct map_entry *e = map->buckets[i], *next; e; e = next) {
            next = e->next;
            e->next = buckets[e->hash & (n - 1)];
            buckets[e->hash & (n - 1)] = e;
        }
    }
    free(map->buckets);
    map->buckets = buckets;
    map->nbuckets = n;
    return 0;
}

int map_add(struct map *map, struct map_entry *entry, uint64_t hash)
{
    if (map->count >= map->nbuckets && map_grow(map) < 0 && map->nbuckets == 0)
        return -ENOMEM;
    struct map_entry **bucket = &map->buckets[hash & (map->nbuckets - 1)];
    entry->hash = hash;
    entry->next = *bucket;
    *bucket = entry;
    map->count++;
    return 0;
}

void map_remove(struct map *map, struct map_entry *entry)
{
    if (map->nbuckets == 0)
        return;
    for (struct map_entry **p = &map->buckets[entry->hash & (map->nbuckets - 1)]; *p; p = &(*p)->next) {
        if (*p == entry) {
            *p = entry->next;
            map->count--;
            return;
        }
    }
}

void map_clear(struct map *map)
{
    free(map->buckets);
    *map = (struct map){0};
}

struct map_entry *map_next(const struct map *map, const struct map_entry *entry)
{
    size_t bucket = 0;
    if (entry) {
        if (entry->next)
            return entry->next;
        bucket = (entry->hash & (map->nbuckets - 1)) + 1;
    }
    for (; bucket < map->nbuckets; bucket++)
        if (map->buckets[bucket])
            return map->buckets[bucket];
    return NULL;
}

/* The finalizer of splitmix64: every bit of the input reaches the low bits that choose the bucket. */
uint64_t map_hash_number(uint64_t value)
{
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

/* FNV-1a over the bytes, finished as a number. */
uint64_t map_hash_bytes(const void *data, size_t len, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ seed;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return map_hash_number(hash);
}
