/*
 * Names and attributes.
 */
#include "tree/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "tree/media_draft.h"
#include "tree/tree_by.h"
#include "tree/tree_meta.h"
#include "tree/unopened.h"

enum {
    CHANGED_WAIT_MS = 500, /* a folder's time is not worth more: the last known one is shown then */
    ENTRY_BYTES = 4096,    /* st_size of a folder */
    LOCKS_MAX = 65536,     /* locks held and waited for */
    TOLD_CHUNKS = 16384,   /* 9 MiB, four million rows */
    DRAFT_ATTR_MS = 1000,  /* of one that nobody has opened yet: nothing but its opener changes it */
};

const struct timespec FIXED_TIME = {.tv_sec = 1767225600}; /* 2026-01-01T00:00:00Z */

struct process caller_process(const struct caller *caller)
{
    return caller->process.tgid ? caller->process : process_of_thread(caller->tid);
}

/* Opening and closing */

static void tell_of_row(void *arg, const struct row_key *key, uint64_t mark)
{
    struct tree *tree = arg;
    tree->invalidate(tree->invalidate_arg, address_revision(key, mark));
}

static void tell_of_deleted(void *arg, const struct row_key *key, uint64_t mark)
{
    struct tree *tree = arg;
    tree->invalidate(tree->invalidate_arg, address_deleted(key, mark));
}

static void folders_changed(struct tree *tree, unsigned collection, unsigned region)
{
    for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
        if (c->global == (region == 0) && (collection == 0 || collection == c->number))
            folder_changed(tree, c->number, region);
}

void tree_outdated(struct tree *tree, const struct row_key *key)
{
    told_outdated(tree->told, key, 0);
    told_outdated(tree->told_deleted, key, 0);
    folders_changed(tree, key->collection, key->region);
}

/* Something has changed, and perhaps not here: the kernel believes it no longer. In a feed's thread. */
static void told_of_changes(void *arg, const struct row_change *changes, size_t n, unsigned times)
{
    struct tree *tree = arg;
    int64_t latest[COLLECTIONS_MAX][CONFIG_MAX_REGIONS + 1] = {0}; /* INT64_MAX = it is not known when */
    for (size_t i = 0; i < n; i++) {
        const struct row_key *key = &changes[i].key;
        int64_t us = changes[i].changed_us ? changes[i].changed_us : INT64_MAX;
        int64_t *at = &latest[key->collection][key->region];
        told_outdated(tree->told, key, store_mark(tree->store, key, changes[i].rev));
        told_outdated(tree->told_deleted, key, 0);
        users_documents_changed(tree, key);
        *at = us > *at ? us : *at;
    }
    /* The kernel has folders for long, and takes no answer for them that is older than what it was told. */
    for (size_t i = 0; i < n && times < FEED_TOLD_AGAIN; i++) {
        const struct row_key *key = &changes[i].key;
        int64_t *at = &latest[key->collection][key->region];
        if (*at == INT64_MAX)
            folders_changed(tree, key->collection, key->region);
        else if (*at != 0)
            folder_changed_at(tree, key, *at);
        *at = 0;
    }
}

