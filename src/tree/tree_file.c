/*
 * Open files: a reader keeps the revision that it opened, a writer has a draft, scratch files are themselves.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "media/recycle.h"
#include "tree/media_draft.h"
#include "tree/tree_by.h"
#include "tree/tree_meta.h"

struct handle {
    struct document *document;  /* a reference: a revision that is read; NULL for all else */
    uint64_t revision;          /* the nodeid it was opened on: a revision's; 0 for all else */
    struct node *node;          /* a reference: a draft, scratch file or text; NULL for a revision */
    struct media_handle *media; /* owned: a file of media; NULL for all else */
    struct export *export;      /* owned: an .export.jsonl, whose nodeid is lock_key; NULL for all else */
    struct process opener;
    pid_t opener_tid; /* the thread of it that opened the file; 0 = of another pid namespace */
    uid_t uid;        /* the opener's: a release does not say whose it is */
    gid_t gid;
    bool writes;
    uint64_t lock_key;      /* atomic: the file that its locks are on, 0 before the first */
    struct list_entry open; /* in tree->handles; under tree->lock */
};

const struct document *handle_document(const struct handle *handle)
{
    return handle->document;
}

struct node *handle_node(const struct handle *handle)
{
    return handle ? handle->node : NULL;
}

static int handle_new(struct tree *tree, const struct caller *caller, struct node *node, int flags,
                      struct handle **out)
{
    struct handle *handle = calloc(1, sizeof *handle);
    if (!handle)
        return -ENOMEM;
    handle->writes = (flags & O_ACCMODE) != O_RDONLY;
    if (node && node->media &&
        flags & (O_CREAT | O_TRUNC)) /* the close publishes, whatever it was opened for */
        handle->writes = true;
    handle->uid = caller->uid;
    handle->gid = caller->gid;
    handle->opener_tid = caller->tid;
    if (handle->writes) /* asking costs more than all else that a reader needs */
        handle->opener = caller_process(caller);
    if (node) {
        node_ref(tree->nodes, node);
        handle->node = node;
        int r = node->media ? media_draft_open(tree, caller, node, flags) : 0;
        pthread_mutex_lock(&node->lock);
        if (r == 0 && !node->media && node->draft.active && node->draft.spent)
            r = -ESTALE;                              /* by now */
        if (r == 0 && handle->writes && !node->media) /* to read is no matter of room */
            r = node_charge(tree->nodes, node);
        node->handles += r == 0 && !node->media;
        pthread_mutex_unlock(&node->lock);
        if (r < 0) {
            node_unref(tree->nodes, node);
            free(handle);
            return r;
        }
    }
    pthread_mutex_lock(&tree->lock);
    list_add(&tree->handles, &handle->open);
    pthread_mutex_unlock(&tree->lock);
    *out = handle;
    return 0;
}

/* A change of content is noted, under the node's lock. */
static void content_changed(struct node *node, const struct process *writer)
{
    clock_gettime(CLOCK_REALTIME, &node->mtime);
    node->ctime = node->mtime;
    node->mtime_set = false;
    node->draft.version++;
    if (!node->draft.active)
        return;
    node->draft.dirty = true;
    if (writer)
        node->draft.writer = *writer;
}

int truncate_node(struct tree *tree, struct node *node, size_t size, const struct process *writer)
{
    if (size == node->content.len && size != 0)
        return 0;
    int r = node->draft.active ? 0 : node_charge(tree->nodes, node); /* a refused text is to be mended */
    if (r == 0)
        r = node_resize(tree->nodes, node, size);
    if (r < 0)
        return r;
    content_changed(node, writer);
    node->draft.in_order = size == 0;
    node->draft.judged = 0;
    if (size == 0)
        node->draft.broken = 0;
    return 0;
}

static int open_revision(struct tree *tree, const struct caller *caller, uint64_t nodeid,
                         struct document *document, struct handle **handle, struct open_hints *hints)
{
    int r = handle_new(tree, caller, NULL, O_RDONLY, handle);
    if (r < 0)
        return r;
    r = revision_opened(tree, nodeid, document);
    if (r < 0) {
        tree_release(tree, caller, *handle);
        return r;
    }
    (*handle)->document = document_ref(document);
    (*handle)->revision = nodeid;
    *hints = (struct open_hints){.keep_cache = true, .no_flush = true};
    return 0;
}

