/* The entries of the index: how documents become names. All here is under the index's lock. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "media/index_internal.h"
#include "media/path.h"

#define INO_HASHED (UINT64_C(1) << 53)
#define NODE_MASK ((UINT64_C(1) << 54) - 1)

/* ---- finding ---- */

struct name_key {
    const struct entry *parent;
    const char *name;
    size_t len;
};

static uint64_t name_hash(const struct entry *parent, const char *name, size_t len)
{
    return map_hash_bytes(name, len, map_hash_number((uint64_t)(uintptr_t)parent));
}

static bool name_equal(const struct map_entry *e, const void *arg)
{
    const struct name_key *key = arg;
    const struct entry *entry = MAP_ELEMENT(e, struct entry, by_name);
    return entry->parent == key->parent && entry->len == key->len &&
           !memcmp(entry->name, key->name, key->len);
}

struct entry *index_find_child(const struct media_index *index, const struct entry *parent, const char *name,
                               size_t len)
{
    struct name_key key = {parent, name, len};
    struct map_entry *e = map_find(&index->by_name, name_hash(parent, name, len), name_equal, &key);
    return e ? MAP_ELEMENT(e, struct entry, by_name) : NULL;
}

struct entry *index_find_path(const struct media_index *index, const char *path)
{
    struct entry *entry = index->root;
    while (entry && *path) {
        size_t len = media_path_name(path);
        entry = index_find_child(index, entry, path, len);
        path += len + (path[len] == '/');
    }
    return entry;
}

static bool ino_equal(const struct map_entry *e, const void *ino)
{
    return MAP_ELEMENT(e, struct entry, by_ino)->ino == *(const uint64_t *)ino;
}

struct entry *index_find_ino(const struct media_index *index, uint64_t ino)
{
    if (ino == MEDIA_ROOT)
        return index->root;
    struct map_entry *e = map_find(&index->by_ino, map_hash_number(ino), ino_equal, &ino);
    return e ? MAP_ELEMENT(e, struct entry, by_ino) : NULL;
}

static bool node_equal(const struct map_entry *e, const void *node)
{
    return MAP_ELEMENT(e, struct entry, by_node)->node == *(const uint64_t *)node;
}

struct entry *index_find_node(const struct media_index *index, uint64_t node)
{
    struct map_entry *e = map_find(&index->by_node, map_hash_number(node), node_equal, &node);
    return e ? MAP_ELEMENT(e, struct entry, by_node) : NULL;
}

struct id_key {
    const uint8_t *id;
    uint32_t len;
};

static bool id_equal(const struct map_entry *e, const void *arg)
{
    const struct id_key *key = arg;
    const struct media_revision *r = MAP_ELEMENT(e, struct known, by_id)->revision;
    return r->id_len == key->len && !memcmp(r->id, key->id, key->len);
}

struct known *index_known_id(const struct media_index *index, const uint8_t *id, uint32_t len)
{
    struct id_key key = {id, len};
    struct map_entry *e = map_find(&index->by_id, map_hash_bytes(id, len, 0), id_equal, &key);
    return e ? MAP_ELEMENT(e, struct known, by_id) : NULL;
}

struct known *index_known(const struct media_index *index, const struct media_revision *revision)
{
    return index_known_id(index, revision->id, revision->id_len);
}

int index_entry_path(const struct entry *entry, char path[MEDIA_FILENAME_MAX + 1])
{
    char *at = path + MEDIA_FILENAME_MAX;
    *at = '\0';
    for (const struct entry *e = entry; e && e->parent; e = e->parent) {
        bool slash = *at != '\0';
        if ((size_t)(at - path) < e->len + slash)
            return -ENAMETOOLONG;
        if (slash)
            *--at = '/';
        at -= e->len;
        memcpy(at, e->name, e->len);
    }
    memmove(path, at, strlen(at) + 1);
    return 0;
}

/* ---- telling ---- */

void index_tell(struct media_index *index, bool file, uint64_t number)
{
    if (!index->options.outdated)
        return;
    if (index->noutdated == index->outdated_cap) {
        size_t cap = index->outdated_cap ? 2 * index->outdated_cap : 64;
        struct outdated *list = realloc(index->outdated, cap * sizeof(*list));
        if (!list)
            return; /* the kernel believes it for its second */
        index->outdated = list;
        index->outdated_cap = cap;
    }
    index->outdated[index->noutdated++] = (struct outdated){file, number};
}

/* ---- entries ---- */

uint64_t index_path_hash(const char *path)
{
    return map_hash_bytes(path, strlen(path), 0);
}

