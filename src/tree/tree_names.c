/*
 * Making, removing and renaming names. A rename onto <id>.json is a save; a row's file that is moved to a
 * scratch name leaves a copy there and stays where it is for everybody but the process that moved it, as
 * editors expect.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "tree/tree_by.h"
#include "tree/tree_meta.h"

/* A name in a folder, as an operation on names sees it. */
struct target {
    uint64_t folder;
    const char *name;
    struct place place;
    enum name_kind kind; /* NAME_SCRATCH outside the collections' own folders and .meta */
    struct row_key key;  /* for NAME_ROW and NAME_NEW (id 0) */
    bool meta;           /* a NAME_ROW that is a document of .meta */
};

static const char goes_with_its_file[] =
    "it goes with its file: what is null in the document is unset, and a file's revisions go by themselves";

static int target_parse(struct tree *tree, const struct caller *caller, uint64_t folder, const char *name,
                        struct target *target)
{
    *target = (struct target){.folder = folder, .name = name, .kind = NAME_SCRATCH};
    if (strlen(name) > NAME_MAX_BYTES)
        return -ENAMETOOLONG;
    if (!is_scratch_folder(tree, folder, &target->place))
        return place_is_by(&target->place) ? by_refuse(tree, &target->place, name)
               : target->place.kind == PLACE_META_REVISIONS
                   ? meta_refuse(tree, &target->place, name, META_REVISIONS_WORDS)
                   : -EPERM;
    target->key = target->place.key;
    if (target->place.kind == PLACE_META) {
        int kind = tree->media ? meta_name(tree, caller, &target->place, name, &target->key) : -ENOENT;
        target->kind = kind < 0 ? NAME_RESERVED : (enum name_kind)kind;
        target->meta = kind == NAME_ROW;
        return kind < 0 ? kind : 0;
    }
    if (target->place.kind == PLACE_COLLECTION)
        target->kind = name_in(target->key.collection, name, &target->key.id);
    return 0;
}

/* Whether a text that was refused lies there. */
static bool lies_refused(struct tree *tree, const struct target *target)
{
    return refused_reserves(target->folder, target->name) && refused_is(tree, target->folder, target->name);
}

static void actor_text(const struct caller *caller, char out[64])
{
    snprintf(out, 64, "uid=%u pid=%d", (unsigned)caller->uid, (int)caller_process(caller).tgid);
}

static int report_target(struct tree *tree, const struct target *target, int r, const struct fail *f)
{
    char path[320];
    if (r < 0 && f->err && r != -ENOENT) {
        path_of_row(tree, &target->key, path, sizeof path);
        report_add(tree->report, path, f);
    }
    return r;
}

/* What the process has made under the name and not saved: it is no row's any more. -ENOENT: there is none. */
static int unlink_pending(struct tree *tree, const struct caller *caller, const struct target *target)
{
    struct node *node = draft_pending(tree, &target->key, caller->tid, NULL);
    if (!node)
        return -ENOENT;
    draft_set_pending(tree, node, false);
    pthread_mutex_lock(&node->lock);
    node->draft.active = false;
    pthread_mutex_unlock(&node->lock);
    node_unref(tree->nodes, node);
    return 0;
}

static int unlink_row(struct tree *tree, const struct caller *caller, const struct target *target)
{
    struct fail f = {0};
    struct revision revision;
    char actor[64];
    if (memory_is_away(tree->memory, &target->key, caller->tid)) /* the row stays where all others see it */
        return unlink_pending(tree, caller, target);
    bool known = store_peek(tree->store, &target->key, &revision);
    actor_text(caller, actor);
    int r = store_delete(tree->store, &target->key, actor, &caller->op, &f);
    if (r == 0) {
        struct process process = caller_process(caller);
        row_changed(tree, &target->key, known ? revision.rev : 0);
        if (collection_numbered(target->key.collection)->of_users)
            memory_set_away(tree->memory, &target->key, process, true); /* others see the defaults now */
        else
            memory_deleted(tree->memory, &target->key, process);
    }
    if (r == -ENOENT && unlink_pending(tree, caller, target) == 0)
        return 0;
    return report_target(tree, target, r, &f);
}

