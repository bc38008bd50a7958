/*
 * .meta: names, and the documents and revisions that they lead to.
 */
#include "tree/tree_meta.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "media/meta.h"
#include "tree/unopened.h"

enum { TRIES = 20 }; /* of a look at a file that others replace */

#define DOCUMENT_SUFFIX ".json"
#define REVISIONS_SUFFIX ".revisions"

static struct row_key key_of(unsigned region, uint64_t ino)
{
    return (struct row_key){.collection = COLLECTION_MEDIA, .region = (uint8_t)region, .id = (int64_t)ino};
}

/* ---- names ---- */

/* What a name says that it is, and the name of the file in `stem`; NAME_SCRATCH for what is neither. */
static enum name_kind parse_name(const char *name, char stem[NAME_MAX_BYTES + 1])
{
    static const struct {
        const char *suffix;
        enum name_kind kind;
    } suffixes[] = {{DOCUMENT_SUFFIX, NAME_ROW}, {REVISIONS_SUFFIX, NAME_RESERVED}};
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t suffix = strlen(suffixes[i].suffix);
        if (len <= suffix || strcmp(name + len - suffix, suffixes[i].suffix) != 0)
            continue;
        snprintf(stem, NAME_MAX_BYTES + 1, "%.*s", (int)(len - suffix), name);
        return suffixes[i].kind;
    }
    return NAME_SCRATCH;
}

/* The file that a name is about; NAME_SCRATCH when there is none. media_info_clear() for all else. */
static int find_file(struct tree *tree, const struct caller *caller, const struct place *place,
                     const char *name, char stem[NAME_MAX_BYTES + 1], struct media_info *info)
{
    struct media_index *index = media_index(tree->media, place->key.region);
    struct fail f = {0};
    enum name_kind kind = strlen(name) > NAME_MAX_BYTES ? NAME_SCRATCH : parse_name(name, stem);
    if (kind == NAME_SCRATCH || !index)
        return NAME_SCRATCH;
    int r = media_index_lookup(index, place->number, stem, &caller->op, info, &f);
    if (r == 0 && info->folder)
        media_info_clear(info);
    if (r == -ENOENT || (r == 0 && !info->revision))
        return NAME_SCRATCH;
    return r < 0 ? report_media(tree, place->key.region, place->number, stem, r, &f) : (int)kind;
}

int meta_name(struct tree *tree, const struct caller *caller, const struct place *place, const char *name,
              struct row_key *key)
{
    char stem[NAME_MAX_BYTES + 1];
    struct media_info info = {0};
    int kind = find_file(tree, caller, place, name, stem, &info);
    *key = key_of(place->key.region, info.ino);
    media_info_clear(&info);
    return kind;
}

static struct place folder_of(const struct place *place)
{
    return (struct place){.kind = PLACE_MEDIA_FOLDER, .key = place->key, .number = place->number};
}

/* "regions/europe/media/5001/.meta/<name>" */
static void path_in_meta(const struct tree *tree, unsigned region, uint64_t folder, const char *name,
                         char *out, size_t size)
{
    media_path(tree, region, folder, NULL, out, size);
    size_t len = strlen(out);
    snprintf(out + len, size - len, "/" META_FOLDER "/%s", name);
}

/* The folder and name of a key's file; false when it is gone. Asks nobody. */
static bool place_of_key(const struct tree *tree, const struct row_key *key, uint64_t *folder,
                         char name[MEDIA_NAME_MAX + 1])
{
    struct media_index *index = media_index(tree->media, key->region);
    return index && media_index_place_of(index, (uint64_t)key->id, folder, name) == 0;
}

void path_of_meta(const struct tree *tree, const struct row_key *key, char *out, size_t size)
{
    char name[MEDIA_NAME_MAX + 1], document[MEDIA_NAME_MAX + sizeof DOCUMENT_SUFFIX];
    uint64_t folder;
    if (!place_of_key(tree, key, &folder, name)) {
        snprintf(out, size, "regions/%s/media/?", media_region(tree->media, key->region));
        return;
    }
    snprintf(document, sizeof document, "%s" DOCUMENT_SUFFIX, name);
    path_in_meta(tree, key->region, folder, document, out, size);
}

