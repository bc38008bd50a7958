/* What is asked of the index and what it is told, each under its lock once it is fresh. */
#include <bson/bson.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "media/index_internal.h"
#include "media/path.h"

enum { RETRIED_MS = 2000 };
#define BYTES_MAX (INT64_C(1) << 61)

int media_index_open(struct mongo *mongo, const struct media_index_options *options, struct media_index **out)
{
    struct media_index *index = calloc(1, sizeof(*index));
    if (!index)
        return -ENOMEM;
    index->mongo = mongo;
    index->options = *options;
    index->scan = 1;
    pthread_mutex_init(&index->lock, NULL);
    pthread_cond_init(&index->changed, NULL);
    int r = index_root(index);
    if (r < 0)
        media_index_close(index);
    else
        *out = index;
    return r;
}

void index_lock(struct media_index *index)
{
    pthread_mutex_lock(&index->lock);
}

void index_unlock(struct media_index *index)
{
    struct outdated *list = index->outdated;
    size_t n = index->noutdated;
    index->outdated = NULL;
    index->noutdated = index->outdated_cap = 0;
    pthread_mutex_unlock(&index->lock);
    for (size_t i = 0; i < n; i++)
        index->options.outdated(index->options.arg, list[i].file, list[i].number);
    free(list);
}

void media_index_ending(struct media_index *index)
{
    index_lock(index);
    index->ending = true;
    pthread_cond_broadcast(&index->changed);
    index_unlock(index);
}

void media_index_end(struct media_index *index)
{
    media_index_ending(index);
    if (index->started)
        pthread_join(index->thread, NULL);
    index->started = false;
}

void media_index_close(struct media_index *index)
{
    if (!index)
        return;
    media_index_end(index);
    index_clear(index);
    free(index->touched);
    free(index->outdated);
    pthread_cond_destroy(&index->changed);
    pthread_mutex_destroy(&index->lock);
    free(index);
}

/* ---- freshness ---- */

static bool fresh(const struct media_index *index, int64_t now)
{
    return index->state == INDEX_LIVE &&
           (index->holds > 0 || now - index->confirmed_at <= index->options.wait_ms);
}

/* Under the lock: a wait that ends when something has changed, or to look whether to go on. */
static int wait_change(struct media_index *index, const struct op *op, struct fail *f)
{
    int r = op_wait(&index->changed, &index->lock, op);
    if (r == -EIO)
        return fail_set(f, EIO, "the names of region %s could not be read from MongoDB in time",
                        index->options.region);
    return r;
}

/* Locks, once the index is known to be fresh; not locked when it fails. */
static int lock_fresh(struct media_index *index, const struct op *op, struct fail *f)
{
    int r = 0;
    index_lock(index);
    int64_t now = clock_now_ms();
    index->used_at = now;
    if (index->ending) {
        r = fail_set(f, EIO, "the mount is ending");
    } else if (!index->started) {
        r = -pthread_create(&index->thread, NULL, index_feed, index);
        index->started = r == 0;
    }
    if (index->state == INDEX_UNKNOWN)
        pthread_cond_broadcast(&index->changed); /* the thread may have gone to sleep */
    while (r == 0 && !fresh(index, clock_now_ms())) {
        if (index->state == INDEX_AWAY && clock_now_ms() - index->tried_at < RETRIED_MS)
            r = fail_set(f, index->why.err, "%s", index->why.message);
        else
            r = wait_change(index, op, f);
    }
    if (r < 0)
        index_unlock(index);
    return r;
}

