/*
 * Drafts of media: one writer's view of a file, from open to close.
 */
#include "tree/media_draft_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

#include "media/attributes.h"
#include "media/names.h"
#include "media/path.h"
#include "media/recycle.h"

/* What a writer may write on before the quota is looked at again. */
enum { GRANT_BYTES = 16 << 20 };

/* ---- making, finding ---- */

int media_draft_new(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                    const char *name, const struct media_info *info, mode_t mode, struct node **out)
{
    char path[MEDIA_FILENAME_MAX + 1];
    struct node *node;
    int r = media_index_path(media_index(tree->media, region), folder, name, path);
    if (r < 0)
        return r == -ESTALE ? -ENOENT : r;
    struct media_draft *draft = calloc(1, sizeof *draft);
    r = draft ? node_new_free(tree->nodes, NODE_FILE, &node) : -ENOMEM;
    if (r < 0) {
        free(draft);
        return r;
    }
    draft->node = node;
    draft->region = region;
    draft->course = media_path_course(path, media_path_name(path));
    draft->folder = folder;
    snprintf(draft->name, sizeof draft->name, "%s", name);
    node->media = draft;
    node->maker = caller_process(caller);
    node->mode = mode & 07777;
    node->uid = caller->uid;
    node->gid = caller->gid;
    draft->creates = !info;
    if (!info) {
        node->shown_ino = address_media(region, media_index_ino(media_index(tree->media, region), path));
    } else {
        struct stat attr;
        attr_media_file(tree, region, info->ino, info->revision, &attr);
        draft->base = media_revision_ref(info->revision);
        draft->granted = info->revision->length;
        node->shown_ino = attr.st_ino;
        node->mode = attr.st_mode & 07777;
        node->uid = attr.st_uid;
        node->gid = attr.st_gid;
        node->mtime = node->ctime = attr.st_mtim;
    }
    *out = node;
    return 0;
}

void media_draft_free(struct media_draft *draft)
{
    if (!draft)
        return;
    staged_free(draft->staged);
    media_reader_close(draft->reader);
    media_revision_unref(draft->base);
    free(draft);
}

int64_t media_draft_size(const struct node *node)
{
    const struct media_draft *draft = node->media;
    return draft->staged ? staged_length(draft->staged) : draft->base ? draft->base->length : 0;
}

struct node *media_draft_find(struct tree *tree, const struct caller *caller, unsigned region,
                              uint64_t folder, const char *name, bool *by_other)
{
    struct node *found = NULL;
    bool other = false;
    if (__atomic_load_n(&tree->nmedia_drafts, __ATOMIC_RELAXED) > 0) {
        struct process process = caller_process(caller);
        pthread_mutex_lock(&tree->lock);
        for (struct list_entry *e = tree->media_drafts; e && !found; e = e->next) {
            struct media_draft *draft = media_draft_at(e);
            if (!media_draft_is_at(draft, region, folder, name))
                continue;
            if (process_equal(draft->node->maker, process))
                found = draft->node;
            else
                other = other || draft->creates;
        }
        if (found)
            node_ref(tree->nodes, found);
        pthread_mutex_unlock(&tree->lock);
    }
    if (by_other)
        *by_other = other;
    return found;
}

/* ---- words ---- */

static int tell(struct tree *tree, struct node *node, int r, const struct fail *f)
{
    struct media_draft *draft = node->media;
    char name[NAME_MAX_BYTES + 1];
    if (r == 0 || !f->err || __atomic_exchange_n(&draft->told, true, __ATOMIC_RELAXED))
        return r;
    pthread_mutex_lock(&tree->lock);
    uint64_t folder = draft->folder;
    snprintf(name, sizeof name, "%s", draft->name);
    pthread_mutex_unlock(&tree->lock);
    return report_media(tree, draft->region, folder, name, r, f);
}

/* ---- quotas ---- */

void media_drafts_promised(const struct tree *tree, unsigned region, int64_t course,
                           const struct media_draft *but, int64_t *of_course, int64_t *of_region)
{
    for (struct list_entry *e = tree->media_drafts; e; e = e->next) {
        const struct media_draft *draft = media_draft_at(e);
        int64_t more = draft->granted - (draft->base ? draft->base->length : 0);
        if (draft == but || draft->region != region || more <= 0 || draft->nameless)
            continue;
        *of_region += more;
        *of_course += draft->course == course ? more : 0;
    }
}

