/*
 * How a text becomes a row. A save is one transaction, whatever brought it: close, fsync, a rename, a time
 * set by path. Drafts are the buffers of writers; they commit at the close of the process that opened or last
 * wrote them.
 */
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "tree/tree_by.h"
#include "tree/tree_meta.h"

/* A database's clock may be ahead of ours by so much. */
enum { CLOCKS_APART_US = 2000000 };

static bool is_users(unsigned collection)
{
    return collection == collection_of_folder("users")->number;
}

void folder_changed(struct tree *tree, unsigned collection, unsigned region)
{
    pthread_mutex_lock(&tree->lock);
    tree->changed[collection][region].asked_at = 0;
    pthread_mutex_unlock(&tree->lock);
    tree->invalidate(tree->invalidate_arg, address_place(PLACE_COLLECTION, collection, region));
    for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
        if (c->of_users && is_users(collection)) /* it has a file for each of them */
            folder_changed(tree, c->number, region);
}

void folder_changed_at(struct tree *tree, const struct row_key *key, int64_t us)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (us > us_of_timespec(now) + CLOCKS_APART_US) {
        folder_changed(tree, key->collection, key->region); /* no commit's own time */
        return;
    }
    pthread_mutex_lock(&tree->lock);
    struct changed *changed = &tree->changed[key->collection][key->region];
    if (us > changed->us)
        changed->us = us;
    pthread_mutex_unlock(&tree->lock);
    tree->invalidate(tree->invalidate_arg, address_place(PLACE_COLLECTION, key->collection, key->region));
}

static void row_outdated(struct tree *tree, const struct row_key *key, uint64_t former_rev)
{
    uint64_t former = store_mark(tree->store, key, former_rev);
    if (former != 0)
        tree->invalidate(tree->invalidate_arg, address_revision(key, former));
    told_outdated(tree->told, key, former); /* if it is another one */
    by_row_changed(tree, key, former_rev);
    told_outdated(tree->told_deleted, key, 0); /* a row again, or one that was deleted anew */
}

void row_changed(struct tree *tree, const struct row_key *key, uint64_t former_rev)
{
    row_outdated(tree, key, former_rev);
    folder_changed(tree, key->collection, key->region);
    users_documents_changed(tree, key);
}

void users_documents_changed(struct tree *tree, const struct row_key *key)
{
    for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
        if (c->of_users && is_users(key->collection))
            told_outdated(
                tree->told,
                &(struct row_key){.collection = (uint8_t)c->number, .region = key->region, .id = key->id}, 0);
}

/*
 * Up to when the row's content may have changed, beyond what the document says that it is based on;
 * `delivered` is that, of a document that comes with a time of its own, else "".
 */
static int64_t base_of(struct tree *tree, const struct caller *caller, const struct save *save,
                       struct process process, const char *delivered)
{
    if (tree->config->conflicts_overwrite)
        return STORE_TIME_FOREVER;
    if (save->saved_us != STORE_TIME_NONE || save->key.id == 0)
        return save->saved_us;
    int64_t own = memory_last_save(tree->memory, &save->key, process, save->born, STORE_TIME_NONE);
    int64_t users = *delivered ? memory_last_delivery(tree->memory, &save->key, caller->uid, delivered,
                                                      save->at_us, STORE_TIME_NONE)
                               : STORE_TIME_NONE;
    return own > users ? own : users;
}

