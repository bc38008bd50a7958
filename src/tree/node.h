/*
 * Nodes: what needs memory of its own. Scratch files, links and folders; drafts, the private copies that
 * writers of rows have; and the texts of .campusfs, each a snapshot with an exact size.
 *
 * Ownership: a node lives while somebody holds a reference (a name, a handle, a note) or the kernel holds
 * lookups. Both are counted under the table's lock. All other fields of a node are guarded by its own lock.
 * Lock order: a node's lock, then that of the scratch names or of the tree, then the table's. None is held
 * across a query: who commits a draft takes a copy, sets `committing`, and the other handles of that draft
 * wait on `settled` with their deadline.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/fail.h"
#include "base/map.h"
#include "tree/address.h"
#include "tree/process.h"

enum node_kind { NODE_FILE, NODE_LINK, NODE_FOLDER, NODE_TEXT };

/* How a node's content becomes a row. */
struct draft {
    bool active;    /* the node is a draft */
    bool creates;   /* there is no such row yet; key.id 0 = under the next id */
    bool exclusive; /* and may not be by then: it was opened with O_EXCL */
    struct row_key key;
    uint64_t base_rev; /* the revision it was copied from or became last; 0 = none */
    int64_t saved_us;  /* content_at of its own last commit; STORE_TIME_NONE before */
    uint64_t born;     /* when it was opened, in the order of saves (tree/memory.h) */
    bool listed;       /* of a page of a listing: who opens it first has to look again (tree_meta.h) */
    bool spent;        /* closed, and its content given back: whoever still has the number looks again */
    bool committing;   /* its content is on its way to the database */
    bool dirty;        /* holds what has not been committed */
    bool in_order;     /* written from an empty buffer on, without a gap so far */
    size_t judged;     /* bytes that were checked as the beginning of a document */
    int broken;        /* errno that a write was answered; the content can only be refused */
    struct fail *why;  /* the same in words, owned; NULL when memory was out */
    uint64_t version;  /* counts changes of the content */
    uint64_t checked;  /* the version that was found to be a whole document; 0 = none */
    uint64_t refused;  /* the version that was refused last: not tried again; 0 = none */
    int refused_err;   /* its errno */
    struct process refused_by; /* who was told */
    struct process writer;     /* who wrote last */
};

struct node {
    struct map_entry entry;   /* in the table */
    struct map_entry pending; /* in the tree's map of drafts made under a free name, while `is_pending` */
    bool is_pending;          /* that map's lock */
    uint64_t nodeid;          /* constant */
    enum node_kind kind;      /* constant */
    bool free_of_charge;      /* table's lock: counts against nothing */
    unsigned references;      /* table's lock */
    uint64_t lookups;         /* table's lock */

    pthread_mutex_t lock;   /* guards all below */
    pthread_cond_t settled; /* signalled when draft.committing falls */
    struct buf content;     /* a file's bytes, a link's target */
    mode_t mode;            /* permission bits */
    uid_t uid;
    gid_t gid;
    struct timespec mtime, ctime;
    bool mtime_set;     /* by utimens, and nothing written since */
    unsigned handles;   /* open ones */
    uint64_t shown_ino; /* st_ino: the row's or file's for a draft, else the nodeid */
    size_t charged;     /* bytes counted against the scratch space */
    uint64_t created;   /* in the order of saves */
    struct process maker;
    struct draft draft;
    struct media_revision *older; /* constant, a reference: an older revision of the file of media that
                                     draft.key names, to be read; NULL but for those (tree_meta.h) */
    struct media_draft
        *media; /* constant, owned: what it is written to; NULL but for media (media_draft.h) */
};

struct nodes;

struct node_limits {
    size_t bytes, files;
};
struct node_usage {
    size_t bytes, files;
};

struct nodes *nodes_new(struct node_limits limits);
/* Frees all nodes, whatever refers to them: the mount has ended. */
void nodes_free(struct nodes *nodes);

/*
 * A new node with one reference. -ENOMEM, -ENOSPC when there are too many. The second kind counts
 * against nothing: generated files and refused texts have bounds of their own, and are needed most when the
 * scratch space is full. (A refused text counts once somebody writes to it, or moves it to another name.)
 */
int node_new(struct nodes *nodes, enum node_kind kind, struct node **out);
int node_new_free(struct nodes *nodes, enum node_kind kind, struct node **out);
void node_ref(struct nodes *nodes, struct node *node);
/* Gives a reference back; NULL is ignored. */
void node_unref(struct nodes *nodes, struct node *node);

/* The node of a nodeid, with a reference; NULL when it is gone. */
struct node *node_get(struct nodes *nodes, uint64_t nodeid);
/* The kernel has been told of the node once more, or forgets it n times. */
void node_looked_up(struct nodes *nodes, struct node *node);
void node_forget(struct nodes *nodes, uint64_t nodeid, uint64_t n);

/* Changes the content; under the node's lock. -ENOSPC when the scratch space is full, -EFBIG, -ENOMEM. */
int node_resize(struct nodes *nodes, struct node *node, size_t size);
int node_write(struct nodes *nodes, struct node *node, const void *data, size_t len, size_t offset);

/*
 * Counts a free node against the scratch space from now on (-ENOSPC), or no more; under the node's lock. A
 * draft counts while it is open for writing: the kernel may remember its number long after.
 */
int node_charge(struct nodes *nodes, struct node *node);
void node_discharge(struct nodes *nodes, struct node *node);
bool node_is_charged(struct nodes *nodes, const struct node *node);

void nodes_usage(struct nodes *nodes, struct node_usage *usage);