void index_touch(struct media_index *index, uint64_t hash)
{
    if (!index->reading)
        return;
    if (index->ntouched == index->touched_cap) {
        size_t cap = index->touched_cap ? 2 * index->touched_cap : 64;
        uint64_t *list = realloc(index->touched, cap * sizeof(*list));
        if (!list) {
            index->touched_lost = true;
            return;
        }
        index->touched = list;
        index->touched_cap = cap;
    }
    index->touched[index->ntouched++] = hash;
    index->touched_sorted = false;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bool index_is_touched(struct media_index *index, uint64_t hash)
{
    if (index->touched_lost || index->ntouched == 0)
        return index->touched_lost;
    if (!index->touched_sorted)
        qsort(index->touched, index->ntouched, sizeof(uint64_t), by_value);
    index->touched_sorted = true;
    return bsearch(&hash, index->touched, index->ntouched, sizeof(uint64_t), by_value) != NULL;
}

/* ---- asking ---- */

void media_info_clear(struct media_info *info)
{
    media_revision_unref(info->revision);
    *info = (struct media_info){0};
}

/* A time that was set counts until a name below it changes. */
static int64_t folder_mtime(const struct entry *entry)
{
    int64_t uploaded = entry->newest_ms * 1000000;
    if (entry->marked && entry->newest_ms <= entry->marker.at_ms &&
        entry->changed_ns / 1000000 <= entry->marker.at_ms)
        return entry->marker.mtime_ns;
    return entry->changed_ns > uploaded ? entry->changed_ns : uploaded;
}

static void describe(const struct entry *entry, struct media_info *info)
{
    *info = (struct media_info){.ino = entry->ino, .folder = entry->folder, .mode = -1, .uid = -1, .gid = -1};
    if (entry->folder) {
        info->folders = (unsigned)entry->nfolders;
        info->mtime_ns = folder_mtime(entry);
        if (entry->marked) {
            info->mode = entry->marker.mode;
            info->uid = entry->marker.uid;
            info->gid = entry->marker.gid;
        }
        return;
    }
    info->revision = media_revision_ref(entry->newest->revision);
    info->node = entry->node;
    info->mtime_ns = info->revision->mtime_ns;
    info->mode = info->revision->mode;
    info->uid = info->revision->uid;
    info->gid = info->revision->gid;
}

int media_index_lookup(struct media_index *index, uint64_t folder, const char *name, const struct op *op,
                       struct media_info *info, struct fail *f)
{
    int r = lock_fresh(index, op, f);
    if (r < 0)
        return r;
    struct entry *parent = index_find_ino(index, folder);
    struct entry *entry = parent ? index_find_child(index, parent, name, strlen(name)) : NULL;
    if (entry)
        describe(entry, info);
    index_unlock(index);
    return entry ? 0 : -ENOENT;
}

int media_index_folder(struct media_index *index, uint64_t ino, const struct op *op, struct media_info *info,
                       struct fail *f)
{
    int r = lock_fresh(index, op, f);
    if (r < 0)
        return r;
    struct entry *entry = index_find_ino(index, ino);
    if (!entry || !entry->folder)
        r = -ESTALE;
    else
        describe(entry, info);
    index_unlock(index);
    return r;
}

int media_index_file(struct media_index *index, uint64_t node, const struct op *op, struct media_info *info,
                     struct fail *f)
{
    int r = lock_fresh(index, op, f);
    if (r < 0)
        return r;
    struct entry *entry = index_find_node(index, node);
    if (!entry)
        r = -ESTALE;
    else
        describe(entry, info);
    index_unlock(index);
    return r;
}

int media_index_file_of(struct media_index *index, uint64_t ino, const struct op *op, struct media_info *info,
                        uint64_t *folder, char name[MEDIA_NAME_MAX + 1], struct fail *f)
{
    int r = lock_fresh(index, op, f);
    if (r < 0)
        return r;
    struct entry *entry = index_find_ino(index, ino);
    if (!entry || !entry->has_node) {
        r = -ESTALE;
    } else {
        describe(entry, info);
        *folder = entry->parent->ino;
        memcpy(name, entry->name, entry->len + 1);
    }
    index_unlock(index);
    return r;
}

/* The bytes of files, but of those whose documents cannot be true; at most BYTES_MAX, so that sums of these
 * fit. */
static int64_t bytes_in(const struct entry *entry)
{
    const struct media_revision *revision = entry->folder ? NULL : entry->newest->revision;
    int64_t bytes = revision && !revision->broken ? revision->length : 0;
    for (struct list_entry *l = revision ? NULL : entry->children; l; l = l->next) {
        bytes += bytes_in(MAP_ELEMENT(l, struct entry, sibling));
        bytes = bytes < BYTES_MAX ? bytes : BYTES_MAX;
    }
    return bytes;
}

int media_index_usage(struct media_index *index, int64_t course, const struct op *op, int64_t *course_bytes,
                      int64_t *region_bytes, struct fail *f)
{
    int r = lock_fresh(index, op, f);
    if (r < 0)
        return r;
    struct entry *entry = index_find_ino(index, (uint64_t)course);
    *course_bytes = entry ? bytes_in(entry) : 0;
    *region_bytes = bytes_in(index->root);
    index_unlock(index);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct media_name *)a)->name, ((const struct media_name *)b)->name);
}

