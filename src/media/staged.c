/*
 * One staged file: where each of its bytes is. In memory, else in the database under the new id, else in the
 * base, else nowhere: zeros.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "media/chunks.h"
#include "media/staging_private.h"

/* ---- one at a time ---- */

int staged_enter(struct staged *s, const struct op *op, struct fail *f)
{
    bool in_time = true;
    pthread_mutex_lock(&s->lock);
    while (s->busy && in_time)
        in_time = wait_until(&s->settled, &s->lock, op->deadline);
    int r = s->busy ? fail_set(f, EIO, "the file is still being written by another call") : 0;
    s->busy = true;
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* Under the lock: an error of an earlier message. */
static int told(const struct staged *s, struct fail *f)
{
    if (s->failed && f && !f->err)
        *f = s->why;
    return -s->failed;
}

static int failed(struct staged *s, struct fail *f)
{
    pthread_mutex_lock(&s->lock);
    int r = told(s, f);
    pthread_mutex_unlock(&s->lock);
    return r;
}

void staged_drop_slots(struct staged *s, int64_t from, int64_t to)
{
    struct buffer *gone[SLOTS_MAX];
    size_t ngone = 0;
    pthread_mutex_lock(&s->lock);
    for (size_t i = s->nslots; i-- > 0;)
        if (s->slots[i]->n >= from && s->slots[i]->n < to && !s->slots[i]->sending) {
            gone[ngone] = s->slots[i];
            staged_drop_slot(s, gone[ngone++]);
        }
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < ngone; i++)
        buffer_put(s->staging, gone[i]);
}

void staged_leave(struct staged *s)
{
    if (failed(s, NULL) < 0)
        staged_drop_slots(s, 0, INT64_MAX); /* nothing will come of them */
    pthread_mutex_lock(&s->lock);
    s->busy = false;
    pthread_cond_broadcast(&s->settled);
    pthread_mutex_unlock(&s->lock);
}

int staged_wait_sending(struct staged *s, unsigned most, const struct op *op, struct fail *f)
{
    const struct op wait = {.deadline = op->deadline, .interrupted = op->abandoned, .arg = op->waiter};
    int r = 0;
    pthread_mutex_lock(&s->lock);
    while (r == 0 && s->sending > most)
        r = op_wait(&s->settled, &s->lock, &wait);
    r = r == 0 ? told(s, f) : r == -EIO ? fail_set(f, EIO, "MongoDB did not take the bytes in time") : r;
    pthread_mutex_unlock(&s->lock);
    return r;
}

int staged_wait_sent(struct staged *s, const struct op *op, struct fail *f)
{
    return staged_wait_sending(s, 0, op, f);
}

/* ---- buffers ---- */

struct buffer *staged_slot(struct staged *s, int64_t n)
{
    for (size_t i = 0; i < s->nslots; i++)
        if (s->slots[i]->n == n)
            return s->slots[i];
    return NULL;
}

void staged_drop_slot(struct staged *s, struct buffer *buffer)
{
    for (size_t i = 0; i < s->nslots; i++)
        if (s->slots[i] == buffer) {
            s->slots[i] = s->slots[--s->nslots];
            return;
        }
}

/* Whether there is a buffer for chunk n, as *out, or room for one (NULL); else why not: it is on its way, or
 * a batch is full. */
static bool has_room(struct staged *s, int64_t n, struct buffer **out, bool *on_its_way)
{
    size_t filling =
        0; /* not nslots - sending: what was sent leaves its slot before the sender is done with it */
    pthread_mutex_lock(&s->lock);
    struct buffer *buffer = staged_slot(s, n);
    *on_its_way = buffer && buffer->sending;
    for (size_t i = 0; i < s->nslots; i++)
        filling += !s->slots[i]->sending;
    pthread_mutex_unlock(&s->lock);
    *out = buffer;
    return buffer ? !*on_its_way : filling < GRIDFS_BATCH;
}

/* Hands over a batch that is full, and waits until the one before it is gone. What else is to be done for
 * them is done meanwhile. */
static int hand_over(struct staged *s, const struct op *op, struct fail *f)
{
    int r = staged_hash_ahead(s);
    if (r < 0)
        return r;
    staging_queue(s);
    staged_count_ahead(s, op);
    return staged_wait_sending(s, GRIDFS_BATCH, op, f);
}

