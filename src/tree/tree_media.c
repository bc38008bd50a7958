/*
 * Media: names, attributes and listings of what the indexes of media/ know. A folder's nodeid is its own for
 * ever; a file's is that of one revision, so that what the kernel holds of it never changes, and a reader
 * keeps its bytes.
 */
#include <stdio.h>
#include <string.h>

#include "media/path.h"
#include "media/recycle.h"
#include "tree/media_draft.h"
#include "tree/tree_meta.h"

enum { COUNT_WAIT_MS = 500 }; /* media/ itself waits no longer for its number of folders */

/* Folders without a time of their own, and courses that have no media yet. */
static const struct timespec NO_TIME = {.tv_sec = 1767225600}; /* 2026-01-01T00:00:00Z */

void media_outdated(void *arg, unsigned region, bool file, uint64_t number)
{
    struct tree *tree = arg;
    tree->invalidate(tree->invalidate_arg,
                     file ? address_media_file(region, number) : address_media(region, number));
}

uint64_t media_folder_ino(const struct place *place)
{
    return place->kind == PLACE_MEDIA ? MEDIA_ROOT : place->number;
}

uint64_t media_nodeid(const struct place *folder)
{
    return folder->kind == PLACE_MEDIA ? address_place(PLACE_MEDIA, 0, folder->key.region)
                                       : address_media(folder->key.region, folder->number);
}

void media_path(const struct tree *tree, unsigned region, uint64_t folder, const char *name, char *out,
                size_t size)
{
    char path[MEDIA_FILENAME_MAX + 1];
    struct media_index *index = media_index(tree->media, region);
    int r = 0;
    if (folder == MEDIA_ROOT) {
        snprintf(path, sizeof path, "%s", name ? name : "");
    } else if ((r = media_index_path(index, folder, name, path)) ==
               -EILSEQ) { /* which is what has to be told */
        r = media_index_path(index, folder, NULL, path);
        size_t len = r == 0 ? strlen(path) : 0;
        snprintf(path + len, sizeof path - len, "/%s", name);
    }
    snprintf(out, size, "regions/%s/media/%s", media_region(tree->media, region), r == 0 ? path : "?");
}

/* Whether an error is worth words: the caller sees only an errno. */
int report_media(struct tree *tree, unsigned region, uint64_t folder, const char *name, int r,
                 const struct fail *f)
{
    char path[MEDIA_FILENAME_MAX + 320];
    if (r < 0 && f->err && (r != -EINTR || f->err == EINTR)) {
        media_path(tree, region, folder, name, path, sizeof path);
        report_add(tree->report, path, f);
    }
    return r;
}

/* ---- attributes ---- */

static void attr_common(const struct tree *tree, int32_t mode, mode_t usual, int64_t uid, int64_t gid,
                        struct timespec time, struct stat *attr)
{
    const struct access *access = &tree->access[ACCESS_MEDIA];
    attr->st_mode |= mode >= 0 ? (mode_t)mode : usual;
    attr->st_uid = uid >= 0 ? (uid_t)uid : access->uid;
    attr->st_gid = gid >= 0 ? (gid_t)gid : access->gid;
    attr->st_mtim = attr->st_ctim = attr->st_atim = time;
    attr->st_blksize = 4096;
    attr->st_blocks = attr->st_size / 512 + (attr->st_size % 512 != 0); /* a document may say any length */
}

static struct timespec timespec_of_ns(int64_t ns)
{
    int64_t fraction = ns % 1000000000;
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000 - (fraction < 0)),
                             .tv_nsec = (long)(fraction < 0 ? fraction + 1000000000 : fraction)};
}

void attr_media_file(const struct tree *tree, unsigned region, uint64_t ino,
                     const struct media_revision *revision, struct stat *attr)
{
    *attr = (struct stat){.st_ino = address_media(region, ino),
                          .st_mode = S_IFREG,
                          .st_nlink = 1,
                          .st_size = (off_t)revision->length};
    attr_common(tree, revision->mode, tree->access[ACCESS_MEDIA].file_mode, revision->uid, revision->gid,
                timespec_of_ns(revision->mtime_ns), attr);
}

int64_t ns_of_timespec(struct timespec time)
{
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)time.tv_sec, INT64_C(1000000000), &ns) ||
        __builtin_add_overflow(ns, (int64_t)time.tv_nsec, &ns))
        return time.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

static void attr_media_folder(const struct tree *tree, unsigned region, const struct media_info *info,
                              struct stat *attr)
{
    *attr = (struct stat){.st_ino = address_media(region, info->ino),
                          .st_mode = S_IFDIR,
                          .st_nlink = 2 + info->folders,
                          .st_size = 4096};
    attr_common(tree, info->mode, tree->config->dir_mode, info->uid, info->gid,
                info->mtime_ns ? timespec_of_ns(info->mtime_ns) : NO_TIME, attr);
}

