/*
 * How old a replica is, by our own clock: the positions that a shard's primary was seen at, and when. A
 * replica that has not replayed one of them is as old as the first of those.
 *
 * Why not otherwise: a row that is updated every second, a heartbeat, costs every primary a write, a flush
 * and WAL for ever, from every mount; and its age, as that of the last replayed commit, compares the clocks
 * of two machines, which may be an hour apart. The last commit's age also grows while nobody writes, and a
 * receiver whose network is dead takes itself to be up to date. Positions cost nothing (they come with what
 * the primary is asked anyway, and with our own commits), need one clock, and say nothing behind when there
 * is nothing behind. What they need is a primary that answers; without one a replica is as old as the time
 * since it was last heard.
 *
 * Resolution: as often as the primary is asked or its stream gives a sign of life, coarser for what is longer
 * ago; never forgets how far back it reaches. Not locked.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { TRAIL_POINTS = 64 };

struct trail {
    uint32_t timeline; /* all are of this one */
    unsigned n;
    struct trail_point {
        uint64_t lsn;
        int64_t ms;         /* clock_now_ms() when it was first seen there */
    } points[TRAIL_POINTS]; /* ascending */
    int64_t heard;          /* clock_now_ms() when the primary last said anything; 0 = never */
};

/* The primary is at `lsn` now. A newer timeline begins anew, an older one is not taken. */
void trail_add(struct trail *trail, uint32_t timeline, uint64_t lsn, int64_t now);

/* The newest position, 0 = none. */
uint64_t trail_head(const struct trail *trail);

/* How long ago what lies behind `lsn` was first seen, 0 when nothing does, -1 when no point is known. */
int64_t trail_age(const struct trail *trail, uint64_t lsn, int64_t now);
