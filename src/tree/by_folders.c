#include "tree/by_folders.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"

struct known {
    struct map_entry by_value, by_number;
    uint64_t number, lookups;
    struct row_key key;
    unsigned field;
    char value[];
};

struct by_folders {
    size_t count_max, bytes_max; /* constant */
    pthread_mutex_t lock;        /* guards all below */
    struct map by_value, by_number;
    size_t bytes;
    uint64_t last;
};

struct by_folders *by_folders_new(size_t count_max, size_t bytes_max)
{
    struct by_folders *folders = calloc(1, sizeof *folders);
    if (!folders)
        return NULL;
    folders->count_max = count_max;
    folders->bytes_max = bytes_max;
    pthread_mutex_init(&folders->lock, NULL);
    return folders;
}

void by_folders_free(struct by_folders *folders)
{
    struct map_entry *entry;
    if (!folders)
        return;
    while ((entry = map_next(&folders->by_number, NULL))) {
        map_remove(&folders->by_number, entry);
        free(MAP_ELEMENT(entry, struct known, by_number));
    }
    map_clear(&folders->by_number);
    map_clear(&folders->by_value);
    pthread_mutex_destroy(&folders->lock);
    free(folders);
}

static size_t size_of(const struct known *known)
{
    return sizeof *known + strlen(known->value) + 1;
}

static bool value_equal(const struct map_entry *entry, const void *wanted)
{
    const struct known *known = MAP_ELEMENT(entry, struct known, by_value);
    const struct by_folder *folder = wanted;
    return known->key.collection == folder->key.collection && known->key.region == folder->key.region &&
           known->field == folder->field && strcmp(known->value, folder->value) == 0;
}

static bool number_equal(const struct map_entry *entry, const void *number)
{
    return MAP_ELEMENT(entry, struct known, by_number)->number == *(const uint64_t *)number;
}

static uint64_t value_hash(const struct by_folder *folder)
{
    uint64_t place =
        (uint64_t)folder->key.collection << 32 | (uint64_t)folder->key.region << 16 | folder->field;
    return map_hash_bytes(folder->value, strlen(folder->value), place);
}

/* Under the lock, as the next three. */
static struct known *number_find(const struct by_folders *folders, uint64_t number)
{
    struct map_entry *entry = map_find(&folders->by_number, map_hash_number(number), number_equal, &number);
    return entry ? MAP_ELEMENT(entry, struct known, by_number) : NULL;
}

static int known_add(struct by_folders *folders, const struct by_folder *folder, struct known **out)
{
    size_t len = strlen(folder->value);
    size_t bytes = sizeof(struct known) + len + 1;
    if (folders->by_number.count >= folders->count_max || folders->bytes + bytes > folders->bytes_max)
        return -ENFILE;
    struct known *known = calloc(1, bytes);
    if (!known)
        return -ENOMEM;
    known->number = folders->last + 1;
    known->key = folder->key;
    known->field = folder->field;
    memcpy(known->value, folder->value, len + 1);
    int r = map_add(&folders->by_value, &known->by_value, value_hash(folder));
    if (r == 0)
        r = map_add(&folders->by_number, &known->by_number, map_hash_number(known->number));
    if (r < 0) {
        map_remove(&folders->by_value, &known->by_value);
        free(known);
        return r;
    }
    folders->last++;
    folders->bytes += bytes;
    *out = known;
    return 0;
}

static void known_drop(struct by_folders *folders, struct known *known)
{
    map_remove(&folders->by_value, &known->by_value);
    map_remove(&folders->by_number, &known->by_number);
    folders->bytes -= size_of(known);
    free(known);
}

int by_folder_looked_up(struct by_folders *folders, const struct by_folder *folder, uint64_t *number)
{
    int r = 0;
    pthread_mutex_lock(&folders->lock);
    struct map_entry *entry = map_find(&folders->by_value, value_hash(folder), value_equal, folder);
    struct known *known = entry ? MAP_ELEMENT(entry, struct known, by_value) : NULL;
    if (!known)
        r = known_add(folders, folder, &known);
    if (r == 0) {
        known->lookups++;
        *number = known->number;
    }
    pthread_mutex_unlock(&folders->lock);
    return r;
}

void by_folder_forget(struct by_folders *folders, uint64_t number, uint64_t n)
{
    pthread_mutex_lock(&folders->lock);
    struct known *known = number_find(folders, number);
    if (known && known->lookups > n)
        known->lookups -= n;
    else if (known)
        known_drop(folders, known);
    pthread_mutex_unlock(&folders->lock);
}

bool by_folder_get(struct by_folders *folders, uint64_t number, struct by_folder *folder)
{
    pthread_mutex_lock(&folders->lock);
    const struct known *known = number_find(folders, number);
    if (known) {
        folder->key = known->key;
        folder->field = known->field;
        memcpy(folder->value, known->value, strlen(known->value) + 1);
    }
    pthread_mutex_unlock(&folders->lock);
    return known != NULL;
}

void by_folders_usage(struct by_folders *folders, size_t *count, size_t *bytes)
{
    pthread_mutex_lock(&folders->lock);
    *count = folders->by_number.count;
    *bytes = folders->bytes;
    pthread_mutex_unlock(&folders->lock);
}
