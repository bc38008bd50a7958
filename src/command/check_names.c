/*
 * What each shard keeps unique for itself: e-mail addresses, usernames, slugs. Each value is read as a
 * number, 24 bytes a row in all; equal numbers of two shards are then looked at as texts.
 */
#include "command/check.h"

#include "base/buf.h"
#include "base/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

enum { NUMBER_TEXT = 24, WORDS_MAX = 2 };

struct value {
    int64_t hash, id;
    size_t shard;
};

/* A table and what must be unique in it. */
struct table {
    const char *folder;
    struct pg_statement page; /* behind which id, how many → id, a number for each word */
    size_t nwords;
    struct {
        const char *name;
        struct pg_statement text; /* id → region, the value */
    } words[WORDS_MAX];
};

static const struct table tables[] = {
    {"users",
     {"check_users", NULL, 2},
     2,
     {{"e-mail address",
       {"check_email", "SELECT region_name(region), lower(email) FROM users WHERE id = $1::bigint", 1}},
      {"username",
       {"check_username", "SELECT region_name(region), lower(username) FROM users WHERE id = $1::bigint",
        1}}}},
    {"courses",
     {"check_slugs", NULL, 2},
     1,
     {{"slug", {"check_slug", "SELECT region_name(region), slug FROM courses WHERE id = $1::bigint", 1}}}},
};

static int compare(const void *left, const void *right)
{
    const struct value *a = left, *b = right;
    return a->hash != b->hash ? (a->hash < b->hash ? -1 : 1) : (a->shard > b->shard) - (a->shard < b->shard);
}

static int read_shard(struct check *check, const struct table *table, size_t shard, struct buf *values,
                      struct fail *f)
{
    char after[NUMBER_TEXT], limit[NUMBER_TEXT];
    int64_t last = 0;
    size_t n;
    do {
        struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
        snprintf(after, sizeof after, "%" PRId64, last);
        snprintf(limit, sizeof limit, "%d", CHECK_IDS);
        const char *params[] = {after, limit};
        int r = check_ask(check, cluster_shard(check->cluster, shard), &table->page, params, &rows, f);
        if (r < 0)
            return r;
        n = pg_rows_count(rows);
        for (size_t i = 0; i < n; i++) {
            last = pg_rows_i64(rows, i, 0, 0);
            for (unsigned w = 0; w < table->nwords; w++) {
                struct value value = {pg_rows_i64(rows, i, 1 + w, 0), last, shard};
                if (buf_add(&values[w], &value, sizeof value) < 0)
                    return fail_set(f, ENOMEM, "out of memory");
            }
        }
        check_saw(check, n);
    } while (n == CHECK_IDS);
    return 0;
}

/* A value's text with its region; NULL rows when it has gone meanwhile. */
static int read_text(struct check *check, const struct pg_statement *statement, const struct value *value,
                     struct pg_rows **rows, struct fail *f)
{
    char id[NUMBER_TEXT];
    snprintf(id, sizeof id, "%" PRId64, value->id);
    const char *params[] = {id};
    int r = check_ask(check, cluster_shard(check->cluster, value->shard), statement, params, rows, f);
    if (r == 0 && pg_rows_count(*rows) == 0)
        pg_rows_free(STEAL(*rows));
    return r;
}

/* Two rows of different shards whose numbers are equal. */
static int look_at_pair(struct check *check, const struct table *table, unsigned word,
                        const struct value *one, const struct value *other, struct fail *f)
{
    const struct pg_statement *statement = &table->words[word].text;
    struct pg_rows *left CLEANUP(pg_rows_freep) = NULL, *right CLEANUP(pg_rows_freep) = NULL;
    int r = read_text(check, statement, one, &left, f);
    if (r == 0)
        r = read_text(check, statement, other, &right, f);
    if (r < 0 || !left || !right || strcmp(pg_rows_text(left, 0, 1), pg_rows_text(right, 0, 1)) != 0)
        return r;
    check_found(check, NULL, false,
                "the %s %.200s is that of regions/%s/%s/%" PRId64 ".json and of regions/%s/%s/%" PRId64
                ".json",
                table->words[word].name, pg_rows_text(left, 0, 1), pg_rows_text(left, 0, 0), table->folder,
                one->id, pg_rows_text(right, 0, 0), table->folder, other->id);
    return 0;
}

static int compare_all(struct check *check, const struct table *table, unsigned word,
                       const struct buf *values, struct fail *f)
{
    size_t n = values->len / sizeof(struct value);
    struct value *all = (struct value *)(void *)values->data;
    if (n == 0)
        return 0;
    qsort(all, n, sizeof *all, compare);
    int r = 0;
    for (size_t i = 1; r == 0 && i < n; i++)
        if (all[i].hash == all[i - 1].hash && all[i].shard != all[i - 1].shard && check->found < CHECK_LISTED)
            r = look_at_pair(check, table, word, &all[i - 1], &all[i], f);
    return r;
}

int check_names(struct check *check, struct fail *f)
{
    int r = 0;
    for (size_t t = 0; r == 0 && t < sizeof tables / sizeof tables[0]; t++) {
        struct buf values[WORDS_MAX] = {{0}};
        for (size_t s = 0; r == 0 && s < cluster_shards(check->cluster); s++)
            r = read_shard(check, &tables[t], s, values, f);
        for (unsigned w = 0; w < tables[t].nwords; w++) {
            if (r == 0)
                r = compare_all(check, &tables[t], w, &values[w], f);
            buf_clear(&values[w]);
        }
    }
    return r;
}