int staged_open_slot(struct staged *s, int64_t n, size_t keep, const struct op *op, struct buffer **out,
                     struct fail *f)
{
    bool on_its_way;
    struct buffer *buffer;
    while (!has_room(s, n, &buffer, &on_its_way)) {
        int r = on_its_way ? staged_wait_sent(s, op, f) : hand_over(s, op, f);
        if (r < 0)
            return r;
    }
    *out = buffer;
    if (buffer)
        return 0;
    int r = buffer_get(s, n, op, &buffer, f);
    if (r < 0)
        return r;
    if (keep > 0)
        r = staged_load(s, n, buffer_data(buffer), keep, op, f);
    if (r < 0) {
        buffer_put(s->staging, buffer);
        return r;
    }
    buffer->len = (uint32_t)keep;
    pthread_mutex_lock(&s->lock);
    s->slots[s->nslots++] = buffer;
    pthread_mutex_unlock(&s->lock);
    *out = buffer;
    return 0;
}

static void set_length(struct staged *s, int64_t length)
{
    __atomic_store_n(&s->length, length, __ATOMIC_RELAXED); /* staged_length() asks at any time */
}

/* The content changes: what was hashed, or read last, of chunk n counts no more. */
static void changed(struct staged *s, int64_t n)
{
    if (s->peeked_n >= n)
        s->peeked_n = -1;
    pthread_mutex_lock(&s->lock);
    s->used = clock_now_ms();
    s->rehash = s->rehash || n < __atomic_load_n(&s->hashed, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&s->lock);
}

/* ---- what is not in memory ---- */

struct copy {
    int64_t chunk_size;
    int64_t from; /* the first byte wanted */
    size_t len;
    uint8_t *out;
};

static int copy_chunk(void *arg, int64_t n, const void *data, size_t len)
{
    const struct copy *copy = arg;
    int64_t start = n * copy->chunk_size, end = start + (int64_t)len;
    int64_t from = start > copy->from ? start : copy->from, to = copy->from + (int64_t)copy->len;
    to = end < to ? end : to;
    if (from < to)
        memcpy(copy->out + (from - copy->from), (const uint8_t *)data + (from - start), (size_t)(to - from));
    return 0;
}

static int copy_from(struct staged *s, const struct media_revision *revision, int64_t from, size_t len,
                     uint8_t *out, const struct op *op, struct fail *f)
{
    struct copy copy = {revision->chunk_size, from, len, out};
    if (len == 0)
        return 0;
    int r = chunks_fetch(s->staging->mongo, s->region, revision, from / revision->chunk_size,
                         (from + (int64_t)len - 1) / revision->chunk_size, copy_chunk, &copy, op, f);
    if (r != -ESTALE)
        return r;
    if (f)
        *f = (struct fail){0};
    return fail_set(f, EIO,
                    revision == s->own ? STAGED_LEASE_LOST
                                       : "the revision that is being changed has been deleted");
}

int staged_load(struct staged *s, int64_t n, uint8_t *out, size_t len, const struct op *op, struct fail *f)
{
    int64_t start = n * GRIDFS_CHUNK;
    pthread_mutex_lock(&s->lock);
    bool sent = spans_has(&s->sent, n);
    pthread_mutex_unlock(&s->lock);
    if (sent)
        return copy_from(s, s->own, start, len, out, op, f);
    int64_t in_base = spans_has(&s->holes, n) ? 0 : s->base_end - start;
    size_t from_base = in_base <= 0 ? 0 : in_base < (int64_t)len ? (size_t)in_base : len;
    memset(out + from_base, 0, len - from_base);
    return from_base ? copy_from(s, s->base, start, from_base, out, op, f) : 0;
}

/* The same by way of a copy: a file is read by pieces smaller than a chunk. */
static int peek(struct staged *s, int64_t n, const struct op *op, struct fail *f)
{
    if (s->peeked_n == n)
        return 0;
    if (!s->peeked && !(s->peeked = malloc(GRIDFS_CHUNK)))
        return -ENOMEM;
    s->peeked_n = -1;
    size_t len = staged_chunk_len(s, n);
    memset(s->peeked + len, 0, GRIDFS_CHUNK - len); /* the file may grow meanwhile */
    int r = staged_load(s, n, s->peeked, len, op, f);
    if (r == 0)
        s->peeked_n = n;
    return r;
}

/* ---- the calls ---- */

static int read_part(struct staged *s, uint8_t *out, int64_t n, size_t at, size_t len, const struct op *op,
                     struct fail *f)
{
    pthread_mutex_lock(&s->lock);
    struct buffer *buffer = staged_slot(s, n);
    size_t have = buffer && buffer->len > at ? buffer->len - at : 0;
    have = have < len ? have : len;
    if (buffer) { /* under the lock: it might have been sent and be gone */
        memcpy(out, buffer_data(buffer) + at, have);
        memset(out + have, 0, len - have);
    }
    pthread_mutex_unlock(&s->lock);
    if (buffer)
        return 0;
    int r = peek(s, n, op, f);
    if (r == 0)
        memcpy(out, s->peeked + at, len);
    return r;
}

