/*
 * Read-your-writes. After a commit the primary's flush LSN is asked on the same connection; whoever reads
 * later gets a node that has replayed that far. (The insert LSN would also wait for transactions that are
 * still open, and can name a place that no record ever reaches.)
 */
#include "shard/shard_private.h"

const struct pg_statement position_statement = {"node_position", NULL, 0};

struct position token_read(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    struct position token = shard->token;
    if (shard->token_lost)
        token.lsn = UINT64_MAX;
    pthread_mutex_unlock(&shard->lock);
    return token;
}

int64_t token_age_us(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    int64_t moved = shard->token_moved_us;
    pthread_mutex_unlock(&shard->lock);
    return clock_now_us() - moved;
}

uint64_t token_begin(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    uint64_t begun = shard->lost;
    pthread_mutex_unlock(&shard->lock);
    return begun;
}

void token_move(struct shard *shard, uint64_t begun, struct position position)
{
    int64_t now = clock_now_us();
    pthread_mutex_lock(&shard->lock);
    if (position.timeline > shard->token.timeline ||
        (position.timeline == shard->token.timeline && position.lsn > shard->token.lsn)) {
        shard->token = position;
        shard->token_moved_us = now;
    }
    if (begun != UINT64_MAX)
        trail_add(&shard->trail, position.timeline, position.lsn, clock_now_ms());
    /* A position asked after the last loss covers it; one asked before may not. */
    if (begun == shard->lost && position.timeline >= shard->token.timeline)
        shard->token_lost = false;
    pthread_mutex_unlock(&shard->lock);
}

void token_lose(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    shard->lost++;
    shard->token_lost = true;
    pthread_mutex_unlock(&shard->lock);
}