int tree_open(const struct config *config, struct cluster *cluster, struct mongo *mongo,
              void (*invalidate)(void *arg, uint64_t nodeid), void *arg, struct tree **out, struct fail *f)
{
    struct tree *tree = calloc(1, sizeof *tree);
    if (!tree)
        return fail_set(f, ENOMEM, "out of memory");
    tree->config = config;
    tree->cluster = cluster;
    tree->mongo = mongo;
    tree->invalidate = invalidate;
    tree->invalidate_arg = arg;
    tree->started_at = clock_now_ms();
    pthread_mutex_init(&tree->lock, NULL);
    pthread_cond_init(&tree->made, NULL);
    int r = store_open(config, cluster, mongo, &tree->store, f);
    if (r < 0) {
        tree_close(tree);
        return r;
    }
    if (mongo)
        r = media_open(config, mongo, media_outdated, tree, &tree->media, f);
    if (r < 0) {
        tree_close(tree);
        return r;
    }
    tree->kernel_ms = store_kernel_timeout_ms(tree->store);
    tree->told = told_new(TOLD_CHUNKS, tell_of_row, tree);
    tree->told_deleted = told_new(TOLD_CHUNKS / 4, tell_of_deleted, tree);
    tree->nodes = nodes_new((struct node_limits){config->scratch_size, config->scratch_files});
    tree->scratch = tree->nodes ? scratch_new(tree->nodes) : NULL;
    tree->notes = tree->nodes ? notes_new(tree->nodes, config->timeout_ms) : NULL;
    tree->memory = memory_new();
    tree->locks = locks_new(LOCKS_MAX);
    tree->report = report_new(config->errors_size);
    tree->refused = refused_new();
    tree->unopened = tree->nodes ? unopened_new(tree->nodes) : NULL;
    tree->by = by_new(config->by_folders);
    if (tree_access_renew(tree, config) < 0 || !tree->nodes || !tree->scratch || !tree->notes ||
        !tree->memory || !tree->report || !tree->refused || !tree->unopened || !tree->told ||
        !tree->told_deleted || !tree->locks || !tree->by || view_readme(tree, &tree->readme) < 0) {
        tree_close(tree);
        return fail_set(f, ENOMEM, "out of memory");
    }
    tree->readme->mtime = tree->readme->ctime = FIXED_TIME;
    tree->readme->shown_ino = address_place(PLACE_README, 0, 0);
    r = store_listen(tree->store, told_of_changes, tree);
    if (r < 0) {
        tree_close(tree);
        return fail_set(f, -r, "cannot start a thread: %s", strerrordesc_np(-r));
    }
    *out = tree;
    return 0;
}

static void tell_nobody(void *arg, uint64_t nodeid)
{
    (void)arg;
    (void)nodeid;
}

void tree_quiet(struct tree *tree)
{
    if (tree && tree->store)
        store_ending(tree->store);
    if (tree)
        media_ending(tree->media);
    if (tree && tree->store)
        store_quiet(tree->store);
    if (tree)
        media_quiet(tree->media);
    if (tree && tree->locks)
        locks_cancel_all(tree->locks);
}

void tree_close(struct tree *tree)
{
    if (!tree)
        return;
    tree_quiet(tree);
    tree->invalidate = tell_nobody; /* the session is over */
    handles_close(tree);
    listings_close(tree);
    refused_free(tree, tree->refused);
    view_forget(tree);
    notes_free(tree->notes);
    scratch_free(tree->scratch);
    map_clear(&tree->pending);
    unopened_free(tree->unopened);
    nodes_free(tree->nodes);
    struct map_entry *e;
    while ((e = map_next(&tree->revisions, NULL))) {
        struct open_revision *open = MAP_ELEMENT(e, struct open_revision, entry);
        map_remove(&tree->revisions, e);
        document_unref(open->document);
        free(open);
    }
    map_clear(&tree->revisions);
    map_clear(&tree->media_opened);
    media_close(tree->media);
    memory_free(tree->memory);
    report_free(tree->report);
    told_free(tree->told);
    told_free(tree->told_deleted);
    locks_free(tree->locks);
    by_free(tree->by);
    store_close(tree->store);
    tree_access_free(tree);
    pthread_cond_destroy(&tree->made);
    pthread_mutex_destroy(&tree->lock);
    free(tree);
}

/* Attributes */

struct timespec timespec_of_us(int64_t us)
{
    int64_t fraction = us % 1000000;
    return (struct timespec){.tv_sec = (time_t)(us / 1000000 - (fraction < 0)),
                             .tv_nsec = (long)(fraction < 0 ? fraction + 1000000 : fraction) * 1000};
}

int64_t us_of_timespec(struct timespec time)
{
    int64_t us;
    if (__builtin_mul_overflow((int64_t)time.tv_sec, INT64_C(1000000), &us) ||
        __builtin_add_overflow(us, (int64_t)time.tv_nsec / 1000, &us))
        return time.tv_sec < 0 ? INT64_MIN / 2
                               : INT64_MAX / 2; /* its ends mean something else (STORE_TIME_*) */
    return us;
}

