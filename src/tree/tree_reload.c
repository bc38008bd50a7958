/* What of the tree follows another configuration: owners and modes, regions, and what is told of the reload.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "tree/tree_media.h"

/* The collections' own rules over those of the mount, over the secret ones'. */
static struct access_table *access_new(const struct config *config)
{
    struct access_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    for (size_t i = 0; i < COLLECTIONS_MAX; i++)
        table->of[i] = (struct access){config->uid, config->gid, config->file_mode};
    for (const struct collection *c = collection_next(NULL); c; c = collection_next(c))
        if (c->secret)
            table->of[c->number].file_mode = 0400;
    for (size_t i = 0; i < config->naccess; i++) {
        const struct config_access *a = &config->access[i];
        const struct collection *c = collection_of_folder(a->collection);
        struct access *to = &table->of[c ? c->number : ACCESS_MEDIA];
        to->uid = a->uid != (uid_t)-1 ? a->uid : to->uid;
        to->gid = a->gid != (gid_t)-1 ? a->gid : to->gid;
        to->file_mode = a->mode != (mode_t)-1 ? a->mode : to->file_mode;
    }
    return table;
}

int tree_access_renew(struct tree *tree, const struct config *config)
{
    struct access_table *table = access_new(config);
    if (!table)
        return -ENOMEM;
    if (tree->accesses && memcmp(tree->accesses->of, table->of, sizeof table->of) == 0) {
        free(table);
        return 0;
    }
    table->before = tree->accesses;
    tree->accesses = table;
    atomic_store(&tree->access, table->of);
    return 1;
}

void tree_access_free(struct tree *tree)
{
    for (struct access_table *table = tree->accesses, *before; table; table = before) {
        before = table->before;
        free(table);
    }
    free(tree->reload);
}

static void forget_place(struct tree *tree, enum place_kind kind, unsigned region)
{
    tree->invalidate(tree->invalidate_arg, address_place(kind, 0, region));
}

/* The kernel keeps fixed places for an hour, and of files what they look like with what they hold. */
static void forget_looks(struct tree *tree, bool files)
{
    const struct config *config = tree->config;
    forget_place(tree, PLACE_ROOT, 0);
    forget_place(tree, PLACE_REGIONS, 0);
    forget_place(tree, PLACE_CONTROL, 0);
    tree->invalidate(tree->invalidate_arg, tree->readme->nodeid);
    if (files)
        tree_outdated(tree, &(struct row_key){.region = 0});
    for (size_t i = 0; i < config->nregions; i++) {
        unsigned region = config->regions[i].number;
        forget_place(tree, PLACE_REGION, region);
        if (files)
            tree_outdated(tree, &(struct row_key){.region = (uint8_t)region});
    }
}

int tree_reload(struct tree *tree)
{
    const struct config *now = config_hold(tree->config);
    int r = tree_access_renew(tree, now);
    config_put(now);
    int prepared = tree->media ? media_follow(tree->media) : 0;
    r = r < 0 ? r : prepared < 0 ? prepared : r;
    view_forget(tree);
    forget_looks(tree, r != 0);
    int written = view_readme_renew(tree);
    return r < 0 ? r : written;
}

int tree_show_reload(struct tree *tree, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    pthread_mutex_lock(&tree->lock);
    free(tree->reload);
    tree->reload = copy;
    pthread_mutex_unlock(&tree->lock);
    return 0;
}
