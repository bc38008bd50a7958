/*
 * The revisions that are open: an outdated one is still answered while somebody has it.
 */
#include "tree/tree_internal.h"

static bool revision_equal(const struct map_entry *entry, const void *nodeid)
{
    return MAP_ELEMENT(entry, struct open_revision, entry)->nodeid == *(const uint64_t *)nodeid;
}

struct open_revision *revision_find(struct tree *tree, uint64_t nodeid)
{
    struct map_entry *entry = map_find(&tree->revisions, map_hash_number(nodeid), revision_equal, &nodeid);
    return entry ? MAP_ELEMENT(entry, struct open_revision, entry) : NULL;
}

int revision_opened(struct tree *tree, uint64_t nodeid, struct document *document)
{
    int r = 0;
    pthread_mutex_lock(&tree->lock);
    struct open_revision *open = revision_find(tree, nodeid);
    if (!open) {
        open = calloc(1, sizeof *open);
        r = open ? map_add(&tree->revisions, &open->entry, map_hash_number(nodeid)) : -ENOMEM;
        if (r < 0) {
            free(open);
            open = NULL;
        } else {
            open->nodeid = nodeid;
            open->document = document_ref(document);
            open->mtime_us = document->revision.mtime_us;
        }
    }
    if (open)
        open->handles++;
    pthread_mutex_unlock(&tree->lock);
    return r;
}

void revision_closed(struct tree *tree, uint64_t nodeid)
{
    pthread_mutex_lock(&tree->lock);
    struct open_revision *open = revision_find(tree, nodeid);
    if (open && --open->handles == 0) {
        map_remove(&tree->revisions, &open->entry);
        document_unref(open->document);
        free(open);
    }
    pthread_mutex_unlock(&tree->lock);
}

bool revision_is_open(struct tree *tree, uint64_t nodeid)
{
    pthread_mutex_lock(&tree->lock);
    bool open = revision_find(tree, nodeid) != NULL;
    pthread_mutex_unlock(&tree->lock);
    return open;
}

void revision_show_time(struct tree *tree, uint64_t nodeid, const struct stat *attr)
{
    pthread_mutex_lock(&tree->lock);
    struct open_revision *open = revision_find(tree, nodeid);
    if (open)
        open->mtime_us = us_of_timespec(attr->st_mtim);
    pthread_mutex_unlock(&tree->lock);
}
