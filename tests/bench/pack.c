/* See pack.h. */
#include "pack.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const char MAGIC[] = "campusfs-pack 1\n";

/* FNV-1a: short names, no enemy who chooses them. */
static uint64_t hash(const char *name, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* The slot that holds the name, or the free one where it belongs. */
static uint32_t *slot_of(const struct pack *pack, const char *name, size_t len)
{
    for (size_t i = hash(name, len);; i++) {
        uint32_t *slot = &pack->table[i & (pack->table_size - 1)];
        if (*slot == 0)
            return slot;
        const struct pack_file *file = &pack->files[*slot - 1];
        if (file->name_len == len && memcmp(file->name, name, len) == 0)
            return slot;
    }
}

/* Reads decimal digits up to `end` and the byte `stop` after them. */
static int parse_number(const char **p, const char *end, char stop, int64_t *out)
{
    int64_t value = 0;
    const char *c = *p;
    while (c < end && *c >= '0' && *c <= '9') {
        if (value > (INT64_MAX - 9) / 10)
            return -EINVAL;
        value = value * 10 + (*c++ - '0');
    }
    if (c == *p || c == end || *c != stop)
        return -EINVAL;
    *p = c + 1;
    *out = value;
    return 0;
}

static int parse_file(const char **p, const char *end, struct pack_file *file)
{
    int64_t size;
    if (parse_number(p, end, ' ', &size) < 0 || parse_number(p, end, ' ', &file->mtime_ns) < 0)
        return -EINVAL;
    const char *line_end = memchr(*p, '\n', (size_t)(end - *p));
    if (!line_end || line_end == *p || line_end - *p > 255)
        return -EINVAL;
    file->name = *p;
    file->name_len = (uint32_t)(line_end - *p);
    file->data = line_end + 1;
    file->size = (size_t)size;
    if (size >= end - file->data || file->data[size] != '\n')
        return -EINVAL;
    *p = file->data + size + 1;
    return 0;
}

/* One pass over the map; the array grows by doubling. */
static int parse_files(struct pack *pack)
{
    size_t cap = 0;
    const char *p = pack->map, *end = pack->map + pack->map_size;
    if (pack->map_size < sizeof MAGIC - 1 || memcmp(p, MAGIC, sizeof MAGIC - 1) != 0)
        return -EINVAL;
    p += sizeof MAGIC - 1;
    while (p < end) {
        if (pack->nfiles == cap) {
            cap = cap ? cap * 2 : 1024;
            struct pack_file *files = reallocarray(pack->files, cap, sizeof *files);
            if (!files)
                return -ENOMEM;
            pack->files = files;
        }
        struct pack_file *file = &pack->files[pack->nfiles];
        if (parse_file(&p, end, file) < 0)
            return -EINVAL;
        pack->bytes += file->size;
        pack->nfiles++;
    }
    return pack->nfiles < UINT32_MAX / 4 ? 0 : -EINVAL;
}

static int index_files(struct pack *pack)
{
    pack->table_size = 1024;
    while (pack->table_size < pack->nfiles * 2)
        pack->table_size *= 2;
    pack->table = calloc(pack->table_size, sizeof *pack->table);
    if (!pack->table)
        return -ENOMEM;
    for (size_t i = 0; i < pack->nfiles; i++) {
        uint32_t *slot = slot_of(pack, pack->files[i].name, pack->files[i].name_len);
        if (*slot)
            return -EINVAL;
        *slot = (uint32_t)i + 1;
    }
    return 0;
}

int pack_load(const char *path, struct pack **out)
{
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size == 0)
        return -EINVAL;
    CLEANUP(pack_freep) struct pack *pack = calloc(1, sizeof *pack);
    if (!pack)
        return -ENOMEM;
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    pack->map = map;
    pack->map_size = (size_t)st.st_size;
    int r = parse_files(pack);
    if (r == 0)
        r = index_files(pack);
    if (r == 0)
        *out = STEAL(pack);
    return r;
}

void pack_free(struct pack *pack)
{
    if (!pack)
        return;
    if (pack->map)
        munmap(pack->map, pack->map_size);
    free(pack->table);
    free(pack->files);
    free(pack);
}

const struct pack_file *pack_find(const struct pack *pack, const char *name, size_t len)
{
    uint32_t slot = *slot_of(pack, name, len);
    return slot ? &pack->files[slot - 1] : NULL;
}

int64_t pack_file_id(const struct pack_file *file)
{
    int64_t id = 0;
    uint32_t i = 0;
    for (; i < file->name_len && file->name[i] >= '0' && file->name[i] <= '9' && id < INT64_MAX / 20; i++)
        id = id * 10 + (file->name[i] - '0');
    return file->name_len == i + 5 && memcmp(file->name + i, ".json", 5) == 0 ? id : 0;
}
