#include "entity/noted.h"

uint64_t noted_begin(struct noted *noted)
{
    return ++noted->epoch;
}

void noted_add(struct noted *noted, const struct row_change *change, bool own)
{
    noted->ring[noted->count++ % NOTED_MAX] =
        (struct noted_change){.change = *change, .epoch = noted->epoch, .own = own};
}

/* Whether two keys have a row in common; an id and a collection of 0 stand for all. */
static bool keys_meet(const struct row_key *a, const struct row_key *b)
{
    return (a->collection == b->collection || a->collection == 0 || b->collection == 0) &&
           a->region == b->region && (a->id == b->id || a->id == 0 || b->id == 0);
}

/* The changes since an epoch from the latest back: the one before `at` (noted->count at first), NULL when
 * there is none. */
static const struct noted_change *before(const struct noted *noted, uint64_t at, uint64_t epoch)
{
    uint64_t oldest = noted->count > NOTED_MAX ? noted->count - NOTED_MAX : 0;
    const struct noted_change *change = &noted->ring[(at - 1) % NOTED_MAX];
    return at > oldest && change->epoch > epoch ? change : NULL;
}

/* Whether changes since an epoch are no longer remembered. */
static bool is_forgotten(const struct noted *noted, uint64_t epoch)
{
    return noted->count > NOTED_MAX && noted->ring[noted->count % NOTED_MAX].epoch > epoch;
}

bool noted_since(const struct noted *noted, const struct row_key *key, uint64_t epoch)
{
    const struct noted_change *change;
    for (uint64_t at = noted->count; (change = before(noted, at, epoch)); at--)
        if (keys_meet(&change->change.key, key))
            return true;
    return is_forgotten(noted, epoch);
}

bool noted_any_since(const struct noted *noted, uint64_t epoch)
{
    return before(noted, noted->count, epoch) != NULL;
}

bool noted_newer_since(const struct noted *noted, const struct row_key *key, uint64_t rev, uint64_t epoch)
{
    const struct noted_change *change;
    for (uint64_t at = noted->count; (change = before(noted, at, epoch)); at--)
        if (!change->own && keys_meet(&change->change.key, key) &&
            (change->change.rev == 0 || change->change.rev > rev))
            return true;
    return is_forgotten(noted, epoch);
}