bool meta_refused_at(struct tree *tree, const struct row_key *key, uint64_t *folder, char *name, size_t size)
{
    char file[MEDIA_NAME_MAX + 1];
    uint64_t ino;
    if (!place_of_key(tree, key, &ino, file))
        return false;
    *folder = address_meta(key->region, ino);
    snprintf(name, size, "%.220s" DOCUMENT_SUFFIX ".refused", file);
    return true;
}

int meta_refuse(struct tree *tree, const struct place *place, const char *name, const char *words)
{
    char path[MEDIA_FILENAME_MAX + 320], file[MEDIA_NAME_MAX + 1], whole[2 * NAME_MAX_BYTES + 32];
    struct row_key key = key_of(place->key.region, place->number);
    struct fail f = {0};
    uint64_t folder = place->number;
    snprintf(whole, sizeof whole, "%s", name);
    if (place->kind == PLACE_META_REVISIONS && place_of_key(tree, &key, &folder, file))
        snprintf(whole, sizeof whole, "%s" REVISIONS_SUFFIX "/%s", file, name);
    path_in_meta(tree, place->key.region, folder, whole, path, sizeof path);
    int r = fail_set(&f, EPERM, "%s", words);
    report_add(tree->report, path, &f);
    return r;
}

/* ---- attributes of the folders ---- */

/* Who may look into a file may look into the folder of its revisions; nobody makes anything there. */
static void attr_of_revisions(struct tree *tree, unsigned region, const struct media_info *info,
                              struct stat *attr)
{
    attr_media_file(tree, region, info->ino, info->revision, attr);
    mode_t read = attr->st_mode & 0444;
    attr->st_mode = S_IFDIR | read | read >> 2;
    attr->st_ino = address_meta_revisions(region, info->ino);
}

static void attr_of_folder(struct stat *attr)
{
    attr->st_nlink = 2;
    attr->st_size = 4096;
    attr->st_blocks = 8;
}

int meta_getattr(struct tree *tree, const struct caller *caller, const struct place *place, struct stat *attr,
                 int64_t *attr_ms)
{
    unsigned region = place->key.region;
    struct place folder = folder_of(place);
    struct media_info info = {0};
    struct fail f = {0};
    int r;
    if (place->kind == PLACE_META) {
        r = media_getattr(tree, caller, &folder, media_nodeid(&folder), attr, attr_ms);
        attr->st_ino = address_meta(region, place->number);
    } else {
        char name[MEDIA_NAME_MAX + 1];
        struct media_index *index = media_index(tree->media, region);
        uint64_t ino;
        *attr_ms = tree->kernel_ms;
        r = index ? media_index_file_of(index, place->number, &caller->op, &info, &ino, name, &f) : -ESTALE;
        if (r == 0)
            attr_of_revisions(tree, region, &info, attr);
        report_media(tree, region, MEDIA_ROOT, NULL, r, &f);
        media_info_clear(&info);
    }
    if (r == 0)
        attr_of_folder(attr);
    return r;
}

int meta_lookup_folder(struct tree *tree, const struct caller *caller, const struct place *folder,
                       struct entry *entry)
{
    struct place place = {.kind = PLACE_META, .key = folder->key, .number = folder->number};
    *entry = (struct entry){.nodeid = address_meta(folder->key.region, folder->number),
                            .name_ms = tree->kernel_ms};
    int r = meta_getattr(tree, caller, &place, &entry->attr, &entry->attr_ms);
    return r == -ESTALE ? -ENOENT : r;
}

/* ---- documents ---- */

/* *listed: it is from a page, not asked for just now. */
static int read_document(struct tree *tree, const struct caller *caller, const struct place *place,
                         unsigned region, const char *name, const struct media_info *info,
                         struct media_meta *meta, bool *listed)
{
    CLEANUP(media_meta_page_unrefp) struct media_meta_page *page = NULL;
    struct fail f = {0};
    int r = place ? meta_pages_take(tree, caller, place, info->ino, &page, listed, &f) : 0;
    r = r < 0 ? r : media_meta_read(tree->media, region, name, info, page, &caller->op, meta, &f);
    char path[MEDIA_FILENAME_MAX + 320];
    struct row_key key = key_of(region, info->ino);
    if (r < 0 && f.err && r != -EINTR) {
        path_of_meta(tree, &key, path, sizeof path);
        report_add(tree->report, path, &f);
    }
    return r;
}

