/*
 * getattr: a revision's attributes never change, and one that is outdated is ESTALE, on which the kernel
 * looks the name up again, unless somebody has it open.
 */
#include "tree/media_draft.h"
#include "tree/tree_by.h"
#include "tree/tree_meta.h"

/* An outdated revision is still answered while somebody has it open. */
static bool getattr_open(struct tree *tree, const struct place *place, uint64_t nodeid, struct stat *attr)
{
    pthread_mutex_lock(&tree->lock);
    struct open_revision *open = revision_find(tree, nodeid);
    if (open) {
        struct revision revision = open->document->revision;
        revision.mtime_us = open->mtime_us;
        attr_revision(tree, &place->key, &revision, attr);
    }
    pthread_mutex_unlock(&tree->lock);
    return open != NULL;
}

/* And so is the one that this thread's LOOKUP was told a moment ago. */
static bool getattr_told(struct tree *tree, const struct caller *caller, const struct place *place,
                         struct stat *attr)
{
    struct note note = notes_find(tree->notes, caller->tid, &place->key);
    bool told = note.document && address_is_revision(place, revision_mark(&note.document->revision));
    if (told)
        attr_revision(tree, &place->key, &note.document->revision, attr);
    note_clear(tree->notes, &note);
    return told;
}

/*
 * What the kernel asks before it reads from an open file (stat() and fstat() come without a handle): the
 * snapshot's, and no server is asked. It is believed only while nothing newer is known, so that the next
 * stat() finds that.
 */
static void getattr_handle(struct tree *tree, const struct place *place, const struct document *document,
                           struct stat *attr, int64_t *attr_ms)
{
    struct revision known;
    attr_revision(tree, &place->key, &document->revision, attr);
    bool newest = store_peek(tree->store, &place->key, &known) &&
                  revision_mark(&known) == revision_mark(&document->revision);
    *attr_ms = newest ? believed_ms(tree, &place->key, &document->revision, 0) : 0;
}

static int getattr_row(struct tree *tree, const struct caller *caller, const struct place *place,
                       uint64_t nodeid, struct stat *attr, int64_t *attr_ms)
{
    struct revision revision;
    struct fail f = {0};
    int r = store_stat(tree->store, &place->key, &caller->op, &revision, &f);
    *attr_ms = 0;
    if (r == 0 && address_is_revision(place, revision_mark(&revision))) {
        attr_revision(tree, &place->key, &revision, attr);
        *attr_ms = believed_ms(tree, &place->key, &revision, 0);
        return 0;
    }
    if (getattr_open(tree, place, nodeid, attr) || getattr_told(tree, caller, place, attr))
        return 0;
    struct note note = notes_find(tree->notes, caller->tid, &place->key);
    bool cannot_walk = (note.purpose == NOTE_WRITE || note.purpose == NOTE_READ) && !note.looked;
    note_clear(tree->notes, &note);
    /* asked twice, no LOOKUP between: a reopen by descriptor */
    if (r == 0 && (cannot_walk || caller->tid == 0)) {
        attr_revision(tree, &place->key, &revision, attr);
        *attr_ms = 0;
        return 0;
    }
    if (r == 0 ||
        (r == -ENOENT && !cannot_walk)) { /* gone, by a way that knows no name: no ESTALE for people */
        /* The kernel walks the path again, once: what it finds must do for reading and for writing. */
        notes_leave(tree->notes, caller->tid, &place->key, NOTE_WRITE);
        return -ESTALE;
    }
    return report_read(tree, &place->key, r, &f);
}

static int getattr_node(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct stat *attr,
                        int64_t *attr_ms)
{
    struct node *node = node_get(tree->nodes, nodeid);
    if (!node)
        return -ESTALE;
    pthread_mutex_lock(&node->lock);
    bool spent = node->draft.spent;
    pthread_mutex_unlock(&node->lock);
    attr_node(node, attr);
    if (spent && node->media)
        media_draft_outdated(tree, caller, node);
    *attr_ms = node == tree->readme ? FIXED_MS : 0;
    node_unref(tree->nodes, node);
    return spent ? -ESTALE : 0;
}

