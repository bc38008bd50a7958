/*
 * The connection to a shard's primary, for whoever writes. While there is none, as in a failover, he waits,
 * bounded in time, number and size (admit.c); a primary of an older history is none.
 */
#include "shard/schema.h"
#include "shard/shard_private.h"

#include <errno.h>

enum { ROUND_PAUSE_MS = 25 }; /* while there is no primary */

/* A connection to the node, if it is what it is taken for. 0, or -EROFS or -errno with the reason. */
static int take_from(struct shard *shard, struct node *node, const struct op *op, struct conn **out,
                     struct fail *why)
{
    unsigned newer = atomic_load(&node->newer_schema);
    if (newer) /* what its functions do with a document of ours nobody can say */
        return fail_set(why, EROFS,
                        "node %s: its schema is newer, version %u, than this program's, %u: install a newer "
                        "campusfs and mount again",
                        node->name, newer, schema_expected());
    if (pool_take(node->pool, op, out, why) < 0)
        return -why->err;
    node_note(node, conn_role(*out));
    if (node_is_other(node, *out)) { /* the way to it leads elsewhere now; that tells why there is none */
        pool_drop(node->pool, *out);
        return -EROFS;
    }
    /* Fenced: a primary that came back with an older history is never written to. */
    if (!conn_role(*out)->standby && conn_role(*out)->timeline >= shard_timeline(shard)) {
        node_keep(shard); /* before anything is written on it, the newest timeline is not to be forgotten */
        return 0;
    }
    pool_give(node->pool, *out);
    return -EROFS;
}

/*
 * Waits for a connection to the primary until the deadline. 0; else the reason is in *why, unless it is that
 * there is no primary.
 */
static int wait_for_primary(struct shard *shard, const struct claim *claim, const struct op *op,
                            struct node **node, struct conn **out, struct fail *why)
{
    bool held = false;
    int r = -EROFS;
    while (r < 0) {
        int i = node_find_primary(shard);
        *why = (struct fail){.err = 0};
        if (i >= 0) {
            *node = &shard->nodes[i];
            r = take_from(shard, *node, op, out, why);
            if (r < 0 && why->err && !claim->owed && pool_ready((*node)->pool))
                break; /* there is a primary, and no connection to it came free */
        } else {
            if (!held && !claim->owed && admit_hold(shard, claim->bytes, why) < 0)
                break;
            held = !claim->owed;
            watch_wake(shard); /* has one been promoted? */
            if (!claim->owed && node_give_up(shard, NEED_PRIMARY))
                break;
        }
        int64_t left = op_left_ms(op);
        if (r < 0 && op_interrupted(op)) {
            *why = (struct fail){.err = 0};
            r = fail_set(why, EINTR, "shard %s: interrupted while waiting for a primary", shard->self->name);
            break;
        }
        if (r < 0 && left == 0)
            break;
        if (r < 0)
            admit_wait(shard, left < ROUND_PAUSE_MS ? left : ROUND_PAUSE_MS);
    }
    if (held)
        admit_release(shard, claim->bytes);
    return r;
}

int primary_take(struct shard *shard, struct claim claim, const struct op *op, struct node **node,
                 struct conn **out, struct fail *f)
{
    struct fail why;
    watch_hurry(shard);
    int r = wait_for_primary(shard, &claim, op, node, out, &why);
    if (r == 0)
        return 0;
    if (r != -EINTR && (why.err == 0 || (why.err != EROFS && node_find_primary(shard) < 0))) {
        why = (struct fail){.err = 0};
        node_why_not(shard, &why);
        return fail_set(f, EROFS, "no primary can be reached: %.1000s", why.message);
    }
    return fail_set(f, why.err, "%s", why.message);
}
