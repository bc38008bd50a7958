/*
 * The configuration: one INI file in pgbouncer's manner (docs/campusfs.conf.5 describes each key), each key
 * of [campusfs] also an environment variable CAMPUSFS_<KEY>, which wins. One table in config.c defines every
 * key: name, type, default, bounds, help text, secret or not; --help, the man page and .campusfs/config
 * follow it.
 *
 *   [campusfs]
 *   database = campusfs
 *   user = campusfs_rw
 *   [shards]
 *   americas = number=1
 *   [nodes]
 *   americas-a = shard=americas host=127.0.0.1 port=6101        ; the rest is a libpq connection string
 *   [regions]
 *   north_america = number=1 shard=americas
 *   [collections]
 *   payment-methods = owner=root group=billing mode=0600
 *
 * Threads share it without a lock: read-only once loaded, but for what a reload (base/config_reload.h)
 * changes in the one that a mount serves. That one stays at its address, and its members are of three kinds:
 * numbers of keys that can be reloaded are atomic and always those in force; regions are only ever added, one
 * by one, `nregions` last; all else stays as it was at the mount. Who wants the whole as it is in force now,
 * texts and nodes too, holds a snapshot by config_hold().
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/fail.h"

enum {
    CONFIG_MAX_SHARDS = 16,
    CONFIG_MAX_NODES = 64,
    CONFIG_MAX_REGIONS = 63, /* an inode number has 6 bits for the region; 0 is "no region" */
    CONFIG_MAX_COLLECTIONS = 15,
};

struct config_shard {
    char *name;
    unsigned number; /* 0..999: the shard's ids are this modulo 1000 */
    unsigned line;
};

struct config_node {
    char *name;
    size_t shard;   /* index into config.shards */
    char *conninfo; /* libpq keywords, without database, user and passfile unless the line has them */
    int priority;   /* of several replicas the highest is read first; 0 */
    unsigned line;
};

struct config_region {
    char *name;      /* [a-z0-9_-], the folder's name */
    unsigned number; /* 1..63, stored in the database, never renumbered */
    size_t shard;    /* index into config.shards */
    unsigned line;
};

/* How a collection's files look; (uid_t)-1 and (mode_t)-1 mean the mount's own. */
struct config_access {
    char *collection; /* the folder's name */
    uid_t uid;
    gid_t gid;
    mode_t mode;
};

struct config {
    char *path; /* the file read, NULL when only the environment spoke */

    /* [campusfs]: connections */
    char *database;             /* "campusfs" */
    char *user;                 /* "campusfs_rw" */
    char *password;             /* NULL = from passfile or where libpq looks; secret */
    char *admin_user;           /* "postgres": init and seed connect as it */
    char *admin_password;       /* as password, for admin_user; secret */
    char *replication_user;     /* "campusfs_repl": the feed connects as it; "" = as user */
    char *replication_password; /* as password, for replication_user; secret */
    char *passfile;             /* NULL = libpq's own rules */
    char *service_options; /* further libpq keywords for every node (sslmode, sslrootcert, ...), may be "" */
    _Atomic unsigned pool_size;   /* connections a node, 8; one more watches it */
    _Atomic unsigned pool_min;    /* of these are kept open, 1 */
    _Atomic int64_t pool_idle_ms; /* 300000: one beyond them is closed when unused for so long; 0 = never */
    _Atomic int64_t pool_lifetime_ms;   /* 3600000: the greatest age of a connection; 0 = any */
    _Atomic unsigned pool_waiters;      /* operations that may wait for a connection of one shard, 64 */
    _Atomic int64_t connect_timeout_ms; /* 2000 */
    _Atomic int64_t timeout_ms;         /* 5000: deadline of one file operation */
    _Atomic int64_t
        max_lag_ms; /* 10000: a replica further behind is read only when nothing better is there */
    _Atomic size_t max_lag_bytes; /* 64 MiB: the same; 0 = any */
    _Atomic unsigned
        primary_reads;          /* percent of the primary's connections for what no replica can answer, 75 */
    _Atomic bool stale_refused; /* stale_reads = serve | refuse */
    _Atomic int64_t
        failover_wait_ms; /* 10000: how long a write waits for a primary, never longer than timeout_ms */
    _Atomic unsigned failover_writes;  /* so many of a shard may, 64 */
    _Atomic size_t failover_size;      /* bytes of them, 16 MiB */
    _Atomic bool unprotected_degrades; /* unprotected = report | degrade */