void media_attr(struct tree *tree, const struct caller *caller, unsigned region, struct stat *attr)
{
    struct media_index *index = tree->media ? media_index(tree->media, region) : NULL;
    struct op op = caller->op;
    int64_t soon = clock_now_ms() + COUNT_WAIT_MS;
    op.deadline = op.deadline < soon ? op.deadline : soon;
    attr->st_uid = tree->access[ACCESS_MEDIA].uid;
    attr->st_gid = tree->access[ACCESS_MEDIA].gid;
    attr->st_nlink = 2 + (index ? media_index_courses(index, &op) : 0);
}

static void entry_media(struct tree *tree, unsigned region, const struct media_info *info,
                        struct entry *entry)
{
    *entry = (struct entry){.name_ms = tree->kernel_ms, .attr_ms = tree->kernel_ms};
    if (info->folder) {
        entry->nodeid = address_media(region, info->ino);
        attr_media_folder(tree, region, info, &entry->attr);
        return;
    }
    entry->nodeid = address_media_file(region, info->node);
    entry->generation = (uint32_t)info->revision->bytes_hash; /* beside the 54 bits of the node */
    attr_media_file(tree, region, info->ino, info->revision, &entry->attr);
}

/* ---- lookup ---- */

/* Whether the course is in the region's database. */
static int find_course(struct tree *tree, const struct caller *caller, unsigned region, uint64_t id,
                       struct fail *f)
{
    struct revision revision;
    struct row_key key = {.collection = (uint8_t)collection_of_folder("courses")->number,
                          .region = (uint8_t)region,
                          .id = (int64_t)id};
    return store_stat(tree->store, &key, &caller->op, &revision, f);
}

/* A course that has no media yet has an empty folder, found by name alone. */
static int lookup_course(struct tree *tree, const struct caller *caller, unsigned region, const char *name,
                         struct media_info *info, struct fail *f)
{
    int64_t id = media_path_course(name, strlen(name));
    if (id == 0)
        return -ENOENT;
    *info = (struct media_info){.ino = (uint64_t)id, .folder = true, .mode = -1, .uid = -1, .gid = -1};
    return find_course(tree, caller, region, (uint64_t)id, f);
}

int media_lookup(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name,
                 struct entry *entry)
{
    unsigned region = folder->key.region;
    uint64_t ino = media_folder_ino(folder);
    struct media_index *index = media_index(tree->media, region);
    struct media_info info;
    struct fail f = {0};
    if (!index)
        return -ENOENT;
    if (folder->kind == PLACE_MEDIA_FOLDER && strcmp(name, META_FOLDER) == 0)
        return meta_lookup_folder(tree, caller, folder, entry);
    int r = media_index_lookup(index, ino, name, &caller->op, &info, &f);
    if (r == -ENOENT && folder->kind == PLACE_MEDIA)
        r = lookup_course(tree, caller, region, name, &info, &f);
    if (r < 0 && r != -ENOENT)
        return report_media(tree, region, ino, name, r, &f);
    bool there = r == 0, found = false;
    if (!there || !info.folder)
        r = media_lookup_draft(tree, caller, folder, name, there ? &info : NULL, entry, &found);
    if (found || !there) {
        if (there)
            media_info_clear(&info);
        return found ? r : -ENOENT;
    }
    entry_media(tree, region, &info, entry);
    if (!info.folder) {
        struct row_key key = media_note_key(region);
        notes_answered_media(tree->notes, caller->tid, &key, entry->nodeid, info.ino, info.revision);
    }
    media_info_clear(&info);
    return 0;
}

/* ---- getattr ---- */

static bool node_equal(const struct map_entry *entry, const void *nodeid)
{
    return MAP_ELEMENT(entry, struct media_opened, entry)->nodeid == *(const uint64_t *)nodeid;
}

static struct media_opened *opened_find(struct tree *tree, uint64_t nodeid)
{
    struct map_entry *entry = map_find(&tree->media_opened, map_hash_number(nodeid), node_equal, &nodeid);
    return entry ? MAP_ELEMENT(entry, struct media_opened, entry) : NULL;
}

/* An outdated revision that somebody has open, or that this thread's LOOKUP was told a moment ago. */
static bool getattr_outdated(struct tree *tree, const struct caller *caller, unsigned region, uint64_t nodeid,
                             struct stat *attr)
{
    pthread_mutex_lock(&tree->lock);
    struct media_opened *opened = opened_find(tree, nodeid);
    if (opened)
        attr_media_file(tree, region, opened->ino, opened->revision, attr);
    pthread_mutex_unlock(&tree->lock);
    if (opened)
        return true;
    struct row_key key = media_note_key(region);
    struct note note = notes_find(tree->notes, caller->tid, &key);
    bool told = note.media && note.nodeid == nodeid;
    if (told)
        attr_media_file(tree, region, note.ino, note.media, attr);
    note_clear(tree->notes, &note);
    return told;
}

