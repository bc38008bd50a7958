#include "media/names.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "media/bucket.h"
#include "media/document.h"
#include "media/names_private.h"

enum { REVISIONS = 256 }; /* that one message takes away */

/* ---- what all of them need ---- */

int names_path(struct names *n, const struct media_place *place, char path[MEDIA_FILENAME_MAX + 1])
{
    if (place->folder == MEDIA_ROOT || strcmp(place->name, ".meta") == 0)
        return fail_set(n->f, EPERM,
                        place->folder == MEDIA_ROOT ? "courses' folders alone lie in media/"
                                                    : "the name .meta is taken");
    int r = media_index_path(n->index, place->folder, place->name, path);
    if (r == -EILSEQ)
        return fail_set(n->f, EILSEQ, "a name of media has to be UTF-8");
    return r == -ESTALE ? -ENOENT : r;
}

static int begin(struct names *n, struct media *media, unsigned region, const struct op *op, struct fail *f)
{
    *n = (struct names){.mongo = media_mongo(media),
                        .index = media_index(media, region),
                        .region = media_region(media, region),
                        .op = op,
                        .f = f};
    return n->index ? 0 : -ENOENT;
}

/* Whether the database has any such document. */
static int has_any(struct mongo *mongo, const char *region, const char *part, const bson_t *filter,
                   const struct op *op, bool *has, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *only = BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}");
    CLEANUP(bson_destroyp) bson_t *found = NULL;
    int r = bucket_find_one(mongo, region, part, filter, only, &found, "cannot look for files", op, f);
    if (r == 0)
        *has = found != NULL;
    return r;
}

/* The document of a folder, as it is from now on; the whole of it. */
static bson_t *marker_document(const char *path, const struct media_marker *marker)
{
    bson_t *doc = BCON_NEW("_id", BCON_UTF8(path), "mtime", BCON_INT64(marker->mtime_ns), "at",
                           BCON_DATE_TIME(marker->at_ms));
    if (marker->mode >= 0)
        BSON_APPEND_INT32(doc, "mode", marker->mode);
    if (marker->uid >= 0)
        BSON_APPEND_INT64(doc, "uid", marker->uid);
    if (marker->gid >= 0)
        BSON_APPEND_INT64(doc, "gid", marker->gid);
    return doc;
}

/* A folder's document of this moment, without mode and owner. */
static struct media_marker marker_now(void)
{
    struct media_marker marker;
    memset(&marker, 0, sizeof(marker)); /* compared by its bytes */
    marker.at_ms = bucket_now_ms();
    marker.mtime_ns = marker.at_ms * 1000000;
    marker.mode = -1;
    marker.uid = marker.gid = -1;
    return marker;
}

int names_insert_marker(struct names *n, const char *path, const struct media_marker *marker)
{
    CLEANUP(bson_destroyp) bson_t *doc = marker_document(path, marker);
    return bucket_insert(n->mongo, n->region, "folders", (const bson_t *[]){doc}, 1, "cannot make a folder",
                         n->op, n->f);
}

/*
 * mkdir(): -EEXIST when somebody else has made it, which the index may not have heard of. The mark tells ours
 * from theirs where an answer was lost and the message sent again.
 */
static int create_marker(struct names *n, const char *path, const struct media_marker *marker)
{
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("_id", BCON_UTF8(path));
    CLEANUP(bson_destroyp) bson_t *fields = bson_new();
    CLEANUP(bson_destroyp) bson_t *whole = marker_document(path, marker);
    bson_oid_t made;
    int64_t matched;
    bool ours = true;
    bson_oid_init(&made, NULL);
    bson_copy_to_excluding_noinit(whole, fields, "_id", NULL);
    BSON_APPEND_OID(fields, "made", &made);
    CLEANUP(bson_destroyp) bson_t *update = BCON_NEW("$setOnInsert", BCON_DOCUMENT(fields));
    int r = bucket_update(n->mongo, n->region, "folders", filter, update, true, &matched,
                          "cannot make a folder", n->op, n->f);
    if (r < 0 || matched == 0)
        return r;
    BSON_APPEND_OID(filter, "made", &made);
    r = has_any(n->mongo, n->region, "folders", filter, n->op, &ours, n->f);
    return r == 0 && !ours ? -EEXIST : r;
}

