#include "shard/trail.h"

#include <stddef.h>

enum { APART_MS = 50 };

/* Full: every second point goes, so that the trail reaches back twice as far. The first and last stay. */
static void thin_out(struct trail *trail)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < trail->n; i += 2)
        trail->points[kept++] = trail->points[i];
    if (trail->n % 2 == 0)
        trail->points[kept++] = trail->points[trail->n - 1];
    trail->n = kept;
}

void trail_add(struct trail *trail, uint32_t timeline, uint64_t lsn, int64_t now)
{
    if (timeline < trail->timeline)
        return;
    if (timeline > trail->timeline)
        *trail = (struct trail){.timeline = timeline};
    trail->heard = now;
    const struct trail_point *last = trail->n ? &trail->points[trail->n - 1] : NULL;
    if (last && (lsn <= last->lsn || now - last->ms < APART_MS))
        return;
    if (trail->n == TRAIL_POINTS)
        thin_out(trail);
    trail->points[trail->n++] = (struct trail_point){lsn, now};
}

uint64_t trail_head(const struct trail *trail)
{
    return trail->n ? trail->points[trail->n - 1].lsn : 0;
}

int64_t trail_age(const struct trail *trail, uint64_t lsn, int64_t now)
{
    for (unsigned i = 0; i < trail->n; i++)
        if (trail->points[i].lsn > lsn)
            return now - trail->points[i].ms;
    return trail->n ? 0 : -1;
}