static void attr_time(struct stat *attr, struct timespec time)
{
    attr->st_mtim = attr->st_ctim = attr->st_atim = time;
}

static void attr_size(struct stat *attr, size_t size)
{
    attr->st_size = (off_t)size;
    attr->st_blocks = (blkcnt_t)((size + 511) / 512);
    attr->st_blksize = 4096;
}

void attr_revision(const struct tree *tree, const struct row_key *key, const struct revision *revision,
                   struct stat *attr)
{
    const struct access *access = &tree->access[key->collection];
    *attr = (struct stat){.st_ino = address_row(key),
                          .st_mode = S_IFREG | access->file_mode,
                          .st_nlink = 1,
                          .st_uid = access->uid,
                          .st_gid = access->gid};
    attr_size(attr, revision->size);
    attr_time(attr, timespec_of_us(revision->mtime_us));
}

void attr_node(struct node *node, struct stat *attr)
{
    static const mode_t types[] = {
        [NODE_FILE] = S_IFREG, [NODE_LINK] = S_IFLNK, [NODE_FOLDER] = S_IFDIR, [NODE_TEXT] = S_IFREG};
    pthread_mutex_lock(&node->lock);
    *attr = (struct stat){.st_ino = node->shown_ino,
                          .st_mode = types[node->kind] | node->mode,
                          .st_nlink = node->kind == NODE_FOLDER ? 2 : 1,
                          .st_uid = node->uid,
                          .st_gid = node->gid};
    attr_size(attr, node->kind == NODE_FOLDER ? ENTRY_BYTES
                    : node->media             ? (size_t)media_draft_size(node)
                    : node->older             ? (size_t)node->older->length
                                              : node->content.len);
    attr_time(attr, node->mtime);
    attr->st_ctim = node->ctime;
    pthread_mutex_unlock(&node->lock);
}

/* Noted first: a change that is told from now on finds it. */
int64_t believed_ms(struct tree *tree, const struct row_key *key, const struct revision *revision,
                    uint64_t epoch)
{
    if (told_add(tree->told, key, revision_mark(revision)) < 0)
        return 0;
    return store_believed_ms(tree->store, key, revision->rev, epoch);
}

void entry_revision(struct tree *tree, const struct row_key *key, const struct revision *revision,
                    uint64_t epoch, struct entry *entry)
{
    uint64_t mark = revision_mark(revision);
    *entry =
        (struct entry){.nodeid = address_revision(key, mark), .generation = (uint32_t)map_hash_number(mark)};
    entry->name_ms = entry->attr_ms = believed_ms(tree, key, revision, epoch);
    if (memory_is_away_for_somebody(tree->memory, key))
        entry->name_ms = 0; /* who moved it away is answered otherwise */
    attr_revision(tree, key, revision, &entry->attr);
}

void entry_node(struct tree *tree, struct node *node, struct entry *entry)
{
    *entry = (struct entry){.nodeid = node->nodeid};
    attr_node(node, &entry->attr);
    node_looked_up(tree->nodes, node);
}

/* When a collection last changed; what is known when its shard does not say so soon. */
static int64_t changed_us(struct tree *tree, const struct caller *caller, unsigned collection,
                          unsigned region)
{
    struct changed *known = &tree->changed[collection][region];
    int64_t now = clock_now_ms();
    pthread_mutex_lock(&tree->lock);
    int64_t us = known->us;
    struct row_key folder = {.collection = (uint8_t)collection, .region = (uint8_t)region};
    bool recent =
        known->asked_at != 0 && now - known->asked_at < store_believed_ms(tree->store, &folder, 0, 0);
    if (!recent)
        known->asked_at = now; /* one asks, the others are content with what is known */
    pthread_mutex_unlock(&tree->lock);
    if (recent)
        return us;
    struct op op = caller->op;
    if (op.deadline > now + CHANGED_WAIT_MS)
        op.deadline = now + CHANGED_WAIT_MS;
    if (store_changed_us(tree->store, collection, region, &op, &us, NULL) == 0) {
        pthread_mutex_lock(&tree->lock);
        if (us > known->us) /* another replica may not have come so far */
            known->us = us;
        us = known->us;
        pthread_mutex_unlock(&tree->lock);
    }
    return us;
}

