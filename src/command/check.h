/*
 * campusfs check: does what lies on several shards agree, and is what the database derives right? Each part
 * looks for one kind of fault, tells each by check_found(), and with --repair mends what can be mended
 * without guessing. A part is a line of the table in check.c and a function.
 *
 * One thread. Questions go to primaries, where there are; each has a deadline of its own (the key timeout),
 * so a part walks large tables by the page.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/config.h"
#include "base/fail.h"
#include "base/progress.h"
#include "shard/cluster.h"

enum {
    CHECK_LISTED = 1000, /* faults of one part that are told one by one; beyond, they are counted */
    CHECK_PAGE = 2000,   /* rows whose parts are counted in one question */
    CHECK_IDS = 50000,   /* rows of which the id is looked at */
};

struct check;

struct check_part {
    const char *name;
    const char *summary; /* of what is checked, for --help */
    bool optional;       /* runs only where it is named */
    /* 0, also when faults were found; -errno when it could not be checked, with why in *f. */
    int (*run)(struct check *check, struct fail *f);
};

struct check {
    const struct config *config;
    struct cluster *cluster;
    bool repair;
    struct progress progress;
    uint64_t rows; /* seen by this part */

    /* What this part has found. */
    json_t *findings;
    size_t found, repaired;
};

/* A fault, in words, on a shard (NULL: on none in particular); `repaired`: it is no more. */
__attribute__((format(printf, 4, 5))) void check_found(struct check *check, const struct shard *shard,
                                                       bool repaired, const char *format, ...);
/* So many rows more have been seen, for the progress bar. */
void check_saw(struct check *check, uint64_t rows);

/* One question, and one change. Errors as of shard_sync_read() and shard_write(). */
int check_ask(struct check *check, struct shard *shard, const struct pg_statement *statement,
              const char *const *params, struct pg_rows **rows, struct fail *f);
int check_change(struct check *check, struct shard *shard, const struct pg_statement *statement,
                 const char *const *params, struct pg_rows **rows, struct fail *f);

/* "{1,2,3}": the numbers of all shards, the one that keeps strange ids first. */
void check_shard_numbers(const struct check *check, char *out, size_t size);

int check_transfers(struct check *check, struct fail *f);
int check_names(struct check *check, struct fail *f);
int check_ids(struct check *check, struct fail *f);
int check_categories(struct check *check, struct fail *f);
int check_regions(struct check *check, struct fail *f);
int check_derived(struct check *check, struct fail *f);
int check_sequences(struct check *check, struct fail *f);
int check_preferences(struct check *check, struct fail *f);
int check_media(struct check *check, struct fail *f);
int check_checksums(struct check *check, struct fail *f);