/* Of the names from the course on, so that it is the same after a remount. */
static uint64_t hash_of_path(const struct entry *parent, const char *name, size_t len, uint64_t salt)
{
    uint64_t above = parent->parent ? hash_of_path(parent->parent, parent->name, parent->len, 0) : 0;
    return map_hash_bytes(name, len, above + salt);
}

static uint64_t free_ino(const struct media_index *index, const struct entry *parent, const char *name,
                         size_t len)
{
    if (!parent->parent)
        return (uint64_t)media_path_course(name, len);
    uint64_t ino, salt = 0;
    do
        ino = (hash_of_path(parent, name, len, salt++) & (INO_HASHED - 1)) | INO_HASHED;
    while (index_find_ino(index, ino));
    return ino;
}

uint64_t media_index_ino(struct media_index *index, const char *path)
{
    uint64_t ino, above = 0, salt = 0;
    size_t len = media_path_name(path);
    for (; path[len]; path += len + 1, len = media_path_name(path))
        above = map_hash_bytes(path, len, above);
    index_lock(index);
    do
        ino = (map_hash_bytes(path, len, above + salt++) & (INO_HASHED - 1)) | INO_HASHED;
    while (index_find_ino(index, ino));
    index_unlock(index);
    return ino;
}

static struct entry *entry_new(struct entry *parent, const char *name, size_t len)
{
    struct entry *entry = calloc(1, sizeof(*entry) + len + 1);
    if (!entry)
        return NULL;
    entry->parent = parent;
    entry->len = len;
    memcpy(entry->name, name, len);
    return entry;
}

static void change_folder(struct entry *entry, bool folder)
{
    if (entry->folder != folder && entry->parent)
        entry->parent->nfolders += folder ? 1 : (size_t)-1;
    entry->folder = folder;
}

static struct entry *entry_add(struct media_index *index, struct entry *parent, const char *name, size_t len)
{
    struct entry *entry = entry_new(parent, name, len);
    if (!entry)
        return NULL;
    entry->ino = free_ino(index, parent, name, len);
    if (map_add(&index->by_name, &entry->by_name, name_hash(parent, name, len)) < 0) {
        free(entry);
        return NULL;
    }
    if (map_add(&index->by_ino, &entry->by_ino, map_hash_number(entry->ino)) < 0) {
        map_remove(&index->by_name, &entry->by_name);
        free(entry);
        return NULL;
    }
    list_add(&parent->children, &entry->sibling);
    parent->nchildren++;
    return entry;
}

/* What an entry shows follows from what it has; one that has nothing goes, and so may those above. */
static void settle(struct media_index *index, struct entry *entry)
{
    while (entry->parent) {
        struct entry *parent = entry->parent;
        bool folder = entry->nchildren > 0 || entry->marked, file = !folder && entry->newest;
        uint64_t node = 0;
        if (file) {
            uint64_t salt = 0;
            const struct entry *other;
            do
                node =
                    map_hash_number(entry->ino ^ entry->newest->revision->bytes_hash ^ map_hash_number(salt++)) &
                    NODE_MASK;
            while ((other = index_find_node(index, node)) && other != entry);
        }
        if (entry->has_node && (!file || entry->node != node)) {
            index_tell(index, true, entry->node);
            map_remove(&index->by_node, &entry->by_node);
            entry->has_node = false;
            index->files--;
        }
        if (file && !entry->has_node) {
            entry->node = node;
            entry->has_node = map_add(&index->by_node, &entry->by_node, map_hash_number(node)) == 0;
            index->files += entry->has_node;
        }
        if (entry->folder && !folder)
            index_tell(index, false, entry->ino);
        change_folder(entry, folder);
        if (folder || entry->newest)
            return;
        map_remove(&index->by_name, &entry->by_name);
        map_remove(&index->by_ino, &entry->by_ino);
        list_remove(&entry->sibling);
        parent->nchildren--;
        free(entry);
        entry = parent;
    }
}

/* The entry of a path, made with all above it when it is not there; one that was made has to be settled. */
static struct entry *entry_at(struct media_index *index, const char *path)
{
    struct entry *entry = index->root;
    while (*path) {
        size_t len = media_path_name(path);
        struct entry *child = index_find_child(index, entry, path, len);
        if (!child)
            child = entry_add(index, entry, path, len);
        if (!child) {
            settle(index, entry);
            return NULL;
        }
        if (entry->parent && !entry->folder)
            settle(index, entry); /* it is a folder now */
        entry = child;
        path += len + (path[len] == '/');
    }
    return entry;
}

int index_root(struct media_index *index)
{
    index->root = entry_new(NULL, "", 0);
    if (!index->root)
        return -ENOMEM;
    index->root->folder = true;
    return 0;
}