static int getattr_file(struct tree *tree, const struct caller *caller, const struct place *place,
                        uint64_t nodeid, struct stat *attr, int64_t *attr_ms)
{
    unsigned region = place->key.region;
    struct media_index *index = media_index(tree->media, region);
    struct media_info info;
    struct fail f = {0};
    int r = index ? media_index_file(index, place->number, &caller->op, &info, &f) : -ESTALE;
    *attr_ms = 0;
    if (r == 0) {
        attr_media_file(tree, region, info.ino, info.revision, attr);
        *attr_ms = tree->kernel_ms;
        media_info_clear(&info);
        return 0;
    }
    if (getattr_outdated(tree, caller, region, nodeid, attr))
        return 0;
    if (r == -ESTALE) {
        struct row_key key = media_note_key(region);
        notes_leave(tree->notes, caller->tid, &key, NOTE_WRITE); /* what may follow is an open */
    }
    return report_media(tree, region, MEDIA_ROOT, NULL, r, &f);
}

static int getattr_folder(struct tree *tree, const struct caller *caller, const struct place *place,
                          struct stat *attr, int64_t *attr_ms)
{
    unsigned region = place->key.region;
    struct media_index *index = media_index(tree->media, region);
    struct media_info info = {.ino = place->number, .folder = true, .mode = -1, .uid = -1, .gid = -1};
    struct fail f = {0};
    int r = index ? media_index_folder(index, place->number, &caller->op, &info, &f) : -ESTALE;
    if (r == -ESTALE && index && place->number < MEDIA_COURSE_END) {
        info = (struct media_info){.ino = place->number, .folder = true, .mode = -1, .uid = -1, .gid = -1};
        r = find_course(tree, caller, region, place->number, &f);
        r = r == -ENOENT ? -ESTALE : r;
    }
    if (r == 0) {
        attr_media_folder(tree, region, &info, attr);
        *attr_ms = tree->kernel_ms;
        media_info_clear(&info);
    }
    return report_media(tree, region, place->number, NULL, r, &f);
}

int media_getattr(struct tree *tree, const struct caller *caller, const struct place *place, uint64_t nodeid,
                  struct stat *attr, int64_t *attr_ms)
{
    return place->kind == PLACE_MEDIA_FILE ? getattr_file(tree, caller, place, nodeid, attr, attr_ms)
                                           : getattr_folder(tree, caller, place, attr, attr_ms);
}

/* ---- listings ---- */

int media_list(struct tree *tree, const struct caller *caller, const struct place *folder,
               struct media_names **out)
{
    struct fail f = {0};
    struct media_index *index = media_index(tree->media, folder->key.region);
    uint64_t ino = media_folder_ino(folder);
    if (folder->kind == PLACE_META || folder->kind == PLACE_META_REVISIONS)
        return meta_list(tree, caller, folder, out);
    int r = index ? media_index_list(index, ino, &caller->op, out, &f) : -ESTALE;
    return report_media(tree, folder->key.region, ino, NULL, r, &f);
}

int media_list_at(struct tree *tree, const struct caller *caller, const struct place *folder,
                  const struct media_name *name, bool plus, struct entry *entry)
{
    unsigned region = folder->key.region;
    *entry = (struct entry){
        .attr = {.st_ino = address_media(region, name->ino), .st_mode = name->folder ? S_IFDIR : S_IFREG}};
    if (folder->kind == PLACE_META || folder->kind == PLACE_META_REVISIONS) {
        entry->attr.st_ino = name->ino;
        return 0; /* with attributes each would be a query */
    }
    if (!plus)
        return 0;
    struct media_info info;
    struct fail f = {0};
    uint64_t ino = media_folder_ino(folder);
    int r = media_index_lookup(media_index(tree->media, region), ino, name->name, &caller->op, &info, &f);
    if (r < 0)
        return r == -ENOENT ? r : report_media(tree, region, ino, name->name, r, &f);
    entry_media(tree, region, &info, entry);
    media_info_clear(&info);
    return 0;
}

/* ---- open files ---- */

struct media_handle {
    struct media_reader *reader;
    uint64_t nodeid, ino;
    unsigned region;
};

