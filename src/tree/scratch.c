#include "tree/scratch.h"

#include "base/op.h"

#include <string.h>

struct name {
    struct map_entry entry;
    struct name *next, *previous; /* in its folder's order */
    struct folder *folder;
    struct node *node; /* a reference */
    int64_t since;     /* clock_now_ms() */
    char text[];
};

/* Exists while it has names. */
struct folder {
    struct map_entry entry;
    uint64_t nodeid;
    struct name *first, *last;
    size_t count;
};

struct scratch {
    struct nodes *nodes;
    pthread_mutex_t lock; /* guards all below */
    struct map names, folders;
};

struct name_key {
    uint64_t folder;
    const char *text;
};

struct scratch *scratch_new(struct nodes *nodes)
{
    struct scratch *scratch = calloc(1, sizeof *scratch);
    if (!scratch)
        return NULL;
    scratch->nodes = nodes;
    pthread_mutex_init(&scratch->lock, NULL);
    return scratch;
}

static uint64_t name_hash(uint64_t folder, const char *text)
{
    return map_hash_bytes(text, strlen(text), folder);
}

static bool name_equal(const struct map_entry *entry, const void *wanted)
{
    const struct name *name = MAP_ELEMENT(entry, struct name, entry);
    const struct name_key *key = wanted;
    return name->folder->nodeid == key->folder && strcmp(name->text, key->text) == 0;
}

static bool folder_equal(const struct map_entry *entry, const void *nodeid)
{
    return MAP_ELEMENT(entry, struct folder, entry)->nodeid == *(const uint64_t *)nodeid;
}

/* The functions below are called under the lock. */

static struct name *find(struct scratch *scratch, uint64_t folder, const char *text)
{
    struct name_key key = {folder, text};
    struct map_entry *entry = map_find(&scratch->names, name_hash(folder, text), name_equal, &key);
    return entry ? MAP_ELEMENT(entry, struct name, entry) : NULL;
}

static struct folder *find_folder(struct scratch *scratch, uint64_t nodeid)
{
    struct map_entry *entry = map_find(&scratch->folders, map_hash_number(nodeid), folder_equal, &nodeid);
    return entry ? MAP_ELEMENT(entry, struct folder, entry) : NULL;
}

static struct folder *folder_of(struct scratch *scratch, uint64_t nodeid)
{
    struct folder *folder = find_folder(scratch, nodeid);
    if (folder)
        return folder;
    folder = calloc(1, sizeof *folder);
    if (!folder)
        return NULL;
    folder->nodeid = nodeid;
    if (map_add(&scratch->folders, &folder->entry, map_hash_number(nodeid)) < 0) {
        free(folder);
        return NULL;
    }
    return folder;
}

static void folder_drop_if_empty(struct scratch *scratch, struct folder *folder)
{
    if (folder->count > 0)
        return;
    map_remove(&scratch->folders, &folder->entry);
    free(folder);
}

static int add(struct scratch *scratch, uint64_t folder_id, const char *text, struct node *node)
{
    size_t len = strlen(text);
    struct folder *folder = folder_of(scratch, folder_id);
    struct name *name = folder ? malloc(sizeof *name + len + 1) : NULL;
    if (!name) {
        if (folder)
            folder_drop_if_empty(scratch, folder);
        return -ENOMEM;
    }
    *name = (struct name){.folder = folder, .node = node, .previous = folder->last, .since = clock_now_ms()};
    memcpy(name->text, text, len + 1);
    if (map_add(&scratch->names, &name->entry, name_hash(folder_id, text)) < 0) {
        free(name);
        folder_drop_if_empty(scratch, folder);
        return -ENOMEM;
    }
    node_ref(scratch->nodes, node);
    *(folder->last ? &folder->last->next : &folder->first) = name;
    folder->last = name;
    folder->count++;
    return 0;
}

static void remove_name(struct scratch *scratch, struct name *name)
{
    struct folder *folder = name->folder;
    map_remove(&scratch->names, &name->entry);
    *(name->previous ? &name->previous->next : &folder->first) = name->next;
    *(name->next ? &name->next->previous : &folder->last) = name->previous;
    folder->count--;
    folder_drop_if_empty(scratch, folder);
    node_unref(scratch->nodes, name->node);
    free(name);
}

/* Until here under the lock. */

void scratch_free(struct scratch *scratch)
{
    if (!scratch)
        return;
    struct map_entry *e;
    while ((e = map_next(&scratch->names, NULL)))
        remove_name(scratch, MAP_ELEMENT(e, struct name, entry));
    map_clear(&scratch->names);
    map_clear(&scratch->folders);
    pthread_mutex_destroy(&scratch->lock);
    free(scratch);
}

struct node *scratch_find(struct scratch *scratch, uint64_t folder, const char *text)
{
    pthread_mutex_lock(&scratch->lock);
    struct name *name = find(scratch, folder, text);
    struct node *node = name ? name->node : NULL;
    if (node)
        node_ref(scratch->nodes, node);
    pthread_mutex_unlock(&scratch->lock);
    return node;
}

