/*
 * How writing media begins: creating names, the walk of the kernel to a draft (docs/architecture.md,
 * "Revisions and drafts"), attributes by path.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "media/attributes.h"
#include "media/path.h"
#include "tree/media_draft.h"

/* ---- create ---- */

/* A name that exists, or is being made by another process, for O_CREAT. */
static int create_over(struct tree *tree, const struct caller *caller, const struct place *folder,
                       const char *name, const struct media_info *info, mode_t mode, int flags,
                       struct node **out)
{
    uint64_t ino = media_folder_ino(folder);
    if (info && (flags & O_EXCL))
        return -EEXIST;
    if (info && info->folder)
        return -EISDIR;
    return media_draft_new(tree, caller, folder->key.region, ino, name, info, mode, out);
}

/* Whether a name may be that of a file in this folder. */
static int check_name(const struct place *folder, const char *name, struct fail *f)
{
    if (folder->kind == PLACE_MEDIA)
        return fail_set(f, EPERM, "courses' folders alone lie in media/");
    return strcmp(name, ".meta") == 0 ? fail_set(f, EPERM, "the name .meta is taken") : 0;
}

int media_create(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name,
                 mode_t mode, int flags, struct node **out)
{
    unsigned region = folder->key.region;
    uint64_t ino = media_folder_ino(folder);
    struct media_index *index = media_index(tree->media, region);
    struct media_info info;
    struct fail f = {0};
    bool by_other;
    if (tree->config->read_only)
        return -EROFS;
    int r = index ? check_name(folder, name, &f) : -ENOENT;
    if (r < 0)
        return report_media(tree, region, ino, name, r, &f);
    struct node *own = media_draft_find(tree, caller, region, ino, name, &by_other);
    if (own) {
        *out = own;
        if (!(flags & O_EXCL))
            return 0;
        node_unref(tree->nodes, own);
        return -EEXIST;
    }
    r = media_index_lookup(index, ino, name, &caller->op, &info, &f);
    if (r == -ENOENT && by_other && (flags & O_EXCL))
        return -EEXIST;
    if (r < 0 && r != -ENOENT)
        return report_media(tree, region, ino, name, r, &f);
    bool exists = r == 0;
    r = create_over(tree, caller, folder, name, exists ? &info : NULL, mode, flags, out);
    if (exists)
        media_info_clear(&info);
    if (r == -EILSEQ)
        fail_set(&f, EILSEQ, "a name of media has to be UTF-8");
    return report_media(tree, region, ino, name, r, &f);
}

/* ---- the walk ---- */

static void answer(struct tree *tree, struct node *node, struct entry *entry)
{
    entry_node(tree, node, entry);
    node_unref(tree->nodes, node);
}

static bool is_spent(struct node *node)
{
    pthread_mutex_lock(&node->lock);
    bool spent = node->draft.spent;
    pthread_mutex_unlock(&node->lock);
    return spent;
}

int media_lookup_draft(struct tree *tree, const struct caller *caller, const struct place *folder,
                       const char *name, const struct media_info *info, struct entry *entry, bool *found)
{
    unsigned region = folder->key.region;
    uint64_t ino = media_folder_ino(folder);
    struct node *node = media_draft_find(tree, caller, region, ino, name, NULL);
    struct row_key key = media_note_key(region);
    struct note note = {0};
    int r = 0;
    if (!node && info) {
        note = notes_find(tree->notes, caller->tid, &key);
        if (note.purpose == NOTE_WRITE && note.node && note.ino == info->ino && !is_spent(note.node)) {
            node = note.node;
            node_ref(tree->nodes, node);
        } else if (note.purpose == NOTE_WRITE) {
            r = media_draft_new(tree, caller, region, ino, name, info, 0, &node);
        }
        note_clear(tree->notes, &note);
    }
    *found = r < 0 || node;
    if (node) {
        notes_answered(tree->notes, caller->tid, &key, node, NULL);
        notes_answered_media(tree->notes, caller->tid, &key, node->nodeid, info ? info->ino : 0, NULL);
        answer(tree, node, entry);
    }
    return r;
}

