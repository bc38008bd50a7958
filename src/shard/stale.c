/*
 * An answer that may be older than it should be is better than none, where the configuration says so, and is
 * told: in health.json and the metrics while it lasts, and in the log when it begins and when it is over.
 */
#include "shard/shard_private.h"

#include "base/log.h"

#include <inttypes.h>

void stale_note(struct shard *shard, const struct node *node, bool missed)
{
    struct stale *stale = &shard->stale;
    pthread_mutex_lock(&shard->lock);
    if (!missed && node->state == NODE_REPLICA) {
        pthread_mutex_unlock(&shard->lock);
        return; /* it was only slow at first */
    }
    bool news = !atomic_exchange(&stale->told, true);
    stale->total++;
    stale->last = clock_now_ms();
    stale->age_ms = node->facts.lag_ms;
    int64_t age = stale->age_ms;
    pthread_mutex_unlock(&shard->lock);
    if (news && age != NODE_LAG_UNKNOWN)
        log_warning("shard %s: reads are answered by node %s, which may be %" PRId64 " ms behind",
                    shard->self->name, node->name, age);
    else if (news)
        log_warning("shard %s: reads are answered by node %s, nobody knows how far behind", shard->self->name,
                    node->name);
}

void stale_over(struct shard *shard)
{
    if (atomic_load(&shard->stale.told) && atomic_exchange(&shard->stale.told, false))
        log_info("shard %s: reads are up to date again", shard->self->name);
}
