/* What the files of the index share; nobody else includes it. */
#pragma once

#include <pthread.h>

#include "base/list.h"
#include "base/map.h"
#include "media/index.h"

struct entry;

/* A files document that is known. */
struct known {
    struct map_entry by_id;
    struct media_revision *revision; /* a reference */
    struct entry *entry;             /* where it is shown; NULL when its filename is no path */
    const char *why;                 /* then: why not */
    struct known *older;             /* of the same entry */
    uint64_t seen;                   /* the scan that saw it last */
};

/* A name: a folder while something is in it or it is marked, else a file. */
struct entry {
    struct map_entry by_name, by_ino, by_node;
    struct entry *parent;      /* NULL for media/ itself */
    struct list_entry sibling; /* in the parent's children */
    struct list_entry *children;
    size_t nchildren, nfolders;
    uint64_t ino, node;
    bool folder, has_node; /* as settled last */
    struct known *newest;
    bool marked;
    struct media_marker marker; /* while marked */
    uint64_t marker_seen;       /* the scan that saw it last */
    int64_t newest_ms;          /* the latest upload of a file in it */
    int64_t changed_ns;         /* when this mount changed its names last, 0 = has not */
    size_t len;
    char name[];
};

enum index_state {
    INDEX_UNKNOWN, /* nothing has been read, or too long ago */
    INDEX_LIVE,
    INDEX_AWAY, /* the last try failed */
};

/* A nodeid that the kernel is to be told of, once the lock is let go. */
struct outdated {
    bool file;
    uint64_t number;
};

struct media_index {
    struct mongo *mongo;
    struct media_index_options options;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    enum index_state state;
    struct fail why;                         /* of INDEX_AWAY */
    int64_t confirmed_at, used_at, tried_at; /* clock_now_ms() */
    bool streaming, ending, started;
    bool scan_wanted;
    unsigned holds; /* renames of folders under way */
    pthread_t thread;

    struct entry *root;
    struct map by_name, by_ino, by_node, by_id;
    size_t files, left_out;

    uint64_t scan; /* the number of the current or last one */
    /* Hashes of what this mount did while the thread is reading: what it reads of them may be older. */
    bool reading;
    uint64_t *touched; /* owned */
    size_t ntouched, touched_cap;
    bool touched_sorted;
    bool touched_lost; /* memory was out: nothing that is read now can be trusted */

    struct outdated *outdated; /* owned */
    size_t noutdated, outdated_cap;

    uint64_t scans, events;
};

/* index.c; all under the lock */
int index_apply(struct media_index *index, struct media_revision *revision);
void index_forget(struct media_index *index, struct known *known);
struct known *index_known(const struct media_index *index, const struct media_revision *revision);
/* By the bytes of a BSON document {_id: ...}. */
struct known *index_known_id(const struct media_index *index, const uint8_t *id, uint32_t len);
int index_mark(struct media_index *index, const char *path, const struct media_marker *marker);
void index_unmark(struct media_index *index, struct entry *entry);
/* Hangs an entry, with all below it, under another path, where nothing is. */
int index_move(struct media_index *index, const char *from, const char *to);
/* Forgets all that the current scan has not seen. */
void index_sweep(struct media_index *index);
struct entry *index_find_path(const struct media_index *index, const char *path);
struct entry *index_find_child(const struct media_index *index, const struct entry *parent, const char *name,
                               size_t len);
struct entry *index_find_ino(const struct media_index *index, uint64_t ino);
struct entry *index_find_node(const struct media_index *index, uint64_t node);
/* -ENAMETOOLONG: it lies deeper than a filename can say, after a rename of what it lies in. */
int index_entry_path(const struct entry *entry, char path[MEDIA_FILENAME_MAX + 1]);
void index_clear(struct media_index *index);
int index_root(struct media_index *index);
void index_tell(struct media_index *index, bool file, uint64_t number);

uint64_t index_path_hash(const char *path);
/* Whether this mount did something to it since the reading began. */
bool index_is_touched(struct media_index *index, uint64_t hash);
void index_touch(struct media_index *index, uint64_t hash);

void index_lock(struct media_index *index);
/* Unlocks, and tells the kernel what has become outdated. */
void index_unlock(struct media_index *index);

/* index_feed.c: the thread. */
void *index_feed(void *arg);
