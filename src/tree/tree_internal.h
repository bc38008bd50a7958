/* What the files of the tree share; nobody else includes it. */
#pragma once

#include "base/list.h"
#include "entity/export.h"
#include "entity/reports.h"
#include "entity/store.h"
#include "tree/address.h"
#include "tree/memory.h"
#include "tree/name.h"
#include "tree/node.h"
#include "tree/notes.h"
#include "tree/report.h"
#include "tree/scratch.h"
#include "tree/told.h"
#include "tree/tree.h"

/* Owner and mode of a collection's files. */
struct access {
    uid_t uid;
    gid_t gid;
    mode_t file_mode;
};

/* Fixed places have no time of their own; the same one over remounts lets backups see that nothing changed.
 */
extern const struct timespec FIXED_TIME;

/* How long the kernel may believe names that cannot change while the mount lasts. */
enum { FIXED_MS = 3600 * 1000 };

/* Of media, where a file says nothing of its own: no collection has this number. */
enum { ACCESS_MEDIA = 0 };

/* Owners and modes of all collections. A reload makes another one; who still reads the old one may. */
struct access_table {
    struct access of[COLLECTIONS_MAX];
    struct access_table *before;
};

/* Revisions that are open, so that fstat() of an outdated one is still answered. */
struct open_revision {
    struct map_entry entry;
    uint64_t nodeid;
    unsigned handles;
    struct document *document; /* a reference */
    int64_t mtime_us;          /* the document's, or what has been set through a descriptor since */
};

/* When a collection last changed, as asked last. */
struct changed {
    int64_t us;
    int64_t asked_at; /* clock_now_ms() */
};

/*
 * The newest snapshot of a text that servers are asked for. The kernel, told a new number for a name, asks
 * once more, and so does everybody who waits for the same name: only one that is kept for a while lets all of
 * them end. One thread makes it; the others wait.
 */
struct snapshot {
    struct node *node; /* a reference; NULL = none */
    int64_t at;        /* clock_now_ms() when it was there */
    bool making;
};

struct tree {
    const struct config *config; /* borrowed */
    struct cluster *cluster;     /* borrowed */
    struct mongo *mongo;         /* borrowed; NULL = none configured */
    struct store *store;
    struct media *media; /* NULL = no MongoDB is configured */
    struct nodes *nodes;
    struct scratch *scratch;
    struct notes *notes;
    struct memory *memory;
    struct report *report;
    struct told *told, *told_deleted; /* revisions of rows, of rows in .deleted */
    struct locks *locks;
    struct refused *refused;
    struct unopened *unopened;
    struct by *by;       /* tree_by.h */
    struct node *readme; /* a reference; never changes */
    void (*invalidate)(void *arg, uint64_t nodeid);
    void *invalidate_arg;
    _Atomic(const struct access *)
        access;                    /* [collection.number] and [ACCESS_MEDIA]; of the newest of `accesses` */
    struct access_table *accesses; /* the reloading thread's: all that ever were, newest first */
    char *reload;                  /* `lock`: what became of the last reload; NULL = nobody says */
    int64_t kernel_ms;             /* constant: how long the kernel may believe what the database said */
    int64_t started_at;            /* clock_now_ms() */

    pthread_cond_t made;                   /* with `lock`: a snapshot was made, or was not to be had */
    pthread_mutex_t lock;                  /* guards the twelve below */
    struct list_entry *handles, *listings; /* struct handle, struct listing: all that are open */
    int64_t sweep_at;                      /* clock_now_ms() of the next sweep */
    struct map revisions;                  /* struct open_revision by nodeid */
    struct map media_opened;               /* struct media_opened by nodeid (tree_media.h) */
    struct map pending;              /* struct node: drafts of names that are free to their makers, by row */
    struct list_entry *meta_pages;   /* struct meta_pages: of listings of .meta that are open (tree_meta.h) */
    struct list_entry *media_drafts; /* struct media_draft: all that are open (media_draft.h) */
    size_t nmedia_drafts;            /* also read without the lock */
    struct snapshot reports[REPORTS], health;
    struct changed changed[COLLECTIONS_MAX][CONFIG_MAX_REGIONS + 1];

    uint64_t swept;                                          /* atomic: scratch names, for the metrics */
    uint64_t requests[TREE_REQUESTS], errors[TREE_REQUESTS]; /* atomic */
};

