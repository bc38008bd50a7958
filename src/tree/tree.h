/*
 * The tree: names, attributes, handles and listings of everything in the mount, in terms of nodeids, without
 * a word of FUSE. What the kernel holds of a row is a revision that never changes; a writer gets a private
 * draft; -ESTALE makes the kernel look a name up again (docs/architecture.md, "Revisions and drafts").
 *
 * Every call takes the caller (who, and until when) and returns 0 or -errno. What a save is refused with is
 * also told in words: .campusfs/errors.jsonl, .refused/, the log. Thread-safe; no lock is held across a
 * query.
 */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/config.h"
#include "base/fail.h"
#include "base/op.h"
#include "media/mongo.h"
#include "shard/cluster.h"
#include "tree/locks.h"
#include "tree/process.h"

struct tree;
struct handle;
struct document;

struct caller {
    uid_t uid;
    gid_t gid;
    pid_t tid;              /* of the calling thread; 0 when it is in another pid namespace */
    struct op op;           /* its deadline; interruptible for reads, may be abandoned for writes */
    struct process process; /* the thread's, where it has been asked already; else tgid 0 */
};

/* The caller's process: what is known of it, else asked. */
struct process caller_process(const struct caller *caller);

/* What a name leads to. Names of nodes count as looked up: tree_forget() gives them back. */
struct entry {
    uint64_t nodeid;
    uint64_t generation;
    struct stat attr;
    int64_t name_ms; /* how long the name may be believed */
    int64_t attr_ms; /* and the attributes */
};

/*
 * `invalidate` tells the kernel that the attributes of a nodeid are outdated; it is called from within
 * operations and must not block. Configuration, cluster and MongoDB (NULL = none configured) are borrowed.
 */
int tree_open(const struct config *config, struct cluster *cluster, struct mongo *mongo,
              void (*invalidate)(void *arg, uint64_t nodeid), void *arg, struct tree **out, struct fail *f);
/* Tells the kernel nothing any more; before the session ends. Takes NULL. */
void tree_quiet(struct tree *tree);
void tree_close(struct tree *tree);

/*
 * Follows the configuration in force after a reload: owners, modes, regions. -ENOMEM. What .campusfs/reload
 * says is the second's text, a copy; -ENOMEM.
 */
int tree_reload(struct tree *tree);
int tree_show_reload(struct tree *tree, const char *text);

int tree_lookup(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                struct entry *entry);
void tree_forget(struct tree *tree, uint64_t nodeid, uint64_t n);

/* `handle` may be NULL, here and below. */
int tree_getattr(struct tree *tree, const struct caller *caller, uint64_t nodeid, const struct handle *handle,
                 struct stat *attr, int64_t *attr_ms);

/* What a setattr changes. */
struct change {
    bool size, mode, owner, mtime;
    struct stat to; /* st_size, st_mode, st_mtim */
    bool set_uid, set_gid;
};
int tree_setattr(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct handle *handle,
                 const struct change *change, struct stat *attr, int64_t *attr_ms);

/* A link's target; free() it. */
int tree_readlink(struct tree *tree, const struct caller *caller, uint64_t nodeid, char **target);

/* What the kernel may do with an open file. */
struct open_hints {
    bool keep_cache; /* its pages stay right for ever */
    bool no_flush;   /* nothing happens at close */
    bool direct_io;  /* its size is not known before it is read */
};
/* tree_file.c: a file is open from one of the first two until tree_release(). */
int tree_open_file(struct tree *tree, const struct caller *caller, uint64_t nodeid, int flags,
                   struct handle **handle, struct open_hints *hints);
int tree_create(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                mode_t mode, int flags, struct entry *entry, struct handle **handle);
/*
 * Bytes at an offset. They outlive the handle until tree_read_done(): as soon as the kernel has the reply it
 * may release the file, while the reply is still being sent.
 */
struct chunk {
    const char *data;
    size_t len;
    struct document *document; /* what holds the bytes: one of these two */
    char *copy;
};
int tree_read(struct tree *tree, const struct caller *caller, struct handle *handle, size_t size,
              off_t offset, struct chunk *chunk);