int names_delete_marker(struct names *n, const char *path)
{
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("_id", BCON_UTF8(path));
    return bucket_delete(n->mongo, n->region, "folders", filter, NULL, n->op, n->f);
}

int names_keep_folder(struct names *n, uint64_t folder)
{
    char path[MEDIA_FILENAME_MAX + 1];
    if (!media_index_lonely(n->index, folder))
        return 0;
    struct media_marker marker = marker_now();
    int r = media_index_path(n->index, folder, NULL, path);
    r = r < 0 ? r : names_insert_marker(n, path, &marker);
    if (r == 0)
        media_index_marked(n->index, path, &marker);
    return r;
}

bson_t *names_below_filter(const char *field, const char *path)
{
    char from[MEDIA_FILENAME_MAX + 2], to[MEDIA_FILENAME_MAX + 2];
    snprintf(from, sizeof(from), "%s/", path);
    snprintf(to, sizeof(to), "%s0", path); /* '0' follows '/' */
    return BCON_NEW(field, "{", "$gt", BCON_UTF8(from), "$lt", BCON_UTF8(to), "}");
}

/* Whether any document lies below a path: the index may not have heard of it yet. */
static int has_below(struct mongo *mongo, const char *region, const char *part, const char *field,
                     const char *path, const struct op *op, bool *has, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *filter = names_below_filter(field, path);
    return has_any(mongo, region, part, filter, op, has, f);
}

int media_course_has_files(struct mongo *mongo, const char *region, int64_t course, const struct op *op,
                           bool *has, struct fail *f)
{
    char path[24];
    snprintf(path, sizeof(path), "%lld", (long long)course);
    return has_below(mongo, region, "files", "filename", path, op, has, f);
}

/* ---- folders ---- */

int media_make_folder(struct media *media, const struct media_place *place, mode_t mode, uid_t uid, gid_t gid,
                      const struct op *op, struct fail *f)
{
    struct names n;
    struct media_info info;
    char path[MEDIA_FILENAME_MAX + 1];
    int r = begin(&n, media, place->region, op, f);
    if (r == 0 && place->folder == MEDIA_ROOT)
        return -ENOENT; /* a course that exists has its folder */
    r = r < 0 ? r : names_path(&n, place, path);
    if (r < 0)
        return r;
    r = media_index_lookup(n.index, place->folder, place->name, op, &info, f);
    if (r == 0)
        media_info_clear(&info);
    if (r != -ENOENT)
        return r == 0 ? -EEXIST : r;
    struct media_marker marker = marker_now();
    marker.mode = (int32_t)(mode & 07777);
    marker.uid = uid;
    marker.gid = gid;
    r = create_marker(&n, path, &marker);
    if (r == 0) {
        media_index_marked(n.index, path, &marker);
        media_index_touched(n.index, place->folder);
    } else if (r == -EEXIST) {
        media_index_scan(n.index); /* so that whoever is told so finds it */
    }
    return r;
}

/* Whether a folder has nothing in it, here and in the database. */
static int check_empty(struct names *n, uint64_t ino, const char *path)
{
    struct media_names *names CLEANUP(freep) = NULL;
    bool has = false;
    int r = media_index_list(n->index, ino, n->op, &names, n->f);
    if (r == 0 && names->n > 0)
        return -ENOTEMPTY;
    r = r < 0 ? r : has_below(n->mongo, n->region, "files", "filename", path, n->op, &has, n->f);
    if (r == 0 && !has)
        r = has_below(n->mongo, n->region, "folders", "_id", path, n->op, &has, n->f);
    return r == 0 && has ? -ENOTEMPTY : r;
}

