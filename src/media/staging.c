/*
 * What all staged files share: buffers, the threads that send, and the one that renews leases and deletes
 * what was given up.
 */
#include "media/staging.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "media/staging_private.h"

enum {
    FREE_MAX = GRIDFS_BATCH, /* free buffers that are kept for the next */
    KEEP_EVERY_MS = 1000,
    RENEW_EVERY_MS = BUCKET_LEASE_MS / 10,
    RENEW_AT_ONCE = 256
};

/* ---- buffers ---- */

/* Under the lock: a buffer, if there may be one more. */
static struct buffer *take_buffer(struct staging *staging)
{
    struct buffer *buffer = staging->free;
    if (buffer) {
        staging->free = buffer->next;
        staging->nfree--;
        return buffer;
    }
    if (staging->nbuffers >= staging->max_buffers)
        return NULL;
    buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return NULL;
    staging->nbuffers++;
    return buffer;
}

void buffer_put(struct staging *staging, struct buffer *buffer)
{
    pthread_mutex_lock(&staging->lock);
    if (staging->nfree < FREE_MAX) {
        buffer->next = staging->free;
        staging->free = buffer;
        staging->nfree++;
    } else {
        munmap(buffer, BUFFER_BYTES);
        staging->nbuffers--;
    }
    pthread_cond_broadcast(&staging->freed);
    pthread_mutex_unlock(&staging->lock);
}

/* Under the lock. */
static void append_to_queue(struct staged *s)
{
    s->queue_next = NULL;
    *s->staging->queue_end = s;
    s->staging->queue_end = &s->queue_next;
}

/* Under both locks: what is in memory and not on its way yet is from now on. */
static void queue_locked(struct staged *s)
{
    unsigned before = s->sending;
    if (s->failed)
        return;
    for (size_t i = 0; i < s->nslots; i++) {
        s->sending += !s->slots[i]->sending;
        s->slots[i]->sending = true;
    }
    if (before > 0 || s->sending == 0) /* a sender has it already, and goes on */
        return;
    append_to_queue(s);
    pthread_cond_signal(&s->staging->work);
}

void staging_queue(struct staged *s)
{
    pthread_mutex_lock(&s->staging->lock);
    pthread_mutex_lock(&s->lock);
    queue_locked(s);
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_unlock(&s->staging->lock);
}

/* Under the lock: the file that has been idle for longest, and nobody is busy with, is sent. `own` is the
 * caller's. */
static void send_idle(struct staging *staging, struct staged *own)
{
    struct staged *oldest = NULL;
    int64_t since = INT64_MAX;
    for (struct list_entry *e = staging->all; e; e = e->next) {
        struct staged *s = (struct staged *)(void *)((char *)e - offsetof(struct staged, entry));
        pthread_mutex_lock(&s->lock);
        bool fits = s->nslots > 0 && s->sending == 0 && !s->failed && (s == own || !s->busy);
        int64_t used = s->used;
        pthread_mutex_unlock(&s->lock);
        if (fits && used < since) {
            oldest = s;
            since = used;
        }
    }
    if (!oldest)
        return;
    pthread_mutex_lock(&oldest->lock);
    if (oldest == own || !oldest->busy)
        queue_locked(oldest);
    pthread_mutex_unlock(&oldest->lock);
}

int buffer_get(struct staged *s, int64_t n, const struct op *op, struct buffer **out, struct fail *f)
{
    struct staging *staging = s->staging;
    struct buffer *buffer;
    bool in_time = true;
    pthread_mutex_lock(&staging->lock);
    while (!(buffer = take_buffer(staging)) && in_time) {
        send_idle(staging, s);
        in_time = wait_until(&staging->freed, &staging->lock, op->deadline);
    }
    pthread_mutex_unlock(&staging->lock);
    if (!buffer)
        return fail_set(f, EIO,
                        "the memory for uploads stayed full: MongoDB does not take bytes fast enough");
    buffer->n = n;
    buffer->len = 0;
    buffer->sending = false;
    buffer->hashed = false;
    *out = buffer;
    return 0;
}

/* ---- senders ---- */

/* The batch that comes next, in order; how many. */
static size_t next_batch(struct staged *s, struct buffer **out)
{
    struct buffer *buffers[SLOTS_MAX];
    size_t n = 0;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->nslots; i++)
        if (s->slots[i]->sending)
            buffers[n++] = s->slots[i];
    pthread_mutex_unlock(&s->lock);
    buffers_sort(buffers, n);
    n = n < GRIDFS_BATCH ? n : GRIDFS_BATCH;
    memcpy(out, buffers, n * sizeof(*out));
    return n;
}

/* Under both locks: a message of n buffers has ended. The next one of the file takes its turn with other
 * files'. */
static void end_message(struct staged *s, size_t n, int r, const struct fail *f)
{
    s->sending -= (unsigned)n;
    if (r < 0) {
        s->failed = -r;
        s->why = *f;
        s->sending = 0;
        for (size_t i = 0; i < s->nslots; i++) /* nothing will come of them */
            s->slots[i]->sending = false;
    }
    if (s->sending > 0)
        append_to_queue(s);
    pthread_cond_broadcast(&s->settled);
}

