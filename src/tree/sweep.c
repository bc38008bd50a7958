/*
 * What editors and tools leave behind: scratch names whose maker has ended and that nobody has touched for
 * scratch_keep are taken away. Looked for now and then by whoever makes or lists scratch names, or reads the
 * metrics; a mount in which nobody does has nothing to gain.
 */
#include "base/log.h"
#include "tree/tree_internal.h"

enum { SWEEPS_A_KEEP = 10, SWEEP_MAX_MS = 600000 };

/* In time, by one: the others go on. */
static bool is_due(struct tree *tree)
{
    int64_t now = clock_now_ms(), pause = tree->config->scratch_keep_ms / SWEEPS_A_KEEP;
    pthread_mutex_lock(&tree->lock);
    bool due = now >= tree->sweep_at;
    if (due)
        tree->sweep_at = now + (pause < SWEEP_MAX_MS ? pause : SWEEP_MAX_MS);
    pthread_mutex_unlock(&tree->lock);
    return due;
}

static bool may_go(struct node *node, int64_t before_us)
{
    pthread_mutex_lock(&node->lock);
    bool old = node->handles == 0 && us_of_timespec(node->ctime) < before_us;
    struct process maker = node->maker;
    pthread_mutex_unlock(&node->lock);
    return old && !process_is_same(maker, process_of_thread(maker.tgid));
}

void tree_sweep(struct tree *tree)
{
    struct scratch_old *old;
    size_t n, swept = 0;
    struct timespec now;
    if (!is_due(tree) || scratch_list_old(tree->scratch, tree->config->scratch_keep_ms, &old, &n) < 0)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t before_us = us_of_timespec(now) - tree->config->scratch_keep_ms * 1000;
    for (size_t i = 0; i < n; i++) {
        struct place place;
        /* Refused texts have bounds of their own. A folder goes when it is empty, at the latest the next
         * time. */
        bool ours =
            address_parse(old[i].folder, &place) && place.kind != PLACE_REFUSED &&
            (old[i].node->kind != NODE_FOLDER || scratch_is_empty(tree->scratch, old[i].node->nodeid));
        if (ours && may_go(old[i].node, before_us))
            swept += scratch_remove(tree->scratch, old[i].folder, old[i].name, old[i].node) == 0;
        node_unref(tree->nodes, old[i].node);
        free(old[i].name);
    }
    free(old);
    if (swept > 0)
        log_info("%zu scratch names that nobody has touched for long were taken away", swept);
    __atomic_add_fetch(&tree->swept, swept, __ATOMIC_RELAXED);
}