static void take_attributes(struct tree *tree, struct node *node, const struct row_key *key,
                            const struct media_info *info, const struct media_meta *meta)
{
    struct stat attr;
    int64_t uploaded_us = info->revision->uploaded_ms * 1000;
    attr_media_file(tree, key->region, info->ino, info->revision, &attr);
    node->mode = attr.st_mode & 0666;
    node->uid = attr.st_uid;
    node->gid = attr.st_gid;
    node->mtime = node->ctime =
        timespec_of_us(meta->updated_us > uploaded_us ? meta->updated_us : uploaded_us);
}

/* `place`: of the .meta where it was looked up, NULL = it is to be as it is now. */
static int node_of(struct tree *tree, const struct caller *caller, const struct place *place,
                   const struct row_key *key, const char *name, const struct media_info *info,
                   struct node **out)
{
    CLEANUP(media_meta_clear) struct media_meta meta = {0};
    struct node *node;
    bool listed = false;
    int r = read_document(tree, caller, place, key->region, name, info, &meta, &listed);
    r = r < 0 ? r : node_new_free(tree->nodes, NODE_FILE, &node);
    if (r < 0)
        return r;
    take_attributes(tree, node, key, info, &meta);
    node->created = memory_now(tree->memory);
    node->shown_ino = address_row(key);
    node->draft = (struct draft){
        .active = true, .key = *key, .saved_us = STORE_TIME_NONE, .born = node->created, .version = 1};
    node->draft.listed = listed;
    node->content.max = meta.len > tree->config->document_max ? meta.len : tree->config->document_max;
    r = node_write(tree->nodes, node, meta.text, meta.len, 0);
    if (r < 0)
        node_unref(tree->nodes, node);
    else
        *out = node;
    return r;
}

/* The draft of a key; -ESTALE as above. */
static int node_of_key_once(struct tree *tree, const struct caller *caller, const struct row_key *key,
                            struct node **out)
{
    struct media_index *index = media_index(tree->media, key->region);
    char name[MEDIA_NAME_MAX + 1];
    struct media_info info;
    struct fail f = {0};
    uint64_t folder;
    int r = index ? media_index_file_of(index, (uint64_t)key->id, &caller->op, &info, &folder, name, &f)
                  : -ESTALE;
    if (r < 0)
        return r == -ESTALE ? -ENOENT : report_media(tree, key->region, MEDIA_ROOT, NULL, r, &f);
    r = node_of(tree, caller, NULL, key, name, &info, out);
    media_info_clear(&info);
    return r;
}

int meta_draft(struct tree *tree, const struct caller *caller, const struct row_key *key, struct node **out)
{
    int r = -ESTALE;
    for (unsigned tries = 0; r == -ESTALE && tries < TRIES; tries++)
        r = node_of_key_once(tree, caller, key, out);
    return r == -ESTALE ? -ENOENT : r;
}

int meta_getattr_key(struct tree *tree, const struct caller *caller, const struct row_key *key,
                     struct stat *attr)
{
    struct node *node;
    int r = meta_draft(tree, caller, key, &node);
    if (r < 0)
        return r;
    attr_node(node, attr);
    node_unref(tree->nodes, node);
    return 0;
}

int meta_create(struct tree *tree, const struct caller *caller, const struct row_key *key, int flags,
                struct node **out)
{
    if (tree->config->read_only)
        return -EROFS;
    if (flags & O_EXCL)
        return -EEXIST;
    int r = meta_draft(tree, caller, key, out);
    if (r == 0 && (flags & O_TRUNC)) {
        pthread_mutex_lock(&(*out)->lock);
        truncate_node(tree, *out, 0, NULL); /* of a node that nobody else has: only shortening can be */
        pthread_mutex_unlock(&(*out)->lock);
    }
    return r;
}

int meta_copy(struct tree *tree, const struct caller *caller, const struct row_key *key, struct node **out)
{
    int r = meta_draft(tree, caller, key, out);
    if (r == 0)
        draft_to_copy(caller, *out);
    return r;
}