int save_commit(struct tree *tree, const struct caller *caller, const struct save *save,
                struct put_result *result, struct fail *f)
{
    bool unfinished;
    char actor[64], delivered[MEMORY_BASE];
    *result = (struct put_result){0};
    if (save->key.collection == COLLECTION_MEDIA && tree->config->read_only)
        return -EROFS;
    if (save->len > tree->config->document_max)
        return fail_set(f, EFBIG, "the document is larger than %zu bytes", tree->config->document_max);
    int r = save->checked ? 0 : json_check(save->text, save->len, &unfinished, f);
    if (r < 0)
        return r;
    if (save->key.collection == COLLECTION_MEDIA)
        return meta_commit(tree, caller, save, result, f);
    struct process process = caller_process(caller);
    snprintf(actor, sizeof actor, "uid=%u pid=%d", (unsigned)caller->uid, (int)process.tgid);
    if (save->at_us == STORE_TIME_NONE ||
        !json_get_string(save->text, save->len, "updated_at", delivered, sizeof delivered))
        delivered[0] = '\0';
    struct put put = {.key = save->key,
                      .text = save->text,
                      .at_us = save->at_us,
                      .base_us = base_of(tree, caller, save, process, delivered),
                      .actor = actor,
                      .must_exist = save->base_rev != 0,
                      .must_be_new =
                          save->must_be_new && !collection_numbered(save->key.collection)->of_users};
    r = store_put(tree->store, &put, &caller->op, result, f);
    if (r == -ECANCELED && result->deleted &&
        memory_has_deleted(tree->memory, &save->key, process, save->born)) {
        *f = (struct fail){0}; /* its own rm: as on a disk, what is written to a removed file goes with it */
        result->unchanged = true;
        return 0;
    }
    if (r < 0)
        return r;
    struct row_key key = save->key;
    if (result->id)
        key.id = result->id;
    if (result->document)
        memory_saved(tree->memory, &key, process, result->document->revision.content_us);
    if (result->unchanged)
        return 0;
    if (result->document && *delivered)
        memory_delivered(tree->memory, &key, caller->uid, delivered, result->document->revision.content_us);
    row_outdated(tree, &key, result->replaced_rev);
    if (save->base_rev != result->replaced_rev)
        row_outdated(tree, &key, save->base_rev);
    if (result->document && save->at_us == STORE_TIME_NONE)
        folder_changed_at(tree, &key, result->document->revision.mtime_us);
    else
        folder_changed(tree, key.collection, key.region);
    return 0;
}

static uint64_t row_hash(const struct row_key *key)
{
    return map_hash_number(address_row(key));
}

int draft_new(struct tree *tree, const struct row_key *key, struct document *document, struct node **out)
{
    struct node *node;
    int r = node_new_free(tree->nodes, NODE_FILE, &node); /* counts when it is opened */
    if (r < 0)
        return r;
    const struct access *access = &tree->access[key->collection];
    node->content.max = tree->config->document_max;
    node->mode = access->file_mode;
    node->uid = access->uid;
    node->gid = access->gid;
    node->created = memory_now(tree->memory);
    if (key->id)
        node->shown_ino = address_row(key);
    node->draft = (struct draft){.active = true,
                                 .creates = !document,
                                 .key = *key,
                                 .saved_us = STORE_TIME_NONE,
                                 .born = node->created,
                                 .version = 1,
                                 .in_order = !document};
    if (document) {
        node->draft.base_rev = document->revision.rev;
        node->mtime = node->ctime = timespec_of_us(document->revision.mtime_us);
        r = node_write(tree->nodes, node, document->text, document->revision.size, 0);
    }
    if (r < 0) {
        node_unref(tree->nodes, node);
        return r;
    }
    *out = node;
    return 0;
}

int draft_now(struct tree *tree, const struct caller *caller, const struct row_key *key,
              struct document **document, struct node **out)
{
    *document = NULL;
    if (key->collection == COLLECTION_MEDIA)
        return meta_draft(tree, caller, key, out);
    int r = store_get(tree->store, key, &caller->op, document, NULL);
    return r < 0 ? r : draft_new(tree, key, *document, out);
}

bool draft_is_final(struct tree *tree, const struct caller *caller, const struct node *node,
                    const struct row_key *key)
{
    struct note note = notes_take(tree->notes, caller->tid, key);
    bool final = caller->tid == 0 || note.node == node || (note.purpose != NOTE_NONE && !note.looked);
    note_clear(tree->notes, &note);
    return final;
}