int staged_read(struct staged *s, void *out, size_t size, int64_t offset, size_t *got, const struct op *op,
                struct fail *f)
{
    int r = staged_enter(s, op, f);
    if (r < 0)
        return r;
    int64_t left = s->length - offset;
    *got = 0;
    size = left <= 0 ? 0 : left < (int64_t)size ? (size_t)left : size;
    r = failed(s, f);
    while (r == 0 && *got < size) {
        int64_t at = offset + (int64_t)*got, n = at / GRIDFS_CHUNK;
        size_t in = (size_t)(at % GRIDFS_CHUNK), len = GRIDFS_CHUNK - in;
        len = len < size - *got ? len : size - *got;
        r = read_part(s, (uint8_t *)out + *got, n, in, len, op, f);
        *got += r == 0 ? len : 0;
    }
    staged_leave(s);
    return r;
}

/* A part of chunk n; NULL stands for zeros. */
static int write_part(struct staged *s, const uint8_t *data, int64_t n, size_t at, size_t len,
                      const struct op *op, struct fail *f)
{
    struct buffer *buffer;
    size_t have = staged_chunk_len(s, n);
    int r = staged_open_slot(s, n, at == 0 && len >= have ? 0 : have, op, &buffer, f);
    if (r < 0)
        return r;
    if (buffer->len < at)
        memset(buffer_data(buffer) + buffer->len, 0, at - buffer->len);
    if (data)
        memcpy(buffer_data(buffer) + at, data, len);
    else
        memset(buffer_data(buffer) + at, 0, len);
    if (buffer->len < at + len)
        buffer->len = (uint32_t)(at + len);
    buffer->hashed = false;
    if (s->length < n * GRIDFS_CHUNK + (int64_t)(at + len))
        set_length(s, n * GRIDFS_CHUNK + (int64_t)(at + len));
    changed(s, n);
    return 0;
}

static int write_range(struct staged *s, const uint8_t *data, int64_t offset, int64_t len,
                       const struct op *op, struct fail *f)
{
    int r = 0;
    for (int64_t done = 0; r == 0 && done < len;) {
        int64_t at = offset + done, n = at / GRIDFS_CHUNK;
        size_t in = (size_t)(at % GRIDFS_CHUNK), part = GRIDFS_CHUNK - in;
        part = (int64_t)part < len - done ? part : (size_t)(len - done);
        r = write_part(s, data ? data + done : NULL, n, in, part, op, f);
        done += (int64_t)part;
    }
    return r;
}

int staged_write(struct staged *s, const void *data, size_t len, int64_t offset, const struct op *op,
                 struct fail *f)
{
    if (offset > GRIDFS_LENGTH_MAX || (int64_t)len > GRIDFS_LENGTH_MAX - offset)
        return fail_set(f, EFBIG, "a file has at most %lld bytes", (long long)GRIDFS_LENGTH_MAX);
    int r = staged_enter(s, op, f);
    if (r < 0)
        return r;
    r = failed(s, f);
    if (r == 0)
        r = write_range(s, data, offset, (int64_t)len, op, f);
    staged_leave(s);
    return r;
}

/* Cuts it at a length below its own. */
static int cut(struct staged *s, int64_t length, const struct op *op, struct fail *f)
{
    int64_t n = length / GRIDFS_CHUNK;
    size_t rest = (size_t)(length % GRIDFS_CHUNK);
    struct buffer *buffer = NULL;
    int r = staged_wait_sent(s, op, f);
    if (r == 0 && rest) {
        bool there;
        pthread_mutex_lock(&s->lock);
        there = spans_has(&s->sent, n) || staged_slot(s, n);
        pthread_mutex_unlock(&s->lock);
        if (there) /* what was cut off must not come back when it grows */
            r = staged_open_slot(s, n, rest, op, &buffer, f);
        if (buffer && buffer->len > rest)
            buffer->len = (uint32_t)rest;
    }
    if (r < 0)
        return r;
    int64_t end = n + (rest > 0);
    staged_drop_slots(s, end, INT64_MAX);
    pthread_mutex_lock(&s->lock);
    r = spans_remove(&s->sent, end, INT64_MAX);
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        return r;
    set_length(s, length);
    s->base_end = s->base_end < length ? s->base_end : length;
    changed(s, n);
    return 0;
}

