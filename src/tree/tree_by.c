#include "tree/tree_by.h"

#include <stdio.h>
#include <string.h>

#include "entity/store_by.h"
#include "tree/by_name.h"

enum {
    FOLDER_BYTES = 128, /* memory for a folder of a value, as by_folders counts it */
    CHANGES = 1024,     /* own changes of the last moment: more, and the oldest are seen late */
    FIELDS_MAX = 256,   /* numbers of a collection's fields (sql/) */
    FIRST_VALUES = 128,
    VALUES_GROWTH = 4,
    ONE = 1,
    READABLE = 0444,
    BELIEVED_MAX_MS = 1000,
};

/* A row that was changed here: links of its former revision are outdated. */
struct by_change {
    struct row_key key;
    bool any; /* the former revision is not known */
    uint64_t mark;
    int64_t until; /* clock_now_ms(): from then on the kernel believes nothing older; 0 = none */
    pid_t told;    /* the thread that was last answered ESTALE for it: if it asks again it has no name */
};

struct by {
    struct by_folders *folders;
    int64_t told_at;      /* atomic, clock_now_ms(): when a link was last told; changes count only then */
    pthread_mutex_t lock; /* guards all below */
    char *fields[COLLECTIONS_MAX][FIELDS_MAX]; /* owned: names as they were looked up first, for messages */
    size_t next;
    struct by_change changes[CHANGES];
};

struct by *by_new(size_t folders_max)
{
    struct by *by = calloc(1, sizeof *by);
    if (!by)
        return NULL;
    pthread_mutex_init(&by->lock, NULL);
    by->folders = by_folders_new(folders_max, folders_max * FOLDER_BYTES);
    if (by->folders)
        return by;
    by_free(by);
    return NULL;
}

void by_free(struct by *by)
{
    if (!by)
        return;
    by_folders_free(by->folders);
    for (size_t i = 0; i < COLLECTIONS_MAX * FIELDS_MAX; i++)
        free(by->fields[i / FIELDS_MAX][i % FIELDS_MAX]);
    pthread_mutex_destroy(&by->lock);
    free(by);
}

bool place_is_by(const struct place *place)
{
    return place->kind == PLACE_BY || place->kind == PLACE_BY_FIELD || place->kind == PLACE_BY_VALUE ||
           place->kind == PLACE_BY_LINK;
}

static int64_t believed(const struct tree *tree)
{
    return tree->kernel_ms < BELIEVED_MAX_MS ? tree->kernel_ms : BELIEVED_MAX_MS;
}

/* ---- what was changed here a moment ago ---- */

void by_row_changed(struct tree *tree, const struct row_key *key, uint64_t former_rev)
{
    struct by *by = tree->by;
    int64_t now = clock_now_ms();
    int64_t told_at = __atomic_load_n(&by->told_at, __ATOMIC_RELAXED);
    if (told_at == 0 || now - told_at > believed(tree))
        return; /* the kernel believes nothing of links */
    pthread_mutex_lock(&by->lock);
    by->changes[by->next] = (struct by_change){.key = *key,
                                               .any = former_rev == 0,
                                               .mark = address_by_link(key, former_rev),
                                               .until = now + believed(tree)};
    by->next = (by->next + 1) % CHANGES;
    pthread_mutex_unlock(&by->lock);
}

/* Under the lock: the newest change that makes the link outdated; NULL when there is none. */
static struct by_change *change_find(struct by *by, const struct row_key *key, uint64_t nodeid)
{
    int64_t now = clock_now_ms();
    for (size_t i = 1; i <= CHANGES; i++) {
        struct by_change *change = &by->changes[(by->next + CHANGES - i) % CHANGES];
        if (change->until < now)
            return NULL; /* and so are those before it */
        if (change->key.id == key->id && change->key.collection == key->collection &&
            change->key.region == key->region && (change->any || change->mark == nodeid))
            return change;
    }
    return NULL;
}