/* A reopen that cannot look the name up again gets a draft on the revision itself: past the page cache. */
static int open_in_place(struct tree *tree, const struct caller *caller, const struct row_key *key,
                         uint64_t nodeid, int flags, struct handle **handle, struct open_hints *hints)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    struct node *node;
    int r = draft_now(tree, caller, key, &document, &node);
    if (r < 0)
        return r;
    r = handle_new(tree, caller, node, flags, handle);
    if (r == 0 && document &&
        revision_opened(tree, nodeid, document) == 0) /* so that fstat() of it is answered */
        (*handle)->revision = nodeid;
    if (r == 0 && (flags & O_TRUNC)) {
        pthread_mutex_lock(&node->lock);
        truncate_node(tree, node, 0, NULL);
        pthread_mutex_unlock(&node->lock);
    }
    node_unref(tree->nodes, node);
    *hints = (struct open_hints){.direct_io = true};
    return r;
}

/*
 * Reading: the newest revision, or the one that this thread's LOOKUP was just told. Anything else is ESTALE,
 * on which the kernel looks the name up again.
 */
static int open_for_reading(struct tree *tree, const struct caller *caller, const struct place *place,
                            uint64_t nodeid, struct handle **handle, struct open_hints *hints)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    struct note note = notes_take(tree->notes, caller->tid, &place->key);
    if (note.document && address_is_revision(place, revision_mark(&note.document->revision)))
        document = document_ref(note.document);
    bool came_back = note.purpose != NOTE_NONE && !note.looked;
    note_clear(tree->notes, &note);
    struct fail f = {0};
    int r = document ? 0 : store_get(tree->store, &place->key, &caller->op, &document, &f);
    if (r < 0 && r != -ENOENT && f.err) {
        char path[320];
        path_of_row(tree, &place->key, path, sizeof path);
        if (r != -EINTR)
            report_add(tree->report, path, &f);
        return r;
    }
    if (r == 0 && address_is_revision(place, revision_mark(&document->revision)))
        return open_revision(tree, caller, nodeid, document, handle, hints);
    if (came_back || caller->tid == 0) {
        /* No way to look the name up again (a reopen through a descriptor): what was opened once, if it is
         * known. */
        document_unref(document);
        document = NULL;
        pthread_mutex_lock(&tree->lock);
        struct open_revision *open = revision_find(tree, nodeid);
        document = open ? document_ref(open->document) : NULL;
        pthread_mutex_unlock(&tree->lock);
        return document ? open_revision(tree, caller, nodeid, document, handle, hints)
                        : open_in_place(tree, caller, &place->key, nodeid, O_RDONLY, handle, hints);
    }
    notes_leave(tree->notes, caller->tid, &place->key, NOTE_READ);
    return -ESTALE;
}

static int open_for_writing(struct tree *tree, const struct caller *caller, const struct place *place,
                            uint64_t nodeid, int flags, struct handle **handle, struct open_hints *hints)
{
    if (tree->config->read_only)
        return -EROFS;
    struct note note = notes_take(tree->notes, caller->tid, &place->key);
    bool came_back = note.purpose == NOTE_WRITE && !note.looked;
    note_clear(tree->notes, &note);
    if (came_back || caller->tid == 0)
        return open_in_place(tree, caller, &place->key, nodeid, flags, handle, hints);
    notes_leave(tree->notes, caller->tid, &place->key, NOTE_WRITE);
    return -ESTALE;
}