    /* [campusfs]: MongoDB */
    char *mongodb_uri;          /* "" = none configured; secret */
    unsigned mongodb_pool_size; /* connections to it, 16 */
    size_t media_cache_size;    /* bytes of chunks kept, those on their way included, 64 MiB */
    size_t media_write_size;    /* bytes of chunks on their way to MongoDB, all uploads together, 32 MiB */
    size_t media_course_quota, media_region_quota; /* bytes, 0 = none */
    _Atomic size_t media_file_max;                 /* bytes, 1 TiB */
    int64_t media_keep_ms;                         /* 24 h: how long a replaced or deleted revision stays */
    int64_t media_sweep_ms;                        /* 60000: between two sweeps, 0 = none */
    int64_t media_poll_ms; /* 10000: between two looks at a region's names, without change streams */

    /* [campusfs]: the mount */
    bool read_only;
    _Atomic bool conflicts_overwrite; /* conflicts = refuse | overwrite */
    bool credentials;                 /* credentials = off | on: whether the tree has the collection */
    _Atomic uid_t uid;                /* owner of every file, default: who mounts */
    _Atomic gid_t gid;
    _Atomic mode_t file_mode;        /* 0640 */
    _Atomic mode_t dir_mode;         /* 0750 */
    int64_t cache_ttl_ms;            /* 1000: how long what has been read may be believed unasked */
    bool feed_poll;                  /* feed = auto | poll: whether changes are asked for, never streamed */
    size_t cache_size;               /* bytes of documents kept, 20 MiB */
    _Atomic size_t page_rows;        /* rows a keyset page, 1000 */
    _Atomic size_t document_max;     /* bytes, 1 MiB */
    size_t scratch_size;             /* bytes of scratch files, all collections, 256 MiB */
    size_t scratch_files;            /* their number, 100000 */
    _Atomic int64_t scratch_keep_ms; /* 1 day: an untouched scratch name outlives its maker for so long */
    size_t by_folders;               /* folders of values in .by that the kernel knows, 524288 */
    _Atomic size_t refused_size;     /* bytes kept in .refused/, 16 MiB */
    _Atomic size_t refused_files;    /* 1000 */
    size_t errors_size;              /* bytes of errors.jsonl, 1 MiB */
    char *state_dir;                 /* "" = keep none */
    char *log_level;                 /* error, warning, info, debug */

    struct config_shard *shards;
    size_t nshards;
    struct config_node *nodes;
    size_t nnodes;
    struct config_region *regions;
    _Atomic size_t nregions;
    struct config_access *access;
    size_t naccess;

    /* base/config_reload.c */
    atomic_uint refs;
    pthread_mutex_t lock; /* guards `now` */
    struct config *now;   /* what was loaded last, NULL = this one; a reference */
};

/*
 * Loads the file (NULL: $CAMPUSFS_CONFIG, then ./campusfs.conf, then /etc/campusfs/campusfs.conf) and the
 * environment. All mistakes are found at once: `errors` gets a line each, "path:line: what is wrong".
 * `is_collection` knows the names of [collections]. -ENOENT, -EACCES, -EINVAL.
 */
int config_load(const char *path, bool (*is_collection)(const char *name), struct config **out,
                struct buf *errors);
/* Ends the one that config_load() gave; snapshots of it that are held live on. Takes NULL. */
void config_free(struct config *config);

/*
 * The configuration in force: a snapshot, until config_put(), of which only what is atomic can change. Of one
 * that was never reloaded, itself.
 */
const struct config *config_hold(const struct config *config);
void config_put(const struct config *snapshot);

/* Writes the whole configuration back as INI with secrets masked, for .campusfs/config. */
int config_dump(const struct config *config, struct buf *out);
