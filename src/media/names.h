/*
 * Changing names of media: each call does it in the database, and tells the index when that has acknowledged
 * it. Folders are given by their number in the index (media/index.h).
 *
 * A file is all revisions of its filename. Removing it takes their files documents away, the newest last, so
 * that the name never shows an older one; their chunks stay for who reads them, until the sweep
 * (media/bucket.h). Renaming one sets the filename of its newest revision, in one update; over a target that
 * also makes it the newest of that name, before the target's revisions go. So whatever a crash leaves, each
 * name leads to one whole file, old or new.
 *
 * A folder that is empty, or has a mode or time of its own, has a document in <bucket>.folders; one that
 * would vanish with its last entry is given one first. A folder is renamed file by file, under a journal
 * <bucket>.renames ({_id, from, to, began, heartbeat, owner}): what a crash leaves is finished by the next
 * mount that reads the region's names, or by this one (media_names_recover()). The names of a mount change
 * all at once, when the database has done its part.
 *
 * Errors: those of the index and of media_error_set(); -EEXIST, -ENOENT, -EISDIR, -ENOTDIR, -ENOTEMPTY as of
 * the system calls, -EILSEQ for a name that is not UTF-8, -EPERM for .meta and for what would lie in media/
 * itself.
 */
#pragma once

#include <sys/types.h>

#include "media/media.h"

/* A name in a folder of a region. */
struct media_place {
    unsigned region;
    uint64_t folder;
    const char *name;
};

int media_make_folder(struct media *media, const struct media_place *place, mode_t mode, uid_t uid, gid_t gid,
                      const struct op *op, struct fail *f);
int media_remove_folder(struct media *media, const struct media_place *place, const struct op *op,
                        struct fail *f);
/* All its revisions. One of very many, and renaming a folder, may take longer than the op's deadline, as long
 * as each message is answered within `step_ms`. */
int media_remove_file(struct media *media, const struct media_place *place, int64_t step_ms,
                      const struct op *op, struct fail *f);
/* Of one region. `no_replace`: -EEXIST when there is something under the new name. */
int media_rename(struct media *media, const struct media_place *from, const struct media_place *to,
                 bool no_replace, int64_t step_ms, const struct op *op, struct fail *f);

/*
 * A revision that was published under a path whose folder has been renamed meanwhile follows it; what it is
 * then in *renamed, the caller's. -ENOENT when it is gone.
 */
int media_follow_folder(struct media *media, unsigned region, const struct media_revision *revision,
                        const char *path, const struct op *op, struct media_revision **renamed,
                        struct fail *f);

/* What is to change of a folder's own attributes. */
struct media_folder_change {
    bool set_mtime, set_mode, set_uid, set_gid;
    int64_t mtime_ns;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};
int media_set_folder(struct media *media, unsigned region, uint64_t ino,
                     const struct media_folder_change *change, const struct op *op, struct fail *f);

/* Finishes renames of folders whose mounts have died, and, where `own`, those that this one has left: it
 * renames nothing now. */
int media_names_recover(struct mongo *mongo, const char *region, int64_t step_ms, bool own, struct fail *f);

/* Whether a course has files, asked of the database itself. */
int media_course_has_files(struct mongo *mongo, const char *region, int64_t course, const struct op *op,
                           bool *has, struct fail *f);