/* .next-id: reading it takes an id. */
static int open_next_id(struct tree *tree, const struct caller *caller, const struct place *place, int flags,
                        struct handle **handle, struct open_hints *hints)
{
    int64_t id;
    char text[32];
    struct fail f = {0};
    if ((flags & O_ACCMODE) != O_RDONLY)
        return -EACCES;
    int r = store_next_id(tree->store, place->key.collection, place->key.region, &caller->op, &id, &f);
    if (r < 0) {
        char path[NAME_MAX_BYTES + 320];
        path_of_name(tree, &place->key, ".next-id", path, sizeof path);
        if (r != -EINTR)
            report_add(tree->report, path, &f);
        return r;
    }
    struct node *node;
    r = node_new_free(tree->nodes, NODE_TEXT, &node);
    if (r < 0)
        return r;
    snprintf(text, sizeof text, "%lld\n", (long long)id);
    r = node_write(tree->nodes, node, text, strlen(text), 0);
    if (r == 0)
        r = handle_new(tree, caller, node, O_RDONLY, handle);
    node_unref(tree->nodes, node);
    *hints = (struct open_hints){.direct_io = true, .no_flush = true};
    return r;
}

/* A draft that has given its text back. */
static int open_spent(struct tree *tree, const struct caller *caller, const struct node *node,
                      const struct row_key *key, bool is_final, int flags, struct handle **handle,
                      struct open_hints *hints)
{
    bool writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
    if (writes && tree->config->read_only)
        return -EROFS;
    if (is_final)
        return open_in_place(tree, caller, key, node->nodeid, flags, handle, hints);
    notes_leave(tree->notes, caller->tid, key, writes ? NOTE_WRITE : NOTE_READ);
    return -ESTALE;
}

static int open_node(struct tree *tree, const struct caller *caller, uint64_t nodeid, int flags,
                     struct handle **handle, struct open_hints *hints)
{
    struct node *node = node_get(tree->nodes, nodeid);
    struct media_handle *media = NULL;
    bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (!node)
        return -ESTALE;
    int r = node->kind == NODE_FOLDER                                ? -EISDIR
            : node->kind == NODE_TEXT && (writes || flags & O_TRUNC) ? -EACCES
                                                                     : 0;
    pthread_mutex_lock(&node->lock);
    struct row_key key = node->draft.key;
    bool draft = node->draft.active;
    bool listed = draft && node->draft.listed;
    if (draft && (node->draft.spent || listed))
        r = -ESTALE;
    node->draft.listed = false; /* who cannot look again has this one */
    if (r == 0 && draft && writes && key.collection == COLLECTION_MEDIA && tree->config->read_only)
        r = -EROFS;
    if (r == 0 && (flags & O_TRUNC) && !node->media)
        r = truncate_node(tree, node, 0, NULL);
    pthread_mutex_unlock(&node->lock);
    bool is_final = draft && draft_is_final(tree, caller, node, &key);
    if (listed)
        meta_pages_opened(tree, caller);
    if (r == 0 && node->older)
        r = meta_open_older(tree, node, &media);
    if (r == 0)
        r = handle_new(tree, caller, node, flags, handle);
    if (r < 0)
        media_release(tree, media);
    else
        (*handle)->media = media;
    *hints = (struct open_hints){.no_flush = r == 0 && !(*handle)->writes};
    if (r == -ESTALE && draft && !listed && !node->media)
        r = open_spent(tree, caller, node, &key, is_final, flags, handle, hints);
    node_unref(tree->nodes, node);
    return r;
}

/* A deleted row is read only; what would change it goes through its name (mv, rm). */
static int open_deleted(struct tree *tree, const struct caller *caller, const struct place *place,
                        uint64_t nodeid, int flags, struct handle **handle, struct open_hints *hints)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
        return -EACCES;
    int r = deleted_open(tree, caller, place, &document);
    return r < 0 ? r : open_revision(tree, caller, nodeid, document, handle, hints);
}

static int open_media(struct tree *tree, const struct caller *caller, const struct place *place,
                      uint64_t nodeid, int flags, struct handle **handle, struct open_hints *hints)
{
    struct media_handle *media = NULL;
    struct node *node = NULL;
    bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    int r = !tree->media ? -ESTALE
            : writes     ? media_open_writing(tree, caller, place, &node)
                         : media_open_file(tree, caller, place, nodeid, flags, &media, hints);
    if (r == 0)
        r = handle_new(tree, caller, node, flags, handle);
    node_unref(tree->nodes, node);
    if (writes) {
        *hints = (struct open_hints){.direct_io = true};
        return r;
    }
    if (r < 0)
        media_release(tree, media);
    else
        (*handle)->media = media;
    return r;
}

