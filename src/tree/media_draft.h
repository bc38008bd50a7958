/*
 * Writing media. Who opens a file of media for writing gets a node of his own over a staged file
 * (media/staging.h): his reads see what he wrote, everybody else's the revision that is published, until the
 * close publishes the next one. A process sees its own open drafts under their names, also those of files
 * that are not there yet.
 *
 * Such a node has `media` set and no content; of its struct draft only spent, committing, dirty, version,
 * refused, refused_err and writer are used. Its draft is in tree->media_drafts while it is open. Nothing here
 * is done under a lock while the database works. Errors that carry words are told in errors.jsonl.
 */
#pragma once

#include "tree/tree_media.h"

/* Files of media that may be open for writing: more are -ENFILE. */
enum { MEDIA_DRAFTS_MAX = 1024 };

/*
 * A node to write a name in a folder, with one reference: over the file that `info` tells of (NULL: there is
 * none yet, it gets `mode` and the caller as its owner). Asks nobody.
 */
int media_draft_new(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                    const char *name, const struct media_info *info, mode_t mode, struct node **out);
/* With its node; nobody has it open. Takes NULL. */
void media_draft_free(struct media_draft *draft);
/* Bytes of a node's draft; under the node's lock. */
int64_t media_draft_size(const struct node *node);
/* The region and the course that a node's draft is written for; they never change. */
void media_draft_belongs(const struct node *node, unsigned *region, int64_t *course);

/* Under the tree's lock: adds what open drafts but one (NULL = none) have been granted beyond what is
 * published, of a course and of the whole region. */
void media_drafts_promised(const struct tree *tree, unsigned region, int64_t course,
                           const struct media_draft *but, int64_t *of_course, int64_t *of_region);

/* The open draft of a name: the calling thread's own process's, with a reference; NULL when there is none,
 * *by_other (may be NULL) whether another process has one of a file that is not there yet. */
struct node *media_draft_find(struct tree *tree, const struct caller *caller, unsigned region,
                              uint64_t folder, const char *name, bool *by_other);

/* The kernel has asked for a draft that has been closed: it will look the name up again, and only once. */
void media_draft_outdated(struct tree *tree, const struct caller *caller, const struct node *node);

/* One more handle. -ESTALE for a draft that has been closed. */
int media_draft_open(struct tree *tree, const struct caller *caller, struct node *node, int flags);
/* One handle less; the last publishes what is not yet, and the draft has ended. */
void media_draft_close(struct tree *tree, const struct caller *caller, struct node *node);

int media_draft_read(struct tree *tree, const struct caller *caller, struct node *node, size_t size,
                     off_t offset, struct chunk *chunk);
/* Offset -1: at the end. */
int media_draft_write(struct tree *tree, const struct caller *caller, struct node *node, const char *data,
                      size_t len, off_t offset);
/* `mode` as of fallocate(2); -EOPNOTSUPP for what would move bytes. */
int media_draft_allocate(struct tree *tree, const struct caller *caller, struct node *node, int mode,
                         off_t offset, off_t len);
/* Sends what is in memory, and waits until it is on disk. Publishes nothing. */
int media_draft_sync(struct tree *tree, const struct caller *caller, struct node *node);
/* Publishes what has changed, if anything. */
int media_draft_commit(struct tree *tree, const struct caller *caller, struct node *node,
                       enum draft_trigger trigger);
/* What of a setattr is the draft's; publishes at once when nobody has it open. */
int media_draft_set(struct tree *tree, const struct caller *caller, struct node *node,
                    const struct change *change);

/* open(O_CREAT) of a name in a folder of media; the handle is the caller's to count (media_draft_open). */
int media_create(struct tree *tree, const struct caller *caller, const struct place *folder, const char *name,
                 mode_t mode, int flags, struct node **out);
/* For media_lookup(): the thread came back for a draft of this file. */
int media_lookup_draft(struct tree *tree, const struct caller *caller, const struct place *folder,
                       const char *name, const struct media_info *info, struct entry *entry, bool *found);
/* An open for writing of a published revision: -ESTALE, on which the kernel looks its name up again; for who
 * cannot, a draft on the revision itself. */
int media_open_writing(struct tree *tree, const struct caller *caller, const struct place *place,
                       struct node **out);
/* setattr of a published revision. */
int media_setattr(struct tree *tree, const struct caller *caller, const struct place *place, uint64_t nodeid,
                  bool by_handle, const struct change *change, struct stat *attr, int64_t *attr_ms);

/*
 * Before a name changes: waits for who publishes under it, and keeps everybody from beginning to until
 * media_drafts_let_go(). Else what a close publishes, which may go on when its process has ended, would come
 * back under the old name. -EBUSY when it takes longer than the caller may wait. `held`, zero-initialised,
 * may be given for several names, and is to be let go also after an error.
 */
struct media_held {
    struct node **list; /* owned; a reference to each */
    size_t n;
};
int media_drafts_hold(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                      const char *name, struct media_held *held, struct fail *f);
void media_drafts_let_go(struct tree *tree, struct media_held *held);

/*
 * What happened to names, told to the drafts that are open under them: one was renamed (what was under the
 * new one is no file any more), or removed.
 */
void media_drafts_renamed(struct tree *tree, unsigned region, uint64_t folder, const char *name,
                          uint64_t to_folder, const char *new_name);
void media_drafts_removed(struct tree *tree, unsigned region, uint64_t folder, const char *name);
/* Publishes the process's own draft of a name that is to be renamed, where it is not there yet; 0 also when
 * there is none. */
int media_draft_publish_name(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                             const char *name);
/* Takes the process's own draft of a file that is not there yet from its name; -ENOENT when there is none. */
int media_draft_unlink(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                       const char *name);