int meta_commit(struct tree *tree, const struct caller *caller, const struct save *save,
                struct put_result *result, struct fail *f)
{
    struct process process = caller_process(caller);
    int64_t base = save->saved_us, updated_us;
    if (tree->config->conflicts_overwrite)
        base = MEDIA_META_TIME_FOREVER;
    else if (base == STORE_TIME_NONE)
        base = memory_last_save(tree->memory, &save->key, process, save->born, MEDIA_META_TIME_NONE);
    struct media_meta_put put = {.text = save->text, .len = save->len, .base_us = base};
    int r = media_meta_save(tree->media, save->key.region, (uint64_t)save->key.id, &put, &caller->op,
                            &updated_us, &result->unchanged, f);
    if (r == 0) {
        memory_saved(tree->memory, &save->key, process, updated_us);
        meta_pages_saved(tree);
    }
    return r;
}

/* ---- revisions ---- */

static int revisions_of(struct tree *tree, const struct caller *caller, const struct place *place,
                        struct media_revisions *out)
{
    struct media_index *index = media_index(tree->media, place->key.region);
    char name[MEDIA_NAME_MAX + 1];
    struct media_info info = {0};
    struct fail f = {0};
    uint64_t folder;
    int r = -ENOENT;
    for (unsigned tries = 0; index && r == -ENOENT && tries < TRIES; tries++) {
        r = media_index_file_of(index, place->number, &caller->op, &info, &folder, name, &f);
        if (r == 0)
            r = media_index_revisions(index, info.node, out);
        media_info_clear(&info);
    }
    return report_media(tree, place->key.region, MEDIA_ROOT, NULL, r == -ESTALE ? -ENOENT : r, &f);
}

/* The st_ino of a revision's file: the same each time, unlike the nodeid (cp compares them). */
static uint64_t ino_of(const struct place *place, const struct media_revision *revision)
{
    return address_media_file(place->key.region, map_hash_number(place->number ^ revision->id_hash));
}

static int older_node(struct tree *tree, const struct place *place, struct media_revision *revision,
                      struct node **out)
{
    struct stat attr;
    struct node *node;
    int r = node_new_free(tree->nodes, NODE_TEXT, &node);
    if (r < 0)
        return r;
    attr_media_file(tree, place->key.region, place->number, revision, &attr);
    node->mode = attr.st_mode & 0444;
    node->uid = attr.st_uid;
    node->gid = attr.st_gid;
    node->mtime = node->ctime = attr.st_mtim;
    node->draft.key = key_of(place->key.region, place->number);
    node->shown_ino = ino_of(place, revision);
    node->older = media_revision_ref(revision);
    *out = node;
    return 0;
}

/* One that cannot be read is in nobody's way. */
static bool is_shown(const struct media_revisions *revisions, size_t i)
{
    return i > 0 && !revisions->list[i]->broken;
}

static int lookup_revision(struct tree *tree, const struct caller *caller, const struct place *place,
                           const char *name, struct entry *entry)
{
    CLEANUP(media_revisions_clear) struct media_revisions revisions = {0};
    struct node *node = NULL;
    char number[24];
    int r = revisions_of(tree, caller, place, &revisions);
    for (size_t i = 0; r == 0 && i < revisions.n && !node; i++) {
        snprintf(number, sizeof number, "%lld", (long long)revisions.numbers[i]);
        if (is_shown(&revisions, i) && strcmp(number, name) == 0)
            r = older_node(tree, place, revisions.list[i], &node);
    }
    if (!node)
        return r < 0 ? r : -ENOENT;
    entry_node(tree, node, entry);
    node_unref(tree->nodes, node);
    return 0;
}

int meta_open_older(struct tree *tree, const struct node *node, struct media_handle **handle)
{
    const struct row_key *key = &node->draft.key;
    struct fail f = {0};
    int r = media_open_revision(tree, key->region, node->nodeid, (uint64_t)key->id, node->older, handle, &f);
    return report_media(tree, key->region, MEDIA_ROOT, node->older->filename, r, &f);
}

/* ---- lookup ---- */

static int lookup_document(struct tree *tree, const struct caller *caller, const struct place *place,
                           const char *stem, const struct media_info *info, struct entry *entry)
{
    struct row_key key = key_of(place->key.region, info->ino);
    struct node *node;
    int r = node_of(tree, caller, place, &key, stem, info, &node);
    if (r < 0)
        return r;
    entry_node(tree, node, entry);
    unopened_add(tree->unopened, node);
    node_unref(tree->nodes, node);
    return 0;
}

