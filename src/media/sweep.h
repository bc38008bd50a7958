/*
 * The sweep: what uploads that ended by a crash have left, and revisions that were replaced or deleted and
 * whose readers have had their time, are removed from the database; but a revision stays as long as none that
 * replaced it has all its chunks. It goes by the journal (media/bucket.h)
 * alone, so it never touches what another program writes. `campusfs check --media` finds what no journal
 * tells.
 *
 * A thread of its own, at intervals with some jitter; a bounded number of entries a round. Of all mounts one
 * sweeps a region, the one that has the lease in <bucket>.uploads ({_id: "sweep", owner, until}).
 */
#pragma once

#include "base/config.h"
#include "media/mongo.h"

struct media_sweep;

struct media_sweep_options {
    int64_t every_ms; /* between two rounds */
    int64_t keep_ms;  /* how long a revision stays after it was replaced or deleted */
    int64_t step_ms;  /* how long one message may take */
};

/* What was done, since the start or in a round. */
struct media_swept {
    uint64_t uploads;   /* that had ended without being published */
    uint64_t revisions; /* replaced or deleted */
    uint64_t chunks;    /* of both */
};

/* Starts the thread. Pool and configuration are borrowed. */
int media_sweep_start(const struct config *config, struct mongo *mongo,
                      const struct media_sweep_options *options, struct media_sweep **out);
/* Has it end soon, and does not wait for it. Takes NULL. */
void media_sweep_ending(struct media_sweep *sweep);
/* Ends it, when the message that is on its way is answered. Takes NULL. */
void media_sweep_stop(struct media_sweep *sweep);
void media_sweep_stats(struct media_sweep *sweep, struct media_swept *swept);

/*
 * One round in one region, here and now, whoever has the lease; *left whether there is more to be done at
 * once. An upload whose lease has ended is claimed in one round and swept in the next: what its writer had on
 * its way to the server is seen then. -EINTR between two entries. Also for `campusfs check --repair`.
 */
int media_sweep_region(struct mongo *mongo, const char *region, const struct media_sweep_options *options,
                       const struct op *op, struct media_swept *swept, bool *left, struct fail *f);