static int unlink_scratch(struct tree *tree, const struct target *target)
{
    struct node *node = scratch_find(tree->scratch, target->folder, target->name);
    if (!node)
        return -ENOENT;
    int r = node->kind == NODE_FOLDER ? -EISDIR : name_remove(tree, target->folder, target->name, node);
    node_unref(tree->nodes, node);
    return r;
}

int tree_unlink(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name)
{
    struct target target;
    struct place place;
    if (is_media_folder(tree, parent, &place))
        return media_unlink(tree, caller, &place, name);
    if (address_parse(parent, &place) && place.kind == PLACE_DELETED)
        return deleted_unlink(tree, caller, &place.key, name);
    int r = target_parse(tree, caller, parent, name, &target);
    if (r < 0)
        return r;
    if (target.place.kind == PLACE_META && target.kind != NAME_SCRATCH)
        return meta_refuse(tree, &target.place, name, goes_with_its_file);
    switch (target.kind) {
    case NAME_ROW:
        return tree->config->read_only ? -EROFS : unlink_row(tree, caller, &target);
    case NAME_NEW:
        return tree->config->read_only ? -EROFS : unlink_pending(tree, caller, &target);
    case NAME_SCRATCH:
        return unlink_scratch(tree, &target);
    case NAME_NEXT_ID:
    case NAME_REFUSED:
    case NAME_DELETED:
    case NAME_BY:
    case NAME_EXPORT:
        return -EPERM;
    default:
        return -ENOENT;
    }
}

int tree_rmdir(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name)
{
    struct target target;
    struct place place;
    if (is_media_folder(tree, parent, &place))
        return media_rmdir(tree, caller, &place, name);
    int r = target_parse(tree, caller, parent, name, &target);
    if (r < 0)
        return r;
    if (target.place.kind == PLACE_META && target.kind == NAME_RESERVED)
        return meta_refuse(tree, &target.place, name, goes_with_its_file);
    if (target.kind != NAME_SCRATCH)
        return target.kind == NAME_ROW ? -ENOTDIR : -EPERM;
    struct node *node = scratch_find(tree->scratch, parent, name);
    if (!node)
        return -ENOENT;
    r = node->kind != NODE_FOLDER                        ? -ENOTDIR
        : !scratch_is_empty(tree->scratch, node->nodeid) ? -ENOTEMPTY
                                                         : scratch_remove(tree->scratch, parent, name, node);
    node_unref(tree->nodes, node);
    return r;
}

void scratch_made(struct tree *tree, const struct caller *caller, uint64_t parent, mode_t mode,
                  struct node *node)
{
    node->mode = mode & 07777;
    node->uid = caller->uid;
    node->gid = caller->gid;
    node->created = memory_now(tree->memory);
    node->maker = caller_process(caller);
    struct node *folder = node_get(tree->nodes, parent); /* NULL for a place, which is never setgid */
    if (!folder)
        return;
    pthread_mutex_lock(&folder->lock);
    if (folder->mode & S_ISGID) {
        node->gid = folder->gid;
        node->mode |= node->kind == NODE_FOLDER ? S_ISGID : 0;
    }
    pthread_mutex_unlock(&folder->lock);
    node_unref(tree->nodes, folder);
}

int tree_refuse(struct tree *tree, uint64_t parent, const char *name, const char *words)
{
    struct place place;
    struct fail f = {0};
    char path[NAME_MAX_BYTES + 320];
    int r = fail_set(&f, EPERM, "%s", words);
    if (is_media_folder(tree, parent, &place))
        return report_media(tree, place.key.region, media_folder_ino(&place), name, r, &f);
    if (address_parse(parent, &place) && place.kind == PLACE_COLLECTION) {
        path_of_name(tree, &place.key, name, path, sizeof path);
        report_add(tree->report, path, &f);
    }
    return r;
}