static int opened_add(struct tree *tree, uint64_t nodeid, uint64_t ino, struct media_revision *revision)
{
    int r = 0;
    pthread_mutex_lock(&tree->lock);
    struct media_opened *opened = opened_find(tree, nodeid);
    if (!opened) {
        opened = calloc(1, sizeof *opened);
        r = opened ? map_add(&tree->media_opened, &opened->entry, map_hash_number(nodeid)) : -ENOMEM;
        if (r == 0) {
            opened->nodeid = nodeid;
            opened->ino = ino;
            opened->revision = media_revision_ref(revision);
        } else {
            free(opened);
            opened = NULL;
        }
    }
    if (opened)
        opened->handles++;
    pthread_mutex_unlock(&tree->lock);
    return r;
}

static void opened_drop(struct tree *tree, uint64_t nodeid)
{
    pthread_mutex_lock(&tree->lock);
    struct media_opened *opened = opened_find(tree, nodeid);
    bool last = opened && --opened->handles == 0;
    if (last)
        map_remove(&tree->media_opened, &opened->entry);
    pthread_mutex_unlock(&tree->lock);
    if (last) {
        media_revision_unref(opened->revision);
        free(opened);
    }
}

int media_open_revision(struct tree *tree, unsigned region, uint64_t nodeid, uint64_t ino,
                        struct media_revision *revision, struct media_handle **out, struct fail *f)
{
    struct media_handle *handle = calloc(1, sizeof *handle);
    if (!handle)
        return -ENOMEM;
    *handle = (struct media_handle){.nodeid = nodeid, .ino = ino, .region = region};
    int r = media_reader_open(media_chunks(tree->media), media_region(tree->media, region), revision,
                              &handle->reader, f);
    if (r == 0)
        r = opened_add(tree, nodeid, ino, revision);
    if (r < 0) {
        media_reader_close(handle->reader);
        free(handle);
        return r;
    }
    *out = handle;
    return 0;
}

/*
 * The revision of an outdated nodeid: what this thread's LOOKUP was told a moment ago, or, when the thread
 * cannot look it up again (a reopen through a descriptor), one that is open. A reference; NULL for -ESTALE.
 */
static struct media_revision *find_outdated(struct tree *tree, const struct caller *caller, unsigned region,
                                            uint64_t nodeid, uint64_t *ino)
{
    struct row_key key = media_note_key(region);
    struct note note = notes_take(tree->notes, caller->tid, &key);
    struct media_revision *revision = NULL;
    if (note.media && note.nodeid == nodeid) {
        revision = media_revision_ref(note.media);
        *ino = note.ino;
    } else if ((note.purpose != NOTE_NONE && !note.looked) || caller->tid == 0) {
        pthread_mutex_lock(&tree->lock);
        struct media_opened *opened = opened_find(tree, nodeid);
        revision = opened ? media_revision_ref(opened->revision) : NULL;
        *ino = opened ? opened->ino : 0;
        pthread_mutex_unlock(&tree->lock);
    }
    note_clear(tree->notes, &note);
    if (!revision)
        notes_leave(tree->notes, caller->tid, &key, NOTE_READ);
    return revision;
}

int media_open_file(struct tree *tree, const struct caller *caller, const struct place *place,
                    uint64_t nodeid, int flags, struct media_handle **handle, struct open_hints *hints)
{
    unsigned region = place->key.region;
    struct media_index *index = media_index(tree->media, region);
    struct media_info info = {0};
    struct fail f = {0};
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
        return -EROFS;
    int r = index ? media_index_file(index, place->number, &caller->op, &info, &f) : -ESTALE;
    if (r == -ESTALE) {
        info.revision = find_outdated(tree, caller, region, nodeid, &info.ino);
        r = info.revision ? 0 : r;
    }
    if (r == 0)
        r = media_open_revision(tree, region, nodeid, info.ino, info.revision, handle, &f);
    media_info_clear(&info);
    *hints = (struct open_hints){.keep_cache = true, .no_flush = true};
    return report_media(tree, region, MEDIA_ROOT, NULL, r, &f);
}

int media_read(struct tree *tree, const struct caller *caller, struct media_handle *handle, size_t size,
               off_t offset, struct chunk *chunk)
{
    struct fail f = {0};
    chunk->copy = recycle_get(size);
    if (!chunk->copy)
        return -ENOMEM;
    ssize_t n = media_reader_read(handle->reader, chunk->copy, size, offset, &caller->op, &f);
    if (n < 0) {
        free(chunk->copy);
        chunk->copy = NULL;
        return report_media(tree, handle->region, MEDIA_ROOT, media_reader_revision(handle->reader)->filename,
                            (int)n, &f);
    }
    chunk->data = chunk->copy;
    chunk->len = (size_t)n;
    return 0;
}

void media_release(struct tree *tree, struct media_handle *handle)
{
    if (!handle)
        return;
    opened_drop(tree, handle->nodeid);
    media_reader_close(handle->reader);
    free(handle);
}

uint64_t media_lock_key(const struct media_handle *handle)
{
    return address_media(handle->region, handle->ino);
}