/* One message of it. Returns with the staging's lock. */
static void send_queued(struct staged *s)
{
    struct staging *staging = s->staging;
    struct buffer *buffers[GRIDFS_BATCH];
    struct fail f = {0};
    size_t n = next_batch(s, buffers);
    struct op op = op_within(staging->options.step_ms);
    int r = staging_send(s, buffers, n, 0, &op, &f);
    r = staged_sent(s, buffers, n, r);
    pthread_mutex_lock(&staging->lock);
    pthread_mutex_lock(&s->lock);
    end_message(s, n, r, &f);
    pthread_mutex_unlock(&s->lock);
}

static void *sender_main(void *arg)
{
    struct staging *staging = arg;
    pthread_mutex_lock(&staging->lock);
    for (;;) {
        struct staged *s = staging->queue;
        if (s) {
            staging->queue = s->queue_next;
            if (!staging->queue)
                staging->queue_end = &staging->queue;
            pthread_mutex_unlock(&staging->lock);
            send_queued(s);
        } else if (staging->stop) {
            break;
        } else {
            pthread_cond_wait(&staging->work, &staging->lock);
        }
    }
    pthread_mutex_unlock(&staging->lock);
    return NULL;
}

/* ---- the keeper ---- */

bool staging_may_count(struct staging *staging)
{
    pthread_mutex_lock(&staging->lock);
    bool may = !staging->counting;
    staging->counting = true;
    pthread_mutex_unlock(&staging->lock);
    return may;
}

void staging_has_counted(struct staging *staging)
{
    pthread_mutex_lock(&staging->lock);
    staging->counting = false;
    pthread_mutex_unlock(&staging->lock);
}

void staging_count(struct staging *staging, int change)
{
    pthread_mutex_lock(&staging->lock);
    staging->uploads += (unsigned)change;
    pthread_mutex_unlock(&staging->lock);
}