/* ---- files documents ---- */

static void attach(struct entry *entry, struct known *known)
{
    struct known **at = &entry->newest;
    while (*at && media_revision_order((*at)->revision, known->revision) > 0)
        at = &(*at)->older;
    known->older = *at;
    *at = known;
    known->entry = entry;
    if (known->revision->uploaded_ms > entry->parent->newest_ms)
        entry->parent->newest_ms = known->revision->uploaded_ms;
}

static void detach(struct known *known)
{
    struct known **at = &known->entry->newest;
    while (*at != known)
        at = &(*at)->older;
    *at = known->older;
    known->older = NULL;
    known->entry = NULL;
}

/* What shows of a document, or decides what does. */
static bool same_document(const struct media_revision *a, const struct media_revision *b)
{
    return a->length == b->length && a->chunk_size == b->chunk_size && a->uploaded_ms == b->uploaded_ms &&
           a->mtime_ns == b->mtime_ns && a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
           a->broken == b->broken && a->filename_len == b->filename_len && !a->filename == !b->filename &&
           (!a->filename || !memcmp(a->filename, b->filename, a->filename_len));
}

/* A file that was renamed keeps its number, as the kernel expects. */
static void carry_ino(struct media_index *index, struct entry *from, struct entry *to)
{
    if (from->newest || from->nchildren || from->marked || to->nchildren || to->marked)
        return;
    uint64_t ino = from->ino;
    map_remove(&index->by_ino, &from->by_ino);
    map_remove(&index->by_ino, &to->by_ino);
    from->ino = to->ino;
    to->ino = ino;
    map_add(&index->by_ino, &from->by_ino, map_hash_number(from->ino));
    map_add(&index->by_ino, &to->by_ino, map_hash_number(to->ino));
}

static struct known *known_new(struct media_index *index, struct media_revision *revision)
{
    struct known *known = calloc(1, sizeof(*known));
    if (!known || map_add(&index->by_id, &known->by_id, revision->id_hash) < 0) {
        free(known);
        return NULL;
    }
    known->revision = media_revision_ref(revision);
    return known;
}

int index_apply(struct media_index *index, struct media_revision *revision)
{
    struct known *known = index_known(index, revision);
    if (known && same_document(known->revision, revision)) {
        known->seen = index->scan;
        return 0;
    }
    const char *why = media_path_wrong(revision->filename, revision->filename_len, false);
    struct entry *from = known ? known->entry : NULL, *to = NULL;
    if (!why && !(to = entry_at(index, revision->filename)))
        return -ENOMEM;
    if (!known && !(known = known_new(index, revision))) {
        if (to)
            settle(index, to);
        return -ENOMEM;
    }
    if (from && from == to && from->has_node && from->newest == known)
        index_tell(index, true, from->node); /* its attributes */
    if (from)
        detach(known);
    media_revision_ref(revision);
    media_revision_unref(known->revision);
    known->revision = revision;
    known->seen = index->scan;
    index->left_out -= known->why != NULL;
    index->left_out += why != NULL;
    known->why = why;
    if (to)
        attach(to, known);
    if (from && to && from != to)
        carry_ino(index, from, to);
    if (from && from != to) { /* first: it lets go of the node that the file goes on with */
        index_tell(index, false, from->parent->ino);
        settle(index, from);
    }
    if (to) {
        index_tell(index, false, to->parent->ino);
        settle(index, to);
    }
    return 0;
}

void index_forget(struct media_index *index, struct known *known)
{
    struct entry *entry = known->entry;
    if (entry) {
        detach(known);
        index_tell(index, false, entry->parent->ino);
        settle(index, entry);
    }
    index->left_out -= known->why != NULL;
    map_remove(&index->by_id, &known->by_id);
    media_revision_unref(known->revision);
    free(known);
}

/* ---- folders documents ---- */

int index_mark(struct media_index *index, const char *path, const struct media_marker *marker)
{
    if (media_path_wrong(path, strlen(path), true))
        return 0;
    struct entry *entry = entry_at(index, path);
    if (!entry)
        return -ENOMEM;
    if (entry->marked && memcmp(&entry->marker, marker, sizeof(*marker)) != 0)
        index_tell(index, false, entry->ino);
    if (!entry->marked)
        index_tell(index, false, entry->parent->ino);
    entry->marked = true;
    entry->marker = *marker;
    entry->marker_seen = index->scan;
    settle(index, entry);
    return 0;
}

void index_unmark(struct media_index *index, struct entry *entry)
{
    entry->marked = false;
    index_tell(index, false, entry->ino);
    index_tell(index, false, entry->parent->ino);
    settle(index, entry);
}