/* A scratch folder or link; names of rows cannot be either. */
static int make_node(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                     enum node_kind kind, mode_t mode, const char *content, struct entry *entry)
{
    struct target target;
    struct node *node;
    int r = target_parse(tree, caller, parent, name, &target);
    if (r < 0)
        return r;
    if (target.place.kind == PLACE_META && kind == NODE_FOLDER)
        return meta_refuse(tree, &target.place, name, "no folders can be made in .meta");
    if (target.kind != NAME_SCRATCH)
        return tree_refuse(tree, parent, name, "under such a name a row can lie, and no folder or link");
    r = node_new(tree->nodes, kind, &node);
    if (r < 0)
        return r;
    scratch_made(tree, caller, parent, mode, node);
    r = content ? node_write(tree->nodes, node, content, strlen(content), 0) : 0;
    if (r == 0)
        r = name_add(tree, caller, parent, name, node);
    if (r == 0)
        entry_node(tree, node, entry);
    node_unref(tree->nodes, node);
    return r;
}

int tree_mkdir(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name, mode_t mode,
               struct entry *entry)
{
    struct place place;
    if (is_media_folder(tree, parent, &place))
        return media_mkdir(tree, caller, &place, name, mode, entry);
    return make_node(tree, caller, parent, name, NODE_FOLDER, mode, NULL, entry);
}

int tree_symlink(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                 const char *target, struct entry *entry)
{
    struct place place;
    if (is_media_folder(tree, parent, &place))
        return tree_refuse(tree, parent, name, "there are no symbolic links in media");
    return make_node(tree, caller, parent, name, NODE_LINK, 0777, target, entry);
}

int tree_readlink(struct tree *tree, const struct caller *caller, uint64_t nodeid, char **target)
{
    struct place place;
    if (address_parse(nodeid, &place) && place.kind == PLACE_BY_LINK)
        return by_readlink(tree, caller, &place, target);
    struct node *node = node_get(tree->nodes, nodeid);
    int r = !node ? -ESTALE : node->kind != NODE_LINK ? -EINVAL : 0;
    if (r == 0) {
        pthread_mutex_lock(&node->lock);
        *target = strndup(node->content.data, node->content.len);
        pthread_mutex_unlock(&node->lock);
        r = *target ? 0 : -ENOMEM;
    }
    node_unref(tree->nodes, node);
    return r;
}

/* Renames */

/* Under the node's lock: what is written from then on, and was since the version saved, goes to the row it
 * became. */
static void becomes_draft(struct tree *tree, struct node *node, const struct row_key *key,
                          uint64_t saved_version, const struct put_result *result)
{
    uint64_t version = node->draft.version;
    node->draft = (struct draft){.active = true,
                                 .key = *key,
                                 .saved_us = STORE_TIME_NONE,
                                 .version = version,
                                 .dirty = version != saved_version, /* written while it was being saved */
                                 .born = memory_now(tree->memory)};
    if (result->id)
        node->draft.key.id = result->id;
    if (result->document) {
        node->draft.base_rev = result->document->revision.rev;
        node->draft.saved_us = result->document->revision.content_us;
    }
    if (result->document && !node->draft.dirty)
        node->mtime = node->ctime = timespec_of_us(result->document->revision.mtime_us);
    node->mtime_set = false;
    node->content.max = tree->config->document_max;
    node->shown_ino = address_row(&node->draft.key);
}