/* Collects the ids of one region's uploads whose lease is to be renewed, and takes them as renewed. */
static size_t collect_due(struct staging *staging, char *region, size_t size, bson_oid_t *ids)
{
    size_t n = 0;
    int64_t now = clock_now_ms();
    pthread_mutex_lock(&staging->lock);
    for (struct list_entry *e = staging->all; e && n < RENEW_AT_ONCE; e = e->next) {
        struct staged *s = (struct staged *)(void *)((char *)e - offsetof(struct staged, entry));
        int64_t last = __atomic_load_n(&s->heartbeat, __ATOMIC_ACQUIRE);
        if (last == 0 || now - last < RENEW_EVERY_MS || (n > 0 && strcmp(region, s->region) != 0))
            continue;
        if (n == 0)
            snprintf(region, size, "%s", s->region);
        ids[n++] = s->id;
        __atomic_store_n(&s->heartbeat, now, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&staging->lock);
    return n;
}

/* A lease that is not renewed now is the next time: it lasts ten times as long. */
static void renew_leases(struct staging *staging)
{
    char region[128];
    bson_oid_t ids[RENEW_AT_ONCE];
    size_t n;
    while ((n = collect_due(staging, region, sizeof(region), ids)) > 0) {
        struct op op = op_within(staging->options.step_ms);
        if (bucket_renew(staging->mongo, region, ids, n, NULL, &op, NULL) < 0)
            return;
    }
}

static void leftover_free(struct leftover *leftover)
{
    free(leftover->region);
    free(leftover);
}

static struct leftover *take_leftover(struct staging *staging)
{
    pthread_mutex_lock(&staging->lock);
    struct leftover *leftover = staging->leftovers;
    if (leftover)
        staging->leftovers = leftover->next;
    pthread_mutex_unlock(&staging->lock);
    return leftover;
}

/* In its place in the list: at its head. */
static void put_leftover(struct staging *staging, struct leftover *leftover)
{
    pthread_mutex_lock(&staging->lock);
    leftover->next = staging->leftovers;
    staging->leftovers = leftover;
    pthread_mutex_unlock(&staging->lock);
}

/* Slice by slice while there is time; false when some of it is left to be deleted. */
static bool delete_leftover(struct staging *staging, struct leftover *leftover, const struct op *turn)
{
    CLEANUP(bson_destroyp) bson_t *id = BCON_NEW("_id", BCON_OID(&leftover->id));
    int64_t step_ms = staging->options.step_ms;
    int r = 0;
    for (; r == 0 && leftover->from < leftover->end; leftover->from += BUCKET_SLICE) {
        int64_t left = leftover->end - leftover->from;
        if (op_left_ms(turn) == 0)
            return false;
        r = bucket_delete_chunks(staging->mongo, leftover->region, id, leftover->from,
                                 leftover->from + (left < BUCKET_SLICE ? left : BUCKET_SLICE), step_ms, turn,
                                 NULL);
    }
    struct op op = op_within(step_ms);
    if (r == 0)
        bucket_forget(staging->mongo, leftover->region, id, &op, NULL);
    return true;
}

/*
 * What fits into a turn from `now` on: the next renews leases first. What cannot be deleted, or is not when
 * the mount's last turn is over, is left to the sweep.
 */
static void delete_leftovers(struct staging *staging, int64_t now)
{
    int64_t ms = staging->options.step_ms < RENEW_EVERY_MS ? staging->options.step_ms : RENEW_EVERY_MS;
    struct op turn = {.deadline = now + ms};
    struct leftover *leftover;
    while (op_left_ms(&turn) > 0 && (leftover = take_leftover(staging))) {
        if (delete_leftover(staging, leftover, &turn))
            leftover_free(leftover);
        else
            put_leftover(staging, leftover);
    }
}

static void *keeper_main(void *arg)
{
    struct staging *staging = arg;
    bool stop = false;
    while (!stop) {
        pthread_mutex_lock(&staging->lock);
        if (!staging->stop && !staging->leftovers)
            wait_until(&staging->ended, &staging->lock, clock_now_ms() + KEEP_EVERY_MS);
        stop = staging->stop;
        int64_t now = stop ? staging->stop_at : clock_now_ms();
        pthread_mutex_unlock(&staging->lock);
        renew_leases(staging);
        delete_leftovers(staging, now);
    }
    return NULL;
}

void staging_give_up(struct staged *s)
{
    struct staging *staging = s->staging;
    struct leftover *leftover = s->unsure ? NULL : malloc(sizeof(*leftover));
    *(leftover ? leftover : &(struct leftover){0}) =
        (struct leftover){.id = s->id, .end = s->touched.n ? s->touched.list[s->touched.n - 1].to : 0};
    if (leftover)
        leftover->region = strdup(s->region);
    pthread_mutex_lock(&staging->lock);
    staging->uploads--;
    __atomic_store_n(&s->heartbeat, 0, __ATOMIC_RELEASE);
    if (leftover && leftover->region) {
        leftover->next = staging->leftovers;
        staging->leftovers = leftover;
        leftover = NULL;
        pthread_cond_signal(&staging->ended);
    }
    pthread_mutex_unlock(&staging->lock);
    if (leftover)
        leftover_free(leftover); /* the sweep finds it, by its lease */
    s->journalled = false;
}

/* ---- opening and closing ---- */

static int start_threads(struct staging *staging)
{
    int r = pthread_create(&staging->keeper, NULL, keeper_main, staging);
    staging->has_keeper = r == 0;
    while (r == 0 && staging->nsenders < STAGING_SENDERS) {
        r = pthread_create(&staging->senders[staging->nsenders], NULL, sender_main, staging);
        staging->nsenders += r == 0;
    }
    return -r;
}

int staging_open(struct mongo *mongo, const struct staging_options *options, struct staging **out)
{
    struct staging *staging = calloc(1, sizeof(*staging));
    if (!staging)
        return -ENOMEM;
    staging->mongo = mongo;
    staging->options = *options;
    staging->max_buffers = options->memory / BUFFER_BYTES;
    if (staging->max_buffers < GRIDFS_BATCH)
        staging->max_buffers = GRIDFS_BATCH;
    staging->queue_end = &staging->queue;
    pthread_mutex_init(&staging->lock, NULL);
    pthread_cond_init(&staging->work, NULL);
    pthread_cond_init(&staging->freed, NULL);
    pthread_cond_init(&staging->ended, NULL);
    int r = start_threads(staging);
    if (r < 0) {
        staging_close(staging);
        return r;
    }
    *out = staging;
    return 0;
}

void staging_close(struct staging *staging)
{
    if (!staging)
        return;
    pthread_mutex_lock(&staging->lock);
    staging->stop = true;
    staging->stop_at = clock_now_ms();
    pthread_cond_broadcast(&staging->work);
    pthread_cond_broadcast(&staging->ended);
    pthread_mutex_unlock(&staging->lock);
    for (unsigned i = 0; i < staging->nsenders; i++)
        pthread_join(staging->senders[i], NULL);
    if (staging->has_keeper)
        pthread_join(staging->keeper, NULL);
    for (struct leftover *l; (l = staging->leftovers);) {
        staging->leftovers = l->next;
        leftover_free(l);
    }
    for (struct buffer *b; (b = staging->free);) {
        staging->free = b->next;
        munmap(b, BUFFER_BYTES);
    }
    pthread_cond_destroy(&staging->work);
    pthread_cond_destroy(&staging->freed);
    pthread_cond_destroy(&staging->ended);
    pthread_mutex_destroy(&staging->lock);
    free(staging);
}

void staging_stats(struct staging *staging, struct staging_stats *stats)
{
    pthread_mutex_lock(&staging->lock);
    *stats = (struct staging_stats){.memory = staging->nbuffers * (size_t)BUFFER_BYTES,
                                    .uploads = staging->uploads,
                                    .sent = staging->sent};
    pthread_mutex_unlock(&staging->lock);
}