/* tree.c */
/* What was told of a row (id 0: of all of a collection, 0 = any, and region) the kernel is to believe no
 * longer. */
void tree_outdated(struct tree *tree, const struct row_key *key);
void attr_revision(const struct tree *tree, const struct row_key *key, const struct revision *revision,
                   struct stat *attr);
void attr_node(struct node *node, struct stat *attr);
/* `epoch`: of the page it was listed in, 0 = none. */
void entry_revision(struct tree *tree, const struct row_key *key, const struct revision *revision,
                    uint64_t epoch, struct entry *entry);
/* How long the kernel may believe a revision that it is about to be told of. */
int64_t believed_ms(struct tree *tree, const struct row_key *key, const struct revision *revision,
                    uint64_t epoch);
/* Returns `r`; an error of a read that is worth words is reported, since the reader sees only an errno. */
int report_read(struct tree *tree, const struct row_key *key, int r, const struct fail *f);
/* Also counts the node as looked up. */
void entry_node(struct tree *tree, struct node *node, struct entry *entry);
/* A fixed place; never fails: what a shard that is away would say is left out. */
void entry_place(struct tree *tree, const struct caller *caller, enum place_kind kind, unsigned collection,
                 unsigned region, struct entry *entry);
/* Whether a nodeid is a folder in which scratch files may lie; its place in *place. */
bool is_scratch_folder(struct tree *tree, uint64_t nodeid, struct place *place);
/* The entry of a scratch name; -ENOENT. */
int scratch_entry(struct tree *tree, uint64_t folder, const char *name, struct entry *entry);
/* tree_names.c: whose a new scratch file, link or folder is: its maker's, and as on a disk of the group of a
 * setgid folder, which folders in it become, too. */
void scratch_made(struct tree *tree, const struct caller *caller, uint64_t parent, mode_t mode,
                  struct node *node);
/* revisions.c: the first under tree->lock; the second counts a handle of a revision; -ENOMEM. */
struct open_revision *revision_find(struct tree *tree, uint64_t nodeid);
int revision_opened(struct tree *tree, uint64_t nodeid, struct document *document);
void revision_closed(struct tree *tree, uint64_t nodeid);
bool revision_is_open(struct tree *tree, uint64_t nodeid);
/* Who has it open, and who looks at its name meanwhile, is shown the time that was set. */
void revision_show_time(struct tree *tree, uint64_t nodeid, const struct stat *attr);
struct timespec timespec_of_us(int64_t us);
/* What 64 bits cannot hold is as far from any time that a row can have. */
int64_t us_of_timespec(struct timespec time);
/* "regions/europe/users/1001.json"; a row of id 0 is new.json; of a file of media its document in .meta. */
void path_of_row(const struct tree *tree, const struct row_key *key, char *out, size_t size);

/* What a name in a collection's folder means (tree/name.h); one of users' documents has no new.json, .next-id
 * nor .deleted: its files are named after the users. */
enum name_kind name_in(unsigned collection, const char *name, int64_t *id);
/* Says in words that a name looks like a row's and is none; -EINVAL. */
int mistaken_name(struct tree *tree, const struct row_key *folder, const char *name);
/* The path of a name in a collection's folder, whatever it is. */
void path_of_name(const struct tree *tree, const struct row_key *folder, const char *name, char *out,
                  size_t size);

/* tree_reload.c */
/* 1 when owners or modes are other now, 0 when they are not, -ENOMEM. */
int tree_access_renew(struct tree *tree, const struct config *config);
void tree_access_free(struct tree *tree);

/* draft.c: what becomes a row, and how. */
struct save {
    struct row_key key;
    const char *text; /* NUL-terminated */
    size_t len;
    int64_t at_us;     /* STORE_TIME_NONE or what the writer set */
    int64_t saved_us;  /* content_at of the same buffer's last save, or STORE_TIME_NONE */
    uint64_t born;     /* when the buffer was opened */
    uint64_t base_rev; /* the revision it was copied from, 0 = none; where there is one, the row must still be
                          there */
    bool checked;      /* by json_check() */
    bool must_be_new;  /* -EEXIST when there is such a row by then */
};
/* Checks and commits one document: one transaction. *result as of store_put(). *f says why not; nothing is
 * reported. */
int save_commit(struct tree *tree, const struct caller *caller, const struct save *save,
                struct put_result *result, struct fail *f);