static int save_node(struct tree *tree, const struct caller *caller, struct node *node,
                     const struct target *from, const struct target *to, bool must_be_new)
{
    struct buf text CLEANUP(buf_clear) = {0};
    struct put_result result = {0};
    struct fail f = {0};
    pthread_mutex_lock(&node->lock);
    uint64_t version = node->draft.version;
    int r = node->kind != NODE_FILE ? -EPERM : buf_add(&text, node->content.data, node->content.len);
    struct save save = {.key = to->key,
                        .saved_us = STORE_TIME_NONE,
                        .born = node->created,
                        .must_be_new = must_be_new,
                        .at_us = node->mtime_set ? us_of_timespec(node->mtime) : STORE_TIME_NONE};
    pthread_mutex_unlock(&node->lock);
    if (r < 0)
        return r;
    save.text = text.data ? text.data : "";
    save.len = text.len;
    r = save_commit(tree, caller, &save, &result, &f);
    if (r < 0) {
        if (f.err && lies_refused(tree, from))
            refused_again(tree, caller, &to->key, from->folder, from->name, &f);
        else if (f.err)
            save_refused(tree, caller, &to->key, save.text, save.len, &f);
        return r;
    }
    pthread_mutex_lock(&node->lock);
    becomes_draft(tree, node, &to->key, version, &result);
    if (node->handles == 0)
        draft_spend(tree->nodes, node);
    pthread_mutex_unlock(&node->lock);
    document_unref(result.document);
    return 0;
}

/* A rename onto <id>.json or new.json. */
static int rename_onto_row(struct tree *tree, const struct caller *caller, const struct target *from,
                           const struct target *to, unsigned flags)
{
    if (tree->config->read_only)
        return -EROFS;
    if (flags & RENAME_NOREPLACE && to->meta)
        return -EEXIST;
    /* The kernel has found the name free: as the process has moved the row away, or there was no row. Whether
     * somebody has made one since, only the database can tell. */
    bool must_be_new = flags & RENAME_NOREPLACE && !memory_is_away(tree->memory, &to->key, caller->tid);
    struct node *node = scratch_find(tree->scratch, from->folder, from->name);
    if (!node)
        return -ENOENT;
    int r = save_node(tree, caller, node, from, to, must_be_new);
    if (r == 0)
        name_remove(tree, from->folder, from->name, node);
    node_unref(tree->nodes, node);
    return r;
}

static int copy_row(struct tree *tree, const struct caller *caller, const struct row_key *key,
                    struct node **copy)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    int r = store_get(tree->store, key, &caller->op, &document, NULL);
    if (r == 0)
        r = draft_new(tree, key, document, copy);
    if (r == 0)
        draft_to_copy(caller, *copy);
    return r;
}

/*
 * The private copy of a row that is to lie under another name. The first try comes back for it (-ESTALE), on
 * which LOOKUP answers the copy; the second one finds it here, a reference.
 */
static int take_copy(struct tree *tree, const struct caller *caller, const struct row_key *key,
                     struct node **copy)
{
    struct note note = notes_take(tree->notes, caller->tid, key);
    *copy = note.purpose == NOTE_MOVE ? note.node : NULL;
    if (*copy)
        node_ref(tree->nodes, *copy);
    note_clear(tree->notes, &note);
    if (*copy)
        return 0;
    if (caller->tid == 0) /* nobody can come back for it */
        return copy_row(tree, caller, key, copy);
    notes_leave(tree->notes, caller->tid, key, NOTE_MOVE);
    return -ESTALE;
}

static int charge(struct tree *tree, struct node *node)
{
    pthread_mutex_lock(&node->lock);
    int r = node_charge(tree->nodes, node);
    pthread_mutex_unlock(&node->lock);
    return r;
}

static int refuse_rename(struct tree *tree, const struct target *target, int err, const char *words)
{
    struct fail f = {0};
    char path[NAME_MAX_BYTES + 320];
    int r = fail_set(&f, err, "%s", words);
    path_of_name(tree, &target->place.key, target->name, path, sizeof path);
    report_add(tree->report, path, &f);
    return r;
}

