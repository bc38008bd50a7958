#include "entity/export.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "entity/store_internal.h"
#include "shard/copy_out.h"

enum {
    BATCH_BYTES = 64 << 10,     /* handed over at once */
    ROOM_AT = EXPORT_BYTES / 4, /* when there is none, there is some again when no more than that is left */
    FRUITLESS_MAX = 3,          /* copies that were lost before a row had come */
    AGAIN_MS = 50,              /* before another is begun */
};

enum column { COLUMN_ID, COLUMN_BODY, COLUMNS };

struct export
{
    struct store *store; /* borrowed */
    struct shard *shard;
    const struct collection *collection;
    unsigned region;
    pthread_t thread;
    atomic_bool closing,
        rewinding; /* set under the lock; the thread is to stop, and in the second case to begin anew */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* of all below */
    struct buf
        ready; /* lines from an offset of the file on, `base`; the first `taken` bytes have been read */
    off_t base;
    size_t taken;
    bool full;  /* no room until most has been read: moving the rest to the front is not for every batch */
    bool ended; /* nothing will be added */
    struct fail why;

    /* The thread's own: */
    int64_t last_id;
    struct buf lines; /* not yet handed over */
    unsigned fruitless;
};

DEFINE_CLEANUP(struct shard_copy, shard_copy_close)

/* ---- the thread ---- */

static bool is_stopped(void *arg)
{
    struct export *export = arg;
    return atomic_load(&export->closing) || atomic_load(&export->rewinding);
}

static struct op op_of(struct export *export)
{
    struct op op = op_within(export->store->config->timeout_ms);
    op.interrupted = is_stopped;
    op.arg = export;
    return op;
}

/* Under the lock: the lines behind those that have not been read yet. */
static int append(struct export *export)
{
    struct buf *ready = &export->ready;
    if (export->taken > EXPORT_BACK_BYTES &&
        ready->len + export->lines.len > EXPORT_BYTES + EXPORT_BACK_BYTES) {
        size_t gone = export->taken - EXPORT_BACK_BYTES;
        ready->len -= gone;
        memmove(ready->data, ready->data + gone, ready->len);
        export->base += (off_t)gone;
        export->taken -= gone;
    }
    int r = buf_add(ready, export->lines.data, export->lines.len);
    if (r == 0)
        export->lines.len = 0;
    export->full = ready->len - export->taken > EXPORT_BYTES - BATCH_BYTES;
    return r;
}

/* Gives the lines to who reads them: 0, -ETIMEDOUT when there has been no room for EXPORT_STALL_MS, -EINTR,
 * -ENOMEM. */
static int hand_over(struct export *export)
{
    int64_t until = clock_now_ms() + EXPORT_STALL_MS;
    int r = 0;
    pthread_mutex_lock(&export->lock);
    while (r == 0 && export->full)
        r = is_stopped(export) ? -EINTR : wait_until(&export->changed, &export->lock, until) ? 0 : -ETIMEDOUT;
    if (r == 0)
        r = append(export);
    pthread_cond_broadcast(&export->changed);
    pthread_mutex_unlock(&export->lock);
    return r;
}

static int add_line(struct export *export, const struct copy_field *fields, struct fail *f)
{
    int64_t id = copy_field_i64(&fields[COLUMN_ID], 0);
    const struct copy_field *body = &fields[COLUMN_BODY];
    int r = id > export->last_id && body->len >= 0
                ? json_compact(body->data, (size_t)body->len, &export->lines)
                : -EPROTO;
    if (r == -EPROTO)
        return fail_set(f, EIO, "the shard %s sent no document", shard_name(export->shard));
    if (r < 0)
        return fail_set(f, -r, "out of memory");
    export->last_id = id;
    return 0;
}

static int copy_begin(struct export *export, struct shard_copy **copy, struct fail *f)
{
    char statement[320];
    struct op op = op_of(export);
    snprintf(statement, sizeof statement,
             "COPY (SELECT id, body FROM doc_%s WHERE (region, id) > (%u::smallint, %lld::bigint) "
             "AND region <= %u::smallint ORDER BY region, id) TO STDOUT (FORMAT binary)",
             export->collection->suffix, export->region, (long long)export->last_id, export->region);
    return shard_copy_open(export->shard, statement, &op, copy, f);
}