static unsigned folders_in(const struct tree *tree, enum place_kind kind)
{
    unsigned regional = 0;
    for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
        regional += !c->global && collection_shown(c, tree->config);
    return kind == PLACE_REGIONS   ? (unsigned)tree->config->nregions
           : kind == PLACE_REGION  ? regional + (tree->media != NULL)
           : kind == PLACE_ROOT    ? 2
           : kind == PLACE_CONTROL ? 1
                                   : 0;
}

void entry_place(struct tree *tree, const struct caller *caller, enum place_kind kind, unsigned collection,
                 unsigned region, struct entry *entry)
{
    const struct config *config = tree->config;
    uint64_t nodeid = address_place(kind, collection, region);
    *entry = (struct entry){.nodeid = nodeid, .name_ms = FIXED_MS, .attr_ms = FIXED_MS};
    entry->attr = (struct stat){.st_ino = nodeid,
                                .st_mode = S_IFDIR | config->dir_mode,
                                .st_uid = config->uid,
                                .st_gid = config->gid,
                                .st_nlink = 2 + folders_in(tree, kind)};
    attr_size(&entry->attr, ENTRY_BYTES);
    attr_time(&entry->attr, FIXED_TIME);
    if (kind == PLACE_COLLECTION || kind == PLACE_DELETED || kind == PLACE_EXPORT) {
        int64_t us = changed_us(tree, caller, collection, region);
        struct row_key folder = {.collection = (uint8_t)collection, .region = (uint8_t)region};
        entry->attr_ms = store_believed_ms(tree->store, &folder, 0, 0);
        entry->attr.st_uid = tree->access[collection].uid;
        entry->attr.st_gid = tree->access[collection].gid;
        if (us != 0)
            attr_time(&entry->attr, timespec_of_us(us));
    } else if (kind == PLACE_MEDIA) {
        media_attr(tree, caller, region, &entry->attr);
        entry->attr_ms = tree->kernel_ms;
    } else if (kind == PLACE_REFUSED) {
        entry->attr.st_mode = S_IFDIR | S_ISVTX | 0777; /* each file is its writer's alone */
    }
    if (kind == PLACE_NEXT_ID || kind == PLACE_EXPORT) {
        entry->attr.st_mode = S_IFREG | (tree->access[collection].file_mode & 0444);
        entry->attr.st_nlink = 1;
        entry->attr_ms = 0;
        attr_size(&entry->attr, 0);
    }
}

static const struct config_region *region_named(const struct tree *tree, const char *name)
{
    for (size_t i = 0; i < tree->config->nregions; i++)
        if (strcmp(tree->config->regions[i].name, name) == 0)
            return &tree->config->regions[i];
    return NULL;
}

static const struct config_region *region_numbered(const struct tree *tree, unsigned number)
{
    for (size_t i = 0; i < tree->config->nregions; i++)
        if (tree->config->regions[i].number == number)
            return &tree->config->regions[i];
    return NULL;
}

void path_of_name(const struct tree *tree, const struct row_key *folder, const char *name, char *out,
                  size_t size)
{
    const struct collection *collection = collection_numbered(folder->collection);
    const struct config_region *region = region_numbered(tree, folder->region);
    snprintf(out, size, "%s%s%s%s/%s", region ? "regions/" : "", region ? region->name : "",
             region ? "/" : "", collection ? collection->folder : "?", name);
}

void path_of_row(const struct tree *tree, const struct row_key *key, char *out, size_t size)
{
    char name[32] = "new.json";
    if (key->collection == COLLECTION_MEDIA) {
        path_of_meta(tree, key, out, size);
        return;
    }
    if (key->id)
        snprintf(name, sizeof name, "%lld.json", (long long)key->id);
    path_of_name(tree, key, name, out, size);
}

