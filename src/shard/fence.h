/*
 * What must not be forgotten when a mount ends: each shard's newest timeline and its system identifier.
 * Without it a mount that starts while only a returned old primary is up would write to that one.
 *
 * Kept in state_dir/timelines.json, replaced at once and flushed; several mounts may share the folder, the
 * newest wins. Without a state_dir nothing is kept. Delete the file when a shard has been made anew from
 * something older (a restore, pg_upgrade): then what the nodes say counts again.
 *
 * Thread-safe.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/config.h"

struct fence;

struct fence_mark {
    uint32_t timeline; /* 0 = none known */
    uint64_t system;   /* 0 = not known */
};

/* Reads what is kept; a file that cannot be read or understood is a warning. NULL when out of memory. */
struct fence *fence_open(const struct config *config);
void fence_free(struct fence *fence);

/* What is known of the shard of that index in the configuration. */
struct fence_mark fence_known(struct fence *fence, size_t shard);

/*
 * Keeps a newer timeline, and a system that was not known, and returns when that is on the disk. Cheap when
 * it is already. What cannot be written, or not within two seconds because another process keeps the file
 * locked, is a warning, once, and tried again by who comes ten seconds later.
 */
void fence_keep(struct fence *fence, size_t shard, struct fence_mark mark);
