/*
 * .export.jsonl: a whole collection of a region as JSON lines, streamed. Each open is an export of its own,
 * to be read in order, past the page cache.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "tree/tree_internal.h"

static int report_export(struct tree *tree, const struct row_key *folder, int r, const struct fail *f)
{
    char path[320];
    if (r < 0 && r != -EINTR && f->err) {
        path_of_name(tree, folder, ".export.jsonl", path, sizeof path);
        report_add(tree->report, path, f);
    }
    return r;
}

int export_open_file(struct tree *tree, const struct place *place, int flags, struct export **export,
                     struct open_hints *hints)
{
    struct fail f = {0};
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
        return -EACCES;
    int r = export_open(tree->store, place->key.collection, place->key.region, export, &f);
    *hints = (struct open_hints){.direct_io = true, .no_flush = true};
    return report_export(tree, &place->key, r, &f);
}

int export_read_chunk(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct export *export,
                      size_t size, off_t offset, struct chunk *chunk)
{
    struct place place;
    struct fail f = {0};
    chunk->copy = malloc(size ? size : 1);
    if (!chunk->copy)
        return -ENOMEM;
    ssize_t n = export_read(export, chunk->copy, size, offset, &caller->op, &f);
    if (n < 0) {
        free(chunk->copy);
        chunk->copy = NULL;
        address_parse(nodeid, &place);
        return report_export(tree, &place.key, (int)n, &f);
    }
    chunk->data = chunk->copy;
    chunk->len = (size_t)n;
    return 0;
}