/* Once; -ESTALE when the file has become another between two looks at it. */
static int lookup_once(struct tree *tree, const struct caller *caller, const struct place *place,
                       const char *name, struct entry *entry)
{
    char stem[NAME_MAX_BYTES + 1];
    struct media_info info = {0};
    unsigned region = place->key.region;
    int r = find_file(tree, caller, place, name, stem, &info);
    if (r == NAME_SCRATCH)
        return scratch_entry(tree, address_meta(region, place->number), name, entry);
    if (r == NAME_ROW) {
        r = lookup_document(tree, caller, place, stem, &info, entry);
    } else if (r == NAME_RESERVED) {
        *entry = (struct entry){.nodeid = address_meta_revisions(region, info.ino),
                                .name_ms = tree->kernel_ms,
                                .attr_ms = tree->kernel_ms};
        attr_of_revisions(tree, region, &info, &entry->attr);
        attr_of_folder(&entry->attr);
        r = 0;
    }
    media_info_clear(&info);
    return r;
}

int meta_lookup(struct tree *tree, const struct caller *caller, const struct place *place, const char *name,
                struct entry *entry)
{
    if (place->kind == PLACE_META_REVISIONS)
        return lookup_revision(tree, caller, place, name, entry);
    int r = -ESTALE;
    for (unsigned tries = 0; r == -ESTALE && tries < TRIES; tries++)
        r = lookup_once(tree, caller, place, name, entry);
    return r == -ESTALE ? -ENOENT : r;
}

/* ---- listings ---- */

/* A list of `n` names that take `bytes` in all, to be filled with add_name(). */
static struct media_names *names_new(size_t n, size_t bytes, char **text)
{
    struct media_names *names = malloc(sizeof *names + n * sizeof names->list[0] + bytes);
    if (names) {
        names->n = 0;
        *text = (char *)(names->list + n);
    }
    return names;
}

static void add_name(struct media_names *names, char **text, const char *stem, const char *suffix,
                     uint64_t ino, bool folder)
{
    names->list[names->n++] = (struct media_name){*text, ino, folder};
    *text = stpcpy(stpcpy(*text, stem), suffix) + 1;
}

static int list_documents(struct tree *tree, const struct caller *caller, const struct place *place,
                          struct media_names **out)
{
    struct media_names *files CLEANUP(freep) = NULL;
    struct place folder = folder_of(place);
    unsigned region = place->key.region;
    size_t bytes = 0;
    char *text;
    int r = media_list(tree, caller, &folder, &files);
    if (r < 0)
        return r;
    for (size_t i = 0; i < files->n; i++)
        bytes += 2 * strlen(files->list[i].name) + sizeof DOCUMENT_SUFFIX + sizeof REVISIONS_SUFFIX;
    *out = names_new(2 * files->n, bytes, &text);
    for (size_t i = 0; *out && i < files->n; i++) {
        const struct media_name *file = &files->list[i];
        size_t len = strlen(file->name);
        if (!file->folder && len + strlen(DOCUMENT_SUFFIX) <= NAME_MAX_BYTES)
            add_name(*out, &text, file->name, DOCUMENT_SUFFIX, address_meta(region, file->ino), false);
        if (!file->folder && len + strlen(REVISIONS_SUFFIX) <= NAME_MAX_BYTES)
            add_name(*out, &text, file->name, REVISIONS_SUFFIX, address_meta_revisions(region, file->ino),
                     true);
    }
    return *out ? 0 : -ENOMEM;
}

static int list_revisions(struct tree *tree, const struct caller *caller, const struct place *place,
                          struct media_names **out)
{
    CLEANUP(media_revisions_clear) struct media_revisions revisions = {0};
    char *text, number[24];
    int r = revisions_of(tree, caller, place, &revisions);
    if (r < 0)
        return r;
    *out = names_new(revisions.n, revisions.n * sizeof number, &text);
    for (size_t i = revisions.n; *out && i-- > 0;) {
        snprintf(number, sizeof number, "%lld", (long long)revisions.numbers[i]);
        if (is_shown(&revisions, i))
            add_name(*out, &text, number, "", ino_of(place, revisions.list[i]), false);
    }
    return *out ? 0 : -ENOMEM;
}

int meta_list(struct tree *tree, const struct caller *caller, const struct place *place,
              struct media_names **out)
{
    return place->kind == PLACE_META ? list_documents(tree, caller, place, out)
                                     : list_revisions(tree, caller, place, out);
}
