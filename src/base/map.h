/*
 * An intrusive hash map: the entry is part of the caller's struct, nothing is allocated for an element. Keys
 * are compared by the caller. Not thread-safe: the owner's lock guards it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_entry {
    struct map_entry *next; /* in its bucket */
    uint64_t hash;
};

struct map {
    struct map_entry **buckets; /* owned; NULL while empty */
    size_t nbuckets;            /* a power of two */
    size_t count;
};

/* The struct that holds an entry as its member. */
#define MAP_ELEMENT(entry, type, member) ((type *)(void *)((char *)(entry)-offsetof(type, member)))

typedef bool (*map_equal)(const struct map_entry *entry, const void *key);

/* NULL when there is none. */
struct map_entry *map_find(const struct map *map, uint64_t hash, map_equal equal, const void *key);
/* Adds an entry, also beside an equal one. -ENOMEM only when the map is still empty; growing is best effort.
 */
int map_add(struct map *map, struct map_entry *entry, uint64_t hash);
/* Takes out that very entry; nothing when it is not in. */
void map_remove(struct map *map, struct map_entry *entry);
/* Frees the buckets, not the elements. */
void map_clear(struct map *map);

/* Walks all entries in no order: start with NULL. The map must not change meanwhile. */
struct map_entry *map_next(const struct map *map, const struct map_entry *entry);

/* A well-mixed hash of a number, and of bytes. */
uint64_t map_hash_number(uint64_t value);
uint64_t map_hash_bytes(const void *data, size_t len, uint64_t seed);
