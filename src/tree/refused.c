/*
 * .refused: what a commit refused stays readable, can be edited, and is tried again by moving it over its
 * row.
 *
 * Anybody may write the folder, as far as the kernel knows, since anybody's text may be refused. So who makes
 * names there is judged here. `<id>.json`, its numbers and `.error` are the mount's own: else somebody else's
 * text could lie where root takes his own from. Editors move a text away, though, and make it anew: a refusal
 * keeps its name, for whose text it is, also while nothing lies there. Other names (swap and temporary files)
 * are made by who has a refused text in the folder; the rest have no business there, and cannot fill the
 * scratch space.
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
    uid_t uid; /* whose text it is */
    struct process maker;
    struct node *node; /* a reference: the text that was refused; NULL when it was moved away or replaced */
    size_t bytes;      /* of that */
    char name[NAME_TEXT];
};

struct refused {
    /* Guards all below, and the mount's own names; taken after a node's, before that of the scratch names. */
    pthread_mutex_t lock;
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

static void remove_words(struct tree *tree, const struct refusal *r)
{
    char error[NAME_TEXT + 8];
    error_name(error, r->name);
    scratch_remove(tree->scratch, r->folder, error, NULL);
}

/* Under the lock: the refused text is another's business now; its name remains. */
static void let_go(struct tree *tree, struct refused *refused, struct refusal *r)
{
    refused->bytes -= r->bytes;
    r->bytes = 0;
    node_unref(tree->nodes, r->node);
    r->node = NULL;
}

/* Under the lock: ends a refusal, whose text has gone its way. */
static void end(struct tree *tree, struct refused *refused, struct refusal **place)
{
    struct refusal *r = *place;
    *place = r->next;
    if (!r->next)
        refused->end = place;
    refused->count--;
    let_go(tree, refused, r);
    remove_words(tree, r);
    free(r);
}

/* Under the lock: ends one, and takes away what lies under its name. */
static void drop(struct tree *tree, struct refused *refused, struct refusal **place)
{
    scratch_remove(tree->scratch, (*place)->folder, (*place)->name, NULL);
    end(tree, refused, place);
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

/* Under the lock: nobody has begun to mend the text. */
static bool is_untouched(struct tree *tree, const struct refusal *r)
{
    struct node *node = scratch_find(tree->scratch, r->folder, r->name);
    bool same = node && node == r->node && !node_is_charged(tree->nodes, node);
    node_unref(tree->nodes, node);
    return same;
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

/* Under the lock: another writer's text, or one that is being mended, gets a number behind its name. The name
 * is free then. */
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
    *r = (struct refusal){
        .folder = folder, .uid = caller->uid, .maker = node->maker, .node = node, .bytes = len};
    memcpy(r->name, name, sizeof r->name);
    pthread_mutex_lock(&refused->lock);
    make_room(tree, refused, len);
    struct refusal **former = find(refused, folder, r->name);
    if (former && process_is_same((*former)->maker, r->maker) && is_untouched(tree, *former))
        drop(tree, refused, former);
    else if (former)
        step_aside(tree, refused, former);
    if (scratch_add(tree->scratch, folder, r->name, node) == 0) {
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
    if (find(tree->refused, folder, name))
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
    if (place && process_is_same((*place)->maker, process) && is_untouched(tree, *place))
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

/* Names */

/* Whether a folder is one in which refused texts lie; and where it is. */
static bool has_refused(uint64_t folder, struct place *place)
{
    return address_parse(folder, place) && (place->kind == PLACE_REFUSED || place->kind == PLACE_META);
}

bool refused_reserves(uint64_t folder, const char *name)
{
    static const char error[] = ".error", beside[] = ".json.refused";
    struct place place;
    int64_t id;
    char stem[NAME_MAX_BYTES + 1];
    size_t len = strlen(name);
    if (!has_refused(folder, &place) || len > NAME_MAX_BYTES)
        return false;
    memcpy(stem, name, len + 1);
    if (len > strlen(error) && strcmp(stem + len - strlen(error), error) == 0)
        stem[len -= strlen(error)] = '\0';
    size_t digits = len;
    while (digits > 0 && stem[digits - 1] >= '0' && stem[digits - 1] <= '9')
        digits--;
    if (digits > 0 && digits < len && stem[digits - 1] == '.')
        stem[len = digits - 1] = '\0';
    if (place.kind == PLACE_META)
        return len > strlen(beside) && strcmp(stem + len - strlen(beside), beside) == 0;
    enum name_kind kind = name_parse(stem, &id);
    return kind == NAME_ROW || kind == NAME_NEW;
}

/* Under the lock. */
static int may_make(const struct refused *refused, const struct caller *caller, uint64_t folder,
                    const char *name, const struct node *node)
{
    struct place place;
    bool reserved = refused_reserves(folder, name);
    if (!has_refused(folder, &place) || (!reserved && (place.kind == PLACE_META || caller->uid == 0)))
        return 0;
    /* Who has no text there is told no more than of any folder that is not his. */
    bool holds = caller->uid == 0 || place.kind == PLACE_META;
    for (const struct refusal *r = refused->oldest; r; r = r->next) {
        if (r->folder != folder || (r->uid != caller->uid && caller->uid != 0))
            continue;
        holds = true;
        if (!reserved || (strcmp(r->name, name) == 0 && (!node || node->kind == NODE_FILE)))
            return 0;
    }
    return reserved && holds ? -EPERM : -EACCES;
}

/* Why a name cannot be had, in words. */
static int say_reserved(struct tree *tree, uint64_t folder, const char *name, int r)
{
    static const char words[] =
        "this name is the mount's, for a text that was refused: only whose text it is "
        "may put another file in its place; other names are free";
    struct place place;
    if (r != -EPERM || !has_refused(folder, &place))
        return r;
    if (place.kind == PLACE_META)
        return meta_refuse(tree, &place, name, words);
    struct fail f = {0};
    char path[NAME_MAX_BYTES + 320], below[NAME_MAX_BYTES + 16];
    fail_set(&f, EPERM, "%s", words);
    snprintf(below, sizeof below, ".refused/%s", name);
    path_of_name(tree, &place.key, below, path, sizeof path);
    report_add(tree->report, path, &f);
    return r;
}

int name_add(struct tree *tree, const struct caller *caller, uint64_t folder, const char *name,
             struct node *node)
{
    pthread_mutex_lock(&tree->refused->lock);
    int r = may_make(tree->refused, caller, folder, name, node);
    if (r == 0)
        r = scratch_add(tree->scratch, folder, name, node);
    pthread_mutex_unlock(&tree->refused->lock);
    return say_reserved(tree, folder, name, r);
}

/* Under the lock: what lay under a refusal's name has been moved. Within the folder, as editors do, the name
 * remains whose it is. */
static void moved(struct tree *tree, uint64_t folder, const char *name, uint64_t to_folder)
{
    struct refused *refused = tree->refused;
    struct refusal **place = refused_reserves(folder, name) ? find(refused, folder, name) : NULL;
    if (place && folder == to_folder) {
        let_go(tree, refused, *place);
        remove_words(tree, *place);
    } else if (place) {
        end(tree, refused, place);
    }
}

int name_move(struct tree *tree, const struct caller *caller, uint64_t folder, const char *name,
              uint64_t to_folder, const char *to)
{
    struct refused *refused = tree->refused;
    struct node *node = scratch_find(tree->scratch, folder, name);
    pthread_mutex_lock(&refused->lock);
    int r = may_make(refused, caller, to_folder, to, node);
    if (r == 0)
        r = scratch_rename(tree->scratch, folder, name, to_folder, to);
    if (r == 0 && (folder != to_folder || strcmp(name, to) != 0)) {
        struct refusal **replaced = refused_reserves(to_folder, to) ? find(refused, to_folder, to) : NULL;
        if (replaced)
            let_go(tree, refused, *replaced);
        moved(tree, folder, name, to_folder);
    }
    pthread_mutex_unlock(&refused->lock);
    node_unref(tree->nodes, node);
    return say_reserved(tree, to_folder, to, r);
}

int name_remove(struct tree *tree, uint64_t folder, const char *name, const struct node *node)
{
    pthread_mutex_lock(&tree->refused->lock);
    int r = scratch_remove(tree->scratch, folder, name, node);
    struct refusal **place =
        r == 0 && refused_reserves(folder, name) ? find(tree->refused, folder, name) : NULL;
    if (place)
        end(tree, tree->refused, place);
    pthread_mutex_unlock(&tree->refused->lock);
    return r;
}
