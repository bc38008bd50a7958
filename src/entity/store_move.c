/*
 * Rows that move to another region: an update within a shard, a transfer between two.
 */
#include <errno.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/uuid.h"
#include "entity/store_internal.h"

enum { NUMBER_TEXT = 24 /* any 64-bit integer in decimal */ };

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

static int move_within(struct shard *shard, const struct row_key *key, unsigned to, const char *actor,
                       const struct op *op, struct pg_rows **rows, struct fail *f)
{
    char request[UUID_TEXT], region[NUMBER_TEXT], id[NUMBER_TEXT], to_text[NUMBER_TEXT];
    int r = uuid_new(request);
    if (r < 0)
        return r;
    snprintf(region, sizeof region, "%u", key->region);
    snprintf(id, sizeof id, "%lld", (long long)key->id);
    snprintf(to_text, sizeof to_text, "%u", to);
    const char *params[] = {region, id, to_text, request, actor};
    return shard_write(shard, &collection_numbered(key->collection)->move, params, request, op, rows, f);
}

/* What is theirs moved along. */
static void forget_former(struct store *store, struct shard *from, struct shard *target,
                          const struct row_key *key, unsigned to)
{
    freshness_note_change(store_fresh(store, from), &(struct row_key){.region = key->region});
    freshness_note_change(store_fresh(store, target), &(struct row_key){.region = (uint8_t)to});
    cache_drop(store->cache, key, 0);
    cache_drop_all(store->cache, 0, key->region);
    runs_drop(store->runs, 0, key->region);
    runs_drop(store->runs, 0, to);
}

int store_move(struct store *store, const struct row_key *key, unsigned to, const char *actor,
               const struct op *op, struct put_result *result, struct fail *f)
{
    struct shard *from = store_shard(store, key->collection, key->region);
    struct shard *target = store_shard(store, key->collection, to);
    const struct collection *collection = collection_numbered(key->collection);
    *result = (struct put_result){0};
    if (!collection->movable)
        return fail_set(f, EPERM, "%s cannot be moved to another region", collection->folder);
    if (!from || !target)
        return fail_set(f, ENOENT, "no such region");
    if (store->config->read_only)
        return fail_set(f, EROFS, "the mount is read-only");
    uint64_t epoch = freshness_epoch(store_fresh(store, target));
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    bool moved = false;
    int r;
    if (from == target) {
        r = move_within(from, key, to, actor, op, &rows, f);
        moved = r == 0;
    } else {
        r = transfer_user(store->cluster, key, to, actor, op, &rows, &moved, f);
    }
    if (moved)
        forget_former(store, from, target, key, to);
    if (r < 0 && from != target)
        transfers_wake(store->transfers);
    if (rows && pg_rows_count(rows) == 1)
        store_take_result(store, target, epoch, key->collection, to, rows, result);
    return r;
}