/* A course's own folder goes like any other; while the course exists it is found by its name again. */
static int folder_path(struct names *n, const struct media_place *place, char path[MEDIA_FILENAME_MAX + 1])
{
    if (place->folder != MEDIA_ROOT)
        return names_path(n, place, path);
    if (media_path_course(place->name, strlen(place->name)) == 0)
        return -ENOENT;
    snprintf(path, MEDIA_FILENAME_MAX + 1, "%s", place->name);
    return 0;
}

int media_remove_folder(struct media *media, const struct media_place *place, const struct op *op,
                        struct fail *f)
{
    struct names n;
    struct media_info info = {0};
    char path[MEDIA_FILENAME_MAX + 1];
    int r = begin(&n, media, place->region, op, f);
    r = r < 0 ? r : folder_path(&n, place, path);
    if (r < 0)
        return r;
    r = media_index_lookup(n.index, place->folder, place->name, op, &info, f);
    if (r == -ENOENT && place->folder == MEDIA_ROOT)
        return 0; /* nothing is stored of it */
    if (r == 0 && !info.folder)
        r = -ENOTDIR;
    uint64_t ino = info.ino;
    media_info_clear(&info);
    r = r < 0 ? r : check_empty(&n, ino, path);
    r = r < 0 ? r : names_keep_folder(&n, place->folder);
    r = r < 0 ? r : names_delete_marker(&n, path);
    if (r == 0) {
        media_index_marked(n.index, path, NULL);
        media_index_touched(n.index, place->folder);
    }
    return r;
}

int media_set_folder(struct media *media, unsigned region, uint64_t ino,
                     const struct media_folder_change *change, const struct op *op, struct fail *f)
{
    struct names n;
    char path[MEDIA_FILENAME_MAX + 1];
    struct media_marker marker = marker_now();
    struct media_info info;
    int r = begin(&n, media, region, op, f);
    r = r < 0 ? r : media_index_path(n.index, ino, NULL, path);
    if (r < 0)
        return r;
    if (!media_index_marker(n.index, ino, &marker) &&
        media_index_folder(n.index, ino, op, &info, NULL) == 0) {
        marker.mtime_ns = info.mtime_ns ? info.mtime_ns : marker.mtime_ns;
        media_info_clear(&info);
    }
    if (change->set_mtime) {
        marker.mtime_ns = change->mtime_ns;
        marker.at_ms = bucket_now_ms();
    }
    marker.mode = change->set_mode ? (int32_t)(change->mode & 07777) : marker.mode;
    marker.uid = change->set_uid ? change->uid : marker.uid;
    marker.gid = change->set_gid ? change->gid : marker.gid;
    CLEANUP(bson_destroyp) bson_t *filter = BCON_NEW("_id", BCON_UTF8(path));
    CLEANUP(bson_destroyp) bson_t *whole = marker_document(path, &marker);
    CLEANUP(bson_destroyp) bson_t *fields = bson_new();
    bson_copy_to_excluding_noinit(whole, fields, "_id", NULL);
    CLEANUP(bson_destroyp) bson_t *update = BCON_NEW("$set", BCON_DOCUMENT(fields));
    r = bucket_update(n.mongo, n.region, "folders", filter, update, true, NULL, "cannot change a folder", op,
                      f);
    if (r == 0)
        media_index_marked(n.index, path, &marker);
    return r;
}

/* ---- files ---- */

/* One message of each kind for as many revisions as it takes. */
static int delete_batch(struct names *n, struct media_revision **list, size_t count, int64_t step_ms)
{
    struct op op = op_within(step_ms);
    struct media_in in;
    media_in_begin(&in, "_id");
    for (size_t i = 0; i < count; i++) {
        bson_t id;
        if (bson_init_static(&id, list[i]->id, list[i]->id_len))
            media_in_add_id(&in, &id);
    }
    CLEANUP(bson_destroyp) bson_t *filter = media_in_end(&in);
    int r = bucket_delete(n->mongo, n->region, "files", filter, NULL, &op, n->f);
    for (size_t i = 0; r == 0 && i < count; i++)
        media_index_removed(n->index, list[i]);
    return r;
}

