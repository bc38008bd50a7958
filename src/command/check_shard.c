/* What one shard can be asked alone: leftovers of moves, regions, derived values, sequences. */
#include "command/check.h"

#include "base/cleanup.h"
#include "entity/transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

enum { NUMBER_TEXT = 24 };

/* ---- transfers ---- */

static void found_transfer(void *arg, const struct transfer_found *found)
{
    check_found(arg, found->shard, found->settled, "%s", found->message);
}

int check_transfers(struct check *check, struct fail *f)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < cluster_shards(check->cluster); i++) {
        struct shard *shard = cluster_shard(check->cluster, i);
        struct op op = op_within(check->config->timeout_ms);
        struct transfer_search search = {
            /* What may be under way is no leftover; to settle it does no harm. */
            .age_ms = check->repair ? 0 : check->config->timeout_ms,
            .thorough = true,
            .settle = check->repair,
            .found = found_transfer,
            .arg = check};
        r = transfers_settle(check->cluster, shard, &search, &op, f);
    }
    return r;
}

/* ---- regions ---- */

int check_regions(struct check *check, struct fail *f)
{
    static const struct pg_statement statement = {"check_regions",
                                                  "SELECT collection, region, rows FROM check_regions()", 0};
    int r = 0;
    for (size_t i = 0; r == 0 && i < cluster_shards(check->cluster); i++) {
        struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
        struct shard *shard = cluster_shard(check->cluster, i);
        r = check_ask(check, shard, &statement, NULL, &rows, f);
        for (size_t n = 0; r == 0 && n < pg_rows_count(rows); n++)
            check_found(check, shard, false, "%s rows of %s, region %s, which lives on another shard",
                        pg_rows_text(rows, n, 2), pg_rows_text(rows, n, 0), pg_rows_text(rows, n, 1));
    }
    return r;
}

/* ---- derived values ---- */

enum { PAGE_LAST, PAGE_SEEN, PAGE_ID, PAGE_REGION, PAGE_MESSAGE };

struct derived {
    const char *folder;
    struct pg_statement page, repair;
};

static const struct derived derived[] = {
    {"courses",
     {"check_courses", "SELECT last, seen, id, region, message FROM check_courses($1::bigint, $2::bigint)",
      2},
     {"repair_courses", "SELECT repair_courses(ARRAY[$1::bigint])", 1}},
    {"enrollments",
     {"check_enrollments",
      "SELECT last, seen, id, region, message FROM check_enrollments($1::bigint, $2::bigint)", 2},
     {"repair_enrollments", "SELECT repair_enrollments(ARRAY[$1::bigint])", 1}},
};

/* One page of one collection; *last is where the next one begins, 0 behind the end. */
static int derived_page(struct check *check, struct shard *shard, const struct derived *what, int64_t *last,
                        struct fail *f)
{
    char after[NUMBER_TEXT], limit[NUMBER_TEXT];
    snprintf(after, sizeof after, "%" PRId64, *last);
    snprintf(limit, sizeof limit, "%d", CHECK_PAGE);
    const char *params[] = {after, limit};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = check_ask(check, shard, &what->page, params, &rows, f);
    if (r < 0)
        return r;
    *last = pg_rows_count(rows) ? pg_rows_i64(rows, 0, PAGE_LAST, 0) : 0;
    check_saw(check, pg_rows_count(rows) ? (uint64_t)pg_rows_i64(rows, 0, PAGE_SEEN, 0) : 0);
    for (size_t i = 1; r == 0 && i < pg_rows_count(rows); i++) {
        const char *id[] = {pg_rows_text(rows, i, PAGE_ID)};
        struct pg_rows *changed CLEANUP(pg_rows_freep) = NULL;
        if (check->repair)
            r = check_change(check, shard, &what->repair, id, &changed, f);
        check_found(check, shard, check->repair && r == 0, "regions/%s/%s/%s.json: %s",
                    pg_rows_text(rows, i, PAGE_REGION), what->folder, id[0],
                    pg_rows_text(rows, i, PAGE_MESSAGE));
    }
    return r;
}

int check_derived(struct check *check, struct fail *f)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < cluster_shards(check->cluster); i++)
        for (size_t k = 0; r == 0 && k < sizeof derived / sizeof derived[0]; k++) {
            int64_t last = 0;
            do {
                r = derived_page(check, cluster_shard(check->cluster, i), &derived[k], &last, f);
            } while (r == 0 && last);
        }
    return r;
}

/* ---- sequences ---- */

int check_sequences(struct check *check, struct fail *f)
{
    static const struct pg_statement look = {"check_sequences",
                                             "SELECT sequence, last, behind FROM check_sequences()", 0};
    static const struct pg_statement mend = {"repair_sequences",
                                             "SELECT sequence, moved_to FROM repair_sequences()", 0};
    int r = 0;
    for (size_t i = 0; r == 0 && i < cluster_shards(check->cluster); i++) {
        struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
        struct shard *shard = cluster_shard(check->cluster, i);
        r = check_ask(check, shard, &look, NULL, &rows, f);
        bool mended = false;
        if (r == 0 && check->repair && pg_rows_count(rows)) {
            struct pg_rows *moved CLEANUP(pg_rows_freep) = NULL;
            r = check_change(check, shard, &mend, NULL, &moved, f);
            mended = r == 0;
        }
        for (size_t n = 0; rows && n < pg_rows_count(rows); n++)
            check_found(check, shard, mended, "%s stands at %s, but what follows is taken, up to %s",
                        pg_rows_text(rows, n, 0), pg_rows_text(rows, n, 1), pg_rows_text(rows, n, 2));
    }
    return r;
}
