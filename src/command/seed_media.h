/* The MongoDB side of seed: preferences of users, and files of two courses a region. */
#pragma once

#include "base/config.h"
#include "base/fail.h"
#include "command/seed_plan.h"

struct seed_media_counts {
    int64_t files, bytes, preferences;
};

/*
 * Writes them to the database that config->mongodb_uri names. `again` says that a run before may have written
 * some, which are replaced then; else the collections must be empty: -EEXIST, and nothing is written. -EIO
 * and the others of media_error_set(). `arg` is passed to `done`, which hears of every document and file from
 * this thread.
 */
int seed_media_load(const struct config *config, const struct seed_plan *plan, bool again,
                    struct seed_media_counts *counts, void (*done)(void *arg, int64_t n), void *arg,
                    struct fail *f);

/* Checks, without writing, that seed_media_load() could begin. */
int seed_media_check(const struct config *config, bool again, struct fail *f);

/* How many preferences the plan has. */
int64_t seed_media_preferences(const struct seed_plan *plan);
