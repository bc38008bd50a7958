/*
 * The names of a region's media, in memory: a tree of folders and files made from the filenames of
 * <bucket>.files and the folders of <bucket>.folders, and kept as the database is.
 *
 * Files. A filename that is a path (media/path.h) is a file there; the newest revision of it is what it
 * shows. All others are left out and can be asked for with the reason (media_index_left_out()): filenames
 * that are no path, and a file under the name of a folder. Folders are those that paths lead through, and
 * those of <bucket>.folders, {_id: path, mtime, at, mode, owner}, which live while they are empty.
 *
 * Numbers. `ino` is a file's or folder's own, and the same after a remount: for a course's folder the
 * course's id, for all else 53 bits of a hash of its path with bit 53 set; where two paths' hashes are equal
 * the later one is hashed again. It goes along with a rename until the mount ends. `node` stands for one
 * revision of one file: another revision, or the same one under another ino, has another. Both are below
 * 2^54.
 *
 * Freshness. A thread of its own, started by the first use, reads all files documents once (a projected scan)
 * and follows them: by a change stream where the server has them (a change elsewhere is seen within a
 * second), else by a scan every `poll_ms`; with a stream, too, all is read again every ten minutes. Each
 * change that is reported is read anew, so that a late report never buries what this mount did since. Not
 * used for five minutes it asks nothing. Calls that read wait, by their op's deadline, until the index is
 * known to be fresh; when the server is known to be away they fail at once: -EIO with words. What this mount
 * does itself is told to the index by the calls below as soon as the server has acknowledged it.
 *
 * Memory: about 400 bytes and its name a file. Thread-safe; one lock, never held across a network call, and
 * nobody is called under it.
 */
#pragma once

#include "media/mongo.h"
#include "media/path.h"
#include "media/revision.h"

struct media_index;

struct media_index_options {
    const char *region; /* borrowed */
    int64_t wait_ms;    /* how long the server may take for one answer, and be out of touch */
    int64_t poll_ms;
    bool once;      /* for one look: no change stream is opened, which the end would have to wait for */
    bool may_write; /* finishes renames that dead mounts have left, before it reads */
    /* What the kernel may have been told of a file's node, or of a folder (its ino), is outdated. Called from
     * any thread, without the lock; must not call back. */
    void (*outdated)(void *arg, bool file, uint64_t number);
    void *arg;
};

/* Asks nobody yet. Borrows the pool, of whose clients it uses none: its thread has its own connection. */
int media_index_open(struct mongo *mongo, const struct media_index_options *options,
                     struct media_index **out);
/* Tells the thread to end, and waits until it has: when the server has answered it, or some wait_ms later.
 * From then on nothing is outdated, and calls that read fail. */
void media_index_ending(struct media_index *index);
void media_index_end(struct media_index *index);
/* Takes NULL. */
void media_index_close(struct media_index *index);

/* A file or folder as it is now. */
struct media_info {
    uint64_t ino;
    bool folder;
    uint64_t node;                   /* of a file */
    struct media_revision *revision; /* of a file: a reference, media_info_clear() */
    unsigned folders;                /* in a folder */
    int64_t mtime_ns;                /* 0 = a folder's that is not known */
    int32_t mode;                    /* -1 = none given */
    int64_t uid, gid;                /* -1 = none given */
};
void media_info_clear(struct media_info *info);

#define MEDIA_ROOT UINT64_C(0) /* the ino of media/ itself */

/* What a name in a folder is. -ENOENT; also in a course's folder that has nothing. */
int media_index_lookup(struct media_index *index, uint64_t folder, const char *name, const struct op *op,
                       struct media_info *info, struct fail *f);
/* What a folder's ino is now, or a file's node; -ESTALE when it is not there any more. */
int media_index_folder(struct media_index *index, uint64_t ino, const struct op *op, struct media_info *info,
                       struct fail *f);
int media_index_file(struct media_index *index, uint64_t node, const struct op *op, struct media_info *info,
                     struct fail *f);

/* A folder's names, sorted by bytes. free() the list. */
struct media_name {
    const char *name; /* in the same memory */
    uint64_t ino;
    bool folder;
};
struct media_names {
    size_t n;
    struct media_name list[];
};
/* A course's folder that has nothing is empty; -ESTALE for another that is not there. */
int media_index_list(struct media_index *index, uint64_t folder, const struct op *op,
                     struct media_names **out, struct fail *f);

/* The path of a name in a folder, as a filename; `name` NULL: the folder's own. -ESTALE, -ENAMETOOLONG, and
 * -EILSEQ for a name that is not UTF-8, which no document can hold. */
