/*
 * Drafts that a LOOKUP has answered and nobody has opened yet: the newest keep their texts, 1024 of them and
 * 4 MiB in all, for whoever looked is about to open his. An older one has given its text back (draft.spent)
 * until somebody opens it or sets its size or time, which makes it anew. Thread-safe; called under no lock.
 */
#pragma once

#include "tree/tree_internal.h"

struct unopened;

/* Borrows the table of nodes. */
struct unopened *unopened_new(struct nodes *nodes);
/* Takes NULL. Before nodes_free(). */
void unopened_free(struct unopened *unopened);

/* A draft with its text, as it was made; others give theirs back for it. */
void unopened_add(struct unopened *unopened, struct node *node);

/* What is kept so, for the metrics. */
void unopened_usage(struct unopened *unopened, struct node_usage *usage);