/* What the kernel knows of the folder is outdated; of a row, its former revision (0 = none is known), and its
 * folder. */
void folder_changed(struct tree *tree, unsigned collection, unsigned region);
/* The same where the folder's new time is told (change_time() in sql/): nobody need be asked. */
void folder_changed_at(struct tree *tree, const struct row_key *key, int64_t us);
void row_changed(struct tree *tree, const struct row_key *key, uint64_t former_rev);
/* When the key is one of users: they may have come, gone or moved, and what is named after them has. */
void users_documents_changed(struct tree *tree, const struct row_key *key);
/* A draft of a row: a copy of the document (NULL = the row does not exist yet), with one reference. */
int draft_new(struct tree *tree, const struct row_key *key, struct document *document, struct node **out);
/* A draft of what is now the row, or the document in .meta; *document is a reference, NULL for the latter.
 * -ENOENT. */
int draft_now(struct tree *tree, const struct caller *caller, const struct row_key *key,
              struct document **document, struct node **out);
/* A draft that nobody has open any more, or not yet (tree/unopened.h), gives back what it holds; under its
 * lock. */
void draft_spend(struct nodes *nodes, struct node *node);
/*
 * Takes the thread's note of the draft's row. Whether it would not look again if it were told to (-ESTALE):
 * it has been told once, and was answered this very draft, or has no name to look up.
 */
bool draft_is_final(struct tree *tree, const struct caller *caller, const struct node *node,
                    const struct row_key *key);
/* Makes a draft a copy under a number of its own, soon a scratch file of the caller's. */
void draft_to_copy(const struct caller *caller, struct node *node);
/* Commits what a draft holds, if anything; `lock` of the node is held, and let go while the database works.
 */
enum draft_trigger { DRAFT_FLUSH, DRAFT_FSYNC, DRAFT_RELEASE, DRAFT_ATTRIBUTES };
int draft_commit(struct tree *tree, const struct caller *caller, struct node *node,
                 enum draft_trigger trigger, bool is_opener);
/* Under the node's lock: waits until nobody commits it. */
int draft_wait_settled(struct node *node, const struct op *op);
/* The draft that the thread's own process has made under a name that was free to it, with a reference, or
 * NULL. */
struct node *draft_pending(struct tree *tree, const struct row_key *key, pid_t tid, bool *by_other);
void draft_set_pending(struct tree *tree, struct node *node, bool pending);

/* Told once in words: the journal, the log, and the text itself in .refused. */
void save_refused(struct tree *tree, const struct caller *caller, const struct row_key *key, const char *text,
                  size_t len, const struct fail *f);
/* A write was refused, and with it all that the draft holds; under the node's lock. */
void draft_break(struct tree *tree, const struct caller *caller, struct node *node, const struct fail *f);

/*
 * refused.c: the texts that a commit refused, oldest out first, private to who wrote them. Keeps one, secrets
 * blanked, with its .error beside it; a text that the same process had refused under that name before is
 * replaced, another's, or one that is being mended, gets a number behind its name.
 */
struct refused;
struct refused *refused_new(void);
void refused_free(struct tree *tree, struct refused *refused);
void refused_keep(struct tree *tree, const struct caller *caller, const struct row_key *key, const char *text,
                  size_t len, const struct fail *f);
/* A text that lies in .refused was tried and refused again: told anew, with a new .error beside it. */
void refused_again(struct tree *tree, const struct caller *caller, const struct row_key *key, uint64_t folder,
                   const char *name, const struct fail *f);
/* The draft that the process had refused was saved after all: the refused text is no longer needed. */
void refused_forget(struct tree *tree, const struct row_key *key, struct process process);
/* Whether such a text lies under a name. */
bool refused_is(struct tree *tree, uint64_t folder, const char *name);
/* Whether a name can only be a refused text's or its .error's. */
bool refused_reserves(uint64_t folder, const char *name);
/*
 * Scratch names of any folder, as users make, move and remove them (tree/scratch.h); and what lies in
 * .refused is a refusal no more, with its .error, when it leaves. -EPERM for a name that is the mount's own
 * (in words, reported), -EACCES for who has no refused text in the folder.
 */
int name_add(struct tree *tree, const struct caller *caller, uint64_t folder, const char *name,
             struct node *node);
int name_move(struct tree *tree, const struct caller *caller, uint64_t folder, const char *name,
              uint64_t to_folder, const char *to);