/* How much of `length` a limit has room for, when what others have is `used`. */
static int64_t fitting(int64_t limit, int64_t used)
{
    return limit == 0 ? INT64_MAX : limit > used ? limit - used : 0;
}

void media_draft_belongs(const struct node *node, unsigned *region, int64_t *course)
{
    *region = node->media->region;
    *course = node->media->course;
}

/* Before a draft grows to `length`. */
static int grant(struct tree *tree, const struct caller *caller, struct media_draft *draft, int64_t length,
                 struct fail *f)
{
    const struct config *config = tree->config;
    int64_t course, region;
    size_t most = config->media_file_max;
    if (length > (int64_t)most)
        return fail_set(f, EFBIG, "a media file may have %zu bytes (media_file_max)", most);
    if (config->media_course_quota == 0 && config->media_region_quota == 0)
        return 0;
    pthread_mutex_lock(&tree->lock);
    bool granted = length <= draft->granted;
    int64_t own = draft->base ? draft->base->length : 0;
    pthread_mutex_unlock(&tree->lock);
    if (granted)
        return 0;
    int r = media_index_usage(media_index(tree->media, draft->region), draft->course, &caller->op, &course,
                              &region, f);
    if (r < 0)
        return r;
    pthread_mutex_lock(&tree->lock);
    media_drafts_promised(tree, draft->region, draft->course, draft, &course, &region);
    int64_t of_course = fitting((int64_t)config->media_course_quota, course - own);
    int64_t of_region = fitting((int64_t)config->media_region_quota, region - own);
    int64_t room = of_course < of_region ? of_course : of_region;
    if (length <= room)
        draft->granted = room - length > GRANT_BYTES ? length + GRANT_BYTES : length;
    pthread_mutex_unlock(&tree->lock);
    if (length <= room)
        return 0;
    return of_course <= of_region
               ? fail_set(f, ENOSPC, "course %lld has %lld of its %lld bytes of media (media_course_quota)",
                          (long long)draft->course, (long long)course, (long long)config->media_course_quota)
               : fail_set(f, ENOSPC, "the region has %lld of its %lld bytes of media (media_region_quota)",
                          (long long)region, (long long)config->media_region_quota);
}

/* ---- open and close ---- */

/* Under the node's lock. Cut: the base's bytes are not wanted. */
static int stage(struct tree *tree, struct media_draft *draft, bool cut)
{
    char path[MEDIA_FILENAME_MAX + 1];
    struct staging *staging = media_staging(tree->media);
    if (draft->staged)
        return 0;
    if (!staging)
        return -EROFS;
    pthread_mutex_lock(&tree->lock);
    int r = media_index_path(media_index(tree->media, draft->region), draft->folder, draft->name, path);
    pthread_mutex_unlock(&tree->lock);
    if (r < 0)
        snprintf(path, sizeof path, "%lld/", (long long)draft->course); /* the journal's only */
    return staged_new(staging, media_region(tree->media, draft->region), path, cut ? NULL : draft->base,
                      &draft->staged);
}