/*
 * Whether a link that the kernel holds may lead from a folder that the row has left. Each thread is told
 * once: by then it has looked the name up, or it holds the link by a descriptor, and cannot.
 */
static bool is_outdated(struct tree *tree, const struct caller *caller, const struct place *place)
{
    struct by *by = tree->by;
    pthread_mutex_lock(&by->lock);
    struct by_change *change = change_find(by, &place->key, address_by_link(&place->key, place->mark));
    bool outdated = change && caller->tid != 0 && change->told != caller->tid;
    if (outdated)
        change->told = caller->tid;
    pthread_mutex_unlock(&by->lock);
    return outdated;
}

/* The link is told anew, under the very number of one that was outdated. */
static void told_anew(struct tree *tree, const struct row_key *key, uint64_t nodeid)
{
    struct by *by = tree->by;
    struct by_change *change;
    __atomic_store_n(&by->told_at, clock_now_ms(), __ATOMIC_RELAXED);
    pthread_mutex_lock(&by->lock);
    while ((change = change_find(by, key, nodeid)))
        change->key.id = 0;
    pthread_mutex_unlock(&by->lock);
}

/* ---- attributes ---- */

/* A folder of .by: owner and time of the collection's, open to who may read its files. */
static void entry_folder(struct tree *tree, const struct caller *caller, const struct row_key *key,
                         uint64_t nodeid, uint64_t ino, struct entry *entry)
{
    entry_place(tree, caller, PLACE_COLLECTION, key->collection, key->region, entry);
    mode_t readable = tree->access[key->collection].file_mode & READABLE;
    entry->nodeid = nodeid;
    entry->attr.st_ino = ino;
    entry->attr.st_mode = S_IFDIR | readable | readable >> 2;
    entry->attr.st_nlink = 1; /* nobody has counted them */
    entry->name_ms = entry->attr_ms = believed(tree);
}

static const char target_folder[] = "../../../";

static void attr_link(const struct tree *tree, const struct row_key *key, struct stat *attr)
{
    char name[32];
    struct revision revision = {0};
    revision.size = (size_t)snprintf(name, sizeof name, "%s%lld.json", target_folder, (long long)key->id);
    attr_revision(tree, key, &revision, attr);
    attr->st_ino = address_by_link(key, 0);
    attr->st_mode = S_IFLNK | 0777;
    attr->st_mtim = attr->st_ctim = attr->st_atim = FIXED_TIME;
}

void entry_by_link(struct tree *tree, const struct row_key *key, uint64_t rev, struct entry *entry)
{
    uint64_t nodeid = address_by_link(key, rev);
    *entry = (struct entry){.nodeid = nodeid, .name_ms = believed(tree)};
    attr_link(tree, key, &entry->attr); /* they are asked for each time: so own changes are seen */
    told_anew(tree, key, nodeid);
}

/* 44 bits of what the folder stands for. */
static uint64_t ino_of(const struct by_folder *folder)
{
    uint64_t place =
        (uint64_t)folder->key.collection << 16 | (uint64_t)folder->key.region << 8 | folder->field;
    return address_by_value_ino(map_hash_bytes(folder->value, strlen(folder->value), place));
}

int by_getattr(struct tree *tree, const struct caller *caller, const struct place *place, struct stat *attr,
               int64_t *attr_ms)
{
    struct by_folder folder = {.key = place->key, .field = (unsigned)place->number};
    struct entry entry;
    uint64_t ino;
    *attr_ms = 0;
    if (place->kind == PLACE_BY_LINK) {
        attr_link(tree, &place->key, attr);
        return is_outdated(tree, caller, place) && thread_asks(caller->tid) != ASKS_BY_DESCRIPTOR ? -ESTALE
                                                                                                  : 0;
    }
    if (place->kind == PLACE_BY_VALUE && !by_folder_get(tree->by->folders, place->number, &folder))
        return -ESTALE;
    ino = place->kind == PLACE_BY_VALUE   ? ino_of(&folder)
          : place->kind == PLACE_BY_FIELD ? address_by_field(&folder.key, folder.field)
                                          : address_place(PLACE_BY, folder.key.collection, folder.key.region);
    entry_folder(tree, caller, &folder.key, 0, ino, &entry);
    *attr = entry.attr;
    *attr_ms = entry.attr_ms;
    return 0;
}

