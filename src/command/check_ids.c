/*
 * Ids: each has one row on all shards together. The home of an id, the shard whose number it has, keeps a
 * claim for every row of it that lives elsewhere (docs/data-model.md).
 */
#include "command/check.h"

#include "base/cleanup.h"
#include "entity/collection.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

enum { NUMBER_TEXT = 24 };

/* The columns of a page: where it ended, in its first row; then ids by the shard that they concern. */
enum { PAGE_LAST, PAGE_SEEN, PAGE_SHARD, PAGE_IDS };

/* Walks one collection on one shard, and has `look` at each group of ids. */
struct walk {
    struct check *check;
    struct shard *shard;
    const struct collection *collection;
    const struct pg_statement *page; /* the last two of `params` are set here: behind which id, how many */
    const char *params[4];
    unsigned nparams; /* before those two */
    int (*look)(const struct walk *walk, unsigned shard, const char *ids, struct fail *f);
    char number[NUMBER_TEXT]; /* of the collection */
};

static int walk(struct walk *walk, struct fail *f)
{
    int64_t last = 0;
    int r;
    do {
        char after[NUMBER_TEXT], limit[NUMBER_TEXT];
        struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
        snprintf(after, sizeof after, "%" PRId64, last);
        snprintf(limit, sizeof limit, "%d", CHECK_IDS);
        walk->params[walk->nparams] = after;
        walk->params[walk->nparams + 1] = limit;
        r = check_ask(walk->check, walk->shard, walk->page, walk->params, &rows, f);
        last = 0;
        for (size_t i = 0; r == 0 && i < pg_rows_count(rows); i++) {
            if (pg_rows_text(rows, i, PAGE_SEEN)) {
                last = pg_rows_i64(rows, i, PAGE_LAST, 0);
                check_saw(walk->check, (uint64_t)pg_rows_i64(rows, i, PAGE_SEEN, 0));
            } else {
                r = walk->look(walk, (unsigned)pg_rows_i64(rows, i, PAGE_SHARD, 0),
                               pg_rows_text(rows, i, PAGE_IDS), f);
            }
        }
    } while (r == 0 && last);
    return r;
}

/* ---- claims whose rows are gone ---- */

