/*
 * The names of scratch space: which node lies under which name of which folder (a collection's, its .refused,
 * or a scratch folder), known to this mount only. A name holds a reference to its node. Thread-safe.
 */
#pragma once

#include <stdint.h>

#include "tree/node.h"

struct scratch;

/* Borrows the table of nodes. */
struct scratch *scratch_new(struct nodes *nodes);
void scratch_free(struct scratch *scratch);

/* The node under a name, with a reference; NULL when there is none. */
struct node *scratch_find(struct scratch *scratch, uint64_t folder, const char *name);
/* -EEXIST, -ENOMEM. */
int scratch_add(struct scratch *scratch, uint64_t folder, const char *name, struct node *node);
/* Takes a name away; -ENOENT; -ESTALE when it is not that node's (NULL = whatever it is). */
int scratch_remove(struct scratch *scratch, uint64_t folder, const char *name, const struct node *node);
/* Gives a node another name, replacing what lies there (not a folder that has entries: -ENOTEMPTY). */
int scratch_rename(struct scratch *scratch, uint64_t folder, const char *name, uint64_t to_folder,
                   const char *to);
/* Puts another node under a name; -ENOENT; -ESTALE when what lies there is not `old`. Cannot fail for want of
 * memory. */
int scratch_replace(struct scratch *scratch, uint64_t folder, const char *name, const struct node *old,
                    struct node *node);
/* What lies under two names changes places; -ENOENT when either has nothing. */
int scratch_exchange(struct scratch *scratch, uint64_t folder, const char *name, uint64_t to_folder,
                     const char *to);
bool scratch_is_empty(struct scratch *scratch, uint64_t folder);

/* A folder's names as they are now, oldest first; free() the list, unref each node. */
struct scratch_item {
    char name[256];
    struct node *node;
};
int scratch_list(struct scratch *scratch, uint64_t folder, struct scratch_item **items, size_t *n);

/* The names of all folders that have been there for longer than that; free() the list and the names, unref
 * the nodes. */
struct scratch_old {
    uint64_t folder;
    char *name;
    struct node *node;
};
int scratch_list_old(struct scratch *scratch, int64_t ms, struct scratch_old **old, size_t *n);