void draft_spend(struct nodes *nodes, struct node *node)
{
    node->draft.spent = true;
    buf_shrink(&node->content, 0);
    node_discharge(nodes, node);
}

void draft_to_copy(const struct caller *caller, struct node *node)
{
    pthread_mutex_lock(&node->lock);
    node->maker = caller_process(caller);
    node->draft.active = false;
    node->shown_ino = node->nodeid;
    pthread_mutex_unlock(&node->lock);
}

void draft_set_pending(struct tree *tree, struct node *node, bool pending)
{
    pthread_mutex_lock(&tree->lock);
    if (pending && !node->is_pending)
        node->is_pending = map_add(&tree->pending, &node->pending, row_hash(&node->draft.key)) == 0;
    else if (!pending && node->is_pending) {
        map_remove(&tree->pending, &node->pending);
        node->is_pending = false;
    }
    pthread_mutex_unlock(&tree->lock);
}

struct pending_key {
    uint64_t row;
    struct process process;
    bool own; /* wanted: of that process, else of any other */
};

static bool pending_equal(const struct map_entry *entry, const void *wanted)
{
    const struct node *node = MAP_ELEMENT(entry, struct node, pending);
    const struct pending_key *key = wanted;
    return address_row(&node->draft.key) == key->row && process_equal(node->maker, key->process) == key->own;
}

struct node *draft_pending(struct tree *tree, const struct row_key *key, pid_t tid, bool *by_other)
{
    struct node *node = NULL;
    if (by_other)
        *by_other = false;
    pthread_mutex_lock(&tree->lock);
    size_t any = tree->pending.count;
    pthread_mutex_unlock(&tree->lock);
    if (any == 0)
        return NULL;
    struct pending_key wanted = {.row = address_row(key), .process = process_of_thread(tid), .own = true};
    pthread_mutex_lock(&tree->lock);
    struct map_entry *entry = map_find(&tree->pending, row_hash(key), pending_equal, &wanted);
    if (entry) {
        node = MAP_ELEMENT(entry, struct node, pending);
        node_ref(tree->nodes, node);
    }
    wanted.own = false;
    if (by_other)
        *by_other = map_find(&tree->pending, row_hash(key), pending_equal, &wanted) != NULL;
    pthread_mutex_unlock(&tree->lock);
    return node;
}

int draft_wait_settled(struct node *node, const struct op *op)
{
    while (node->draft.committing) {
        if (!wait_until(&node->settled, &node->lock, op->deadline))
            return -EIO;
    }
    return 0;
}

/* Under the node's lock: the commit went through; what was written meanwhile is still dirty. */
static void take_commit(struct tree *tree, struct node *node, uint64_t version,
                        const struct put_result *result)
{
    struct draft *draft = &node->draft;
    draft->dirty = draft->version != version;
    draft->creates = false;
    draft->refused = 0;
    draft_set_pending(tree, node, false); /* before the key changes: new.json is found by it until now */
    if (!result->id && draft->key.id == 0) {
        /* Committed, but the answer was lost, and with it the id: saving once more would make a second row.
         */
        struct fail f = {0};
        char path[320];
        path_of_row(tree, &draft->key, path, sizeof path);
        fail_set(
            &f, EIO,
            "saved, but the answer was lost: the id of the new row is not known; look for it in the listing");
        report_add(tree->report, path, &f);
        draft->active = false;
    } else if (draft->key.id == 0) {
        draft->key.id = result->id;
        node->shown_ino = address_row(&draft->key);
    }
    if (result->document) {
        draft->base_rev = result->document->revision.rev;
        draft->saved_us = result->document->revision.content_us;
        if (!draft->dirty) {
            node->mtime = node->ctime = timespec_of_us(result->document->revision.mtime_us);
            node->mtime_set = false;
        }
    }
}

