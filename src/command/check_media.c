/* The parts of `campusfs check` that look at media (media/check.h). */
#include <stdio.h>

#include "command/check.h"
#include "media/check.h"

enum { STEP_MS = 60000 };

struct run {
    struct check *check;
    const char *region;
    uint64_t seen; /* files told as seen, of this region */
};

static void found(void *arg, const struct media_problem *problem)
{
    struct run *run = arg;
    const char *name = problem->filename ? problem->filename : "";
    check_found(run->check, NULL, problem->repaired, "%s: regions/%s/media/%s (revision %s): %s",
                problem->kind, run->region, name, problem->id, problem->detail);
}

static void progress(void *arg, uint64_t files, uint64_t bytes)
{
    struct run *run = arg;
    (void)bytes;
    check_saw(run->check, files - run->seen);
    run->seen = files;
}

static int check_regions_of(struct check *check, bool checksums, struct fail *f)
{
    CLEANUP(mongo_closep) struct mongo *mongo = NULL;
    const struct config *config = check->config;
    struct run run = {.check = check};
    struct media_check media = {.repair = check->repair && !checksums,
                                .checksums = checksums,
                                .keep_ms = config->media_keep_ms,
                                .step_ms = STEP_MS,
                                .found = found,
                                .progress = progress,
                                .arg = &run};
    int r = *config->mongodb_uri ? mongo_open(config->mongodb_uri, 2, 0, &mongo, f) : 0;
    for (size_t i = 0; r == 0 && mongo && i < config->nregions; i++) {
        struct media_checked checked = {0};
        run.region = config->regions[i].name;
        run.seen = 0;
        r = media_check_region(mongo, run.region, &media, &checked, f);
    }
    return r;
}

int check_media(struct check *check, struct fail *f)
{
    return check_regions_of(check, false, f);
}

int check_checksums(struct check *check, struct fail *f)
{
    return check_regions_of(check, true, f);
}