int by_readlink(struct tree *tree, const struct caller *caller, const struct place *place, char **target)
{
    if (is_outdated(tree, caller, place))
        return -ESTALE;
    return asprintf(target, "%s%lld.json", target_folder, (long long)place->key.id) < 0 ? -ENOMEM : 0;
}

/* ---- names ---- */

/* A field's name never changes with its number, so the first is kept; without memory messages lack it. */
static void field_named(struct by *by, const struct row_key *key, int64_t field, const char *name)
{
    if (field < 0 || field >= FIELDS_MAX)
        return;
    pthread_mutex_lock(&by->lock);
    char **known = &by->fields[key->collection % COLLECTIONS_MAX][field];
    if (!*known)
        *known = strdup(name);
    pthread_mutex_unlock(&by->lock);
}

/*
 * Tells an error that is worth words, since the caller sees only an errno: of a name in a folder of that
 * kind, or of the folder, "". A value may be what the log's readers must not see: the path has an asterisk
 * for it.
 */
static int report_by(struct tree *tree, const struct by_folder *folder, enum place_kind kind,
                     const char *name, int r, const struct fail *f)
{
    char whole[NAME_MAX_BYTES + 96], path[NAME_MAX_BYTES + 420];
    struct by *by = tree->by;
    if (r >= 0 || !f->err || r == -ENOENT || r == -EINTR)
        return r;
    pthread_mutex_lock(&by->lock);
    const char *field = folder->field < FIELDS_MAX ? by->fields[folder->key.collection][folder->field] : NULL;
    snprintf(whole, sizeof whole, ".by%s%.64s%s%s%s", kind == PLACE_BY ? "" : "/",
             kind == PLACE_BY ? ""
             : field          ? field
                              : "?",
             kind == PLACE_BY_VALUE ? "/*" : "", *name ? "/" : "", name);
    pthread_mutex_unlock(&by->lock);
    path_of_name(tree, &folder->key, whole, path, sizeof path);
    report_add(tree->report, path, f);
    return r;
}

static int lookup_field(struct tree *tree, const struct caller *caller, const struct row_key *key,
                        const char *name, struct entry *entry)
{
    struct by_page *page CLEANUP(freep) = NULL;
    struct fail f = {0};
    int r = store_by_fields(tree->store, key->collection, key->region, &caller->op, &page, &f);
    for (size_t i = 0; r == 0 && i < page->count; i++) {
        if (strcmp(page->items[i].text, name) != 0)
            continue;
        uint64_t nodeid = address_by_field(key, (unsigned)page->items[i].number);
        field_named(tree->by, key, page->items[i].number, name);
        entry_folder(tree, caller, key, nodeid, nodeid, entry);
        return 0;
    }
    return report_by(tree, &(struct by_folder){.key = *key}, PLACE_BY, name, r < 0 ? r : -ENOENT, &f);
}

static int rows_of(struct tree *tree, const struct caller *caller, const struct by_folder *folder,
                   int64_t after, size_t limit, struct page **page, struct fail *f)
{
    return store_by_rows(tree->store, folder->key.collection, folder->key.region, folder->field,
                         folder->value, after, limit, &caller->op, page, f);
}

