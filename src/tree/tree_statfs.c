/*
 * statfs: what df shows, and what file managers ask before they copy.
 */
#include <errno.h>

#include "media/gridfs.h"
#include "tree/media_draft.h"

static void space_of_scratch(struct tree *tree, struct space *space)
{
    struct node_usage usage;
    nodes_usage(tree->nodes, &usage);
    space->bytes = tree->config->scratch_size;
    space->bytes_free = usage.bytes < space->bytes ? space->bytes - usage.bytes : 0;
    space->files = tree->config->scratch_files;
    space->files_free = usage.files < space->files ? space->files - usage.files : 0;
}

/* The region and course (0 = none: media/ itself) of a place in media. -ENOENT: it is in no media. */
static int belongs(struct tree *tree, uint64_t nodeid, const struct place *place, unsigned *region,
                   int64_t *course)
{
    char path[MEDIA_FILENAME_MAX + 1], name[MEDIA_NAME_MAX + 1];
    uint64_t folder = place->number;
    int r = 0;
    if (place->kind == PLACE_NODE) {
        struct node *node = node_get(tree->nodes, nodeid);
        r = node && node->media ? 0 : -ENOENT;
        if (r == 0)
            media_draft_belongs(node, region, course);
        node_unref(tree->nodes, node);
        return r;
    }
    *region = place->key.region;
    *course = 0;
    if (place->kind != PLACE_MEDIA && place->kind != PLACE_MEDIA_FOLDER && place->kind != PLACE_MEDIA_FILE)
        return -ENOENT;
    if (!media_shown(tree, *region))
        return -ENOENT;
    if (place->kind == PLACE_MEDIA)
        return 0;
    struct media_index *index = media_index(tree->media, *region);
    if (place->kind == PLACE_MEDIA_FILE)
        r = media_index_place(index, place->number, &folder, name);
    if (r == 0)
        r = media_index_path(index, folder, NULL, path);
    if (r == 0)
        *course = media_path_course(path, media_path_name(path));
    return r;
}

/* The less of two limits' rooms is the one that is met first. */
static void bound(struct space *space, int64_t limit, int64_t used)
{
    uint64_t left = limit > used ? (uint64_t)(limit - used) : 0;
    if (limit > 0 && left <= space->bytes_free)
        *space = (struct space){.bytes = (uint64_t)limit, .bytes_free = left};
}

static int space_of_media(struct tree *tree, const struct caller *caller, unsigned region, int64_t course,
                          struct space *space)
{
    int64_t of_course, of_region;
    struct fail f = {0};
    int r =
        media_index_usage(media_index(tree->media, region), course, &caller->op, &of_course, &of_region, &f);
    if (r < 0)
        return report_media(tree, region, course ? (uint64_t)course : MEDIA_ROOT, NULL, r, &f);
    pthread_mutex_lock(&tree->lock);
    media_drafts_promised(tree, region, course, NULL, &of_course, &of_region);
    pthread_mutex_unlock(&tree->lock);
    *space = (struct space){.bytes = (uint64_t)(GRIDFS_LENGTH_MAX + of_region),
                            .bytes_free = (uint64_t)GRIDFS_LENGTH_MAX};
    bound(space, (int64_t)tree->config->media_region_quota, of_region);
    if (course)
        bound(space, (int64_t)tree->config->media_course_quota, of_course);
    return 0;
}

int tree_statfs(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct space *space)
{
    struct place place;
    unsigned region;
    int64_t course;
    int r = tree->media && address_parse(nodeid, &place) ? belongs(tree, nodeid, &place, &region, &course)
                                                         : -ENOENT;
    if (r == -ENOENT) {
        space_of_scratch(tree, space);
        return 0;
    }
    return r < 0 ? r : space_of_media(tree, caller, region, course, space);
}
