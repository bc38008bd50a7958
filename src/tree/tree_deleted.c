/*
 * .deleted: rows deleted within the last day, read-only, each under the name it had. Moved back to that name
 * a row is again what it was; removed here it is gone for good.
 */
#include <stdio.h>
#include <string.h>

#include "tree/tree_internal.h"

enum { READABLE = 0440 }; /* of the collection's mode: deleted or not, others do not read it */

static void attr_deleted(const struct tree *tree, const struct row_key *key, const struct revision *revision,
                         struct stat *attr)
{
    attr_revision(tree, key, revision, attr);
    attr->st_ino = address_deleted(key, 0);
    attr->st_mode = S_IFREG | (tree->access[key->collection].file_mode & READABLE);
}

void entry_deleted(const struct tree *tree, const struct row_key *key, const struct revision *revision,
                   struct entry *entry)
{
    uint64_t mark = revision_mark(revision);
    *entry =
        (struct entry){.nodeid = address_deleted(key, mark), .generation = (uint32_t)map_hash_number(mark)};
    attr_deleted(tree, key, revision, &entry->attr);
}

void entry_deleted_listed(const struct tree *tree, const struct row_key *key, const struct revision *revision,
                          struct entry *entry)
{
    entry_deleted(tree, key, revision, entry);
    if (told_add(tree->told_deleted, key, revision_mark(revision)) == 0)
        entry->name_ms = entry->attr_ms = tree->kernel_ms;
}

/* Whether an error is worth words: the caller sees only an errno. */
static int report_deleted(struct tree *tree, const struct row_key *key, int r, const struct fail *f)
{
    char name[32], path[320];
    if (r < 0 && f->err && r != -ENOENT && r != -EINTR) {
        snprintf(name, sizeof name, ".deleted/%lld.json", (long long)key->id);
        path_of_name(tree, key, name, path, sizeof path);
        report_add(tree->report, path, f);
    }
    return r;
}

static int find_deleted(struct tree *tree, const struct caller *caller, const struct row_key *key,
                        struct document **document)
{
    struct fail f = {0};
    int r = store_deleted_get(tree->store, key, &caller->op, document, &f);
    return report_deleted(tree, key, r, &f);
}

int deleted_lookup(struct tree *tree, const struct caller *caller, const struct row_key *folder,
                   const char *name, struct entry *entry)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    struct row_key key = *folder;
    if (name_parse(name, &key.id) != NAME_ROW)
        return -ENOENT;
    int r = find_deleted(tree, caller, &key, &document);
    if (r == 0)
        entry_deleted(tree, &key, &document->revision, entry);
    return r;
}

int deleted_open(struct tree *tree, const struct caller *caller, const struct place *place,
                 struct document **out)
{
    struct document *document CLEANUP(document_unrefp) = NULL;
    int r = find_deleted(tree, caller, &place->key, &document);
    if (r < 0)
        return r == -ENOENT ? -ESTALE : r;
    if (address_deleted(&place->key, revision_mark(&document->revision)) !=
        address_deleted(&place->key, place->mark))
        return -ESTALE; /* deleted a second time */
    *out = STEAL(document);
    return 0;
}

/* What is open is answered though the row has been taken back since. */
static struct document *open_document(struct tree *tree, const struct place *place)
{
    pthread_mutex_lock(&tree->lock);
    struct open_revision *open = revision_find(tree, address_deleted(&place->key, place->mark));
    struct document *document = open ? document_ref(open->document) : NULL;
    pthread_mutex_unlock(&tree->lock);
    return document;
}

int deleted_getattr(struct tree *tree, const struct caller *caller, const struct place *place,
                    const struct document *document, struct stat *attr, int64_t *attr_ms)
{
    struct document *found CLEANUP(document_unrefp) = NULL;
    *attr_ms = 0;
    if (!document) {
        int r = deleted_open(tree, caller, place, &found);
        if (r == -ESTALE)
            found = open_document(tree, place);
        if (!found)
            return r;
        document = found;
    }
    attr_deleted(tree, &place->key, &document->revision, attr);
    return 0;
}

static void actor_text(const struct caller *caller, char out[64])
{
    snprintf(out, 64, "uid=%u pid=%d", (unsigned)caller->uid, (int)caller_process(caller).tgid);
}

int deleted_unlink(struct tree *tree, const struct caller *caller, const struct row_key *folder,
                   const char *name)
{
    struct row_key key = *folder;
    struct fail f = {0};
    char actor[64];
    if (name_parse(name, &key.id) != NAME_ROW)
        return -ENOENT;
    actor_text(caller, actor);
    int r = store_forget(tree->store, &key, actor, &caller->op, &f);
    return report_deleted(tree, &key, r, &f);
}

int deleted_rename(struct tree *tree, const struct caller *caller, const struct row_key *folder,
                   const char *name, uint64_t to, const char *new_name)
{
    struct row_key key = *folder;
    struct put_result result = {0};
    struct fail f = {0};
    char actor[64];
    if (name_parse(name, &key.id) != NAME_ROW)
        return -ENOENT;
    int r;
    if (to != address_place(PLACE_COLLECTION, folder->collection, folder->region) ||
        strcmp(name, new_name) != 0) { /* not EXDEV, on which mv would copy it and then forget it */
        r = fail_set(&f, EPERM,
                     "a deleted row is taken back by moving it to %s in its own folder; copy it to have its "
                     "text elsewhere",
                     name);
    } else {
        actor_text(caller, actor);
        r = store_undelete(tree->store, &key, actor, &caller->op, &result, &f);
        if (r == 0)
            row_changed(tree, &key, 0);
        document_unref(result.document);
    }
    return report_deleted(tree, &key, r, &f);
}