static int lookup_value(struct tree *tree, const struct caller *caller, const struct place *parent,
                        const char *name, struct entry *entry)
{
    struct by_folder folder = {.key = parent->key, .field = (unsigned)parent->number};
    struct page *page CLEANUP(freep) = NULL;
    struct fail f = {0};
    uint64_t number;
    if (!by_name_decode(name, folder.value))
        return -ENOENT;
    int r = rows_of(tree, caller, &folder, 0, ONE, &page, &f);
    if (r == 0 && page->count == 0)
        return -ENOENT;
    if (r == 0)
        r = by_folder_looked_up(tree->by->folders, &folder, &number);
    if (r == -ENFILE)
        fail_set(&f, ENFILE,
                 "the kernel knows too many folders of values below .by; it forgets them when memory is "
                 "wanted, or by \"echo 2 > /proc/sys/vm/drop_caches\"");
    if (r < 0)
        return report_by(tree, &folder, PLACE_BY_VALUE, "", r, &f);
    entry_folder(tree, caller, &folder.key, address_by_value(number), ino_of(&folder), entry);
    return 0;
}

static int lookup_link(struct tree *tree, const struct caller *caller, const struct place *parent,
                       const char *name, struct entry *entry)
{
    struct page *page CLEANUP(freep) = NULL;
    struct by_folder folder;
    struct fail f = {0};
    struct row_key key;
    if (!by_folder_get(tree->by->folders, parent->number, &folder))
        return -ESTALE;
    key = folder.key;
    if (name_parse(name, &key.id) != NAME_ROW)
        return -ENOENT;
    int r = rows_of(tree, caller, &folder, key.id - 1, ONE, &page, &f);
    if (r < 0)
        return report_by(tree, &folder, PLACE_BY_VALUE, name, r, &f);
    if (page->count == 0 || page->rows[0].id != key.id)
        return -ENOENT;
    entry_by_link(tree, &key, page->rows[0].revision.rev, entry);
    return 0;
}

int by_lookup(struct tree *tree, const struct caller *caller, const struct place *parent, const char *name,
              struct entry *entry)
{
    uint64_t nodeid = address_place(PLACE_BY, parent->key.collection, parent->key.region);
    switch (parent->kind) {
    case PLACE_COLLECTION: /* .by itself */
        entry_folder(tree, caller, &parent->key, nodeid, nodeid, entry);
        return 0;
    case PLACE_BY:
        return lookup_field(tree, caller, &parent->key, name, entry);
    case PLACE_BY_FIELD:
        return lookup_value(tree, caller, parent, name, entry);
    case PLACE_BY_VALUE:
        return lookup_link(tree, caller, parent, name, entry);
    default:
        return -ENOTDIR;
    }
}

void by_forget(struct tree *tree, uint64_t number, uint64_t n)
{
    by_folder_forget(tree->by->folders, number, n);
}

int by_refuse(struct tree *tree, const struct place *place, const char *name)
{
    struct by_folder folder = {.key = place->key, .field = (unsigned)place->number};
    struct fail f = {0};
    if (tree->config->read_only)
        return -EROFS;
    if (place->kind == PLACE_BY_VALUE && !by_folder_get(tree->by->folders, place->number, &folder))
        return -ESTALE;
    int r = fail_set(&f, EPERM,
                     "what is in .by follows from the rows: change or delete a row under its own name");
    return report_by(tree, &folder, place->kind, name, r, &f);
}

/* ---- listings ---- */

struct by_listing {
    enum place_kind kind;
    struct by_folder folder;
    struct by_page *page; /* owned: names from index `first` on; NULL before the first */
    size_t first, limit;
};

int by_listing_new(struct tree *tree, const struct place *place, struct by_listing **out)
{
    struct by_listing *by = calloc(1, sizeof *by);
    if (!by)
        return -ENOMEM;
    by->kind = place->kind;
    by->folder.key = place->key;
    by->folder.field = (unsigned)place->number;
    if (place->kind == PLACE_BY_VALUE && !by_folder_get(tree->by->folders, place->number, &by->folder)) {
        free(by);
        return -ESTALE;
    }
    *out = by;
    return 0;
}

void by_listing_free(struct by_listing *by)
{
    if (by)
        free(by->page);
    free(by);
}

void by_listing_rewind(struct by_listing *by)
{
    if (!by)
        return;
    free(by->page);
    by->page = NULL;
    by->first = 0;
}

