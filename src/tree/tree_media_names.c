/*
 * Changing names of media. A name is free for any bytes that are UTF-8; folders are real ones; nothing of
 * media moves to or from the rows' folders by a rename (EXDEV: mv copies).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "media/names.h"
#include "tree/media_draft.h"
#include "tree/tree_meta.h"

bool is_media_folder(const struct tree *tree, uint64_t nodeid, struct place *place)
{
    return tree->media && address_parse(nodeid, place) &&
           (place->kind == PLACE_MEDIA || place->kind == PLACE_MEDIA_FOLDER);
}

static struct media_place place_of(const struct place *folder, const char *name)
{
    return (struct media_place){folder->key.region, media_folder_ino(folder), name};
}

static int report_name(struct tree *tree, const struct media_place *place, int r, const struct fail *f)
{
    return report_media(tree, place->region, place->folder, place->name, r, f);
}

static int check_name(const struct tree *tree, const char *name)
{
    return tree->config->read_only ? -EROFS : strlen(name) > NAME_MAX_BYTES ? -ENAMETOOLONG : 0;
}

int media_mkdir(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name,
                mode_t mode, struct entry *entry)
{
    struct media_place place = place_of(folder, name);
    struct fail f = {0};
    int r = check_name(tree, name);
    if (r == 0)
        r = media_make_folder(tree->media, &place, mode, caller->uid, caller->gid, &caller->op, &f);
    report_name(tree, &place, r, &f);
    return r < 0 ? r : media_lookup(tree, caller, folder, name, entry);
}

int media_rmdir(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name)
{
    struct media_place place = place_of(folder, name);
    struct fail f = {0};
    int r = check_name(tree, name);
    if (r == 0)
        r = media_remove_folder(tree->media, &place, &caller->op, &f);
    return report_name(tree, &place, r, &f);
}

int media_unlink(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name)
{
    struct media_place place = place_of(folder, name);
    struct media_held held = {0};
    struct fail f = {0};
    int r = check_name(tree, name);
    if (r == 0)
        r = media_drafts_hold(tree, caller, place.region, place.folder, name, &held, &f);
    if (r == 0)
        r = media_remove_file(tree->media, &place, tree->config->timeout_ms, &caller->op, &f);
    bool own = r == -ENOENT; /* not published yet */
    if (own)
        r = media_draft_unlink(tree, caller, place.region, place.folder, name);
    else if (r == 0)
        media_drafts_removed(tree, place.region, place.folder, name);
    media_drafts_let_go(tree, &held);
    return own ? r : report_name(tree, &place, r, &f);
}

int media_rename_name(struct tree *tree, const struct caller *caller, const struct place *from,
                      const char *name, const struct place *to, const char *new_name, unsigned flags)
{
    struct media_place old = place_of(from, name), new = place_of(to, new_name);
    struct media_held held = {0};
    struct fail f = {0};
    int r = check_name(tree, new_name);
    if (r == 0 && flags & RENAME_EXCHANGE)
        r = -EINVAL; /* two names cannot change in one update */
    if (r == 0 && strcmp(name, META_FOLDER) == 0)
        r = fail_set(&f, EPERM, "the name " META_FOLDER " is taken");
    if (r == 0 && old.region != new.region)
        r = -EXDEV;
    if (r == 0) /* what is being written under the name is renamed as a whole */
        r = media_draft_publish_name(tree, caller, old.region, old.folder, name);
    if (r == 0)
        r = media_drafts_hold(tree, caller, old.region, old.folder, name, &held, &f);
    if (r == 0)
        r = media_drafts_hold(tree, caller, new.region, new.folder, new_name, &held, &f);
    if (r == 0)
        r = media_rename(tree->media, &old, &new, flags & RENAME_NOREPLACE, tree->config->timeout_ms,
                         &caller->op, &f);
    if (r == 0)
        media_drafts_renamed(tree, old.region, old.folder, name, new.folder, new_name);
    media_drafts_let_go(tree, &held);
    return report_name(tree, &old, r, &f);
}

int media_set_folder_attributes(struct tree *tree, const struct caller *caller, const struct place *place,
                                const struct change *change, struct stat *attr, int64_t *attr_ms)
{
    struct fail f = {0};
    if (change->size)
        return -EISDIR;
    if (place->kind == PLACE_MEDIA ||
        (!change->mode && !change->set_uid && !change->set_gid && !change->mtime))
        return tree_getattr(tree, caller, media_nodeid(place), NULL, attr, attr_ms);
    if (tree->config->read_only)
        return -EROFS;
    struct media_folder_change to = {.set_mtime = change->mtime,
                                     .set_mode = change->mode,
                                     .set_uid = change->set_uid,
                                     .set_gid = change->set_gid,
                                     .mtime_ns = ns_of_timespec(change->to.st_mtim),
                                     .mode = change->to.st_mode,
                                     .uid = change->to.st_uid,
                                     .gid = change->to.st_gid};
    int r = media_set_folder(tree->media, place->key.region, place->number, &to, &caller->op, &f);
    if (r < 0)
        return report_media(tree, place->key.region, place->number, NULL, r, &f);
    return media_getattr(tree, caller, place, media_nodeid(place), attr, attr_ms);
}