static int drop_claim(const struct walk *walk, unsigned shard, const char *id, struct fail *f)
{
    static const struct pg_statement statement = {
        "repair_claims", "SELECT repair_claims($1::smallint, ARRAY[$2::bigint], $3::smallint)", 3};
    char shard_text[NUMBER_TEXT];
    snprintf(shard_text, sizeof shard_text, "%u", shard);
    const char *params[] = {walk->number, id, shard_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    return check_change(walk->check, walk->shard, &statement, params, &rows, f);
}

/* Ids that are claimed here for a shard: those that it does not have need no claim. */
static int look_at_claimed(const struct walk *walk, unsigned number, const char *ids, struct fail *f)
{
    static const struct pg_statement statement = {"check_unused",
                                                  "SELECT check_unused($1::smallint, $2::bigint[])", 2};
    const char *params[] = {walk->number, ids};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    struct shard *shard = cluster_shard_numbered(walk->check->cluster, number);
    if (!shard) {
        check_found(walk->check, walk->shard, false,
                    "ids of %s are claimed for shard number %u, which is not "
                    "configured: %.200s",
                    walk->collection->folder, number, ids);
        return 0;
    }
    int r = check_ask(walk->check, shard, &statement, params, &rows, f);
    const char *unused = r == 0 && pg_rows_count(rows) ? pg_rows_text(rows, 0, 0) : NULL;
    for (char *end; r == 0 && unused && *unused && *unused != '}'; unused = end) {
        char id[NUMBER_TEXT];
        snprintf(id, sizeof id, "%lld", strtoll(unused + 1, &end, 10));
        if (end == unused + 1)
            break;
        if (walk->check->repair)
            r = drop_claim(walk, number, id, f);
        check_found(walk->check, walk->shard, walk->check->repair && r == 0,
                    "%s %s is claimed for shard %s, which has no such row", walk->collection->folder, id,
                    shard_name(shard));
    }
    return r;
}

/* ---- rows whose claims are missing ---- */

static int add_claim(const struct walk *walk, struct shard *home, const char *id, struct fail *f)
{
    static const struct pg_statement statement = {
        "claim_id", "SELECT claim_id($1::smallint, $2::bigint, $3::smallint)", 3};
    char shard_text[NUMBER_TEXT];
    snprintf(shard_text, sizeof shard_text, "%u", shard_number(walk->shard));
    const char *params[] = {walk->number, id, shard_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    return check_change(walk->check, home, &statement, params, &rows, f);
}

/* Ids of rows here whose home is another shard. */
static int look_at_foreign(const struct walk *walk, unsigned number, const char *ids, struct fail *f)
{
    static const struct pg_statement statement = {
        "check_claimed",
        "SELECT id, taken, claimed_by FROM check_claimed($1::smallint, $2::bigint[], $3::smallint)", 3};
    char shard_text[NUMBER_TEXT];
    snprintf(shard_text, sizeof shard_text, "%u", shard_number(walk->shard));
    const char *params[] = {walk->number, ids, shard_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    struct shard *home = cluster_shard_numbered(walk->check->cluster, number);
    const char *folder = walk->collection->folder;
    int r = home ? check_ask(walk->check, home, &statement, params, &rows, f)
                 : fail_set(f, EIO, "there is no shard number %u", number);
    for (size_t i = 0; r == 0 && i < pg_rows_count(rows); i++) {
        const char *id = pg_rows_text(rows, i, 0), *claimed_by = pg_rows_text(rows, i, 2);
        if (strcmp(pg_rows_text(rows, i, 1), "t") == 0) {
            check_found(walk->check, walk->shard, false,
                        "%s %s is a row here and on its home, shard %s: one of them has to go", folder, id,
                        shard_name(home));
        } else if (claimed_by) {
            check_found(walk->check, walk->shard, false,
                        "%s %s is a row here, but shard %s has its id claimed for shard number %s", folder,
                        id, shard_name(home), claimed_by);
        } else {
            if (walk->check->repair)
                r = add_claim(walk, home, id, f);
            check_found(walk->check, walk->shard, walk->check->repair && r == 0,
                        "%s %s is a row here, and its home, shard %s, has no claim of that", folder, id,
                        shard_name(home));
        }
    }
    return r;
}

int check_ids(struct check *check, struct fail *f)
{
    static const struct pg_statement claims = {
        "check_claims_page",
        "SELECT last, seen, shard, ids FROM check_claims_page($1::smallint, $2::bigint, $3::bigint)", 3};
    static const struct pg_statement foreign = {
        "check_ids",
        "SELECT last, seen, home, ids FROM check_ids($1::smallint, $2::smallint[], $3::bigint, $4::bigint)",
        4};
    char numbers[CONFIG_MAX_SHARDS * 8];
    size_t n = cluster_shards(check->cluster);
    int r = 0;
    check_shard_numbers(check, numbers, sizeof numbers);
    for (size_t i = 0; r == 0 && i < 2 * n; i++) /* first the claims that go, then those that come */
        for (const struct collection *c = collection_next(NULL); r == 0 && c; c = collection_next(c)) {
            struct walk at = {.check = check, .shard = cluster_shard(check->cluster, i % n), .collection = c};
            if (c->global || c->secret || c->of_users) /* the same on every shard; without ids of their own */
                continue;
            snprintf(at.number, sizeof at.number, "%u", c->number);
            at.page = i < n ? &claims : &foreign;
            at.look = i < n ? look_at_claimed : look_at_foreign;
            at.params[0] = at.number;
            at.params[1] = numbers; /* of the second alone */
            at.nparams = i < n ? 1 : 2;
            r = walk(&at, f);
        }
    return r;
}
