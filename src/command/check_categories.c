/*
 * Categories: the first shard has the say, and serves the reads; the others have copies, which their courses
 * refer to. A copy that differs is made anew, times and all; one that the first shard does not have is
 * deleted where nothing there needs it.
 */
#include "command/check.h"

#include "base/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

enum { NUMBER_TEXT = 24, CATEGORIES_MAX = 100000, WHY_TEXT = 200 };

/* Where a copy differs. */
struct difference {
    const char *id, *want; /* borrowed; want NULL = it is to go */
    bool mended;
    char why[WHY_TEXT]; /* not */
};

static int read_all(struct check *check, struct shard *shard, struct pg_rows **rows, struct fail *f)
{
    static const struct pg_statement statement = {
        "check_categories", "SELECT id, body FROM doc_categories ORDER BY region, id LIMIT $1::bigint", 1};
    char limit[NUMBER_TEXT];
    snprintf(limit, sizeof limit, "%d", CATEGORIES_MAX + 1);
    const char *params[] = {limit};
    int r = check_ask(check, shard, &statement, params, rows, f);
    if (r == 0 && pg_rows_count(*rows) > CATEGORIES_MAX)
        r = fail_set(f, EFBIG, "shard %s: more than %d categories", shard_name(shard), CATEGORIES_MAX);
    if (r == 0)
        check_saw(check, pg_rows_count(*rows));
    return r;
}

/* Both lists are in the order of ids. `out` has room for all of both; returns how many there are. */
static size_t compare(const struct pg_rows *wanted, const struct pg_rows *there, struct difference *out)
{
    size_t n = 0, w = 0, t = 0;
    while (w < pg_rows_count(wanted) || t < pg_rows_count(there)) {
        int64_t want = w < pg_rows_count(wanted) ? pg_rows_i64(wanted, w, 0, 0) : INT64_MAX;
        int64_t have = t < pg_rows_count(there) ? pg_rows_i64(there, t, 0, 0) : INT64_MAX;
        if (have < want)
            out[n++] = (struct difference){.id = pg_rows_text(there, t, 0)};
        else if (want < have || strcmp(pg_rows_text(wanted, w, 1), pg_rows_text(there, t, 1)) != 0)
            out[n++] =
                (struct difference){.id = pg_rows_text(wanted, w, 0), .want = pg_rows_text(wanted, w, 1)};
        w += want <= have;
        t += have <= want;
    }
    return n;
}

static int mend(struct check *check, struct shard *shard, struct difference *difference)
{
    static const struct pg_statement put = {"repair_category", "SELECT repair_category($1::jsonb)", 1};
    static const struct pg_statement delete = {
        "check_delete_category", "SELECT delete_categories(0::smallint, $1::bigint, NULL, 'campusfs check')",
        1};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    const char *params[] = {difference->want ? difference->want : difference->id};
    struct fail why = {.err = 0};
    int r = check_change(check, shard, difference->want ? &put : &delete, params, &rows, &why);
    snprintf(difference->why, sizeof difference->why, "%.*s", WHY_TEXT - 1, r < 0 ? why.message : "");
    return r;
}

/* Again and again as long as it gets on: a category comes behind the wider one, and goes before it. Those
 * that are to go go first, since they may have a slug that another one wants. */
static void mend_all(struct check *check, struct shard *shard, struct difference *differences, size_t n)
{
    bool progress = true;
    while (progress) {
        progress = false;
        for (size_t i = 0; i < 2 * n; i++) {
            struct difference *at = &differences[i % n];
            if (at->mended || (i < n) != (at->want == NULL))
                continue;
            at->mended = mend(check, shard, at) == 0;
            progress = progress || at->mended;
        }
    }
}

static int check_copy(struct check *check, struct shard *shard, const struct pg_rows *wanted, struct fail *f)
{
    struct pg_rows *there CLEANUP(pg_rows_freep) = NULL;
    int r = read_all(check, shard, &there, f);
    if (r < 0)
        return r;
    struct difference *differences CLEANUP(freep) =
        calloc(pg_rows_count(wanted) + pg_rows_count(there) + 1, sizeof *differences);
    if (!differences)
        return fail_set(f, ENOMEM, "out of memory");
    size_t n = compare(wanted, there, differences);
    if (check->repair)
        mend_all(check, shard, differences, n);
    for (size_t i = 0; i < n; i++)
        check_found(check, shard, differences[i].mended, "categories/%s.json %s%s%s", differences[i].id,
                    differences[i].want ? "is not as on the first shard" : "is not on the first shard",
                    *differences[i].why ? ": " : "", differences[i].why);
    return 0;
}

int check_categories(struct check *check, struct fail *f)
{
    struct pg_rows *wanted CLEANUP(pg_rows_freep) = NULL;
    int r = read_all(check, cluster_shard(check->cluster, 0), &wanted, f);
    for (size_t i = 1; r == 0 && i < cluster_shards(check->cluster); i++)
        r = check_copy(check, cluster_shard(check->cluster, i), wanted, f);
    return r;
}