/* Not EXDEV, on which mv would copy the row and then delete it. */
static int refuse_move(struct tree *tree, const struct target *from)
{
    if (from->meta)
        return meta_refuse(tree, &from->place, from->name, goes_with_its_file);
    return refuse_rename(
        tree, from, EPERM,
        "a row keeps its collection and its id: a user moves to the users of another region, "
        "under the same name, and a scratch name is one of the row's own folder");
}

static int rename_row_away(struct tree *tree, const struct caller *caller, const struct target *from,
                           const struct target *to, unsigned flags)
{
    struct node *copy;
    if (from->folder != to->folder)
        return refuse_move(tree, from);
    int r =
        from->meta ? meta_copy(tree, caller, &from->key, &copy) : take_copy(tree, caller, &from->key, &copy);
    if (r < 0)
        return r;
    struct node *old = scratch_find(tree->scratch, to->folder, to->name);
    r = !old                                     ? 0
        : flags & RENAME_NOREPLACE               ? -EEXIST
        : old->kind == NODE_FOLDER               ? -EISDIR
        : refused_reserves(to->folder, to->name) ? -EPERM
                                                 : 0;
    if (r == 0)
        r = charge(tree, copy); /* first: where there is no room, what lies there stays */
    if (r == 0)
        r = old ? scratch_replace(tree->scratch, to->folder, to->name, old, copy)
                : name_add(tree, caller, to->folder, to->name, copy);
    node_unref(tree->nodes, old);
    if (r == 0 && !from->meta) /* a document of .meta is never away */
        memory_set_away(tree->memory, &from->key, caller_process(caller), true);
    node_unref(tree->nodes, copy);
    return r;
}

/*
 * A row and a scratch file change places: the file's text is saved as by a rename over the row, and what the
 * row was lies under the scratch name.
 */
static int exchange_row(struct tree *tree, const struct caller *caller, const struct target *row,
                        const struct target *scratch)
{
    struct node *copy;
    if (tree->config->read_only)
        return -EROFS;
    if (row->folder != scratch->folder)
        return -EPERM;
    int r = take_copy(tree, caller, &row->key, &copy);
    if (r < 0)
        return r;
    struct node *node = scratch_find(tree->scratch, scratch->folder, scratch->name);
    r = node ? charge(tree, copy) : -ENOENT;
    if (r == 0)
        r = save_node(tree, caller, node, scratch, row, false);
    if (r == 0) /* committed: a name that is gone meanwhile has lost nothing that anybody still sees */
        scratch_replace(tree->scratch, scratch->folder, scratch->name, node, copy);
    node_unref(tree->nodes, node);
    node_unref(tree->nodes, copy);
    return r;
}

/* What lies in .refused keeps its place, and so does a refused text beside its document. */
static bool is_free_scratch(const struct target *target)
{
    return target->kind == NAME_SCRATCH && target->place.kind != PLACE_REFUSED &&
           !refused_reserves(target->folder, target->name);
}

static int rename_exchange(struct tree *tree, const struct caller *caller, const struct target *from,
                           const struct target *to)
{
    bool from_scratch = is_free_scratch(from), to_scratch = is_free_scratch(to);
    if (from_scratch && to_scratch)
        return scratch_exchange(tree->scratch, from->folder, from->name, to->folder, to->name);
    if (from->kind == NAME_ROW && to_scratch)
        return exchange_row(tree, caller, from, to);
    if (from_scratch && to->kind == NAME_ROW)
        return exchange_row(tree, caller, to, from);
    return refuse_rename(tree, from, EINVAL,
                         "only two scratch files, or a row and a scratch file of its folder, can be "
                         "exchanged: an id stays with its row");
}

