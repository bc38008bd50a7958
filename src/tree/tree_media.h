/*
 * What the tree's files say of media to each other (tree_media.c): names and attributes from the indexes of
 * media/index.h, open files from its readers. `place` is PLACE_MEDIA, PLACE_MEDIA_FOLDER or PLACE_MEDIA_FILE.
 * Errors that carry words are told in errors.jsonl.
 */
#pragma once

#include "media/media.h"
#include "tree/tree_internal.h"

/* What threads come back for in a region's media. */
static inline struct row_key media_note_key(unsigned region)
{
    return (struct row_key){.collection = COLLECTION_MEDIA, .region = (uint8_t)region};
}

/* For media_open(): tells the kernel. */
void media_outdated(void *arg, unsigned region, bool file, uint64_t number);

/* Whether the region has media/: not before a region that a reload has added is prepared. */
static inline bool media_shown(const struct tree *tree, unsigned region)
{
    return tree->media && media_index(tree->media, region);
}
/* The folder's number in its index. */
uint64_t media_folder_ino(const struct place *place);
/* A folder's nodeid. */
uint64_t media_nodeid(const struct place *folder);
/* "regions/europe/media/5001/a.mp4", for people: a name (NULL = none) in a folder. */
void media_path(const struct tree *tree, unsigned region, uint64_t folder, const char *name, char *out,
                size_t size);
/* Tells an error that has words; returns r. */
int report_media(struct tree *tree, unsigned region, uint64_t folder, const char *name, int r,
                 const struct fail *f);

/* A time as media keep it; what 64 bits cannot hold is the first or last that they can: year 1677 or 2262. */
int64_t ns_of_timespec(struct timespec time);
void attr_media_file(const struct tree *tree, unsigned region, uint64_t ino,
                     const struct media_revision *revision, struct stat *attr);
/* What a region's media/ itself has besides what all places have. Waits not long, and never fails. */
void media_attr(struct tree *tree, const struct caller *caller, unsigned region, struct stat *attr);

/* Revisions that are open, so that fstat() of an outdated one is answered. Under tree->lock. */
struct media_opened {
    struct map_entry entry;
    uint64_t nodeid, ino;
    struct media_revision *revision; /* a reference */
    unsigned handles;
};

int media_lookup(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name,
                 struct entry *entry);
int media_getattr(struct tree *tree, const struct caller *caller, const struct place *place, uint64_t nodeid,
                  struct stat *attr, int64_t *attr_ms);

/* A folder's names, free() them; and the entry of one of them, -ENOENT when it has gone since. */
int media_list(struct tree *tree, const struct caller *caller, const struct place *folder,
               struct media_names **out);
int media_list_at(struct tree *tree, const struct caller *caller, const struct place *folder,
                  const struct media_name *name, bool plus, struct entry *entry);

/* tree_media_names.c. Whether a nodeid is a folder of media; its place in *place. */
bool is_media_folder(const struct tree *tree, uint64_t nodeid, struct place *place);
int media_mkdir(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name,
                mode_t mode, struct entry *entry);
int media_rmdir(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name);
int media_unlink(struct tree *tree, const struct caller *caller, const struct place *folder,
                 const char *name);
int media_rename_name(struct tree *tree, const struct caller *caller, const struct place *from,
                      const char *name, const struct place *to, const char *new_name, unsigned flags);
int media_set_folder_attributes(struct tree *tree, const struct caller *caller, const struct place *place,
                                const struct change *change, struct stat *attr, int64_t *attr_ms);

/* An open file: reads one revision to its end, whatever becomes of the name. */
struct media_handle;
int media_open_file(struct tree *tree, const struct caller *caller, const struct place *place,
                    uint64_t nodeid, int flags, struct media_handle **handle, struct open_hints *hints);
/* The same of a revision that is given, under a nodeid of its own. */
int media_open_revision(struct tree *tree, unsigned region, uint64_t nodeid, uint64_t ino,
                        struct media_revision *revision, struct media_handle **out, struct fail *f);
int media_read(struct tree *tree, const struct caller *caller, struct media_handle *handle, size_t size,
               off_t offset, struct chunk *chunk);
/* Takes NULL. */
void media_release(struct tree *tree, struct media_handle *handle);
/* What its locks are on: the file, whatever its revision. */
uint64_t media_lock_key(const struct media_handle *handle);
