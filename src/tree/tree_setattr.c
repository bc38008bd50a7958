/*
 * setattr: a size or a time by path is a save of its own.
 */
#include "tree/media_draft.h"
#include "tree/tree_meta.h"

static int set_node(struct tree *tree, const struct caller *caller, struct node *node,
                    const struct change *change)
{
    struct process writer = caller_process(caller);
    int r = 0;
    pthread_mutex_lock(&node->lock);
    bool draft = node->draft.active;
    if (draft && node->draft.spent && (change->size || change->mtime)) {
        pthread_mutex_unlock(&node->lock);
        return -ESTALE;
    }
    if (draft && node->draft.listed && (change->size || change->mtime)) {
        node->draft.listed = false;
        pthread_mutex_unlock(&node->lock);
        meta_pages_opened(tree, caller);
        return -ESTALE;
    }
    if (change->size)
        r = truncate_node(tree, node, (size_t)change->to.st_size, draft ? &writer : NULL);
    if (r == 0 && change->mode && !draft)
        node->mode = change->to.st_mode & 07777;
    if (r == 0 && change->set_uid && !draft)
        node->uid = change->to.st_uid;
    if (r == 0 && change->set_gid && !draft)
        node->gid = change->to.st_gid;
    if (r == 0 && change->mtime) {
        node->mtime = change->to.st_mtim;
        node->mtime.tv_nsec -= draft ? node->mtime.tv_nsec % 1000 : 0; /* rows keep microseconds */
        node->mtime_set = true;
        if (draft)
            node->draft.version++;
    }
    if (r == 0 && draft && node->handles == 0 && (change->size || change->mtime))
        r = draft_commit(tree, caller, node, DRAFT_ATTRIBUTES, true);
    if (!draft)
        clock_gettime(CLOCK_REALTIME, &node->ctime);
    pthread_mutex_unlock(&node->lock);
    return r;
}

/* Nobody can come back for a draft: one is made, changed and committed here. */
static int set_at_once(struct tree *tree, const struct caller *caller, const struct row_key *key,
                       const struct change *change, struct stat *attr)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    struct node *node;
    int r = draft_now(tree, caller, key, &document, &node);
    if (r < 0)
        return r;
    r = set_node(tree, caller, node, change);
    if (r == 0)
        attr_node(node, attr);
    node_unref(tree->nodes, node);
    return r;
}

/*
 * A revision never changes: what would change it comes back for a draft, unless it cannot, since it came by a
 * descriptor or from another pid namespace. The kernel does not say that a time is set by a descriptor, and
 * then gives the user the ESTALE that it would answer itself by looking the name up: where the revision is
 * open the time is set at once, whichever way it came. Owner and mode are the configuration's.
 */
static int set_revision(struct tree *tree, const struct caller *caller, const struct place *place,
                        uint64_t nodeid, bool by_handle, const struct change *change, struct stat *attr,
                        int64_t *attr_ms)
{
    if (!change->size && !change->mtime)
        return tree_getattr(tree, caller, nodeid, NULL, attr, attr_ms);
    if (tree->config->read_only)
        return -EROFS;
    struct note note = notes_take(tree->notes, caller->tid, &place->key);
    bool came_back = note.purpose == NOTE_WRITE && !note.looked;
    note_clear(tree->notes, &note);
    *attr_ms = 0;
    if (by_handle || came_back || caller->tid == 0 || (!change->size && revision_is_open(tree, nodeid))) {
        int r = set_at_once(tree, caller, &place->key, change, attr);
        if (r == 0 && !change->size)
            revision_show_time(tree, nodeid, attr);
        return r;
    }
    notes_leave(tree->notes, caller->tid, &place->key, NOTE_WRITE);
    return -ESTALE;
}

/* A draft that has given its text back. */
static int set_spent(struct tree *tree, const struct caller *caller, struct node *node,
                     const struct change *change, struct stat *attr)
{
    pthread_mutex_lock(&node->lock);
    struct row_key key = node->draft.key;
    bool spent = node->draft.active && node->draft.spent && !node->media;
    pthread_mutex_unlock(&node->lock);
    if (!spent)
        return -ESTALE;
    if (draft_is_final(tree, caller, node, &key))
        return set_at_once(tree, caller, &key, change, attr);
    notes_leave(tree->notes, caller->tid, &key, NOTE_WRITE);
    return -ESTALE;
}

int tree_setattr(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct handle *handle,
                 const struct change *change, struct stat *attr, int64_t *attr_ms)
{
    struct place place;
    struct node *open = handle_node(handle);
    if (!address_parse(nodeid, &place))
        return -ESTALE;
    if (tree->media && place.kind == PLACE_MEDIA_FILE && !open)
        return media_setattr(tree, caller, &place, nodeid, handle != NULL, change, attr, attr_ms);
    if (place.kind == PLACE_ROW && !open)
        return set_revision(tree, caller, &place, nodeid, handle != NULL, change, attr, attr_ms);
    if (is_media_folder(tree, nodeid, &place))
        return media_set_folder_attributes(tree, caller, &place, change, attr, attr_ms);
    if ((place.kind == PLACE_NEXT_ID || place.kind == PLACE_EXPORT) && change->size)
        return -EACCES;
    if (place.kind == PLACE_DELETED_ROW)
        return -EPERM;
    if (place.kind != PLACE_NODE && place.kind != PLACE_ROW &&
        place.kind != PLACE_MEDIA_FILE) /* a folder's times and modes are its own */
        return tree_getattr(tree, caller, nodeid, NULL, attr, attr_ms);
    struct node *node = open ? open : node_get(tree->nodes, nodeid);
    bool counted = !open;
    if (!node)
        return -ESTALE;
    int r = node->kind == NODE_TEXT ? -EPERM
            : node->media           ? media_draft_set(tree, caller, node, change)
                                    : set_node(tree, caller, node, change);
    if (r == 0)
        attr_node(node, attr);
    else if (r == -ESTALE && counted)
        r = set_spent(tree, caller, node, change, attr);
    *attr_ms = 0;
    if (counted && node->draft.active && r != -ESTALE) { /* what the thread came back for is done */
        struct note note = notes_take(tree->notes, caller->tid, &node->draft.key);
        note_clear(tree->notes, &note);
    }
    if (counted)
        node_unref(tree->nodes, node);
    return r;
}