int scratch_add(struct scratch *scratch, uint64_t folder, const char *text, struct node *node)
{
    pthread_mutex_lock(&scratch->lock);
    int r = find(scratch, folder, text) ? -EEXIST : add(scratch, folder, text, node);
    pthread_mutex_unlock(&scratch->lock);
    return r;
}

int scratch_remove(struct scratch *scratch, uint64_t folder, const char *text, const struct node *node)
{
    pthread_mutex_lock(&scratch->lock);
    struct name *name = find(scratch, folder, text);
    int r = !name ? -ENOENT : node && name->node != node ? -ESTALE : 0;
    if (r == 0)
        remove_name(scratch, name);
    pthread_mutex_unlock(&scratch->lock);
    return r;
}

int scratch_rename(struct scratch *scratch, uint64_t folder, const char *text, uint64_t to_folder,
                   const char *to)
{
    pthread_mutex_lock(&scratch->lock);
    struct name *name = find(scratch, folder, text), *target = find(scratch, to_folder, to);
    struct folder *below = target ? find_folder(scratch, target->node->nodeid) : NULL;
    int r = !name ? -ENOENT : 0;
    if (r == 0 && target && target->node != name->node) {
        bool is_folder = target->node->kind == NODE_FOLDER, was_folder = name->node->kind == NODE_FOLDER;
        r = is_folder && !was_folder ? -EISDIR : was_folder && !is_folder ? -ENOTDIR : below ? -ENOTEMPTY : 0;
    }
    if (r == 0 && name != target) {
        r = add(scratch, to_folder, to, name->node); /* first, so that running out of memory loses nothing */
        if (r == 0 && target)
            remove_name(scratch, target);
        if (r == 0)
            remove_name(scratch, name);
    }
    pthread_mutex_unlock(&scratch->lock);
    return r;
}

int scratch_replace(struct scratch *scratch, uint64_t folder, const char *text, const struct node *old,
                    struct node *node)
{
    struct node *former = NULL;
    pthread_mutex_lock(&scratch->lock);
    struct name *name = find(scratch, folder, text);
    int r = !name ? -ENOENT : name->node != old ? -ESTALE : 0;
    if (r == 0) {
        former = name->node;
        node_ref(scratch->nodes, node);
        name->node = node;
        name->since = clock_now_ms();
    }
    pthread_mutex_unlock(&scratch->lock);
    node_unref(scratch->nodes, former);
    return r;
}

int scratch_exchange(struct scratch *scratch, uint64_t folder, const char *text, uint64_t to_folder,
                     const char *to)
{
    pthread_mutex_lock(&scratch->lock);
    struct name *one = find(scratch, folder, text), *other = find(scratch, to_folder, to);
    if (one && other) {
        struct node *node = one->node;
        one->node = other->node;
        other->node = node;
    }
    pthread_mutex_unlock(&scratch->lock);
    return one && other ? 0 : -ENOENT;
}

bool scratch_is_empty(struct scratch *scratch, uint64_t folder)
{
    pthread_mutex_lock(&scratch->lock);
    bool empty = find_folder(scratch, folder) == NULL;
    pthread_mutex_unlock(&scratch->lock);
    return empty;
}

int scratch_list(struct scratch *scratch, uint64_t folder_id, struct scratch_item **items, size_t *n)
{
    *items = NULL;
    *n = 0;
    pthread_mutex_lock(&scratch->lock);
    struct folder *folder = find_folder(scratch, folder_id);
    if (folder)
        *items = calloc(folder->count, sizeof **items);
    for (struct name *name = folder && *items ? folder->first : NULL; name; name = name->next) {
        strncpy((*items)[*n].name, name->text, sizeof(*items)[0].name - 1);
        node_ref(scratch->nodes, name->node);
        (*items)[(*n)++].node = name->node;
    }
    int r = folder && !*items ? -ENOMEM : 0;
    pthread_mutex_unlock(&scratch->lock);
    return r;
}

int scratch_list_old(struct scratch *scratch, int64_t ms, struct scratch_old **out, size_t *n)
{
    int64_t before = clock_now_ms() - ms;
    *n = 0;
    pthread_mutex_lock(&scratch->lock);
    struct scratch_old *old = malloc((scratch->names.count + 1) * sizeof *old);
    for (struct map_entry *e = map_next(&scratch->names, NULL); old && e; e = map_next(&scratch->names, e)) {
        const struct name *name = MAP_ELEMENT(e, struct name, entry);
        char *text = name->since < before ? strdup(name->text) : NULL;
        if (!text)
            continue;
        node_ref(scratch->nodes, name->node);
        old[(*n)++] = (struct scratch_old){name->folder->nodeid, text, name->node};
    }
    pthread_mutex_unlock(&scratch->lock);
    *out = old;
    return old ? 0 : -ENOMEM;
}
