/* What changing names needs of the index beside single documents: folders as wholes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "media/index_internal.h"

bool media_index_lonely(struct media_index *index, uint64_t folder)
{
    index_lock(index);
    const struct entry *entry = index_find_ino(index, folder);
    bool lonely = entry && entry->parent && entry->nchildren == 1 && !entry->marked;
    index_unlock(index);
    return lonely;
}

bool media_index_marker(struct media_index *index, uint64_t folder, struct media_marker *marker)
{
    index_lock(index);
    const struct entry *entry = index_find_ino(index, folder);
    bool marked = entry && entry->marked;
    if (marked)
        *marker = entry->marker;
    index_unlock(index);
    return marked;
}

static size_t count_below(const struct entry *entry)
{
    size_t n = entry->marked;
    for (const struct known *k = entry->newest; k; k = k->older)
        n++;
    for (struct list_entry *l = entry->children; l; l = l->next)
        n += count_below(MAP_ELEMENT(l, struct entry, sibling));
    return n;
}

/* The part of an entry's path below the folder that is listed: "" for that itself. */
static char *suffix_of(const struct entry *entry, size_t skip)
{
    char path[MEDIA_FILENAME_MAX + 1];
    return index_entry_path(entry, path) == 0 && strlen(path) >= skip ? strdup(path + skip) : NULL;
}

static int add_below(struct media_index *index, const struct entry *entry, size_t skip,
                     struct media_below *out)
{
    char *suffix;
    if (entry->marked) {
        if (!(suffix = suffix_of(entry, skip)))
            return -ENOMEM;
        out->list[out->n++] = (struct media_item){.suffix = suffix, .marker = entry->marker};
    }
    for (const struct known *k = entry->newest; k; k = k->older) {
        if (!(suffix = suffix_of(entry, skip)))
            return -ENOMEM;
        out->list[out->n++] =
            (struct media_item){.suffix = suffix, .revision = media_revision_ref(k->revision)};
    }
    int r = 0;
    for (struct list_entry *l = entry->children; r == 0 && l; l = l->next)
        r = add_below(index, MAP_ELEMENT(l, struct entry, sibling), skip, out);
    return r;
}

void media_below_free(struct media_below *below)
{
    for (size_t i = 0; below && i < below->n; i++) {
        free(below->list[i].suffix);
        media_revision_unref(below->list[i].revision);
    }
    free(below);
}

int media_index_below(struct media_index *index, uint64_t folder, struct media_below **out)
{
    char path[MEDIA_FILENAME_MAX + 1];
    index_lock(index);
    const struct entry *entry = index_find_ino(index, folder);
    int r = entry ? index_entry_path(entry, path) : -ESTALE;
    size_t n = r == 0 ? count_below(entry) : 0;
    struct media_below *below = calloc(1, sizeof(*below) + n * sizeof(struct media_item));
    r = r == 0 && !below ? -ENOMEM : r;
    if (r == 0)
        r = add_below(index, entry, strlen(path), below);
    index_unlock(index);
    if (r < 0)
        media_below_free(below);
    else
        *out = below;
    return r;
}

static void touch_all(struct media_index *index, const char *path, const struct media_below *below)
{
    char whole[2 * MEDIA_FILENAME_MAX + 1];
    for (size_t i = 0; i < below->n; i++) {
        if (below->list[i].revision) {
            index_touch(index, below->list[i].revision->id_hash);
            continue;
        }
        snprintf(whole, sizeof(whole), "%s%s", path, below->list[i].suffix);
        index_touch(index, index_path_hash(whole));
    }
}

void media_index_hold(struct media_index *index, const char *from, const struct media_below *below)
{
    index_lock(index);
    index->holds++;
    touch_all(index, from, below); /* a scan that is under way may come to them from now on */
    index_unlock(index);
}

bool media_index_held(struct media_index *index)
{
    index_lock(index);
    bool held = index->holds > 0;
    index_unlock(index);
    return held;
}

void media_index_release(struct media_index *index)
{
    index_lock(index);
    index->holds--;
    index->confirmed_at = clock_now_ms();
    pthread_cond_broadcast(&index->changed);
    index_unlock(index);
}

int media_index_moved_folder(struct media_index *index, const char *from, const char *to,
                             const struct media_below *below)
{
    index_lock(index);
    touch_all(index, from, below);
    touch_all(index, to, below);
    const struct entry *entry = index_find_path(index, from);
    int r = !entry                           ? -ESTALE
            : index_find_path(index, to)     ? -EEXIST
            : count_below(entry) != below->n ? -EAGAIN
                                             : index_move(index, from, to);
    index_unlock(index);
    return r;
}

void media_index_scan(struct media_index *index)
{
    index_lock(index);
    index->scan_wanted = true;
    index_unlock(index);
}
