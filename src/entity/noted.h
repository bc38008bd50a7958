/*
 * What has been noted lately of a shard's rows, so that what was read meanwhile is judged row by row: a page
 * of a listing is as good as it was although other rows change all the time.
 *
 * An epoch counts what has been noted; "since an epoch" is what came later. The last NOTED_MAX changes are
 * remembered; about what may have been forgotten the answer is yes. Not thread-safe: freshness.c's lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "entity/changes.h"

enum { NOTED_MAX = 1024 };

struct noted {
    struct noted_change {
        struct row_change change;
        uint64_t epoch;
        bool own;
    } ring[NOTED_MAX];
    uint64_t count; /* all that have been noted; the last of them lies at (count - 1) % NOTED_MAX */
    uint64_t epoch;
};

/* Something has happened; what is noted next belongs to the new epoch, which is returned. */
uint64_t noted_begin(struct noted *noted);
/* `own`: by a save of ours, whose revision we get to know otherwise. */
void noted_add(struct noted *noted, const struct row_change *change, bool own);

/* Whether a change of the row (of id 0: of any row of the folder) was noted since the epoch. */
bool noted_since(const struct noted *noted, const struct row_key *key, uint64_t epoch);
/* Whether anything was. */
bool noted_any_since(const struct noted *noted, uint64_t epoch);
/* Whether somebody's change was that led to a later revision than `rev`, or perhaps did. */
bool noted_newer_since(const struct noted *noted, const struct row_key *key, uint64_t rev, uint64_t epoch);
