#include "entity/store_by.h"

#include <stdio.h>
#include <string.h>

#include "entity/store_internal.h"

#define NUMBER_TEXT 24 /* any 64-bit integer in decimal */

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

/* A row becomes an item: the last of its `columns` is the text, the first of two the number. */
static int take_items(const struct pg_rows *rows, unsigned columns, struct by_page **out, struct fail *f)
{
    size_t n = pg_rows_count(rows), bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += pg_rows_len(rows, i, columns - 1) + 1;
    struct by_page *page = malloc(sizeof *page + n * sizeof page->items[0] + bytes);
    if (!page)
        return fail_set(f, ENOMEM, "out of memory");
    char *at = (char *)&page->items[n];
    page->count = n;
    for (size_t i = 0; i < n; i++) {
        size_t len = pg_rows_len(rows, i, columns - 1);
        const char *text = pg_rows_text(rows, i, columns - 1);
        page->items[i] = (struct by_item){columns > 1 ? pg_rows_i64(rows, i, 0, 0) : 0, at};
        memcpy(at, text ? text : "", len + 1);
        at += len + 1;
    }
    *out = page;
    return 0;
}

static int read_rows(struct store *store, const struct pg_statement *statement, unsigned collection,
                     unsigned region, const char *const *params, const struct op *op, struct pg_rows **rows,
                     struct fail *f)
{
    struct shard *shard = store_shard(store, collection, region);
    return shard ? shard_read(shard, statement, params, op, rows, f) : fail_set(f, ENOENT, "no such region");
}

int store_by_fields(struct store *store, unsigned collection, unsigned region, const struct op *op,
                    struct by_page **out, struct fail *f)
{
    static const struct pg_statement statement = {"by_fields", NULL, 1};
    char collection_text[NUMBER_TEXT];
    snprintf(collection_text, sizeof collection_text, "%u", collection);
    const char *params[] = {collection_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = read_rows(store, &statement, collection, region, params, op, &rows, f);
    return r < 0 ? r : take_items(rows, 2, out, f);
}

int store_by_values(struct store *store, unsigned collection, unsigned region, unsigned field,
                    const char *after, size_t limit, const struct op *op, struct by_page **out,
                    struct fail *f)
{
    static const struct pg_statement statement = {"by_values", NULL, 5};
    char collection_text[NUMBER_TEXT], region_text[NUMBER_TEXT], field_text[NUMBER_TEXT],
        limit_text[NUMBER_TEXT];
    snprintf(collection_text, sizeof collection_text, "%u", collection);
    snprintf(region_text, sizeof region_text, "%u", region);
    snprintf(field_text, sizeof field_text, "%u", field);
    snprintf(limit_text, sizeof limit_text, "%zu", limit);
    const char *params[] = {collection_text, region_text, field_text, after, limit_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = read_rows(store, &statement, collection, region, params, op, &rows, f);
    return r < 0 ? r : take_items(rows, 1, out, f);
}

int store_by_rows(struct store *store, unsigned collection, unsigned region, unsigned field,
                  const char *value, int64_t after, size_t limit, const struct op *op, struct page **out,
                  struct fail *f)
{
    static const struct pg_statement statement = {"by_rows", NULL, 6};
    char collection_text[NUMBER_TEXT], region_text[NUMBER_TEXT], field_text[NUMBER_TEXT],
        after_text[NUMBER_TEXT], limit_text[NUMBER_TEXT];
    snprintf(collection_text, sizeof collection_text, "%u", collection);
    snprintf(region_text, sizeof region_text, "%u", region);
    snprintf(field_text, sizeof field_text, "%u", field);
    snprintf(after_text, sizeof after_text, "%lld", (long long)after);
    snprintf(limit_text, sizeof limit_text, "%zu", limit);
    const char *params[] = {collection_text, region_text, field_text, value, after_text, limit_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = read_rows(store, &statement, collection, region, params, op, &rows, f);
    if (r < 0)
        return r;
    size_t n = pg_rows_count(rows);
    struct page *page = calloc(1, sizeof *page + n * sizeof page->rows[0]);
    if (!page)
        return fail_set(f, ENOMEM, "out of memory");
    page->count = n;
    for (size_t i = 0; i < n; i++) {
        page->rows[i].id = pg_rows_i64(rows, i, 0, 0);
        page->rows[i].revision.rev = (uint64_t)pg_rows_i64(rows, i, 1, 0);
    }
    *out = page;
    return 0;
}