/* 0 at the end, -ETIMEDOUT when nobody reads, -errno. */
static int copy_rows(struct export *export, struct shard_copy *copy, struct fail *f)
{
    struct copy_field fields[COLUMNS];
    for (;;) {
        struct op op = op_of(export);
        int r = shard_copy_next(copy, fields, COLUMNS, &op, f);
        if (r <= 0)
            return r;
        r = add_line(export, fields, f);
        if (r < 0)
            return r;
        export->fruitless = 0;
        atomic_fetch_add(&export->store->export_rows, 1);
        r = export->lines.len >= BATCH_BYTES ? hand_over(export) : 0;
        if (r < 0)
            return r;
    }
}

/* One COPY: 1 when another is to go on behind the last row, 0 at the end, -errno. */
static int copy_some(struct export *export, struct fail *f)
{
    CLEANUP(shard_copy_closep) struct shard_copy *copy = NULL;
    struct fail why = {.err = 0};
    int r = copy_begin(export, &copy, f);
    if (r < 0)
        return r;
    atomic_fetch_add(&export->store->export_copies, 1);
    r = copy_rows(export, copy, &why);
    if (r == -ETIMEDOUT || (r < 0 && r != -ENOMEM && ++export->fruitless < FRUITLESS_MAX))
        return 1;
    if (r < 0)
        *f = why;
    return r < 0 && why.err == 0 ? fail_set(f, -r, "out of memory") : r;
}

/* The rest of the lines, with no server kept waiting; then a pause before the next COPY. */
static int settle(struct export *export, bool goes_on, struct fail *f)
{
    struct op pause = op_within(AGAIN_MS);
    int r = -ETIMEDOUT;
    while (r == -ETIMEDOUT)
        r = hand_over(export);
    pause.interrupted = is_stopped;
    pause.arg = export;
    pthread_mutex_lock(&export->lock);
    for (int w = 0; r == 0 && goes_on && w == 0;)
        w = op_wait(&export->changed, &export->lock, &pause);
    pthread_mutex_unlock(&export->lock);
    return r == -ENOMEM ? fail_set(f, ENOMEM, "out of memory") : r;
}

/* All rows from the first on, until the thread is to stop. */
static int copy_all(struct export *export, struct fail *f)
{
    int r = 1;
    export->last_id = 0;
    export->lines.len = 0;
    export->fruitless = 0;
    while (r == 1 && !is_stopped(export)) {
        r = copy_some(export, f);
        int settled = settle(export, r == 1, f);
        r = settled < 0 ? settled : r;
    }
    return r;
}

static void *export_main(void *arg)
{
    struct export *export = arg;
    pthread_mutex_lock(&export->lock);
    while (!atomic_load(&export->closing)) {
        export->ready.len = export->taken = 0;
        export->base = 0;
        export->full = export->ended = false;
        export->why = (struct fail){.err = 0};
        atomic_store(&export->rewinding, false);
        pthread_cond_broadcast(&export->changed);
        pthread_mutex_unlock(&export->lock);
        struct fail f = {.err = 0};
        copy_all(export, &f);
        pthread_mutex_lock(&export->lock);
        export->ended = true;
        export->why = f;
        pthread_cond_broadcast(&export->changed);
        while (!is_stopped(export))
            pthread_cond_wait(&export->changed, &export->lock);
    }
    pthread_mutex_unlock(&export->lock);
    return NULL;
}

/* ---- who reads ---- */

static void give_back(struct store *store, const struct shard *shard)
{
    pthread_mutex_lock(&store->lock);
    store->exports[shard_index(shard)]--;
    pthread_mutex_unlock(&store->lock);
}

static int take_one(struct store *store, const struct shard *shard, struct fail *f)
{
    const struct config *now = config_hold(store->config);
    unsigned max = now->pool_size > 1 ? now->pool_size / 2 : 1;
    config_put(now);
    pthread_mutex_lock(&store->lock);
    unsigned *open = &store->exports[shard_index(shard)];
    bool full = *open >= max;
    *open += !full;
    pthread_mutex_unlock(&store->lock);
    return full ? fail_set(f, ENFILE, "shard %s: %u exports are open already, half of pool_size",
                           shard_name(shard), max)
                : 0;
}

static void export_free(struct export *export)
{
    give_back(export->store, export->shard);
    pthread_cond_destroy(&export->changed);
    pthread_mutex_destroy(&export->lock);
    buf_clear(&export->ready);
    buf_clear(&export->lines);
    free(export);
}