static int open_export(struct tree *tree, const struct caller *caller, const struct place *place,
                       uint64_t nodeid, int flags, struct handle **handle, struct open_hints *hints)
{
    struct export *export;
    int r = export_open_file(tree, place, flags, &export, hints);
    if (r < 0)
        return r;
    r = handle_new(tree, caller, NULL, O_RDONLY, handle);
    if (r < 0) {
        export_close(export);
        return r;
    }
    (*handle)->export = export;
    (*handle)->lock_key = nodeid;
    return 0;
}

int tree_open_file(struct tree *tree, const struct caller *caller, uint64_t nodeid, int flags,
                   struct handle **handle, struct open_hints *hints)
{
    struct place place;
    if (!address_parse(nodeid, &place))
        return -ESTALE;
    if (place.kind == PLACE_NODE)
        return open_node(tree, caller, nodeid, flags, handle, hints);
    if (place.kind == PLACE_NEXT_ID)
        return open_next_id(tree, caller, &place, flags, handle, hints);
    if (place.kind == PLACE_EXPORT)
        return open_export(tree, caller, &place, nodeid, flags, handle, hints);
    if (place.kind == PLACE_MEDIA_FILE)
        return open_media(tree, caller, &place, nodeid, flags, handle, hints);
    if (place.kind == PLACE_DELETED_ROW)
        return open_deleted(tree, caller, &place, nodeid, flags, handle, hints);
    if (place.kind != PLACE_ROW)
        return -EISDIR;
    if ((flags & O_ACCMODE) == O_RDONLY && !(flags & O_TRUNC))
        return open_for_reading(tree, caller, &place, nodeid, handle, hints);
    return open_for_writing(tree, caller, &place, nodeid, flags, handle, hints);
}

/* Create */

static int create_scratch(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                          mode_t mode, struct node **out)
{
    struct node *node;
    int r = node_new(tree->nodes, NODE_FILE, &node);
    if (r < 0)
        return r;
    scratch_made(tree, caller, parent, mode, node);
    r = name_add(tree, caller, parent, name, node);
    if (r < 0) {
        node_unref(tree->nodes, node);
        return r;
    }
    *out = node;
    return 0;
}

static int open_or_create_scratch(struct tree *tree, const struct caller *caller, uint64_t parent,
                                  const char *name, mode_t mode, int flags, struct node **out)
{
    tree_sweep(tree);
    struct node *node = scratch_find(tree->scratch, parent, name);
    if (!node)
        return create_scratch(tree, caller, parent, name, mode, out);
    int r = flags & O_EXCL ? -EEXIST : node->kind == NODE_FOLDER ? -EISDIR : 0;
    pthread_mutex_lock(&node->lock);
    if (r == 0 && caller->uid != 0 && caller->uid != node->uid)
        r = -ESTALE; /* made since the kernel looked: it looks again, and judges who may open it */
    if (r == 0 && (flags & O_TRUNC))
        r = truncate_node(tree, node, 0, NULL);
    pthread_mutex_unlock(&node->lock);
    if (r < 0)
        node_unref(tree->nodes, node);
    else
        *out = node;
    return r;
}

/* The row under the name, as far as the creating process sees one. */
static int find_row(struct tree *tree, const struct caller *caller, const struct row_key *key,
                    struct document **document)
{
    struct fail f = {0};
    if (key->id == 0)
        return 0;
    int r = store_get(tree->store, key, &caller->op, document, &f);
    if (r < 0 && r != -ENOENT && r != -EINTR) {
        char path[320];
        path_of_row(tree, key, path, sizeof path);
        report_add(tree->report, path, &f);
    }
    return r == -ENOENT ? 0 : r;
}