enum name_kind name_in(unsigned collection, const char *name, int64_t *id)
{
    const struct collection *c = collection_numbered(collection);
    enum name_kind kind = name_parse(name, id);
    if (c && kind == NAME_BY)
        return c->of_users || c->secret ? NAME_RESERVED : NAME_BY;
    return c && c->of_users &&
                   (kind == NAME_NEW || kind == NAME_NEXT_ID || kind == NAME_DELETED || kind == NAME_EXPORT)
               ? NAME_RESERVED
               : kind;
}

int mistaken_name(struct tree *tree, const struct row_key *folder, const char *name)
{
    struct fail f = {0};
    char path[NAME_MAX_BYTES + 320];
    path_of_name(tree, folder, name, path, sizeof path);
    int r = fail_set(&f, EINVAL,
                     "a row's file is named <id>.json: digits without a sign or leading zeros, from 1 on, "
                     "below 274877906944");
    report_add(tree->report, path, &f);
    return r;
}

int report_read(struct tree *tree, const struct row_key *key, int r, const struct fail *f)
{
    if (r == 0 || r == -ENOENT || r == -ESTALE || r == -EINTR || r == -ENAMETOOLONG || !f->err)
        return r;
    char path[320];
    path_of_row(tree, key, path, sizeof path);
    report_add(tree->report, path, f);
    return r;
}

/* Lookup */

static int lookup_root(struct tree *tree, const struct caller *caller, const char *name, struct entry *entry)
{
    const struct collection *c = collection_of_folder(name);
    if (strcmp(name, "README") == 0) {
        entry_node(tree, tree->readme, entry);
        entry->name_ms = entry->attr_ms = FIXED_MS;
        return 0;
    }
    if (c && c->global)
        entry_place(tree, caller, PLACE_COLLECTION, c->number, 0, entry);
    else if (strcmp(name, "regions") == 0)
        entry_place(tree, caller, PLACE_REGIONS, 0, 0, entry);
    else if (strcmp(name, ".campusfs") == 0)
        entry_place(tree, caller, PLACE_CONTROL, 0, 0, entry);
    else
        return -ENOENT;
    return 0;
}

static int lookup_control(struct tree *tree, const struct caller *caller, const char *name,
                          struct entry *entry)
{
    const struct view *view = view_named(name);
    struct node *node;
    if (strcmp(name, VIEW_REPORTS) == 0) {
        entry_place(tree, caller, PLACE_REPORTS, 0, 0, entry);
        return 0;
    }
    if (!view)
        return -ENOENT;
    int r = view_node(tree, caller, view, &node);
    if (r < 0)
        return r;
    entry_node(tree, node, entry);
    node_unref(tree->nodes, node);
    return 0;
}

static int lookup_report(struct tree *tree, const struct caller *caller, const char *name,
                         struct entry *entry)
{
    size_t index;
    struct node *node;
    if (!view_report_named(name, &index))
        return -ENOENT;
    int r = view_report_node(tree, caller, index, &node);
    if (r < 0)
        return r;
    entry_node(tree, node, entry);
    node_unref(tree->nodes, node);
    return 0;
}

int scratch_entry(struct tree *tree, uint64_t folder, const char *name, struct entry *entry)
{
    struct node *node = scratch_find(tree->scratch, folder, name);
    if (!node)
        return -ENOENT;
    entry_node(tree, node, entry);
    node_unref(tree->nodes, node);
    return 0;
}

/* A row that does not exist: its creator sees the draft that is to become it. */
static int lookup_pending(struct tree *tree, const struct caller *caller, const struct row_key *key,
                          struct entry *entry)
{
    struct node *node = draft_pending(tree, key, caller->tid, NULL);
    if (!node)
        return -ENOENT;
    entry_node(tree, node, entry);
    node_unref(tree->nodes, node);
    return 0;
}