void save_refused(struct tree *tree, const struct caller *caller, const struct row_key *key, const char *text,
                  size_t len, const struct fail *f)
{
    char path[MEDIA_FILENAME_MAX + 320];
    path_of_row(tree, key, path, sizeof path);
    report_add(tree->report, path, f);
    if (len > 0)
        refused_keep(tree, caller, key, text, len, f);
}

void draft_break(struct tree *tree, const struct caller *caller, struct node *node, const struct fail *f)
{
    struct draft *draft = &node->draft;
    if (draft->broken)
        return;
    free(draft->why);
    draft->why = malloc(sizeof *draft->why);
    if (draft->why)
        *draft->why = *f;
    draft->broken = f->err;
    save_refused(tree, caller, &draft->key, node->content.data, node->content.len, f);
}

/* Under the node's lock, which it lets go: one transaction with a copy of the content. */
static int commit_copy(struct tree *tree, const struct caller *caller, struct node *node, struct fail *f)
{
    struct buf text CLEANUP(buf_clear) = {0};
    struct draft *draft = &node->draft;
    uint64_t version = draft->version;
    int r = buf_add(&text, node->content.data, node->content.len);
    if (r < 0)
        return fail_set(f, -r, "out of memory");
    struct save save = {.key = draft->key,
                        .text = text.data,
                        .len = text.len,
                        .saved_us = draft->saved_us,
                        .born = draft->born,
                        .base_rev = draft->base_rev,
                        .checked = draft->checked == version,
                        .must_be_new = draft->creates && draft->exclusive,
                        .at_us = node->mtime_set ? us_of_timespec(node->mtime) : STORE_TIME_NONE};
    struct put_result result = {0};
    bool was_refused = draft->refused != 0;
    bool was_written = draft->dirty || draft->creates; /* else a time alone: no text to be kept */
    struct process refused_by = draft->refused_by;
    draft->committing = true;
    pthread_mutex_unlock(&node->lock);
    r = save_commit(tree, caller, &save, &result, f);
    if (r < 0 && f->err)
        save_refused(tree, caller, &save.key, text.data, was_written ? text.len : 0, f);
    else if (r == 0 && was_refused)
        refused_forget(tree, &save.key, refused_by);
    pthread_mutex_lock(&node->lock);
    draft->committing = false;
    pthread_cond_broadcast(&node->settled);
    if (r == 0) {
        take_commit(tree, node, version, &result);
    } else {
        draft->refused = version;
        draft->refused_err = -r;
        draft->refused_by = caller_process(caller);
    }
    document_unref(result.document);
    return r;
}

/*
 * An unfinished document is an error for who opened the file, and nothing for the others, who may hold the
 * descriptor while it is written by several processes one after the other.
 */
static bool is_unfinished(const struct node *node)
{
    bool unfinished = false;
    return json_check(node->content.data, node->content.len, &unfinished, NULL) < 0 && unfinished;
}

int draft_commit(struct tree *tree, const struct caller *caller, struct node *node,
                 enum draft_trigger trigger, bool is_opener)
{
    struct draft *draft = &node->draft;
    struct fail f = {0};
    int r = draft_wait_settled(node, &caller->op);
    if (r < 0)
        return r;
    bool time_only = node->mtime_set && !draft->creates && !draft->dirty;
    if ((!draft->dirty && !time_only) || node->content.len == 0)
        return trigger == DRAFT_ATTRIBUTES && node->content.len == 0 ? -EINVAL : 0;
    if (draft->refused == draft->version)
        return -draft->refused_err;
    if (draft->broken) {
        /* Told when the write was answered; what came after it is kept as well. */
        refused_keep(tree, caller, &draft->key, node->content.data, node->content.len, draft->why);
        draft->refused = draft->version;
        return -(draft->refused_err = draft->broken);
    }
    if (trigger == DRAFT_FLUSH && !is_opener && is_unfinished(node))
        return 0;
    return commit_copy(tree, caller, node, &f);
}