/* Takes what the thread came for; whether it could not look the name up again. */
static bool came_back(struct tree *tree, const struct caller *caller, unsigned region)
{
    struct row_key key = media_note_key(region);
    struct note note = notes_take(tree->notes, caller->tid, &key);
    bool back = note.purpose == NOTE_WRITE && !note.looked;
    note_clear(tree->notes, &note);
    return back || caller->tid == 0;
}

static int come_back(struct tree *tree, const struct caller *caller, unsigned region)
{
    struct row_key key = media_note_key(region);
    notes_leave(tree->notes, caller->tid, &key, NOTE_WRITE);
    return -ESTALE;
}

/* A draft of the file that has this revision, or had it. */
static int draft_in_place(struct tree *tree, const struct caller *caller, const struct place *place,
                          struct node **out)
{
    unsigned region = place->key.region;
    struct media_index *index = media_index(tree->media, region);
    struct media_info info;
    struct fail f = {0};
    char name[NAME_MAX_BYTES + 1];
    uint64_t folder;
    int r = media_index_file(index, place->number, &caller->op, &info, &f);
    if (r < 0)
        return report_media(tree, region, MEDIA_ROOT, NULL, r, &f);
    r = media_index_place(index, place->number, &folder, name);
    if (r == 0)
        r = media_draft_new(tree, caller, region, folder, name, &info, 0, out);
    media_info_clear(&info);
    return r;
}

int media_open_writing(struct tree *tree, const struct caller *caller, const struct place *place,
                       struct node **out)
{
    if (tree->config->read_only)
        return -EROFS;
    if (!came_back(tree, caller, place->key.region))
        return come_back(tree, caller, place->key.region);
    return draft_in_place(tree, caller, place, out);
}

/* ---- setattr ---- */

static int set_published(struct tree *tree, const struct caller *caller, const struct place *place,
                         const struct change *change, struct stat *attr)
{
    unsigned region = place->key.region;
    struct media_index *index = media_index(tree->media, region);
    struct media_revision *revision CLEANUP(media_revision_unrefp) = NULL;
    struct media_info info;
    struct fail f = {0};
    struct media_attributes attributes = {.set_mtime = change->mtime,
                                          .set_mode = change->mode,
                                          .set_uid = change->set_uid,
                                          .set_gid = change->set_gid,
                                          .mode = change->to.st_mode,
                                          .uid = change->to.st_uid,
                                          .gid = change->to.st_gid};
    attributes.mtime_ns = ns_of_timespec(change->to.st_mtim);
    int r = media_index_file(index, place->number, &caller->op, &info, &f);
    if (r < 0)
        return report_media(tree, region, MEDIA_ROOT, NULL, r, &f);
    r = media_set_attributes(media_mongo(tree->media), media_region(tree->media, region), info.revision,
                             &attributes, &caller->op, &revision, &f);
    if (r == 0) {
        media_index_put(index, revision);
        attr_media_file(tree, region, info.ino, revision, attr);
    }
    report_media(tree, region, MEDIA_ROOT, info.revision->filename, r, &f);
    media_info_clear(&info);
    return r;
}

static int set_size(struct tree *tree, const struct caller *caller, const struct place *place,
                    const struct change *change, struct stat *attr)
{
    struct node *node;
    int r = draft_in_place(tree, caller, place, &node);
    if (r < 0)
        return r;
    r = media_draft_set(tree, caller, node, change);
    if (r == 0)
        attr_node(node, attr);
    node_unref(tree->nodes, node);
    return r;
}

int media_setattr(struct tree *tree, const struct caller *caller, const struct place *place, uint64_t nodeid,
                  bool by_handle, const struct change *change, struct stat *attr, int64_t *attr_ms)
{
    *attr_ms = 0;
    if (tree->config->read_only)
        return -EROFS;
    if (change->size) {
        bool back = came_back(tree, caller, place->key.region);
        return by_handle || back ? set_size(tree, caller, place, change, attr)
                                 : come_back(tree, caller, place->key.region);
    }
    if (!change->mtime && !change->mode && !change->set_uid && !change->set_gid)
        return media_getattr(tree, caller, place, nodeid, attr, attr_ms);
    return set_published(tree, caller, place, change, attr);
}