int export_open(struct store *store, unsigned collection, unsigned region, struct export **out,
                struct fail *f)
{
    const struct collection *c = collection_numbered(collection);
    struct shard *shard = store_shard(store, collection, region);
    if (!shard || !c->suffix)
        return fail_set(f, ENOENT, "no such collection");
    int r = take_one(store, shard, f);
    if (r < 0)
        return r;
    struct export *export = calloc(1, sizeof *export);
    if (!export) {
        give_back(store, shard);
        return fail_set(f, ENOMEM, "out of memory");
    }
    *export = (struct export){.store = store, .shard = shard, .collection = c, .region = region};
    pthread_mutex_init(&export->lock, NULL);
    pthread_cond_init(&export->changed, NULL);
    r = -pthread_create(&export->thread, NULL, export_main, export);
    if (r < 0)
        export_free(export);
    else
        *out = export;
    return r < 0 ? fail_set(f, -r, "no thread to export with") : 0;
}

/* Under the lock: begins another export, and waits until it has begun. */
static int rewind_to_start(struct export *export, const struct op *op)
{
    int r = 0;
    atomic_store(&export->rewinding, true);
    pthread_cond_broadcast(&export->changed);
    while (r == 0 && atomic_load(&export->rewinding))
        r = op_wait(&export->changed, &export->lock, op);
    return r;
}

/* Under the lock: 1 when the byte at an offset is there, passing over those before it; 0 when there is none,
 * -errno. */
static int reach(struct export *export, off_t offset, const struct op *op)
{
    int r = offset == 0 && export->base > 0 ? rewind_to_start(export, op) : 0;
    while (r == 0) {
        if (offset < export->base)
            return -ESPIPE;
        if (offset < export->base + (off_t) export->ready.len)
            return 1;
        if (export->ended)
            return -export->why.err;
        export->taken = export->ready.len;
        export->full = false;
        pthread_cond_broadcast(&export->changed);
        r = op_wait(&export->changed, &export->lock, op);
    }
    return r;
}

/* Under the lock. */
static size_t take(struct export *export, char *to, size_t size, off_t offset)
{
    size_t at = (size_t)(offset - export->base), left = export->ready.len - at;
    size_t n = left < size ? left : size;
    memcpy(to, export->ready.data + at, n);
    if (at + n > export->taken)
        export->taken = at + n;
    export->full = export->full && export->ready.len - export->taken > ROOM_AT;
    return n;
}

ssize_t export_read(struct export *export, char *to, size_t size, off_t offset, const struct op *op,
                    struct fail *f)
{
    pthread_mutex_lock(&export->lock);
    ssize_t r = reach(export, offset, op);
    if (r > 0)
        r = (ssize_t)take(export, to, size, offset);
    else if (r < 0 && export->ended && export->why.err)
        *f = export->why;
    else if (r == -EIO)
        fail_set(f, EIO, "shard %s: no rows came in time", shard_name(export->shard));
    pthread_cond_broadcast(&export->changed);
    pthread_mutex_unlock(&export->lock);
    return r;
}

void export_close(struct export *export)
{
    if (!export)
        return;
    pthread_mutex_lock(&export->lock);
    atomic_store(&export->closing, true);
    pthread_cond_broadcast(&export->changed);
    pthread_mutex_unlock(&export->lock);
    pthread_join(export->thread, NULL);
    export_free(export);
}

int export_metrics(struct store *store, struct buf *out)
{
    unsigned open[CONFIG_MAX_SHARDS];
    pthread_mutex_lock(&store->lock);
    memcpy(open, store->exports, sizeof open);
    pthread_mutex_unlock(&store->lock);
    int r = buf_printf(out,
                       "# TYPE campusfs_export_rows_total counter\ncampusfs_export_rows_total %llu\n"
                       "# TYPE campusfs_export_copies_total counter\ncampusfs_export_copies_total %llu\n"
                       "# TYPE campusfs_exports_open gauge\n",
                       (unsigned long long)atomic_load(&store->export_rows),
                       (unsigned long long)atomic_load(&store->export_copies));
    for (size_t i = 0; r == 0 && i < cluster_shards(store->cluster); i++)
        r = buf_printf(out, "campusfs_exports_open{shard=\"%s\"} %u\n",
                       shard_name(cluster_shard(store->cluster, i)), open[i]);
    return r;
}