static struct media_names *copy_names(const struct entry *folder)
{
    size_t bytes = 0, n = 0;
    for (struct list_entry *l = folder->children; l; l = l->next)
        bytes += MAP_ELEMENT(l, struct entry, sibling)->len + 1;
    struct media_names *names =
        malloc(sizeof(*names) + folder->nchildren * sizeof(struct media_name) + bytes);
    if (!names)
        return NULL;
    char *text = (char *)(names->list + folder->nchildren);
    for (struct list_entry *l = folder->children; l; l = l->next) {
        const struct entry *entry = MAP_ELEMENT(l, struct entry, sibling);
        names->list[n++] = (struct media_name){text, entry->ino, entry->folder};
        memcpy(text, entry->name, entry->len + 1);
        text += entry->len + 1;
    }
    names->n = n;
    return names;
}

int media_index_list(struct media_index *index, uint64_t folder, const struct op *op,
                     struct media_names **out, struct fail *f)
{
    static const struct entry nothing;
    int r = lock_fresh(index, op, f);
    if (r < 0)
        return r;
    const struct entry *entry = index_find_ino(index, folder);
    if (!entry && folder < MEDIA_COURSE_END)
        entry = &nothing;
    if (!entry || (entry != &nothing && !entry->folder))
        r = -ESTALE;
    else if (!(*out = copy_names(entry)))
        r = -ENOMEM;
    index_unlock(index);
    if (r == 0)
        qsort((*out)->list, (*out)->n, sizeof(struct media_name), by_name);
    return r;
}

int media_index_path(struct media_index *index, uint64_t folder, const char *name,
                     char path[MEDIA_FILENAME_MAX + 1])
{
    int r = 0;
    if (name && !bson_utf8_validate(name, strlen(name), false))
        return -EILSEQ;
    index_lock(index);
    const struct entry *entry = index_find_ino(index, folder);
    if (entry)
        r = index_entry_path(entry, path);
    else if (folder < MEDIA_COURSE_END)
        snprintf(path, MEDIA_FILENAME_MAX + 1, "%llu", (unsigned long long)folder);
    else
        r = -ESTALE;
    index_unlock(index);
    if (r < 0 || !name)
        return r;
    size_t len = strlen(path), more = strlen(name);
    if (len + 1 + more > MEDIA_FILENAME_MAX || more > MEDIA_NAME_MAX)
        return -ENAMETOOLONG;
    path[len] = '/';
    memcpy(path + len + 1, name, more + 1);
    return 0;
}

static int place_of(const struct entry *entry, uint64_t *folder, char name[MEDIA_NAME_MAX + 1])
{
    if (!entry || !entry->has_node)
        return -ESTALE;
    *folder = entry->parent->ino;
    memcpy(name, entry->name, entry->len + 1);
    return 0;
}