/* ---- renaming ---- */

/* Renamed by its name's bytes, which are part of it: a new entry takes over all that the old one has. */
static struct entry *entry_take(struct media_index *index, struct entry *from, struct entry *parent,
                                const char *name, size_t len)
{
    struct entry *to = entry_new(parent, name, len);
    if (!to)
        return NULL;
    struct list_entry *child;
    to->ino = from->ino;
    to->marked = from->marked;
    to->marker = from->marker;
    to->marker_seen = from->marker_seen;
    to->newest_ms = from->newest_ms;
    to->changed_ns = from->changed_ns;
    to->newest = STEAL(from->newest);
    from->marked = false;
    for (struct known *k = to->newest; k; k = k->older)
        k->entry = to;
    while ((child = from->children)) {
        struct entry *entry = MAP_ELEMENT(child, struct entry, sibling);
        list_remove(child);
        list_add(&to->children, child);
        map_remove(&index->by_name, &entry->by_name);
        entry->parent = to;
        map_add(&index->by_name, &entry->by_name, name_hash(to, entry->name, entry->len));
    }
    to->nchildren = from->nchildren;
    to->nfolders = from->nfolders;
    from->nchildren = from->nfolders = 0;
    return to;
}

int index_move(struct media_index *index, const char *from, const char *to)
{
    char above[MEDIA_FILENAME_MAX + 1];
    const char *name = strrchr(to, '/');
    struct entry *old = index_find_path(index, from);
    if (!old || !name)
        return -ESTALE;
    snprintf(above, sizeof(above), "%.*s", (int)(name++ - to), to);
    struct entry *parent = entry_at(index, above);
    struct entry *moved = parent ? entry_take(index, old, parent, name, strlen(name)) : NULL;
    if (!moved)
        return -ENOMEM;
    map_remove(&index->by_ino, &old->by_ino);
    old->ino = 0;
    map_add(&index->by_name, &moved->by_name, name_hash(parent, name, moved->len));
    map_add(&index->by_ino, &moved->by_ino, map_hash_number(moved->ino));
    list_add(&parent->children, &moved->sibling);
    parent->nchildren++;
    index_tell(index, false, parent->ino);
    index_tell(index, false, old->parent->ino);
    settle(index, moved);
    old->folder = false; /* what it was goes on under the new name */
    old->parent->nfolders--;
    settle(index, old);
    if (parent->parent)
        settle(index, parent);
    return 0;
}

/* ---- all of it ---- */

static void sweep_markers(struct media_index *index)
{
    struct entry **gone = NULL;
    size_t n = 0, cap = 0;
    char path[MEDIA_FILENAME_MAX + 1];
    for (struct map_entry *e = map_next(&index->by_ino, NULL); e; e = map_next(&index->by_ino, e)) {
        struct entry *entry = MAP_ELEMENT(e, struct entry, by_ino);
        if (!entry->marked || entry->marker_seen == index->scan || index_entry_path(entry, path) < 0 ||
            index_is_touched(index, index_path_hash(path)))
            continue;
        if (n == cap) {
            cap = cap ? 2 * cap : 64;
            struct entry **more = realloc(gone, cap * sizeof(*gone));
            if (!more)
                break; /* the next scan finds them again */
            gone = more;
        }
        gone[n++] = entry;
    }
    /* One that is marked is never taken away with another. */
    for (size_t i = 0; i < n; i++)
        index_unmark(index, gone[i]);
    free(gone);
}

void index_sweep(struct media_index *index)
{
    struct map_entry *next;
    for (struct map_entry *e = map_next(&index->by_id, NULL); e; e = next) {
        struct known *known = MAP_ELEMENT(e, struct known, by_id);
        next = map_next(&index->by_id, e);
        if (known->seen != index->scan && !index_is_touched(index, known->revision->id_hash))
            index_forget(index, known);
    }
    sweep_markers(index);
}

void index_clear(struct media_index *index)
{
    struct map_entry *e;
    while ((e = map_next(&index->by_id, NULL))) {
        struct known *known = MAP_ELEMENT(e, struct known, by_id);
        map_remove(&index->by_id, e);
        media_revision_unref(known->revision);
        free(known);
    }
    while ((e = map_next(&index->by_ino, NULL))) {
        struct entry *entry = MAP_ELEMENT(e, struct entry, by_ino);
        map_remove(&index->by_ino, e);
        free(entry);
    }
    free(index->root);
    map_clear(&index->by_id);
    map_clear(&index->by_ino);
    map_clear(&index->by_name);
    map_clear(&index->by_node);
}
