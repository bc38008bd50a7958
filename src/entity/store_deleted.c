/*
 * Rows that were deleted within the last day. They are read where they are asked for and never cached: nobody
 * lists them but by hand.
 */
#include <stdio.h>

#include "entity/store_internal.h"

#define NUMBER_TEXT 24 /* any 64-bit integer in decimal */

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

int store_deleted_get(struct store *store, const struct row_key *key, const struct op *op,
                      struct document **out, struct fail *f)
{
    static const struct pg_statement get = {
        "get_deleted",
        "SELECT id, rev, updated_us, content_us, body FROM deleted_documents "
        "WHERE collection = $1::smallint AND region = $2::smallint AND id = $3::bigint",
        3};
    struct shard *shard = store_shard(store, key->collection, key->region);
    if (!shard)
        return fail_set(f, ENOENT, "no such region");
    char collection[NUMBER_TEXT], region[NUMBER_TEXT], id[NUMBER_TEXT];
    snprintf(collection, sizeof collection, "%u", key->collection);
    snprintf(region, sizeof region, "%u", key->region);
    snprintf(id, sizeof id, "%lld", (long long)key->id);
    const char *params[] = {collection, region, id};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = shard_read(shard, &get, params, op, &rows, f);
    if (r < 0)
        return r;
    if (pg_rows_count(rows) == 0)
        return fail_set(f, ENOENT, "no such row was deleted within the last day");
    return store_document(store, shard, rows, 0, DOCUMENT_REV, out, f);
}

/* What stat() shows of each row. */
static int fill_page(struct store *store, struct shard *shard, const struct pg_rows *rows, struct page *page,
                     struct fail *f)
{
    size_t n = pg_rows_count(rows);
    for (size_t i = 0; i < n; i++) {
        struct document *document CLEANUP(document_unrefp) = NULL;
        int r = store_document(store, shard, rows, i, DOCUMENT_REV, &document, f);
        if (r < 0)
            return r;
        page->rows[i] =
            (struct page_row){.id = pg_rows_i64(rows, i, DOCUMENT_ID, 0), .revision = document->revision};
    }
    page->count = n;
    return 0;
}

int store_deleted_page(struct store *store, unsigned collection, unsigned region, int64_t after, size_t limit,
                       const struct op *op, struct page **out, struct fail *f)
{
    static const struct pg_statement statement = {"deleted_page", NULL, 4};
    struct shard *shard = store_shard(store, collection, region);
    if (!shard)
        return fail_set(f, ENOENT, "no such region");
    char collection_text[NUMBER_TEXT], region_text[NUMBER_TEXT], after_text[NUMBER_TEXT],
        limit_text[NUMBER_TEXT];
    snprintf(collection_text, sizeof collection_text, "%u", collection);
    snprintf(region_text, sizeof region_text, "%u", region);
    snprintf(after_text, sizeof after_text, "%lld", (long long)after);
    snprintf(limit_text, sizeof limit_text, "%zu", limit);
    const char *params[] = {collection_text, region_text, after_text, limit_text};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    int r = shard_read(shard, &statement, params, op, &rows, f);
    if (r < 0)
        return r;
    struct page *page CLEANUP(freep) = calloc(1, sizeof *page + pg_rows_count(rows) * sizeof page->rows[0]);
    if (!page)
        return fail_set(f, ENOMEM, "out of memory");
    r = fill_page(store, shard, rows, page, f);
    if (r == 0)
        *out = STEAL(page);
    return r;
}