/* Journals that revisions go. */
static int retire(struct names *n, const struct media_revisions *of, size_t first, int64_t step_ms)
{
    int r = 0;
    for (size_t i = first; r == 0 && i < of->n; i += REVISIONS) {
        struct op op = op_within(step_ms);
        size_t count = of->n - i < REVISIONS ? of->n - i : REVISIONS;
        r = bucket_retire_all(n->mongo, n->region, of->list + i, count, &op, n->f);
    }
    return r;
}

/* Takes away revisions that the list has, from `first` on: their chunks go later. The newest goes last, and
 * alone, so that none of the others ever takes its place. */
static int remove_revisions(struct names *n, const struct media_revisions *of, size_t first, int64_t step_ms)
{
    int r = retire(n, of, first, step_ms);
    for (size_t end = of->n; r == 0 && end > first;) {
        size_t older = end - first - 1, count = older == 0 ? 1 : older < REVISIONS ? older : REVISIONS;
        end -= count;
        r = delete_batch(n, of->list + end, count, step_ms);
    }
    return r;
}

int media_remove_file(struct media *media, const struct media_place *place, int64_t step_ms,
                      const struct op *op, struct fail *f)
{
    struct names n;
    struct media_info info = {0};
    CLEANUP(media_revisions_clear) struct media_revisions all = {0};
    int r = begin(&n, media, place->region, op, f);
    r = r < 0 ? r : media_index_lookup(n.index, place->folder, place->name, op, &info, f);
    if (r == 0 && info.folder)
        r = -EISDIR;
    if (r == 0)
        r = media_index_revisions(n.index, info.node, &all);
    media_info_clear(&info);
    r = r < 0 ? r : names_keep_folder(&n, place->folder);
    r = r < 0 ? r : remove_revisions(&n, &all, 0, step_ms);
    if (r == 0)
        media_index_touched(n.index, place->folder);
    return r;
}

/* ---- renaming a file ---- */

/* The update that gives a revision its new name, and where it replaces another makes it the newest: its time
 * stays, also where it was that of the upload. Metadata that is no document is left alone. */
static int set_filename(struct names *n, const struct media_revision *revision, const char *path,
                        const struct media_revision *target)
{
    int64_t now = bucket_now_ms(), matched = 0;
    if (target && now <= target->uploaded_ms)
        now = target->uploaded_ms + 1;
    CLEANUP(bson_destroyp) bson_t *fields = BCON_NEW("filename", BCON_UTF8(path));
    if (target)
        BSON_APPEND_DATE_TIME(fields, "uploadDate", now);
    CLEANUP(bson_destroyp) bson_t *plain = BCON_NEW("$set", BCON_DOCUMENT(fields));
    BSON_APPEND_INT64(fields, "metadata.courseId", media_path_course(path, media_path_name(path)));
    BSON_APPEND_INT64(fields, "metadata.mtime", revision->mtime_ns);
    CLEANUP(bson_destroyp) bson_t *full = BCON_NEW("$set", BCON_DOCUMENT(fields));
    CLEANUP(bson_destroyp) bson_t *any = media_id_filter(revision, "_id");
    CLEANUP(bson_destroyp) bson_t *with = media_metadata_filter(revision);
    int r = bucket_update(n->mongo, n->region, "files", with, full, false, &matched, "cannot rename a file",
                          n->op, n->f);
    if (r == 0 && matched == 0)
        r = bucket_update(n->mongo, n->region, "files", any, plain, false, &matched, "cannot rename a file",
                          n->op, n->f);
    return r == 0 && matched == 0 ? -ENOENT : r;
}

/* The revision as the database has it now. */
static int read_again(struct names *n, const struct media_revision *revision, struct media_revision **out)
{
    CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(revision, "_id");
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    int r = bucket_find_one(n->mongo, n->region, "files", filter, NULL, &document,
                            "cannot read a file's document", n->op, n->f);
    if (r < 0)
        return r;
    return document ? media_revision_parse(document, out) : -ENOENT;
}