int media_index_path(struct media_index *index, uint64_t folder, const char *name,
                     char path[MEDIA_FILENAME_MAX + 1]);

/* The ino that a file under a path will have, as far as is known now: for what nobody else sees yet. */
uint64_t media_index_ino(struct media_index *index, const char *path);

/* Bytes of the files that are shown: of a course and of the region. Takes as long as counting them. */
int media_index_usage(struct media_index *index, int64_t course, const struct op *op, int64_t *course_bytes,
                      int64_t *region_bytes, struct fail *f);

/* The folder and the name of the file that a node is of; -ESTALE. */
int media_index_place(struct media_index *index, uint64_t node, uint64_t *folder,
                      char name[MEDIA_NAME_MAX + 1]);

/* The same of a file's ino. */
int media_index_place_of(struct media_index *index, uint64_t ino, uint64_t *folder,
                         char name[MEDIA_NAME_MAX + 1]);

/* What is not shown, of a name that a folder has the newest revision only, and why (static words). `take` is
 * called under the lock and must not call back. The number is returned; -errno when the index is not known.
 */
int64_t media_index_left_out(struct media_index *index, const struct op *op,
                             void (*take)(void *arg, const struct media_revision *revision, const char *why),
                             void *arg, struct fail *f);

/* ---- what this mount has done ---- */

/* A files document is new, or has changed: its name, its attributes. */
void media_index_put(struct media_index *index, struct media_revision *revision);
/* A files document is gone. */
void media_index_removed(struct media_index *index, const struct media_revision *revision);

/* A document of <bucket>.folders. */
struct media_marker {
    int64_t mtime_ns, at_ms; /* what it was set to, and when: a file uploaded later is a newer change */
    int32_t mode;            /* -1 = none given */
    int64_t uid, gid;        /* -1 = none given */
};
/* It is new or has changed; NULL: it is gone. */
void media_index_marked(struct media_index *index, const char *path, const struct media_marker *marker);
/* A name was added to or taken from a folder here and now: its time. */
void media_index_touched(struct media_index *index, uint64_t folder);

/* All revisions that a file has; media_revisions_clear(). -ENOENT. */
int media_index_revisions(struct media_index *index, uint64_t node, struct media_revisions *out);
/* The file that has that ino, its folder and its name there; -ESTALE when there is none any more. */
int media_index_file_of(struct media_index *index, uint64_t ino, const struct op *op, struct media_info *info,
                        uint64_t *folder, char name[MEDIA_NAME_MAX + 1], struct fail *f);

/* How many courses have something, as was known last; waits only where nothing was ever read, and 0 then when
 * the op's time is over. */
unsigned media_index_courses(struct media_index *index, const struct op *op);

struct media_index_stats {
    uint64_t files, left_out; /* left out: what is no path */
    uint64_t live, streaming; /* 0 or 1 */
    uint64_t scans, events;   /* since the start */
};
void media_index_stats(struct media_index *index, struct media_index_stats *stats);

/* All is to be read anew: something was left half done. */
void media_index_scan(struct media_index *index);

/* ---- folders as wholes, for media/names.h ---- */

/* Whether a folder would vanish with its only entry: nothing else says that it is there. */
bool media_index_lonely(struct media_index *index, uint64_t folder);
/* A folder's document, when it has one. */
bool media_index_marker(struct media_index *index, uint64_t folder, struct media_marker *marker);

/* All documents of a folder and below: of files, the newest of a name first, and of folders. */
struct media_item {
    char *suffix;                    /* owned: behind the folder's path, "" or beginning with '/' */
    struct media_revision *revision; /* a reference; NULL: a folder's document */
    struct media_marker marker;
};
struct media_below {
    size_t n;
    struct media_item list[];
};
int media_index_below(struct media_index *index, uint64_t folder, struct media_below **out);
void media_below_free(struct media_below *below);
DEFINE_CLEANUP(struct media_below, media_below_free)

/* While a folder is being renamed file by file, the index takes nothing from the database: it changes at
 * once, by media_index_moved_folder(), before it is let go. */
void media_index_hold(struct media_index *index, const char *from, const struct media_below *below);
/* Whether this mount renames a folder now. */
bool media_index_held(struct media_index *index);
void media_index_release(struct media_index *index);
/* The folder of path `from`, with all below it (as listed before), is that of path `to`. -EEXIST,
 * and nothing is done, when something has come there meanwhile; -EAGAIN when more lies in `from` than was
 * listed. */
int media_index_moved_folder(struct media_index *index, const char *from, const char *to,
                             const struct media_below *below);
