#include "entity/preferences_sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/uuid.h"

enum {
    ALL_MS = 3600 * 1000, /* from one look at all to the next */
    LEASE_ROUNDS = 3,
    LEASE_LEAST_MS = 60000,
    SHARD_NUMBERS = 1000, /* the last three digits of an id are its home's number */
};

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

struct preferences_sweep {
    const struct config *config; /* borrowed */
    struct cluster *cluster;     /* borrowed */
    struct mongo *mongo;         /* borrowed */
    char owner[UUID_OWNER];
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t ended;
    bool stop;
    size_t nnoted;
    int64_t noted[PREFERENCES_NOTED];
    uint64_t removed;
};

/* ---- what the shards say ---- */

/* The columns of preferences_owners(). */
enum { OWNER_ID, OWNER_STATE, OWNER_CLAIMED };

struct judgement {
    bool there, kept, gone;
};

static bool ids_text(const struct preferences_owner *owners, size_t n, struct buf *out)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = buf_printf(out, "%c%" PRId64, i ? ',' : '{', owners[i].user_id);
    return r == 0 && buf_add_text(out, "}") == 0;
}

/* One shard's word on all of them; it answers in the order of the question. */
static int ask_shard(struct cluster *cluster, struct shard *shard, int64_t timeout_ms, const char *ids,
                     struct judgement *all, size_t n, struct fail *f)
{
    static const struct pg_statement statement = {
        "preferences_owners", "SELECT user_id, state, claimed_by FROM preferences_owners($1::bigint[])", 1};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    struct op op = op_within(timeout_ms);
    int r = shard_sync_read(shard, &statement, &ids, &op, &rows, f);
    if (r == 0 && pg_rows_count(rows) != n)
        return fail_set(f, EPROTO, "preferences_owners() did not answer for all users");
    for (size_t i = 0; r == 0 && i < n; i++) {
        const char *state = pg_rows_text(rows, i, OWNER_STATE);
        int64_t claimed = pg_rows_i64(rows, i, OWNER_CLAIMED, -1);
        all[i].there |= state && strcmp(state, "there") == 0;
        all[i].gone |= state && strcmp(state, "gone") == 0;
        all[i].kept |= (state && strcmp(state, "kept") == 0) ||
                       (claimed >= 0 && !cluster_shard_numbered(cluster, (unsigned)claimed));
    }
    return r;
}

int preferences_judge(struct cluster *cluster, int64_t timeout_ms, struct preferences_owner *owners, size_t n,
                      struct fail *f)
{
    struct buf ids CLEANUP(buf_clear) = {0};
    struct judgement *all CLEANUP(freep) = calloc(n, sizeof *all);
    if (!all || !ids_text(owners, n, &ids))
        return fail_set(f, ENOMEM, "out of memory");
    int r = 0;
    for (size_t i = 0; r == 0 && i < cluster_shards(cluster); i++)
        r = ask_shard(cluster, cluster_shard(cluster, i), timeout_ms, ids.data, all, n, f);
    for (size_t i = 0; r == 0 && i < n; i++) {
        bool home = cluster_shard_numbered(cluster, (unsigned)(owners[i].user_id % SHARD_NUMBERS)) != NULL;
        owners[i].fate = all[i].there  ? PREFERENCES_STAYS
                         : all[i].kept ? PREFERENCES_AS_IS
                         : all[i].gone ? PREFERENCES_GOES
                         : home        ? PREFERENCES_GOES_LATER
                                       : PREFERENCES_AS_IS;
    }
    return r;
}

/* ---- the thread ---- */

static bool is_stopping(struct preferences_sweep *sweep)
{
    pthread_mutex_lock(&sweep->lock);
    bool stop = sweep->stop;
    pthread_mutex_unlock(&sweep->lock);
    return stop;
}

static int judge(void *arg, struct preferences_owner *owners, size_t n, struct fail *f)
{
    struct preferences_sweep *sweep = arg;
    if (is_stopping(sweep))
        return -EINTR;
    return preferences_judge(sweep->cluster, sweep->config->timeout_ms, owners, n, f);
}