int media_follow_folder(struct media *media, unsigned region, const struct media_revision *revision,
                        const char *path, const struct op *op, struct media_revision **renamed,
                        struct fail *f)
{
    struct names n;
    int r = begin(&n, media, region, op, f);
    r = r < 0 ? r : set_filename(&n, revision, path, NULL);
    r = r < 0 ? r : read_again(&n, revision, renamed);
    if (r == 0)
        media_index_put(n.index, *renamed);
    return r;
}

static int rename_file(struct names *n, const struct media_place *from, const struct media_place *to,
                       const struct media_info *source, const struct media_info *target, int64_t step_ms)
{
    CLEANUP(media_revisions_clear) struct media_revisions old = {0}, replaced = {0};
    struct media_revision *renamed CLEANUP(media_revision_unrefp) = NULL;
    char path[MEDIA_FILENAME_MAX + 1];
    int r = names_path(n, to, path);
    r = r < 0 ? r : media_index_revisions(n->index, source->node, &old);
    if (r == 0 && target)
        r = media_index_revisions(n->index, target->node, &replaced);
    if (r == 0 && from->folder != to->folder)
        r = names_keep_folder(n, from->folder);
    r = r < 0 ? r : remove_revisions(n, &old, 1, step_ms);
    r = r < 0 ? r : retire(n, &replaced, 0, step_ms);
    r = r < 0 ? r : set_filename(n, source->revision, path, target ? target->revision : NULL);
    r = r < 0 ? r : read_again(n, source->revision, &renamed);
    if (r == 0) {
        media_index_put(n->index, renamed);
        r = remove_revisions(n, &replaced, 0, step_ms);
    }
    return r;
}

/* ---- renaming ---- */

static int find(struct names *n, const struct media_place *place, struct media_info *info)
{
    return media_index_lookup(n->index, place->folder, place->name, n->op, info, n->f);
}

/* What stands under the new name must give way, or else nothing is done. */
static int check_target(struct names *n, const struct media_place *to, const struct media_info *source,
                        const struct media_info *target, bool no_replace)
{
    char path[MEDIA_FILENAME_MAX + 1];
    if (no_replace)
        return -EEXIST;
    if (source->folder != target->folder)
        return source->folder ? -ENOTDIR : -EISDIR;
    if (!target->folder)
        return 0;
    int r = names_path(n, to, path);
    r = r < 0 ? r : check_empty(n, target->ino, path);
    r = r < 0 ? r : names_keep_folder(n, to->folder); /* for this moment it may be all that is in there */
    r = r < 0 ? r : names_delete_marker(n, path);
    if (r == 0)
        media_index_marked(n->index, path, NULL);
    return r;
}

int media_rename(struct media *media, const struct media_place *from, const struct media_place *to,
                 bool no_replace, int64_t step_ms, const struct op *op, struct fail *f)
{
    struct names n;
    struct media_info source = {0}, target = {0};
    int r = begin(&n, media, from->region, op, f);
    if (r == 0 && (from->folder == MEDIA_ROOT || to->folder == MEDIA_ROOT))
        return fail_set(f, EPERM, "a course's folder cannot be renamed, only what is in it");
    r = r < 0 ? r : find(&n, from, &source);
    if (r < 0)
        return r;
    r = find(&n, to, &target);
    bool there = r == 0;
    bool same = there && source.ino == target.ino;
    r = r == -ENOENT ? 0 : r;
    if (there && !same)
        r = check_target(&n, to, &source, &target, no_replace);
    if (r == 0 && !same)
        r = source.folder ? names_rename_folder(&n, from, to, &source, step_ms)
                          : rename_file(&n, from, to, &source, there ? &target : NULL, step_ms);
    if (r == 0 && !same) {
        media_index_touched(n.index, from->folder);
        media_index_touched(n.index, to->folder);
    }
    media_info_clear(&source);
    media_info_clear(&target);
    return r;
}