/* Whether what an earlier LOOKUP of this note answered is still the row, or already in use. */
static bool is_noted_current(struct tree *tree, const struct caller *caller, const struct note *note)
{
    struct revision revision;
    struct node *node = note->node;
    pthread_mutex_lock(&node->lock);
    bool used = !node->draft.spent && (node->handles > 0 || node->draft.dirty || !node->draft.active);
    uint64_t base = node->draft.spent ? 0 : node->draft.base_rev;
    pthread_mutex_unlock(&node->lock);
    return used ||
           (store_stat(tree->store, &note->key, &caller->op, &revision, NULL) == 0 && revision.rev == base);
}

/* The thread came back for something of its own: the node it gets, made now if it is not yet. */
static int lookup_noted_node(struct tree *tree, const struct caller *caller, struct note *note,
                             struct entry *entry)
{
    struct node *node = NULL;
    int r = 0;
    if (note->node && is_noted_current(tree, caller, note)) {
        node = note->node;
        node_ref(tree->nodes, node);
    } else {
        struct document *document CLEANUP(document_unrefp) = NULL;
        r = store_get(tree->store, &note->key, &caller->op, &document, NULL);
        if (r == 0)
            r = draft_new(tree, &note->key, document, &node);
        if (r == 0 && note->purpose == NOTE_MOVE)
            draft_to_copy(caller, node);
    }
    if (r < 0)
        return r;
    notes_answered(tree->notes, caller->tid, &note->key, node, NULL);
    entry_node(tree, node, entry);
    pthread_mutex_lock(&node->lock);
    if (node->draft.active && node->handles == 0 && !node->draft.dirty)
        entry->attr_ms = DRAFT_ATTR_MS; /* the open that follows need not ask for them */
    pthread_mutex_unlock(&node->lock);
    if (node != note->node && note->purpose == NOTE_WRITE)
        unopened_add(tree->unopened, node);
    node_unref(tree->nodes, node);
    return 0;
}

static int lookup_noted_reader(struct tree *tree, const struct caller *caller, const struct row_key *key,
                               struct entry *entry)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    struct fail f = {0};
    int r = store_get(tree->store, key, &caller->op, &document, &f);
    if (r < 0)
        return report_read(tree, key, r, &f);
    notes_answered(tree->notes, caller->tid, key, NULL, document);
    entry_revision(tree, key, &document->revision, 0, entry);
    return 0;
}

static int lookup_row(struct tree *tree, const struct caller *caller, const struct row_key *key,
                      struct entry *entry)
{
    struct note note = notes_find(tree->notes, caller->tid, key);
    int r = -ENOENT;
    if (note.purpose == NOTE_WRITE || note.purpose == NOTE_MOVE)
        r = lookup_noted_node(tree, caller, &note, entry);
    else if (note.purpose == NOTE_READ)
        r = lookup_noted_reader(tree, caller, key, entry);
    bool noted = note.purpose != NOTE_NONE;
    note_clear(tree->notes, &note);
    if (noted)
        return r;
    if (memory_is_away(tree->memory, key, caller->tid))
        return lookup_pending(tree, caller, key, entry);
    struct revision revision;
    struct fail f = {0};
    r = store_stat(tree->store, key, &caller->op, &revision, &f);
    if (r == -ENOENT)
        return lookup_pending(tree, caller, key, entry);
    if (r == 0)
        entry_revision(tree, key, &revision, 0, entry);
    return report_read(tree, key, r, &f);
}

