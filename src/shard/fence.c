#include "shard/fence.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/op.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FILE_NAME "timelines.json"
#define NEW_NAME FILE_NAME ".new"
#define LOCK_NAME "timelines.lock"

enum {
    LOCK_MS = 2000, /* how long another process's lock on the file is waited for, by whoever saves, too */
    LOCK_PAUSE_MS = 20,
    AGAIN_MS = 10 * 1000, /* what could not be written is tried again after this */
};

struct fence {
    const struct config *config;
    pthread_mutex_t lock; /* guards what follows; held for no longer than that takes */
    struct fence_mark known[CONFIG_MAX_SHARDS];
    uint64_t news, kept; /* how often it has changed, and which of these states is in the file */

    pthread_mutex_t writing; /* held while the file is written; guards what follows; before `lock` */
    int64_t again_at;        /* clock_now_ms() */
    bool complained;
};

/* ---- the file; the folder is an open descriptor ---- */

static int open_folder(const char *path, bool make)
{
    if (make && mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* The whole file as JSON: {"shards": {"<number>": {...}}}. An absent one is empty. */
static int read_file(int folder, json_t **out)
{
    int fd = openat(folder, FILE_NAME, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        return -errno;
    json_t *json = fd < 0 ? json_object() : json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
    if (fd >= 0)
        close(fd);
    if (!json_is_object(json)) {
        json_decref(json);
        return -EBADMSG;
    }
    *out = json;
    return 0;
}

static struct fence_mark mark_of(const json_t *file, unsigned number)
{
    char key[16];
    snprintf(key, sizeof key, "%u", number);
    const json_t *entry = json_object_get(json_object_get(file, "shards"), key);
    const char *system = json_string_value(json_object_get(entry, "system"));
    json_int_t timeline = json_integer_value(json_object_get(entry, "timeline"));
    return (struct fence_mark){
        .timeline = timeline > 0 && timeline <= UINT32_MAX ? (uint32_t)timeline : 0,
        .system = system ? strtoull(system, NULL, 10) : 0,
    };
}

static void put_mark(json_t *file, const struct config_shard *shard, struct fence_mark mark)
{
    char key[16], system[24];
    snprintf(key, sizeof key, "%u", shard->number);
    snprintf(system, sizeof system, "%" PRIu64, mark.system);
    if (!json_is_object(json_object_get(file, "shards")))
        json_object_set_new(file, "shards", json_object());
    json_object_set_new(json_object_get(file, "shards"), key,
                        json_pack("{s:s, s:s, s:I}", "name", shard->name, "system", system, "timeline",
                                  (json_int_t)mark.timeline));
}

static int write_file(int folder, const json_t *file)
{
    CLEANUP(closep) int fd = openat(folder, NEW_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (json_dumpfd(file, fd, JSON_INDENT(2) | JSON_SORT_KEYS) < 0 || write(fd, "\n", 1) != 1 ||
        fsync(fd) < 0)
        return errno ? -errno : -EIO;
    if (renameat(folder, NEW_NAME, folder, FILE_NAME) < 0 || fsync(folder) < 0)
        return -errno;
    return 0;
}

/* The newer of what two mounts know. */
static struct fence_mark newer(struct fence_mark a, struct fence_mark b)
{
    return (struct fence_mark){
        .timeline = a.timeline > b.timeline ? a.timeline : b.timeline,
        .system = a.system ? a.system : b.system,
    };
}

/* Whoever has the state_dir may hold it for ever: nobody's save is to wait for that. */
static int lock_file(int fd)
{
    for (int64_t until = clock_now_ms() + LOCK_MS; flock(fd, LOCK_EX | LOCK_NB) < 0;) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (clock_now_ms() >= until)
            return -EWOULDBLOCK;
        nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_MS * 1000000}, NULL);
    }
    return 0;
}

/* Under the file's lock, since other mounts may write it, too. */
static int write_marks(const struct config *config, const struct fence_mark *known)
{
    CLEANUP(closep) int folder = open_folder(config->state_dir, true);
    if (folder < 0)
        return folder;
    CLEANUP(closep) int lock = openat(folder, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        return -errno;
    json_auto_t *file = NULL;
    int r = lock_file(lock);
    if (r < 0)
        return r;
    r = read_file(folder, &file);
    if (r == -EBADMSG)
        file = json_object();
    else if (r < 0)
        return r;
    for (size_t i = 0; i < config->nshards; i++) {
        struct fence_mark kept = mark_of(file, config->shards[i].number);
        /* Another system: the file is of a cluster that was there before, and has been told to be wrong. */
        bool same = kept.system == 0 || kept.system == known[i].system;
        if (known[i].timeline)
            put_mark(file, &config->shards[i], same ? newer(known[i], kept) : known[i]);
    }
    return write_file(folder, file);
}

/* ---- the interface ---- */

struct fence *fence_open(const struct config *config)
{
    struct fence *fence = calloc(1, sizeof *fence);
    if (!fence)
        return NULL;
    fence->config = config;
    pthread_mutex_init(&fence->lock, NULL);
    pthread_mutex_init(&fence->writing, NULL);
    if (!config->state_dir[0])
        return fence;
    json_auto_t *file = NULL;
    CLEANUP(closep) int folder = open_folder(config->state_dir, false);
    int r = folder < 0 ? folder : read_file(folder, &file);
    if (r < 0 && r != -ENOENT)
        log_warning("state_dir: %s/" FILE_NAME " cannot be %s%s: which timelines were seen is not known",
                    config->state_dir,
                    r == -EBADMSG ? "understood" : "read: ", r == -EBADMSG ? "" : strerror(-r));
    for (size_t i = 0; r == 0 && i < config->nshards; i++)
        fence->known[i] = mark_of(file, config->shards[i].number);
    return fence;
}

void fence_free(struct fence *fence)
{
    if (!fence)
        return;
    pthread_mutex_destroy(&fence->writing);
    pthread_mutex_destroy(&fence->lock);
    free(fence);
}

struct fence_mark fence_known(struct fence *fence, size_t shard)
{
    pthread_mutex_lock(&fence->lock);
    struct fence_mark mark = fence->known[shard];
    pthread_mutex_unlock(&fence->lock);
    return mark;
}

/* Takes note. True when the file does not have it yet. */
static bool note_mark(struct fence *fence, size_t shard, struct fence_mark mark)
{
    pthread_mutex_lock(&fence->lock);
    struct fence_mark *known = &fence->known[shard];
    struct fence_mark next = newer(mark, *known);
    if (next.timeline != known->timeline || next.system != known->system) {
        *known = next;
        fence->news++;
    }
    bool behind = fence->kept != fence->news;
    pthread_mutex_unlock(&fence->lock);
    return behind;
}

/* Under `writing`: what is known now comes into the file, unless somebody else has just done that. */
static void write_known(struct fence *fence)
{
    struct fence_mark known[CONFIG_MAX_SHARDS];
    pthread_mutex_lock(&fence->lock);
    uint64_t news = fence->news;
    bool behind = fence->kept != news;
    memcpy(known, fence->known, sizeof known);
    pthread_mutex_unlock(&fence->lock);
    if (!behind || clock_now_ms() < fence->again_at)
        return;
    int r = write_marks(fence->config, known);
    if (r < 0 && !fence->complained)
        log_warning("state_dir: %s/" FILE_NAME " cannot be written: %s: after a restart of this mount an old "
                    "primary that is up alone would be written to",
                    fence->config->state_dir,
                    r == -EWOULDBLOCK ? "another process keeps " LOCK_NAME " locked" : strerror(-r));
    fence->complained = r < 0;
    fence->again_at = r < 0 ? clock_now_ms() + AGAIN_MS : 0;
    pthread_mutex_lock(&fence->lock);
    if (r == 0)
        fence->kept = news;
    pthread_mutex_unlock(&fence->lock);
}

void fence_keep(struct fence *fence, size_t shard, struct fence_mark mark)
{
    if (!note_mark(fence, shard, mark) || !fence->config->state_dir[0])
        return;
    pthread_mutex_lock(&fence->writing);
    write_known(fence);
    pthread_mutex_unlock(&fence->writing);
}
