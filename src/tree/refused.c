/*
 * .refused: what a commit refused stays readable, can be edited, and is tried again by moving it over its
 * row.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/scrub.h"
#include "tree/tree_meta.h"

enum { NUMBERED_MAX = 99, NAME_TEXT = 240 };

struct refusal {
    struct refusal *next;
    uint64_t folder;
    struct node *node; /* a reference */
    size_t bytes;
    char name[NAME_TEXT];
};

struct refused {
    pthread_mutex_t lock; /* guards all below; taken before the lock of the scratch names */
    struct refusal *oldest, **end;
    size_t count, bytes;
};

struct refused *refused_new(void)
{
    struct refused *refused = calloc(1, sizeof *refused);
    if (!refused)
        return NULL;
    pthread_mutex_init(&refused->lock, NULL);
    refused->end = &refused->oldest;
    return refused;
}

static void error_name(char out[NAME_TEXT + 8], const char *name)
{
    snprintf(out, NAME_TEXT + 8, "%s.error", name);
}

/* Under the lock: takes a text out of the queue, and its names away where they are still its own. */
static void drop(struct tree *tree, struct refused *refused, struct refusal **place)
{
    struct refusal *r = *place;
    char error[NAME_TEXT + 8];
    *place = r->next;
    if (!r->next)
        refused->end = place;
    refused->count--;
    refused->bytes -= r->bytes;
    if (scratch_remove(tree->scratch, r->folder, r->name, r->node) == 0) {
        error_name(error, r->name);
        scratch_remove(tree->scratch, r->folder, error, NULL);
    }
    node_unref(tree->nodes, r->node);
    free(r);
}

void refused_free(struct tree *tree, struct refused *refused)
{
    if (!refused)
        return;
    while (refused->oldest)
        drop(tree, refused, &refused->oldest);
    pthread_mutex_destroy(&refused->lock);
    free(refused);
}

/* Under the lock. */
static struct refusal **find(struct refused *refused, uint64_t folder, const char *name)
{
    for (struct refusal **place = &refused->oldest; *place; place = &(*place)->next)
        if ((*place)->folder == folder && strcmp((*place)->name, name) == 0)
            return place;
    return NULL;
}

/* Where a text of that key lies; false where there is no such place any more. */
static bool place_of(struct tree *tree, const struct row_key *key, uint64_t *folder, char out[NAME_TEXT])
{
    if (key->collection == COLLECTION_MEDIA)
        return meta_refused_at(tree, key, folder, out, NAME_TEXT);
    *folder = address_place(PLACE_REFUSED, key->collection, key->region);
    if (key->id)
        snprintf(out, NAME_TEXT, "%lld.json", (long long)key->id);
    else
        snprintf(out, NAME_TEXT, "new.json");
    return true;
}

/* Under the lock: another writer's text gets a number behind its name. */
static void step_aside(struct tree *tree, struct refused *refused, struct refusal **place)
{
    struct refusal *r = *place;
    char name[NAME_TEXT], error[NAME_TEXT + 8], new_error[NAME_TEXT + 8];
    for (unsigned i = 1; i <= NUMBERED_MAX; i++) {
        snprintf(name, sizeof name, "%.235s.%u", r->name, i);
        if (find(refused, r->folder, name))
            continue;
        if (scratch_rename(tree->scratch, r->folder, r->name, r->folder, name) < 0)
            break;
        error_name(error, r->name);
        error_name(new_error, name);
        scratch_rename(tree->scratch, r->folder, error, r->folder, new_error);
        memcpy(r->name, name, sizeof r->name);
        return;
    }
    drop(tree, refused, place);
}

/* A private file of the writer's. */
static struct node *file_new(struct tree *tree, const struct caller *caller, const char *text, size_t len,
                             mode_t mode)
{
    struct node *node;
    if (node_new_free(tree->nodes, NODE_FILE, &node) < 0)
        return NULL;
    node->content.max =
        len > tree->config->document_max ? len : tree->config->document_max; /* as it is edited */
    node->uid = caller->uid;
    node->gid = caller->gid;
    node->mode = mode;
    node->maker = caller_process(caller);
    node->created = memory_now(tree->memory);
    if (node_write(tree->nodes, node, text, len, 0) < 0) {
        node_unref(tree->nodes, node);
        return NULL;
    }
    scrub_secrets(node->content.data, node->content.len);
    return node;
}