static int create_row(struct tree *tree, const struct caller *caller, const struct row_key *key, int flags,
                      struct node **out)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    struct node *node;
    bool by_other;
    int r = find_row(tree, caller, key, &document);
    if (r < 0)
        return r;
    bool away = document && memory_is_away(tree->memory, key, caller->tid);
    if (document && !away && (flags & O_EXCL))
        return -EEXIST;
    if (!document) {
        struct node *pending = draft_pending(tree, key, caller->tid, &by_other);
        bool taken = pending || (by_other && key->id);
        node_unref(tree->nodes, pending);
        if (taken && (flags & O_EXCL))
            return -EEXIST;
    }
    r = draft_new(tree, key, document, &node);
    if (r < 0)
        return r;
    pthread_mutex_lock(&node->lock);
    if (document && (away || (flags & O_TRUNC)))
        r = truncate_node(tree, node, 0, NULL);
    pthread_mutex_unlock(&node->lock);
    if (r < 0) {
        node_unref(tree->nodes, node);
        return r;
    }
    if (!document)
        node->draft.exclusive = flags & O_EXCL;
    if (!document || away) { /* its creator sees it before it is the row */
        node->maker = caller_process(caller);
        draft_set_pending(tree, node, true);
    }
    *out = node;
    return 0;
}

static int create_in_meta(struct tree *tree, const struct caller *caller, uint64_t parent,
                          const struct place *place, const char *name, mode_t mode, int flags,
                          struct node **node)
{
    struct row_key key;
    int kind = meta_name(tree, caller, place, name, &key);
    if (kind < 0)
        return kind;
    return kind == NAME_ROW       ? meta_create(tree, caller, &key, flags, node)
           : kind == NAME_SCRATCH ? open_or_create_scratch(tree, caller, parent, name, mode, flags, node)
                                  : -EISDIR;
}

static int create_in_collection(struct tree *tree, const struct caller *caller, uint64_t parent,
                                const struct place *place, const char *name, mode_t mode, int flags,
                                struct node **node)
{
    struct row_key key = place->key;
    switch (name_in(key.collection, name, &key.id)) {
    case NAME_ROW:
    case NAME_NEW:
        return tree->config->read_only ? -EROFS : create_row(tree, caller, &key, flags, node);
    case NAME_SCRATCH:
        return open_or_create_scratch(tree, caller, parent, name, mode, flags, node);
    case NAME_MISTAKEN:
        return mistaken_name(tree, &place->key, name);
    default:
        return -EPERM;
    }
}

int tree_create(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                mode_t mode, int flags, struct entry *entry, struct handle **handle)
{
    struct place place;
    struct node *node = NULL;
    if (strlen(name) > NAME_MAX_BYTES)
        return -ENAMETOOLONG;
    bool media = is_media_folder(tree, parent, &place);
    if (!media && !is_scratch_folder(tree, parent, &place))
        return place_is_by(&place)                  ? by_refuse(tree, &place, name)
               : place.kind == PLACE_META_REVISIONS ? meta_refuse(tree, &place, name, META_REVISIONS_WORDS)
                                                    : -EPERM;
    int r = media ? media_create(tree, caller, &place, name, mode, flags, &node)
            : place.kind == PLACE_COLLECTION
                ? create_in_collection(tree, caller, parent, &place, name, mode, flags, &node)
            : place.kind == PLACE_META
                ? create_in_meta(tree, caller, parent, &place, name, mode, flags, &node)
                : open_or_create_scratch(tree, caller, parent, name, mode, flags, &node);
    if (r < 0)
        return r;
    r = handle_new(tree, caller, node, flags, handle);
    if (r == 0)
        entry_node(tree, node, entry);
    else
        draft_set_pending(tree, node, false);
    node_unref(tree->nodes, node);
    return r;
}

/* Reading and writing */

/* How much of `have` bytes there is to read at an offset. */
static size_t readable(size_t have, off_t offset, size_t size)
{
    size_t left = (size_t)offset < have ? have - (size_t)offset : 0;
    return left < size ? left : size;
}

