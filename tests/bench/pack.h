/*
 * A pack: the files of one directory in one file, which the bench's programs share, so that every subject
 * serves and saves the very same bytes. tests/bench/packs.py writes it:
 *
 *   campusfs-pack 1\n
 *   <size> <mtime, ns since the epoch> <name>\n<size bytes>\n          once for each file, in the directory's
 * order
 *
 * The file is mapped and read ahead, contents are pointers into the map: loading a pack copies nothing.
 * Read-only once loaded, so that threads share it without a lock.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct pack_file {
    const char *name; /* not NUL-terminated */
    const char *data;
    size_t size;
    int64_t mtime_ns;
    uint32_t name_len; /* 1..255 */
};

struct pack {
    struct pack_file *files;
    size_t nfiles;
    size_t bytes; /* of all contents */
    uint32_t
        *table; /* hash of the names: index + 1 into files, 0 = free; open addressing, at most half full */
    size_t table_size; /* a power of two */
    char *map;
    size_t map_size;
};

/*
 * Maps and indexes a pack; *out is the caller's. -EINVAL when it is not one (cut, name too long or given
 * twice), -ENOMEM, or what open and mmap say.
 */
int pack_load(const char *path, struct pack **out);

/* Unmaps; NULL is fine. */
void pack_free(struct pack *pack);

/* The file of that name in O(1), NULL when there is none. */
const struct pack_file *pack_find(const struct pack *pack, const char *name, size_t len);

/* The number in front of ".json"; 0 when the name is not that of a row. */
int64_t pack_file_id(const struct pack_file *file);

DEFINE_CLEANUP(struct pack, pack_free)
