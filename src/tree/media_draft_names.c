/*
 * Drafts of media whose names change.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tree/media_draft_private.h"

/* A draft of a name that is not held yet, with a reference to its node; held from now on. */
static struct node *take_to_hold(struct tree *tree, unsigned region, uint64_t folder, const char *name)
{
    struct node *node = NULL;
    pthread_mutex_lock(&tree->lock);
    for (struct list_entry *e = tree->media_drafts; e && !node; e = e->next) {
        struct media_draft *draft = media_draft_at(e);
        if (draft->held || !media_draft_is_at(draft, region, folder, name))
            continue;
        draft->held = true;
        node = draft->node;
        node_ref(tree->nodes, node);
    }
    pthread_mutex_unlock(&tree->lock);
    return node;
}

static void end_hold(struct tree *tree, struct node *node)
{
    pthread_mutex_lock(&tree->lock);
    node->media->held = false;
    pthread_mutex_unlock(&tree->lock);
    node_unref(tree->nodes, node);
}

int media_drafts_hold(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                      const char *name, struct media_held *held, struct fail *f)
{
    struct node *node;
    int r = 0;
    while (r == 0 && (node = take_to_hold(tree, region, folder, name))) {
        struct node **list = reallocarray(held->list, held->n + 1, sizeof(*list));
        held->list = list ? list : held->list;
        pthread_mutex_lock(&node->lock);
        r = list ? draft_wait_settled(node, &caller->op) : -ENOMEM;
        node->draft.committing = node->draft.committing || r == 0;
        pthread_mutex_unlock(&node->lock);
        if (r == 0)
            list[held->n++] = node;
        else
            end_hold(tree, node);
    }
    return r == -EIO ? fail_set(f, EBUSY, "the file is being published, which takes long") : r;
}

void media_drafts_let_go(struct tree *tree, struct media_held *held)
{
    for (size_t i = 0; i < held->n; i++) {
        struct node *node = held->list[i];
        pthread_mutex_lock(&node->lock);
        node->draft.committing = false;
        pthread_cond_broadcast(&node->settled);
        pthread_mutex_unlock(&node->lock);
        end_hold(tree, node);
    }
    free(held->list);
}

void media_drafts_renamed(struct tree *tree, unsigned region, uint64_t folder, const char *name,
                          uint64_t to_folder, const char *new_name)
{
    pthread_mutex_lock(&tree->lock);
    for (struct list_entry *e = tree->media_drafts; e; e = e->next) {
        struct media_draft *draft = media_draft_at(e);
        if (media_draft_is_at(draft, region, to_folder, new_name)) {
            draft->nameless = true;
        } else if (media_draft_is_at(draft, region, folder, name)) {
            draft->folder = to_folder;
            snprintf(draft->name, sizeof draft->name, "%s", new_name);
        }
    }
    pthread_mutex_unlock(&tree->lock);
}

void media_drafts_removed(struct tree *tree, unsigned region, uint64_t folder, const char *name)
{
    pthread_mutex_lock(&tree->lock);
    for (struct list_entry *e = tree->media_drafts; e; e = e->next)
        if (media_draft_is_at(media_draft_at(e), region, folder, name))
            media_draft_at(e)->nameless = true;
    pthread_mutex_unlock(&tree->lock);
}

/* Whether a draft is of a file that is not there yet. */
static bool is_new(struct node *node)
{
    pthread_mutex_lock(&node->lock);
    bool creates = node->media->creates;
    pthread_mutex_unlock(&node->lock);
    return creates;
}

int media_draft_publish_name(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                             const char *name)
{
    struct node *node = media_draft_find(tree, caller, region, folder, name, NULL);
    int r = node && is_new(node) ? media_draft_commit(tree, caller, node, DRAFT_ATTRIBUTES) : 0;
    node_unref(tree->nodes, node);
    return r;
}

int media_draft_unlink(struct tree *tree, const struct caller *caller, unsigned region, uint64_t folder,
                       const char *name)
{
    struct node *node = media_draft_find(tree, caller, region, folder, name, NULL);
    int r = node && is_new(node) ? 0 : -ENOENT;
    if (r == 0) {
        pthread_mutex_lock(&tree->lock);
        node->media->nameless = true;
        pthread_mutex_unlock(&tree->lock);
    }
    node_unref(tree->nodes, node);
    return r;
}