void tree_read_done(struct chunk *chunk);
/* `append`: at the end as it is then, whatever the offset. */
int tree_write(struct tree *tree, const struct caller *caller, struct handle *handle, const char *data,
               size_t len, off_t offset, bool append);
/* `mode` as of fallocate(2); -EOPNOTSUPP but for files of media, on which tools make do without. */
int tree_allocate(struct tree *tree, const struct caller *caller, struct handle *handle, int mode,
                  off_t offset, off_t len);
int tree_flush(struct tree *tree, const struct caller *caller, struct handle *handle);
int tree_fsync(struct tree *tree, const struct caller *caller, struct handle *handle);
void tree_release(struct tree *tree, const struct caller *caller, struct handle *handle);

/* tree_names.c */
int tree_unlink(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name);
int tree_rmdir(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name);
int tree_mkdir(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name, mode_t mode,
               struct entry *entry);
int tree_symlink(struct tree *tree, const struct caller *caller, uint64_t parent, const char *name,
                 const char *target, struct entry *entry);
/* What cannot be made at all; -EPERM, with words in errors.jsonl where rows and media lie. */
int tree_refuse(struct tree *tree, uint64_t parent, const char *name, const char *words);
/* `flags` are those of renameat2(). */
int tree_rename(struct tree *tree, const struct caller *caller, uint64_t from, const char *name, uint64_t to,
                const char *new_name, unsigned flags);

/* tree_list.c: an open folder. */
struct listing;
int tree_open_folder(struct tree *tree, const struct caller *caller, uint64_t nodeid,
                     struct listing **listing);
struct listed {
    const char *name; /* borrowed until the next call */
    off_t next;       /* the offset behind this entry */
    struct entry entry;
    bool counted; /* has to be tree_listing_took()n when it was given to the kernel with its attributes */
};
/* The first entry behind an offset (0 = the start): 1, 0 at the end, -errno. `plus`: with all attributes,
 * else with st_ino and the kind of file alone. */
int tree_listing_at(struct tree *tree, const struct caller *caller, struct listing *listing, off_t offset,
                    bool plus, struct listed *listed);
/* Whether it takes a query to know what stands there, behind other rows. */
bool tree_listing_waits(const struct tree *tree, const struct listing *listing, off_t offset);
void tree_listing_took(struct tree *tree, const struct listed *listed);
void tree_close_folder(struct tree *tree, struct listing *listing);

/*
 * Locks on what a handle has open (tree/locks.h): of a row or file, whatever its revision. `wait` NULL: does
 * not wait.
 * The drop is for a close by `owner`, whose fcntl() locks on the file end with it, whichever descriptor they
 * were taken by; where the kernel tells nothing of a close (a reader's), they end with the handle.
 */
bool tree_lock_find(struct tree *tree, struct handle *handle, const struct lock *wanted, struct lock *held);
int tree_lock_set(struct tree *tree, struct handle *handle, const struct lock *wanted,
                  const struct lock_wait *wait);
void tree_lock_cancel(struct tree *tree, uint64_t ticket);
void tree_lock_drop(struct tree *tree, struct handle *handle, uint64_t owner);

/*
 * What statfs() says of the place that a nodeid stands for, in bytes and entries. In media: what the quotas
 * of the course and of the region leave for it, the less of the two; without one as much as a single file can
 * have, and no bound of entries (0). -EIO while MongoDB is away, -ESTALE. Elsewhere: of scratch files.
 */
struct space {
    uint64_t bytes, bytes_free, files, files_free;
};
int tree_statfs(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct space *space);

/* Counts one request of a kind and its outcome for the metrics; `kind` is a literal. */
enum tree_request {
    TREE_LOOKUP,
    TREE_GETATTR,
    TREE_SETATTR,
    TREE_OPEN,
    TREE_CREATE,
    TREE_READ,
    TREE_WRITE,
    TREE_FLUSH,
    TREE_FSYNC,
    TREE_RELEASE,
    TREE_OPENDIR,
    TREE_READDIR,
    TREE_UNLINK,
    TREE_RENAME,
    TREE_OTHER,
    TREE_REQUESTS
};
void tree_count(struct tree *tree, enum tree_request kind, int result);