static int lookup_collection(struct tree *tree, const struct caller *caller, uint64_t parent,
                             const struct row_key *folder, const char *name, struct entry *entry)
{
    struct row_key key = *folder;
    switch (name_in(key.collection, name, &key.id)) {
    case NAME_ROW:
        return lookup_row(tree, caller, &key, entry);
    case NAME_NEW:
        return lookup_pending(tree, caller, &key, entry);
    case NAME_NEXT_ID:
        entry_place(tree, caller, PLACE_NEXT_ID, key.collection, key.region, entry);
        return 0;
    case NAME_EXPORT:
        entry_place(tree, caller, PLACE_EXPORT, key.collection, key.region, entry);
        return 0;
    case NAME_REFUSED:
        entry_place(tree, caller, PLACE_REFUSED, key.collection, key.region, entry);
        return 0;
    case NAME_DELETED:
        entry_place(tree, caller, PLACE_DELETED, key.collection, key.region, entry);
        return 0;
    case NAME_BY:
        return by_lookup(tree, caller, &(struct place){.kind = PLACE_COLLECTION, .key = *folder}, name,
                         entry);
    case NAME_SCRATCH:
        return scratch_entry(tree, parent, name, entry);
    default:
        return -ENOENT;
    }
}

int tree_lookup(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                struct entry *entry)
{
    struct place place;
    const struct config_region *region;
    const struct collection *c;
    if (strlen(name) > NAME_MAX_BYTES)
        return -ENAMETOOLONG;
    if (!address_parse(parent, &place))
        return -ENOENT;
    switch (place.kind) {
    case PLACE_ROOT:
        return lookup_root(tree, caller, name, entry);
    case PLACE_REGIONS:
        region = region_named(tree, name);
        if (region)
            entry_place(tree, caller, PLACE_REGION, 0, region->number, entry);
        return region ? 0 : -ENOENT;
    case PLACE_REGION:
        if (media_shown(tree, place.key.region) && strcmp(name, MEDIA_FOLDER) == 0) {
            entry_place(tree, caller, PLACE_MEDIA, 0, place.key.region, entry);
            return 0;
        }
        c = collection_of_folder(name);
        if (!c || c->global || !collection_shown(c, tree->config))
            return -ENOENT;
        entry_place(tree, caller, PLACE_COLLECTION, c->number, place.key.region, entry);
        return 0;
    case PLACE_COLLECTION:
        return lookup_collection(tree, caller, parent, &place.key, name, entry);
    case PLACE_MEDIA:
    case PLACE_MEDIA_FOLDER:
        return tree->media ? media_lookup(tree, caller, &place, name, entry) : -ENOENT;
    case PLACE_META:
    case PLACE_META_REVISIONS:
        return tree->media ? meta_lookup(tree, caller, &place, name, entry) : -ENOENT;
    case PLACE_CONTROL:
        return lookup_control(tree, caller, name, entry);
    case PLACE_REPORTS:
        return lookup_report(tree, caller, name, entry);
    case PLACE_DELETED:
        return deleted_lookup(tree, caller, &place.key, name, entry);
    case PLACE_BY:
    case PLACE_BY_FIELD:
    case PLACE_BY_VALUE:
        return by_lookup(tree, caller, &place, name, entry);
    case PLACE_REFUSED:
    case PLACE_NODE:
        return scratch_entry(tree, parent, name, entry);
    default:
        return -ENOTDIR;
    }
}

void tree_forget(struct tree *tree, uint64_t nodeid, uint64_t n)
{
    struct place place;
    if (!address_parse(nodeid, &place))
        return;
    if (place.kind == PLACE_NODE)
        node_forget(tree->nodes, nodeid, n);
    else if (place.kind == PLACE_BY_VALUE)
        by_forget(tree, place.number, n);
}

bool is_scratch_folder(struct tree *tree, uint64_t nodeid, struct place *place)
{
    if (!address_parse(nodeid, place))
        return false;
    if (place->kind != PLACE_NODE)
        return place->kind == PLACE_COLLECTION || place->kind == PLACE_REFUSED || place->kind == PLACE_META;
    struct node *node = node_get(tree->nodes, nodeid);
    bool folder = node && node->kind == NODE_FOLDER;
    node_unref(tree->nodes, node);
    return folder;
}

void tree_count(struct tree *tree, enum tree_request kind, int result)
{
    __atomic_add_fetch(&tree->requests[kind], 1, __ATOMIC_RELAXED);
    if (result < 0)
        __atomic_add_fetch(&tree->errors[kind], 1, __ATOMIC_RELAXED);
}