/* A row of one region under the same name in another one: it moves, where its collection allows that. */
static int rename_row_to_region(struct tree *tree, const struct caller *caller, const struct target *from,
                                const struct target *to)
{
    struct put_result result = {0};
    struct revision revision;
    struct fail f = {0};
    char actor[64];
    if (from->key.collection != to->key.collection || from->key.id != to->key.id ||
        from->key.region == to->key.region)
        return refuse_move(tree, from);
    bool known = store_peek(tree->store, &from->key, &revision);
    actor_text(caller, actor);
    int r = store_move(tree->store, &from->key, to->key.region, actor, &caller->op, &result, &f);
    if (r == 0) {
        row_changed(tree, &from->key, known ? revision.rev : 0);
        row_changed(tree, &to->key, 0);
    }
    document_unref(result.document);
    return report_target(tree, from, r, &f);
}

static int rename_scratch(struct tree *tree, const struct caller *caller, const struct target *from,
                          const struct target *to, unsigned flags)
{
    if (flags & RENAME_NOREPLACE) {
        struct node *there = scratch_find(tree->scratch, to->folder, to->name);
        node_unref(tree->nodes, there);
        if (there)
            return -EEXIST;
    }
    struct node *node = scratch_find(tree->scratch, from->folder, from->name);
    /* A refused text has bounds of its own only under its name. */
    int r = node ? charge(tree, node) : -ENOENT;
    node_unref(tree->nodes, node);
    return r < 0 ? r : name_move(tree, caller, from->folder, from->name, to->folder, to->name);
}

/* What has to do with .meta, but for a scratch file that is moved onto a document and the reverse, an
 * editor's backup: a document stays with its file. */
static bool refuses_meta(struct tree *tree, const struct target *from, const struct target *to,
                         unsigned flags, int *r)
{
    const struct target *targets[] = {from, to};
    bool exchange = flags & RENAME_EXCHANGE, both = from->meta && to->meta;
    for (size_t i = 0; i < 2; i++) {
        const struct target *t = targets[i];
        bool own = t->place.kind == PLACE_META && t->kind != NAME_SCRATCH;
        if (own && (!t->meta || exchange || both)) {
            *r = meta_refuse(tree, &t->place, t->name, goes_with_its_file);
            return true;
        }
    }
    return false;
}

int tree_rename(struct tree *tree, const struct caller *caller, uint64_t from_folder, const char *name,
                uint64_t to_folder, const char *new_name, unsigned flags)
{
    struct target from, to;
    struct place place, to_place;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    bool from_media = is_media_folder(tree, from_folder, &place);
    bool to_media = is_media_folder(tree, to_folder, &to_place);
    if (from_media && to_media)
        return media_rename_name(tree, caller, &place, name, &to_place, new_name, flags);
    if (from_media || to_media)
        return -EXDEV;
    if (address_parse(from_folder, &place) && place.kind == PLACE_DELETED)
        return flags & RENAME_EXCHANGE ? -EINVAL
                                       : deleted_rename(tree, caller, &place.key, name, to_folder, new_name);
    int r = target_parse(tree, caller, from_folder, name, &from);
    if (r == 0)
        r = target_parse(tree, caller, to_folder, new_name, &to);
    if (r < 0)
        return r;
    if (refuses_meta(tree, &from, &to, flags, &r))
        return r;
    if (flags & RENAME_EXCHANGE)
        return rename_exchange(tree, caller, &from, &to);
    if (to.kind == NAME_MISTAKEN)
        return mistaken_name(tree, &to.place.key, new_name);
    bool onto_row = to.kind == NAME_ROW || to.kind == NAME_NEW;
    if ((from.kind != NAME_SCRATCH && from.kind != NAME_ROW) || (!onto_row && to.kind != NAME_SCRATCH))
        return -EPERM;
    if (from.kind == NAME_ROW)
        return onto_row ? rename_row_to_region(tree, caller, &from, &to)
                        : rename_row_away(tree, caller, &from, &to, flags);
    return onto_row ? rename_onto_row(tree, caller, &from, &to, flags)
                    : rename_scratch(tree, caller, &from, &to, flags);
}