int name_remove(struct tree *tree, uint64_t folder, const char *name, const struct node *node);

/*
 * tree_file.c: closes what is still open when the mount ends (a file that is open at a lazy unmount, one
 * whose release was still on its way), and saves what was written to it, as the close would have done. Nobody
 * else is in the tree any more.
 */
void handles_close(struct tree *tree);
/* tree_list.c: the same for folders. */
void listings_close(struct tree *tree);
/* tree_file.c: the snapshot that a reader has open; NULL for a draft, scratch file or text. */
const struct document *handle_document(const struct handle *handle);
/* What is written through a handle, a scratch file or a text; NULL for none, and for a handle of NULL. */
struct node *handle_node(const struct handle *handle);
/* Changes the length of a node's content, under its lock. */
int truncate_node(struct tree *tree, struct node *node, size_t size, const struct process *writer);

/*
 * tree_export.c: a collection's .export.jsonl. An open is one export (entity/export.h), for reading only; its
 * size is not known, so it is shown as 0. *export is the caller's, export_close() ends it.
 */
int export_open_file(struct tree *tree, const struct place *place, int flags, struct export **export,
                     struct open_hints *hints);
int export_read_chunk(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct export *export,
                      size_t size, off_t offset, struct chunk *chunk);

/*
 * tree_deleted.c: what a collection's .deleted has, rows deleted within the last day. Their nodeids say all,
 * so that any number of them can be listed; the kernel believes nothing of them, since they come and go with
 * rows, but for a moment what it has listed.
 */
int deleted_lookup(struct tree *tree, const struct caller *caller, const struct row_key *folder,
                   const char *name, struct entry *entry);
/* `document`: of an open handle, else NULL. */
int deleted_getattr(struct tree *tree, const struct caller *caller, const struct place *place,
                    const struct document *document, struct stat *attr, int64_t *attr_ms);
/* The very document that the place stands for, a reference; -ESTALE. */
int deleted_open(struct tree *tree, const struct caller *caller, const struct place *place,
                 struct document **out);
void entry_deleted(const struct tree *tree, const struct row_key *key, const struct revision *revision,
                   struct entry *entry);
/* The same for a listing: who lists looks at each entry at once, which then asks nobody. */
void entry_deleted_listed(const struct tree *tree, const struct row_key *key, const struct revision *revision,
                          struct entry *entry);
int deleted_unlink(struct tree *tree, const struct caller *caller, const struct row_key *folder,
                   const char *name);
/* Takes a row back: onto its own name in its collection's folder, and nowhere else (-EPERM). */
int deleted_rename(struct tree *tree, const struct caller *caller, const struct row_key *folder,
                   const char *name, uint64_t to, const char *new_name);

/* sweep.c: cheap when it is not yet time. Under no lock. */
void tree_sweep(struct tree *tree);

/* view.c: the generated files. */
struct view {
    const char *name;
    int (*render)(struct tree *tree, const struct caller *caller, struct buf *out);
    bool of_rows; /* tells what is in them */
};
const struct view *view_at(size_t index); /* of .campusfs; NULL behind the last */
uint64_t view_ino(size_t index);          /* its st_ino */
const struct view *view_named(const char *name);
/* The README of the mount: follows from the configuration alone. */
int view_readme(struct tree *tree, struct node **out);
/* Writes it anew: there are other regions. */
int view_readme_renew(struct tree *tree);
/* The entry of .campusfs behind its views: a folder of reports over all shards (entity/reports.h). */
#define VIEW_REPORTS "reports"
/* "top_courses.json" of a report's index, and back; false when there is no such. */
bool view_report_name(size_t index, char *out, size_t size);
bool view_report_named(const char *name, size_t *index);
uint64_t view_report_ino(size_t index);
/*
 * A report as of a second ago at most, with a reference; what goes wrong is reported. Who asks while it is
 * being made waits for it: -EINTR, -EIO at the caller's deadline.
 */
int view_report_node(struct tree *tree, const struct caller *caller, size_t index, struct node **out);
/* When they are to look otherwise, and at the end of the mount. */
void view_forget(struct tree *tree);
/*
 * A snapshot of a generated text as a node with a reference. health.json is one of half a second ago at most;
 * who asks while the servers are asked waits for that: -EINTR, -EIO when it takes twice as long as it may.
 */
int view_node(struct tree *tree, const struct caller *caller, const struct view *view, struct node **out);