int tree_read(struct tree *tree, const struct caller *caller, struct handle *handle, size_t size,
              off_t offset, struct chunk *chunk)
{
    struct document *document = handle->document;
    *chunk = (struct chunk){.data = ""};
    if (handle->media)
        return media_read(tree, caller, handle->media, size, offset, chunk);
    if (handle->export)
        return export_read_chunk(tree, caller, handle->lock_key, handle->export, size, offset, chunk);
    if (document) {
        chunk->len = readable(document->revision.size, offset, size);
        chunk->document = document_ref(document);
        chunk->data = chunk->len ? document->text + offset : "";
        return 0;
    }
    if (handle->node->media)
        return media_draft_read(tree, caller, handle->node, size, offset, chunk);
    int r = 0;
    pthread_mutex_lock(&handle->node->lock);
    const struct buf *content = &handle->node->content;
    size_t len = readable(content->len, offset, size);
    if (len > 0) {
        chunk->copy = malloc(len);
        r = chunk->copy ? 0 : -ENOMEM;
    }
    if (chunk->copy) {
        chunk->data = memcpy(chunk->copy, content->data + offset, len);
        chunk->len = len;
    }
    pthread_mutex_unlock(&handle->node->lock);
    return r;
}

void tree_read_done(struct chunk *chunk)
{
    document_unref(chunk->document);
    recycle_put(chunk->copy);
}

/*
 * Shells ignore what close() says, so a document that is written in order from its start is judged while it
 * comes. Not at every write: a byte a call would cost the square of its length.
 */
static int judge(struct node *node, struct fail *f)
{
    struct draft *draft = &node->draft;
    if (!draft->in_order || node->content.len < draft->judged + draft->judged / 4)
        return 0;
    draft->judged = node->content.len;
    bool whole;
    int r = json_check_prefix(node->content.data, node->content.len, &whole, f);
    draft->checked = whole ? draft->version : 0;
    return r;
}

/* Under the node's lock. */
static int write_draft(struct tree *tree, const struct caller *caller, struct node *node,
                       const struct process *writer, const char *data, size_t len, size_t offset)
{
    struct draft *draft = &node->draft;
    struct fail f = {0};
    draft->in_order = draft->in_order && offset == node->content.len;
    int r = node_write(tree->nodes, node, data, len, offset);
    if (r == -EFBIG) {
        r = fail_set(&f, EFBIG, "the document is larger than %zu bytes", tree->config->document_max);
    } else if (r == -ENOSPC) {
        r = fail_set(&f, ENOSPC, "the scratch space of the mount is full");
    } else if (r == 0) {
        content_changed(node, writer);
        if (draft->broken)
            return -draft->broken;
        r = judge(node, &f);
    }
    if (f.err)
        draft_break(tree, caller, node, &f);
    return r;
}

int tree_write(struct tree *tree, const struct caller *caller, struct handle *handle, const char *data,
               size_t len, off_t offset, bool append)
{
    struct node *node = handle->node;
    if (!node || node->kind != NODE_FILE)
        return -EBADF;
    if (node->media)
        return media_draft_write(tree, caller, node, data, len, append ? -1 : offset);
    /* Asked again only where another thread writes. One of that number while the file is open is the
     * opener's: a number comes back when all others have been used, and a flush asks in any case. */
    struct process writer = caller->tid == handle->opener_tid ? handle->opener : caller_process(caller);
    pthread_mutex_lock(&node->lock);
    size_t at = append ? node->content.len : (size_t)offset;
    int r;
    if (node->draft.active) {
        r = write_draft(tree, caller, node, &writer, data, len, at);
    } else {
        r = node_write(tree->nodes, node, data, len, at);
        if (r == 0)
            content_changed(node, NULL);
    }
    pthread_mutex_unlock(&node->lock);
    return r;
}

int tree_allocate(struct tree *tree, const struct caller *caller, struct handle *handle, int mode,
                  off_t offset, off_t len)
{
    struct node *node = handle->node;
    return node && node->media ? media_draft_allocate(tree, caller, node, mode, offset, len) : -EOPNOTSUPP;
}

/* A flush counts from the process that opened the file or wrote last: forked children exit with it open. */
int tree_flush(struct tree *tree, const struct caller *caller, struct handle *handle)
{
    struct node *node = handle->node;
    if (!node || !handle->writes)
        return 0;
    struct process process = caller_process(caller);
    bool opener = process_equal(process, handle->opener);
    int r = 0;
    pthread_mutex_lock(&node->lock);
    bool counts = opener || process_equal(process, node->draft.writer);
    if (counts && node->draft.active)
        r = draft_commit(tree, caller, node, DRAFT_FLUSH, opener);
    pthread_mutex_unlock(&node->lock);
    return counts && node->media ? media_draft_commit(tree, caller, node, DRAFT_FLUSH) : r;
}