struct row_key by_listing_key(const struct by_listing *by)
{
    return by->folder.key;
}

uint64_t by_listing_ino(const struct by_listing *by)
{
    return by->kind == PLACE_BY ? address_place(PLACE_BY, by->folder.key.collection, by->folder.key.region)
           : by->kind == PLACE_BY_FIELD ? address_by_field(&by->folder.key, by->folder.field)
                                        : ino_of(&by->folder);
}

uint64_t by_listing_parent(const struct by_listing *by)
{
    const struct row_key *key = &by->folder.key;
    return by->kind == PLACE_BY_VALUE ? address_by_field(key, by->folder.field)
                                      : address_place(by->kind == PLACE_BY ? PLACE_COLLECTION : PLACE_BY,
                                                      key->collection, key->region);
}

bool by_listing_waits(const struct by_listing *by, size_t index)
{
    return !by->page || index < by->first ||
           (index >= by->first + by->page->count && by->page->count == by->limit);
}

/* The next page of names, or the first. */
static int load_names(struct tree *tree, const struct caller *caller, struct by_listing *by, bool first)
{
    const struct by_page *former = first ? NULL : by->page;
    const char *after = former ? former->items[former->count - 1].text : NULL;
    const struct row_key *key = &by->folder.key;
    size_t limit = former ? by->limit * VALUES_GROWTH : FIRST_VALUES;
    struct by_page *page = NULL;
    struct fail f = {0};
    limit = limit < tree->config->page_rows ? limit : tree->config->page_rows;
    int r;
    if (by->kind == PLACE_BY) {
        r = store_by_fields(tree->store, key->collection, key->region, &caller->op, &page, &f);
        limit = SIZE_MAX;
    } else {
        r = store_by_values(tree->store, key->collection, key->region, by->folder.field, after, limit,
                            &caller->op, &page, &f);
    }
    if (r < 0)
        return report_by(tree, &by->folder, by->kind, "", r, &f);
    by->first = former ? by->first + former->count : 0;
    by->limit = limit;
    free(by->page);
    by->page = page;
    return 0;
}

int by_listing_at(struct tree *tree, const struct caller *caller, struct by_listing *by, size_t index,
                  char *name, struct listed *listed)
{
    for (;; index++) {
        while (by_listing_waits(by, index)) {
            int r = load_names(tree, caller, by, !by->page || index < by->first);
            if (r < 0)
                return r;
        }
        if (index >= by->first + by->page->count)
            return 0;
        const struct by_item *item = &by->page->items[index - by->first];
        struct by_folder folder = {.key = by->folder.key, .field = by->folder.field};
        if (by->kind == PLACE_BY)
            snprintf(name, NAME_MAX_BYTES + 1, "%s", item->text);
        else if (!by_name_encode(item->text, name))
            continue; /* too long for a name */
        snprintf(folder.value, sizeof folder.value, "%s", item->text);
        *listed = (struct listed){.name = name, .next = (off_t)index + 1};
        listed->entry.attr.st_mode = S_IFDIR;
        listed->entry.attr.st_ino =
            by->kind == PLACE_BY ? address_by_field(&folder.key, (unsigned)item->number) : ino_of(&folder);
        return 1;
    }
}

int by_listing_page(struct tree *tree, const struct caller *caller, struct by_listing *by, int64_t after,
                    size_t limit, struct page **page, struct fail *f)
{
    return rows_of(tree, caller, &by->folder, after, limit, page, f);
}

int by_metrics(struct tree *tree, struct buf *out)
{
    size_t count, bytes;
    by_folders_usage(tree->by->folders, &count, &bytes);
    return buf_printf(out,
                      "# TYPE campusfs_by_folders gauge\ncampusfs_by_folders %zu\n"
                      "# TYPE campusfs_by_folders_limit gauge\ncampusfs_by_folders_limit %zu\n"
                      "# TYPE campusfs_by_bytes gauge\ncampusfs_by_bytes %zu\n",
                      count, tree->config->by_folders, bytes);
}
