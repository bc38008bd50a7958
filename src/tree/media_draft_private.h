/* What media_draft.c and media_draft_names.c share. */
#pragma once

#include <stddef.h>
#include <string.h>

#include "tree/media_draft.h"

struct media_draft {
    struct list_entry entry; /* in tree->media_drafts, while it is open */
    struct node *node;       /* that this belongs to; constant */
    unsigned region;         /* constant */
    int64_t course;          /* constant */

    /* The tree's lock: where it is to be. */
    bool listed;
    uint64_t folder;
    char name[NAME_MAX_BYTES + 1];
    bool nameless;   /* removed: as on a disk, what is written goes with the last close */
    bool held;       /* its name is changing (media_drafts_hold) */
    int64_t granted; /* bytes of its length that fit into the quotas */

    /* The node's lock. */
    struct media_revision *base; /* a reference: what was published last; NULL = nothing is */
    struct staged *staged;       /* owned, once it is open for writing */
    struct media_reader *reader; /* owned: reads the base while there is no staged file */
    bool creates;                /* there is no such file yet */
    bool attributes;             /* a time, mode or owner that is not published */
    bool cut_by_open;            /* O_TRUNC, and nothing since: shells close a copy before they write */
    bool told;                   /* atomic: that it has failed */
};

/* In tree->media_drafts; whether it is of a name in a folder. Under the tree's lock. */
static inline struct media_draft *media_draft_at(const struct list_entry *entry)
{
    return (struct media_draft *)(void *)((char *)entry - offsetof(struct media_draft, entry));
}

static inline bool media_draft_is_at(const struct media_draft *draft, unsigned region, uint64_t folder,
                                     const char *name)
{
    return draft->region == region && draft->folder == folder && !draft->nameless &&
           strcmp(draft->name, name) == 0;
}