int tree_fsync(struct tree *tree, const struct caller *caller, struct handle *handle)
{
    struct node *node = handle->node;
    int r = 0;
    if (!node || node->media)
        return node ? media_draft_sync(tree, caller, node) : 0;
    pthread_mutex_lock(&node->lock);
    if (node->draft.active)
        r = draft_commit(tree, caller, node, DRAFT_FSYNC, true);
    pthread_mutex_unlock(&node->lock);
    return r;
}

/* What is locked by a handle: a row or a file of media, whatever revision or draft of it, and for good,
 * should the draft become a row. */
static uint64_t lock_key(struct handle *handle)
{
    uint64_t key = __atomic_load_n(&handle->lock_key, __ATOMIC_RELAXED);
    struct node *node = handle->node;
    struct place place;
    if (key)
        return key;
    key = handle->revision;
    if (handle->media) {
        key = media_lock_key(handle->media);
    } else if (node) {
        pthread_mutex_lock(&node->lock);
        key = (node->draft.active || node->media) && node->shown_ino ? node->shown_ino : node->nodeid;
        pthread_mutex_unlock(&node->lock);
    } else if (address_parse(handle->revision, &place) && place.kind == PLACE_ROW) {
        key = address_row(&place.key);
    }
    __atomic_store_n(&handle->lock_key, key, __ATOMIC_RELAXED);
    return key;
}

bool tree_lock_find(struct tree *tree, struct handle *handle, const struct lock *wanted, struct lock *held)
{
    return locks_find(tree->locks, lock_key(handle), wanted, held);
}

int tree_lock_set(struct tree *tree, struct handle *handle, const struct lock *wanted,
                  const struct lock_wait *wait)
{
    struct lock lock = *wanted;
    lock.through = handle;
    return locks_set(tree->locks, lock_key(handle), &lock, wait);
}

void tree_lock_cancel(struct tree *tree, uint64_t ticket)
{
    locks_cancel(tree->locks, ticket);
}

void tree_lock_drop(struct tree *tree, struct handle *handle, uint64_t owner)
{
    locks_drop(tree->locks, lock_key(handle), owner, NULL);
}

void tree_release(struct tree *tree, const struct caller *caller, struct handle *handle)
{
    if (handle->lock_key)
        locks_drop(tree->locks, handle->lock_key, 0, handle);
    struct node *node = handle->node;
    struct caller opener = *caller;
    opener.uid = handle->uid;
    opener.gid = handle->gid;
    if (handle->revision)
        revision_closed(tree, handle->revision);
    document_unref(handle->document);
    media_release(tree, handle->media);
    export_close(handle->export);
    if (node && node->media) {
        media_draft_close(tree, &opener, node);
        node_unref(tree->nodes, node);
    } else if (node) {
        pthread_mutex_lock(&node->lock);
        if (node->draft.active && node->handles == 1)
            draft_commit(tree, &opener, node, DRAFT_RELEASE, true);
        node->handles--;
        bool last = node->handles == 0;
        if (last && node->draft.active)
            draft_spend(tree->nodes, node);
        pthread_mutex_unlock(&node->lock);
        if (last)
            draft_set_pending(tree, node, false);
        node_unref(tree->nodes, node);
    }
    pthread_mutex_lock(&tree->lock);
    list_remove(&handle->open);
    pthread_mutex_unlock(&tree->lock);
    free(handle);
}

static bool time_is_over(void *op)
{
    return op_left_ms(op) == 0;
}

/* All together within one operation's time, whatever they publish. */
void handles_close(struct tree *tree)
{
    struct op all = op_within(tree->config->timeout_ms);
    struct caller caller = {.op = all};
    caller.op.abandoned = time_is_over;
    caller.op.waiter = &all;
    while (tree->handles)
        tree_release(tree, &caller, MAP_ELEMENT(tree->handles, struct handle, open));
}
