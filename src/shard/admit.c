/*
 * How many operations of a shard may do what costs others: wait for its next primary, each with a thread of
 * the mount and its text in memory, or go to the primary for want of a replica.
 */
#include "shard/shard_private.h"

#include <errno.h>
#include <time.h>

/* ---- writes that wait for a primary ---- */

int admit_hold(struct shard *shard, size_t bytes, struct fail *f)
{
    const struct config *config = shard->config;
    struct admitted *a = &shard->admitted;
    pthread_mutex_lock(&shard->lock);
    bool full = a->held >= config->failover_writes || a->held_bytes + bytes > config->failover_size;
    if (full) {
        a->held_refused++;
    } else {
        a->held++;
        a->held_bytes += bytes;
        a->held_total++;
    }
    unsigned held = a->held;
    pthread_mutex_unlock(&shard->lock);
    if (full && config->failover_writes > 0)
        return fail_set(f, EROFS, "no primary can be reached: shard %s: %u saves wait for the next already",
                        shard->self->name, held);
    return full ? -EROFS : 0; /* where none may wait there is nothing to say but why there is none */
}

void admit_release(struct shard *shard, size_t bytes)
{
    pthread_mutex_lock(&shard->lock);
    shard->admitted.held--;
    shard->admitted.held_bytes -= bytes;
    pthread_mutex_unlock(&shard->lock);
}

void admit_wait(struct shard *shard, int64_t ms)
{
    pthread_mutex_lock(&shard->lock);
    wait_until(&shard->changed, &shard->lock, clock_now_ms() + ms);
    pthread_mutex_unlock(&shard->lock);
}

/* ---- reads that fall back to the primary ---- */

/* A shard of one node has no replica to fall back from. */
static unsigned fallen_max(const struct shard *shard)
{
    unsigned size = shard->config->pool_size;
    unsigned max = shard->nnodes > 1 ? size * shard->config->primary_reads / 100 : size;
    return max > 0 ? max : 1;
}

int admit_fall_back(struct shard *shard, const struct op *op, struct fail *f)
{
    struct admitted *a = &shard->admitted;
    int r = 0;
    pthread_mutex_lock(&shard->lock);
    while (r == 0 && a->fallen >= fallen_max(shard)) {
        int64_t left = op_left_ms(op);
        if (left == 0) {
            r = fail_set(f, EIO, "shard %s: no replica can answer, and %u reads are at the primary already",
                         shard->self->name, a->fallen);
            continue;
        }
        wait_until(&shard->changed, &shard->lock, clock_now_ms() + (left < OP_SLICE_MS ? left : OP_SLICE_MS));
        /* An operation may be interrupted because of a pool's state, which takes locks to be known. */
        pthread_mutex_unlock(&shard->lock);
        bool interrupted = op_interrupted(op);
        pthread_mutex_lock(&shard->lock);
        if (interrupted)
            r = fail_set(f, EINTR, "shard %s: interrupted", shard->self->name);
    }
    if (r == 0) {
        a->fallen++;
        a->fallen_total++;
    }
    pthread_mutex_unlock(&shard->lock);
    return r;
}

void admit_leave(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    shard->admitted.fallen--;
    pthread_cond_broadcast(&shard->changed); /* saves wait there as well */
    pthread_mutex_unlock(&shard->lock);
}