static int enlist(struct tree *tree, struct media_draft *draft)
{
    int r = 0;
    pthread_mutex_lock(&tree->lock);
    if (!draft->listed && tree->nmedia_drafts >= MEDIA_DRAFTS_MAX)
        r = -ENFILE;
    if (r == 0 && !draft->listed) {
        list_add(&tree->media_drafts, &draft->entry);
        draft->listed = true;
        __atomic_store_n(&tree->nmedia_drafts, tree->nmedia_drafts + 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&tree->lock);
    return r;
}

/* Under the node's lock: by the last close, or when the first open fails. */
static void end(struct tree *tree, struct node *node, struct staged **staged, struct media_reader **reader)
{
    struct media_draft *draft = node->media;
    pthread_mutex_lock(&tree->lock);
    if (draft->listed) {
        list_remove(&draft->entry);
        draft->listed = false;
        __atomic_store_n(&tree->nmedia_drafts, tree->nmedia_drafts - 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&tree->lock);
    node->draft.spent = true;
    *staged = STEAL(draft->staged);
    *reader = STEAL(draft->reader);
}

void media_draft_outdated(struct tree *tree, const struct caller *caller, const struct node *node)
{
    struct row_key key = media_note_key(node->media->region);
    notes_leave(tree->notes, caller->tid, &key, NOTE_WRITE); /* what may follow is an open, for either */
}

int media_draft_open(struct tree *tree, const struct caller *caller, struct node *node, int flags)
{
    struct media_draft *draft = node->media;
    bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    struct row_key key = media_note_key(draft->region);
    struct note note = notes_take(tree->notes, caller->tid, &key); /* what it came back for is done */
    struct staged *staged = NULL;
    struct media_reader *reader = NULL;
    struct fail f = {0};
    note_clear(tree->notes, &note);
    pthread_mutex_lock(&node->lock);
    int r = node->draft.spent ? -ESTALE : enlist(tree, draft);
    bool fresh = !draft->staged;
    if (r == 0 && (writes || draft->creates))
        r = stage(tree, draft, flags & O_TRUNC);
    else if (r == 0 && fresh && !draft->reader)
        r = media_reader_open(media_chunks(tree->media), media_region(tree->media, draft->region),
                              draft->base, &draft->reader, &f);
    if (r == 0)
        node->handles++;
    else if (node->handles == 0 && !node->draft.spent)
        end(tree, node, &staged, &reader);
    if (r == 0 && fresh && (flags & O_TRUNC) && draft->base) {
        node->draft.dirty = true;
        node->draft.version++;
        draft->cut_by_open = true;
        clock_gettime(CLOCK_REALTIME, &node->mtime);
        node->mtime_set = false;
    }
    pthread_mutex_unlock(&node->lock);
    staged_free(staged);
    media_reader_close(reader);
    if (r == -ESTALE) /* closed between the LOOKUP and this */
        media_draft_outdated(tree, caller, node);
    if (r == 0 && !fresh && (flags & O_TRUNC)) {
        struct change change = {.size = true};
        r = media_draft_set(tree, caller, node, &change);
        if (r < 0)
            media_draft_close(tree, caller, node);
    }
    return tell(tree, node, r, &f);
}

void media_draft_close(struct tree *tree, const struct caller *caller, struct node *node)
{
    struct staged *staged = NULL;
    struct media_reader *reader = NULL;
    pthread_mutex_lock(&node->lock);
    bool last = node->handles == 1;
    pthread_mutex_unlock(&node->lock);
    if (last)
        media_draft_commit(tree, caller, node, DRAFT_RELEASE);
    pthread_mutex_lock(&node->lock);
    if (--node->handles == 0)
        end(tree, node, &staged, &reader);
    pthread_mutex_unlock(&node->lock);
    staged_free(staged);
    media_reader_close(reader);
}

/* ---- bytes ---- */

int media_draft_read(struct tree *tree, const struct caller *caller, struct node *node, size_t size,
                     off_t offset, struct chunk *chunk)
{
    struct media_draft *draft = node->media;
    struct fail f = {0};
    chunk->copy = recycle_get(size);
    if (!chunk->copy)
        return -ENOMEM;
    pthread_mutex_lock(&node->lock);
    struct staged *staged = draft->staged; /* both live as long as a handle */
    struct media_reader *reader = draft->reader;
    pthread_mutex_unlock(&node->lock);
    int r = 0;
    if (staged) {
        r = staged_read(staged, chunk->copy, size, offset, &chunk->len, &caller->op, &f);
    } else if (reader) {
        ssize_t n = media_reader_read(reader, chunk->copy, size, offset, &caller->op, &f);
        r = n < 0 ? (int)n : 0;
        chunk->len = n < 0 ? 0 : (size_t)n;
    }
    if (r < 0) { /* nobody takes what was not read */
        free(chunk->copy);
        chunk->copy = NULL;
    }
    chunk->data = chunk->copy ? chunk->copy : "";
    return tell(tree, node, r, &f);
}

/* Under the node's lock: its content is another now. */
static void changed(const struct caller *caller, struct node *node)
{
    clock_gettime(CLOCK_REALTIME, &node->mtime);
    node->ctime = node->mtime;
    node->mtime_set = false;
    node->draft.dirty = true;
    node->draft.version++;
    node->draft.writer = caller_process(caller);
    node->media->cut_by_open = false;
}

/* Under no lock: the staged file of a node that is open for writing, or about to be changed by path. */
static int staged_of(struct tree *tree, struct node *node, struct staged **out)
{
    pthread_mutex_lock(&node->lock);
    int r = node->draft.spent ? -ESTALE : stage(tree, node->media, false);
    *out = node->media->staged;
    pthread_mutex_unlock(&node->lock);
    return r;
}

static int finish_change(struct tree *tree, const struct caller *caller, struct node *node, int r,
                         const struct fail *f)
{
    if (r < 0)
        return tell(tree, node, r, f);
    pthread_mutex_lock(&node->lock);
    changed(caller, node);
    pthread_mutex_unlock(&node->lock);
    return 0;
}

int media_draft_write(struct tree *tree, const struct caller *caller, struct node *node, const char *data,
                      size_t len, off_t offset)
{
    struct staged *staged;
    struct fail f = {0};
    int r = staged_of(tree, node, &staged);
    if (r < 0)
        return r;
    int64_t at = offset < 0 ? staged_length(staged) : offset;
    if (at + (int64_t)len > staged_length(staged))
        r = grant(tree, caller, node->media, at + (int64_t)len, &f);
    if (r == 0)
        r = staged_write(staged, data, len, at, &caller->op, &f);
    return finish_change(tree, caller, node, r, &f);
}

static int resize(struct tree *tree, const struct caller *caller, struct node *node, int64_t size)
{
    struct staged *staged;
    struct fail f = {0};
    int r = staged_of(tree, node, &staged);
    if (r == 0 && size > staged_length(staged))
        r = grant(tree, caller, node->media, size, &f);
    if (r == 0)
        r = staged_truncate(staged, size, &caller->op, &f);
    return finish_change(tree, caller, node, r, &f);
}

int media_draft_allocate(struct tree *tree, const struct caller *caller, struct node *node, int mode,
                         off_t offset, off_t len)
{
    struct staged *staged;
    struct fail f = {0};
    bool zeros = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
    if (mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        return -EOPNOTSUPP;
    int r = staged_of(tree, node, &staged);
    if (r < 0)
        return r;
    int64_t end = offset + len, length = staged_length(staged);
    if (zeros)
        r = staged_zero(staged, offset, len, &caller->op, &f);
    if (r == 0 && end > length && !(mode & FALLOC_FL_KEEP_SIZE)) {
        r = grant(tree, caller, node->media, end, &f);
        if (r == 0)
            r = staged_truncate(staged, end, &caller->op, &f);
        zeros = true;
    }
    return r == 0 && !zeros ? 0 : finish_change(tree, caller, node, r, &f);
}

int media_draft_sync(struct tree *tree, const struct caller *caller, struct node *node)
{
    struct staged *staged;
    struct fail f = {0};
    pthread_mutex_lock(&node->lock);
    staged = node->media->staged;
    pthread_mutex_unlock(&node->lock);
    return staged ? tell(tree, node, staged_sync(staged, &caller->op, &f), &f) : 0;
}

/* ---- publishing ---- */

struct commit {
    struct tree *tree;
    const struct caller *caller;
    struct media_draft *draft;
    struct staged_meta meta;
    struct media_attributes attributes;
    bool content, creates;
    uint64_t folder;
    char name[NAME_MAX_BYTES + 1];
    char path[MEDIA_FILENAME_MAX + 1];
    struct media_revision *published; /* a reference */
    struct fail *f;
};

/* Under the node's lock: what is to be published, as it is now. */
static void commit_prepare(struct commit *commit, struct node *node)
{
    struct media_draft *draft = node->media;
    commit->content = node->draft.dirty || draft->creates;
    commit->creates = draft->creates;
    commit->meta = (struct staged_meta){.course_id = draft->course,
                                        .mtime_ns = ns_of_timespec(node->mtime),
                                        .mode = node->mode,
                                        .uid = node->uid,
                                        .gid = node->gid};
    commit->attributes = (struct media_attributes){.set_mtime = true,
                                                   .set_mode = true,
                                                   .set_uid = true,
                                                   .set_gid = true,
                                                   .mtime_ns = commit->meta.mtime_ns,
                                                   .mode = node->mode,
                                                   .uid = node->uid,
                                                   .gid = node->gid};
}

/* The number of the revision behind all that the file has. */
static int64_t next_number(struct media_index *index, const struct media_info *info)
{
    CLEANUP(media_revisions_clear) struct media_revisions revisions = {0};
    if (info->revision && media_index_revisions(index, info->node, &revisions) == 0 && revisions.n)
        return revisions.numbers[0] + 1;
    return info->revision ? info->revision->number + 1 : 1;
}

/* The folder may have been renamed since its path was looked up. Where the file cannot follow it lies under
 * the old path, and is shown there. */
static void follow(struct commit *commit)
{
    struct tree *tree = commit->tree;
    unsigned region = commit->draft->region;
    struct media_revision *renamed = NULL;
    struct fail f = {0};
    char path[MEDIA_FILENAME_MAX + 1];
    if (media_index_path(media_index(tree->media, region), commit->folder, commit->name, path) < 0 ||
        strcmp(path, commit->path) == 0)
        return;
    if (media_follow_folder(tree->media, region, commit->published, path, &commit->caller->op, &renamed, &f) <
        0)
        return;
    media_revision_unref(commit->published);
    commit->published = renamed;
}

static int publish(struct commit *commit)
{
    struct media_index *index = media_index(commit->tree->media, commit->draft->region);
    const char *region = media_region(commit->tree->media, commit->draft->region);
    const struct op *op = &commit->caller->op;
    struct media_info info = {0};
    int r = media_index_path(index, commit->folder, commit->name, commit->path);
    if (r < 0)
        return r == -ESTALE ? fail_set(commit->f, ENOENT, "its folder has been removed") : r;
    r = media_index_lookup(index, commit->folder, commit->name, op, &info, commit->f);
    if (r == 0 && info.folder) {
        media_info_clear(&info);
        return fail_set(commit->f, EISDIR, "its name has become that of a folder");
    }
    if (r == -EINTR)
        return r;
    if (r < 0 &&
        r != -ENOENT) /* it tells by itself whether the server is there; a mount that ends still saves */
        info.revision = media_revision_ref(commit->draft->base);
    *commit->f = (struct fail){0};
    commit->meta.filename = commit->path;
    commit->meta.number = next_number(index, &info);
    if (commit->content) {
        r = staged_publish(commit->draft->staged, &commit->meta, op, &commit->published, commit->f);
    } else if (commit->draft->base) {
        r = media_set_attributes(media_mongo(commit->tree->media), region, commit->draft->base,
                                 &commit->attributes, op, &commit->published, commit->f);
        r = r == -ESTALE ? 0 : r; /* replaced by somebody else meanwhile */
    }
    if (r == 0 && commit->published) {
        media_index_put(index, commit->published);
        follow(commit);
        if (!info.revision)
            media_index_touched(index, commit->folder);
    }
    media_info_clear(&info);
    return r < 0 ? fail_set(commit->f, -r, "cannot publish the file") : 0;
}

/* Under the node's lock: the file is what was published. */
static void commit_taken(struct commit *commit, struct node *node, uint64_t version)
{
    struct media_draft *draft = node->media;
    struct media_info info;
    bool same = node->draft.version == version;
    pthread_mutex_lock(&commit->tree->lock);
    if (commit->published) {
        media_revision_unref(draft->base);
        draft->base = STEAL(commit->published);
        draft->granted = draft->base->length;
    }
    draft->creates = false;
    pthread_mutex_unlock(&commit->tree->lock);
    node->draft.dirty = node->draft.dirty && !same;
    draft->attributes = draft->attributes && !same;
    draft->cut_by_open = false;
    __atomic_store_n(&draft->told, false, __ATOMIC_RELAXED);
    struct media_index *index = media_index(commit->tree->media, draft->region);
    if (commit->creates &&
        media_index_lookup(index, commit->folder, commit->name, &commit->caller->op, &info, NULL) == 0) {
        node->shown_ino = address_media(draft->region, info.ino);
        media_info_clear(&info);
    }
}

/* Under the node's lock, which it lets go. */
static int commit_now(struct tree *tree, const struct caller *caller, struct node *node)
{
    struct media_draft *draft = node->media;
    struct fail f = {0};
    struct commit commit = {.tree = tree, .caller = caller, .draft = draft, .f = &f};
    uint64_t version = node->draft.version;
    int r = stage(tree, draft, false);
    if (r < 0)
        return r;
    commit_prepare(&commit, node);
    pthread_mutex_lock(&tree->lock);
    commit.folder = draft->folder;
    snprintf(commit.name, sizeof commit.name, "%s", draft->name);
    pthread_mutex_unlock(&tree->lock);
    node->draft.committing = true;
    pthread_mutex_unlock(&node->lock);
    r = publish(&commit);
    if (r < 0)
        tell(tree, node, r, &f);
    pthread_mutex_lock(&node->lock);
    node->draft.committing = false;
    pthread_cond_broadcast(&node->settled);
    if (r == 0) {
        commit_taken(&commit, node, version);
    } else {
        node->draft.refused = version;
        node->draft.refused_err = -r;
    }
    return r;
}

/* Under the node's lock: whether a flush may wait for what comes. A shell closes its copy of a descriptor
 * that O_TRUNC emptied before the command writes; nobody need see an empty file then. */
static bool may_come_later(struct node *node, enum draft_trigger trigger)
{
    struct media_draft *draft = node->media;
    bool later = trigger == DRAFT_FLUSH && draft->cut_by_open && !draft->creates;
    draft->cut_by_open = false;
    return later;
}

int media_draft_commit(struct tree *tree, const struct caller *caller, struct node *node,
                       enum draft_trigger trigger)
{
    struct media_draft *draft = node->media;
    pthread_mutex_lock(&node->lock);
    int r = draft_wait_settled(node, &caller->op);
    pthread_mutex_lock(&tree->lock);
    bool nameless = draft->nameless;
    pthread_mutex_unlock(&tree->lock);
    bool needed = node->draft.dirty || draft->attributes || draft->creates;
    if (r == 0 && needed && !nameless && !node->draft.spent) {
        bool refused = node->draft.refused && node->draft.refused == node->draft.version;
        if (refused && trigger == DRAFT_RELEASE)
            r = 0;
        else if (refused && node->draft.refused_err != EINTR) /* who was killed may not have been the last */
            r = -node->draft.refused_err;
        else if (!may_come_later(node, trigger))
            r = commit_now(tree, caller, node);
    }
    pthread_mutex_unlock(&node->lock);
    return r;
}

/* ---- attributes ---- */

/* Under the node's lock. */
static void set_attributes(struct node *node, const struct change *change)
{
    if (change->mode)
        node->mode = change->to.st_mode & 07777;
    if (change->set_uid)
        node->uid = change->to.st_uid;
    if (change->set_gid)
        node->gid = change->to.st_gid;
    if (change->mtime) {
        node->mtime = change->to.st_mtim;
        node->mtime_set = true;
    }
    if (change->mode || change->set_uid || change->set_gid || change->mtime) {
        node->media->attributes = true;
        node->draft.version++;
    }
    clock_gettime(CLOCK_REALTIME, &node->ctime);
}

int media_draft_set(struct tree *tree, const struct caller *caller, struct node *node,
                    const struct change *change)
{
    int r = 0;
    pthread_mutex_lock(&node->lock);
    bool by_path = node->handles == 0, spent = node->draft.spent;
    pthread_mutex_unlock(&node->lock);
    if (by_path && !spent) { /* nobody will close it */
        r = media_draft_open(tree, caller, node, O_WRONLY);
        if (r < 0)
            return r;
    }
    if (change->size)
        r = resize(tree, caller, node, change->to.st_size);
    if (r == 0) {
        pthread_mutex_lock(&node->lock);
        set_attributes(node, change);
        pthread_mutex_unlock(&node->lock);
    }
    if (by_path && !spent) {
        if (r == 0)
            r = media_draft_commit(tree, caller, node, DRAFT_ATTRIBUTES);
        media_draft_close(tree, caller, node);
    }
    return r;
}