int media_index_place(struct media_index *index, uint64_t node, uint64_t *folder,
                      char name[MEDIA_NAME_MAX + 1])
{
    index_lock(index);
    int r = place_of(index_find_node(index, node), folder, name);
    index_unlock(index);
    return r;
}

int media_index_place_of(struct media_index *index, uint64_t ino, uint64_t *folder,
                         char name[MEDIA_NAME_MAX + 1])
{
    index_lock(index);
    int r = place_of(index_find_ino(index, ino), folder, name);
    index_unlock(index);
    return r;
}

int64_t media_index_left_out(struct media_index *index, const struct op *op,
                             void (*take)(void *arg, const struct media_revision *revision, const char *why),
                             void *arg, struct fail *f)
{
    int64_t n = 0;
    int r = lock_fresh(index, op, f);
    if (r < 0)
        return r;
    for (struct map_entry *e = map_next(&index->by_id, NULL); e; e = map_next(&index->by_id, e)) {
        const struct known *known = MAP_ELEMENT(e, struct known, by_id);
        const char *why = known->why                                              ? known->why
                          : known->entry->folder && known->entry->newest == known ? "a folder has its name"
                                                                                  : NULL;
        if (why && take)
            take(arg, known->revision, why);
        n += why != NULL;
    }
    index_unlock(index);
    return n;
}

int media_index_revisions(struct media_index *index, uint64_t node, struct media_revisions *out)
{
    size_t count = 0, n = 0;
    index_lock(index);
    const struct entry *entry = index_find_node(index, node);
    for (const struct known *k = entry ? entry->newest : NULL; k; k = k->older)
        count++;
    struct media_revision **list = count ? malloc(count * sizeof(struct media_revision *)) : NULL;
    for (const struct known *k = list ? entry->newest : NULL; k; k = k->older)
        list[n++] = media_revision_ref(k->revision);
    index_unlock(index);
    if (!list)
        return count ? -ENOMEM : -ENOENT;
    return media_revisions_make(list, n, out);
}

/* ---- being told ---- */

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void media_index_put(struct media_index *index, struct media_revision *revision)
{
    index_lock(index);
    index_touch(index, revision->id_hash);
    index_apply(index, revision);
    index_unlock(index);
}

void media_index_removed(struct media_index *index, const struct media_revision *revision)
{
    index_lock(index);
    index_touch(index, revision->id_hash);
    struct known *known = index_known(index, revision);
    if (known)
        index_forget(index, known);
    index_unlock(index);
}

void media_index_marked(struct media_index *index, const char *path, const struct media_marker *marker)
{
    index_lock(index);
    index_touch(index, index_path_hash(path));
    struct entry *entry = index_find_path(index, path);
    if (marker)
        index_mark(index, path, marker);
    else if (entry && entry->marked)
        index_unmark(index, entry);
    index_unlock(index);
}

void media_index_touched(struct media_index *index, uint64_t folder)
{
    index_lock(index);
    struct entry *entry = index_find_ino(index, folder);
    if (entry) {
        entry->changed_ns = now_ns();
        index_tell(index, false, entry->ino);
    }
    index_unlock(index);
}

unsigned media_index_courses(struct media_index *index, const struct op *op)
{
    index_lock(index);
    bool read = index->scans > 0 || index->state == INDEX_AWAY;
    unsigned n = (unsigned)index->root->nfolders;
    index_unlock(index);
    if (read || lock_fresh(index, op, NULL) < 0)
        return n;
    n = (unsigned)index->root->nfolders;
    index_unlock(index);
    return n;
}

void media_index_stats(struct media_index *index, struct media_index_stats *stats)
{
    index_lock(index);
    *stats = (struct media_index_stats){.files = index->files,
                                        .left_out = index->left_out,
                                        .live = index->state == INDEX_LIVE,
                                        .streaming = index->streaming,
                                        .scans = index->scans,
                                        .events = index->events};
    index_unlock(index);
}