static void add_error_file(struct tree *tree, const struct caller *caller, const struct row_key *key,
                           uint64_t folder, const char *name, const struct fail *f)
{
    struct buf words CLEANUP(buf_clear) = {0};
    char path[MEDIA_FILENAME_MAX + 320], error[NAME_TEXT + 8];
    path_of_row(tree, key, path, sizeof path);
    if (!f || report_words(path, f, &words) < 0)
        return;
    struct node *node = file_new(tree, caller, words.data, words.len, 0400);
    error_name(error, name);
    scratch_remove(tree->scratch, folder, error, NULL);
    if (node)
        scratch_add(tree->scratch, folder, error, node);
    node_unref(tree->nodes, node);
}

/* Under the lock: the oldest go until the new text fits. */
static void make_room(struct tree *tree, struct refused *refused, size_t len)
{
    while (refused->oldest && (refused->count >= tree->config->refused_files ||
                               refused->bytes + len > tree->config->refused_size))
        drop(tree, refused, &refused->oldest);
}

/* Under the lock: under its own name, or with a number behind it when somebody mends an older text under that
 * one. */
static int add_name(struct tree *tree, struct refusal *r)
{
    char name[NAME_TEXT];
    int taken = scratch_add(tree->scratch, r->folder, r->name, r->node);
    for (unsigned i = 1; taken == -EEXIST && i <= NUMBERED_MAX; i++) {
        snprintf(name, sizeof name, "%.235s.%u", r->name, i);
        taken = scratch_add(tree->scratch, r->folder, name, r->node);
        if (taken == 0)
            memcpy(r->name, name, sizeof r->name);
    }
    return taken;
}

void refused_keep(struct tree *tree, const struct caller *caller, const struct row_key *key, const char *text,
                  size_t len, const struct fail *f)
{
    struct refused *refused = tree->refused;
    uint64_t folder;
    char name[NAME_TEXT];
    if (!place_of(tree, key, &folder, name))
        return;
    if (len > tree->config->refused_size) {
        log_warning(".refused: a text of %zu bytes is larger than refused_size and is not kept", len);
        return;
    }
    struct refusal *r = calloc(1, sizeof *r);
    struct node *node = r ? file_new(tree, caller, text, len, 0600) : NULL;
    if (!node) {
        log_warning(".refused: out of memory, a text of %zu bytes is not kept", len);
        free(r);
        return;
    }
    *r = (struct refusal){.folder = folder, .node = node, .bytes = len};
    memcpy(r->name, name, sizeof r->name);
    pthread_mutex_lock(&refused->lock);
    make_room(tree, refused, len);
    struct refusal **former = find(refused, folder, r->name);
    if (former && process_is_same((*former)->node->maker, node->maker))
        drop(tree, refused, former);
    else if (former)
        step_aside(tree, refused, former);
    if (add_name(tree, r) == 0) {
        add_error_file(tree, caller, key, folder, r->name, f);
        *refused->end = r;
        refused->end = &r->next;
        refused->count++;
        refused->bytes += len;
    } else {
        node_unref(tree->nodes, node);
        free(r);
    }
    pthread_mutex_unlock(&refused->lock);
}

void refused_again(struct tree *tree, const struct caller *caller, const struct row_key *key, uint64_t folder,
                   const char *name, const struct fail *f)
{
    char path[MEDIA_FILENAME_MAX + 320];
    path_of_row(tree, key, path, sizeof path);
    report_add(tree->report, path, f);
    pthread_mutex_lock(&tree->refused->lock);
    add_error_file(tree, caller, key, folder, name, f);
    pthread_mutex_unlock(&tree->refused->lock);
}

void refused_forget(struct tree *tree, const struct row_key *key, struct process process)
{
    char name[NAME_TEXT];
    uint64_t folder;
    if (!place_of(tree, key, &folder, name))
        return;
    pthread_mutex_lock(&tree->refused->lock);
    struct refusal **place = find(tree->refused, folder, name);
    if (place && process_is_same((*place)->node->maker, process))
        drop(tree, tree->refused, place);
    pthread_mutex_unlock(&tree->refused->lock);
}

bool refused_is(struct tree *tree, uint64_t folder, const char *name)
{
    pthread_mutex_lock(&tree->refused->lock);
    bool is = find(tree->refused, folder, name) != NULL;
    pthread_mutex_unlock(&tree->refused->lock);
    return is;
}

void refused_left(struct tree *tree, uint64_t folder, const char *name)
{
    char error[NAME_TEXT + 8];
    pthread_mutex_lock(&tree->refused->lock);
    struct refusal **place = find(tree->refused, folder, name);
    error_name(error, name);
    scratch_remove(tree->scratch, folder, error, NULL);
    if (place)
        drop(tree, tree->refused, place);
    pthread_mutex_unlock(&tree->refused->lock);
}
