/*
 * The folders of values in .by that the kernel knows: what cannot be packed into a nodeid. One lives from the
 * first LOOKUP to the last FORGET; its number is never another's while the mount lasts. Bounded by count and
 * bytes. Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "entity/collection.h"
#include "tree/name.h"

struct by_folders;

struct by_folder {
    struct row_key key; /* collection and region */
    unsigned field;
    char value[NAME_MAX_BYTES + 1];
};

/* NULL when memory is out. */
struct by_folders *by_folders_new(size_t count_max, size_t bytes_max);
void by_folders_free(struct by_folders *folders);

/* The number of a folder, one LOOKUP more. -ENFILE when there are too many, -ENOMEM. */
int by_folder_looked_up(struct by_folders *folders, const struct by_folder *folder, uint64_t *number);
void by_folder_forget(struct by_folders *folders, uint64_t number, uint64_t n);
/* A copy of it; false when it is gone. */
bool by_folder_get(struct by_folders *folders, uint64_t number, struct by_folder *folder);

void by_folders_usage(struct by_folders *folders, size_t *count, size_t *bytes);