static int getattr_place(struct tree *tree, const struct caller *caller, const struct place *place,
                         uint64_t nodeid, const struct document *document, struct stat *attr,
                         int64_t *attr_ms)
{
    struct entry entry;
    if (place->kind == PLACE_ROW && document) {
        getattr_handle(tree, place, document, attr, attr_ms);
        return 0;
    }
    if (place->kind == PLACE_ROW)
        return getattr_row(tree, caller, place, nodeid, attr, attr_ms);
    if (tree->media && (place->kind == PLACE_MEDIA_FOLDER || place->kind == PLACE_MEDIA_FILE))
        return media_getattr(tree, caller, place, nodeid, attr, attr_ms);
    if (tree->media && (place->kind == PLACE_META || place->kind == PLACE_META_REVISIONS))
        return meta_getattr(tree, caller, place, attr, attr_ms);
    if (place->kind == PLACE_DELETED_ROW)
        return deleted_getattr(tree, caller, place, document, attr, attr_ms);
    if (place_is_by(place))
        return by_getattr(tree, caller, place, attr, attr_ms);
    if (place->kind == PLACE_NODE)
        return getattr_node(tree, caller, nodeid, attr, attr_ms);
    entry_place(tree, caller, place->kind, place->key.collection, place->key.region, &entry);
    *attr = entry.attr;
    *attr_ms = entry.attr_ms;
    return 0;
}

/* The row that a nodeid is or was one of; false when it is none. */
static bool row_of(struct tree *tree, const struct place *place, uint64_t nodeid, struct row_key *key)
{
    struct node *node = place->kind == PLACE_NODE ? node_get(tree->nodes, nodeid) : NULL;
    *key = place->key;
    if (node) {
        pthread_mutex_lock(&node->lock);
        *key = node->draft.key;
        pthread_mutex_unlock(&node->lock);
        node_unref(tree->nodes, node);
    }
    return (node || place->kind == PLACE_ROW) && key->id != 0;
}

/*
 * fstat() of a descriptor that has nothing open (O_PATH) knows no name to look up again, and its caller would
 * see the ESTALE: what is now the row is answered, or that there is none. Who asks by a name is served as
 * well by that answer, which is believed for no time: whatever he opens then is looked up again. So it is
 * also given where it cannot be seen how somebody asks; but not of what is no row.
 */
static int getattr_unnamed(struct tree *tree, const struct caller *caller, const struct place *place,
                           uint64_t nodeid, enum asks how, struct stat *attr, int64_t *attr_ms)
{
    struct revision revision;
    struct row_key key;
    struct fail f = {0};
    *attr_ms = 0;
    if (!row_of(tree, place, nodeid, &key))
        return how == ASKS_UNKNOWN ? -ESTALE : -ENOENT;
    struct note note = notes_take(tree->notes, caller->tid, &key); /* nobody comes back */
    note_clear(tree->notes, &note);
    if (key.collection == COLLECTION_MEDIA)
        return meta_getattr_key(tree, caller, &key, attr);
    int r = store_stat(tree->store, &key, &caller->op, &revision, &f);
    if (r == 0)
        attr_revision(tree, &key, &revision, attr);
    return report_read(tree, &key, r, &f);
}

/*
 * A draft that has given its text back, asked for by a name: who would find nothing else by looking again is
 * answered as above, and an open that follows knows it, too. Else he is about to look.
 */
static int getattr_spent(struct tree *tree, const struct caller *caller, const struct place *place,
                         uint64_t nodeid, enum asks how, struct stat *attr, int64_t *attr_ms)
{
    struct node *node = node_get(tree->nodes, nodeid);
    int r = -ESTALE;
    struct row_key key;
    if (node && !node->media && row_of(tree, place, nodeid, &key)) {
        if (draft_is_final(tree, caller, node, &key))
            r = getattr_unnamed(tree, caller, place, nodeid, how, attr, attr_ms);
        notes_leave(tree->notes, caller->tid, &key, how == ASKS_TO_STAT ? NOTE_READ : NOTE_WRITE);
    }
    node_unref(tree->nodes, node);
    return r;
}

int tree_getattr(struct tree *tree, const struct caller *caller, uint64_t nodeid, const struct handle *handle,
                 struct stat *attr, int64_t *attr_ms)
{
    struct place place;
    if (!address_parse(nodeid, &place))
        return -ESTALE;
    const struct document *document = handle ? handle_document(handle) : NULL;
    int r = getattr_place(tree, caller, &place, nodeid, document, attr, attr_ms);
    if (r != -ESTALE)
        return r;
    enum asks how = thread_asks(caller->tid);
    if (how != ASKS_BY_NAME && how != ASKS_TO_STAT)
        return getattr_unnamed(tree, caller, &place, nodeid, how, attr, attr_ms);
    if (how == ASKS_TO_STAT && place.kind == PLACE_ROW) /* comes back for the revision, and needs no draft */
        notes_leave(tree->notes, caller->tid, &place.key, NOTE_READ);
    return place.kind == PLACE_NODE ? getattr_spent(tree, caller, &place, nodeid, how, attr, attr_ms) : r;
}