static int compare_ids(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Whom the feed has named since, each once; NULL when nobody or memory is out. */
static int64_t *take_noted(struct preferences_sweep *sweep, size_t *n)
{
    pthread_mutex_lock(&sweep->lock);
    *n = sweep->nnoted;
    int64_t *ids = *n ? malloc(*n * sizeof *ids) : NULL;
    if (ids)
        memcpy(ids, sweep->noted, *n * sizeof *ids);
    sweep->nnoted = 0;
    pthread_mutex_unlock(&sweep->lock);
    size_t kept = 0;
    if (ids)
        qsort(ids, *n, sizeof *ids, compare_ids);
    for (size_t i = 0; ids && i < *n; i++)
        if (kept == 0 || ids[kept - 1] != ids[i])
            ids[kept++] = ids[i];
    *n = kept;
    return ids;
}

/* One round; *all_at when all were looked at last. */
static int sweep_once(struct preferences_sweep *sweep, int64_t *all_at, struct fail *f)
{
    struct preferences_walk walk = {
        .write = true, .step_ms = sweep->config->timeout_ms, .judge = judge, .arg = sweep};
    int64_t now = clock_now_ms();
    bool all = *all_at == 0 || now - *all_at >= ALL_MS;
    size_t n;
    int64_t *ids CLEANUP(freep) = take_noted(sweep, &n);
    int r = all ? preferences_walk(sweep->mongo, NULL, 0, &walk, f) : 0;
    for (size_t i = 0; !all && r == 0 && i < n; i += PREFERENCES_WALK_PAGE)
        r = preferences_walk(sweep->mongo, ids + i,
                             n - i < PREFERENCES_WALK_PAGE ? n - i : PREFERENCES_WALK_PAGE, &walk, f);
    if (r == 0 && all)
        *all_at = now;
    if (r < 0)
        *all_at = 0; /* who was named may have been passed over */
    pthread_mutex_lock(&sweep->lock);
    sweep->removed += walk.removed;
    pthread_mutex_unlock(&sweep->lock);
    if (walk.removed + walk.marked > 0)
        log_info("preferences of users who are gone: %" PRIu64 " deleted, %" PRIu64 " will be in a day",
                 walk.removed, walk.marked);
    return r;
}

/* Sleeps for an interval with up to a quarter of jitter; false when it is the end. */
static bool pause_between(struct preferences_sweep *sweep, unsigned *random)
{
    int64_t every = sweep->config->media_sweep_ms;
    int64_t until = clock_now_ms() + every - (int64_t)(rand_r(random) % (unsigned)(every / 4 + 1));
    pthread_mutex_lock(&sweep->lock);
    while (!sweep->stop && clock_now_ms() < until)
        wait_until(&sweep->ended, &sweep->lock, until);
    bool stop = sweep->stop;
    pthread_mutex_unlock(&sweep->lock);
    return !stop;
}

static void *sweep_main(void *arg)
{
    struct preferences_sweep *sweep = arg;
    unsigned random = (unsigned)(clock_now_ms() ^ getpid());
    int64_t lasts = sweep->config->media_sweep_ms * LEASE_ROUNDS, all_at = 0;
    bool held = false, failing = false;
    while (pause_between(sweep, &random)) {
        struct fail f = {0};
        int r = preferences_lease_take(sweep->mongo, sweep->owner,
                                       lasts < LEASE_LEAST_MS ? LEASE_LEAST_MS : lasts, &f);
        held = r == 0;
        if (!held)
            all_at = 0; /* who takes it over begins anew */
        else
            r = sweep_once(sweep, &all_at, &f);
        bool bad = r < 0 && r != -EEXIST && r != -EINTR;
        if (bad && !failing)
            log_warning("cannot look for preferences of users who are gone: %s", f.message);
        failing = bad;
    }
    if (held && !failing)
        preferences_lease_end(sweep->mongo, sweep->owner);
    return NULL;
}

int preferences_sweep_start(const struct config *config, struct cluster *cluster, struct mongo *mongo,
                            struct preferences_sweep **out)
{
    struct preferences_sweep *sweep = calloc(1, sizeof *sweep);
    int r = sweep ? uuid_owner(sweep->owner) : -ENOMEM;
    if (r < 0) {
        free(sweep);
        return r;
    }
    sweep->config = config;
    sweep->cluster = cluster;
    sweep->mongo = mongo;
    pthread_mutex_init(&sweep->lock, NULL);
    pthread_cond_init(&sweep->ended, NULL);
    r = pthread_create(&sweep->thread, NULL, sweep_main, sweep);
    if (r != 0) {
        pthread_mutex_destroy(&sweep->lock);
        pthread_cond_destroy(&sweep->ended);
        free(sweep);
        return -r;
    }
    *out = sweep;
    return 0;
}

void preferences_sweep_ending(struct preferences_sweep *sweep)
{
    if (!sweep)
        return;
    pthread_mutex_lock(&sweep->lock);
    sweep->stop = true;
    pthread_cond_broadcast(&sweep->ended);
    pthread_mutex_unlock(&sweep->lock);
}

void preferences_sweep_stop(struct preferences_sweep *sweep)
{
    if (!sweep)
        return;
    preferences_sweep_ending(sweep);
    pthread_join(sweep->thread, NULL);
    pthread_cond_destroy(&sweep->ended);
    pthread_mutex_destroy(&sweep->lock);
    free(sweep);
}

void preferences_sweep_note(struct preferences_sweep *sweep, int64_t user_id)
{
    if (!sweep)
        return;
    pthread_mutex_lock(&sweep->lock);
    if (sweep->nnoted < PREFERENCES_NOTED)
        sweep->noted[sweep->nnoted++] = user_id;
    pthread_mutex_unlock(&sweep->lock);
}

uint64_t preferences_sweep_removed(struct preferences_sweep *sweep)
{
    if (!sweep)
        return 0;
    pthread_mutex_lock(&sweep->lock);
    uint64_t removed = sweep->removed;
    pthread_mutex_unlock(&sweep->lock);
    return removed;
}
