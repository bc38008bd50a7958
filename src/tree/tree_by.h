/*
 * .by in a collection's folder: symbolic links to the rows that have some value of an indexed field,
 * .by/<field>/<value>/<id>.json → ../../../<id>.json. Read-only. Who may read the rows' files may look into
 * it, since its names say what is in them.
 *
 * .by, its fields and the links are packed into nodeids; values are in a table (tree/by_folders.h). The
 * kernel believes what it is told for half of cache_ttl. What this mount saves itself is seen at once: a link
 * that was told before answers -ESTALE, on which the kernel looks its name up again.
 */
#pragma once

#include "tree/by_folders.h"
#include "tree/tree_internal.h"

/* What the tree keeps for it: so many folders of values at most. NULL when memory is out. */
struct by *by_new(size_t folders_max);
void by_free(struct by *by);

bool place_is_by(const struct place *place);

int by_lookup(struct tree *tree, const struct caller *caller, const struct place *parent, const char *name,
              struct entry *entry);
void by_forget(struct tree *tree, uint64_t number, uint64_t n);
int by_getattr(struct tree *tree, const struct caller *caller, const struct place *place, struct stat *attr,
               int64_t *attr_ms);
int by_readlink(struct tree *tree, const struct caller *caller, const struct place *place, char **target);
/* A row was saved, moved or deleted here; its former revision, 0 = not known. */
void by_row_changed(struct tree *tree, const struct row_key *key, uint64_t former_rev);
/* What would make, remove or rename something there is told in words: -EPERM, or -EROFS. */
int by_refuse(struct tree *tree, const struct place *place, const char *name);

/* A folder of .by that is being listed. -ENOMEM, -ESTALE. */
struct by_listing;
int by_listing_new(struct tree *tree, const struct place *place, struct by_listing **out);
void by_listing_free(struct by_listing *by);
/* From the start, as it is now. Takes NULL. */
void by_listing_rewind(struct by_listing *by);
/* What the folder is of: collection and region; its st_ino, and its parent's. */
struct row_key by_listing_key(const struct by_listing *by);
uint64_t by_listing_ino(const struct by_listing *by);
uint64_t by_listing_parent(const struct by_listing *by);
/* Of .by and its fields: the first entry from an index on, its name (NAME_MAX_BYTES + 1) and the index behind
 * it in listed->next. 1, 0 at the end, -errno. */
int by_listing_at(struct tree *tree, const struct caller *caller, struct by_listing *by, size_t index,
                  char *name, struct listed *listed);
/* Whether it takes a query to know what stands there. */
bool by_listing_waits(const struct by_listing *by, size_t index);
/* Of a value: rows behind an id. */
int by_listing_page(struct tree *tree, const struct caller *caller, struct by_listing *by, int64_t after,
                    size_t limit, struct page **page, struct fail *f);
/* A row of such a page. */
void entry_by_link(struct tree *tree, const struct row_key *key, uint64_t rev, struct entry *entry);

/* Prometheus text. */
int by_metrics(struct tree *tree, struct buf *out);