int staged_truncate(struct staged *s, int64_t length, const struct op *op, struct fail *f)
{
    if (length > GRIDFS_LENGTH_MAX)
        return fail_set(f, EFBIG, "a file has at most %lld bytes", (long long)GRIDFS_LENGTH_MAX);
    int r = staged_enter(s, op, f);
    if (r < 0)
        return r;
    r = failed(s, f);
    if (r == 0 && length < s->length) {
        r = cut(s, length, op, f);
    } else if (r == 0 && length > s->length) {
        int64_t last = s->length / GRIDFS_CHUNK; /* what lies behind its end are zeros already */
        set_length(s, length);
        changed(s, last);
    }
    staged_leave(s);
    return r;
}

/* Whole chunks from..to-1 become holes. */
static int drop_chunks(struct staged *s, int64_t from, int64_t to, const struct op *op, struct fail *f)
{
    int r = staged_wait_sent(s, op, f);
    if (r < 0)
        return r;
    staged_drop_slots(s, from, to);
    pthread_mutex_lock(&s->lock);
    r = spans_remove(&s->sent, from, to);
    pthread_mutex_unlock(&s->lock);
    if (r == 0)
        r = spans_add(&s->holes, from, to);
    changed(s, from);
    return r;
}

int staged_zero(struct staged *s, int64_t offset, int64_t len, const struct op *op, struct fail *f)
{
    int r = staged_enter(s, op, f);
    if (r < 0)
        return r;
    r = failed(s, f);
    int64_t end = len < s->length - offset ? offset + len : s->length;
    bool within = offset < end; /* else there is nothing to be zeroed, and `offset` may be any number */
    int64_t first = within ? (offset + GRIDFS_CHUNK - 1) / GRIDFS_CHUNK : 0, last = end / GRIDFS_CHUNK;
    if (r == 0 && within && first < last) {
        r = write_range(s, NULL, offset, first * GRIDFS_CHUNK - offset, op, f);
        r = r < 0 ? r : drop_chunks(s, first, last, op, f);
        r = r < 0 ? r : write_range(s, NULL, last * GRIDFS_CHUNK, end - last * GRIDFS_CHUNK, op, f);
    } else if (r == 0 && within) {
        r = write_range(s, NULL, offset, end - offset, op, f);
    }
    staged_leave(s);
    return r;
}

int staged_sync(struct staged *s, const struct op *op, struct fail *f)
{
    int64_t held = 0;
    int r = staged_enter(s, op, f);
    if (r < 0)
        return r;
    r = staged_wait_sent(s, op, f);
    if (r == 0) {
        staging_queue(s);
        r = staged_wait_sent(s, op, f);
    }
    if (r == 0 && s->journalled) /* what somebody has swept is on no disk */
        r = bucket_renew(s->staging->mongo, s->region, &s->id, 1, &held, op, f);
    if (r == 0 && s->journalled && held != 1)
        r = fail_set(f, EIO, "%s", STAGED_LEASE_LOST);
    staged_leave(s);
    return r;
}

/* ---- from beginning to end ---- */

int staged_new(struct staging *staging, const char *region, const char *filename, struct media_revision *base,
               struct staged **out)
{
    struct staged *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->staging = staging;
    s->region = strdup(region);
    s->filename = strdup(filename);
    if (!s->region || !s->filename) {
        free(s->region);
        free(s->filename);
        free(s);
        return -ENOMEM;
    }
    s->base = media_revision_ref(base);
    s->length = s->base_end = base ? base->length : 0;
    s->peeked_n = -1;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->settled, NULL);
    pthread_mutex_lock(&staging->lock);
    list_add(&staging->all, &s->entry);
    pthread_mutex_unlock(&staging->lock);
    *out = s;
    return 0;
}

void staged_free(struct staged *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->staging->lock);
    list_remove(&s->entry);
    pthread_mutex_unlock(&s->staging->lock);
    pthread_mutex_lock(&s->lock);
    while (s->sending > 0)
        pthread_cond_wait(&s->settled, &s->lock);
    pthread_mutex_unlock(&s->lock);
    staged_drop_slots(s, 0, INT64_MAX);
    if (s->journalled)
        staging_give_up(s);
    EVP_MD_CTX_free(s->sha256);
    spans_clear(&s->sent);
    spans_clear(&s->touched);
    spans_clear(&s->holes);
    media_revision_unref(s->base);
    media_revision_unref(s->own);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->settled);
    free(s->peeked);
    free(s->region);
    free(s->filename);
    free(s);
}

int64_t staged_length(struct staged *s)
{
    return __atomic_load_n(&s->length, __ATOMIC_RELAXED);
}
