/*
 * .meta, in each folder of media that belongs to a course: found by its name, never listed there. In it, for
 * each file of the folder, <name>.json, a document of what is known of it (media/meta.h), and
 * <name>.revisions/<n>, the revisions that were replaced and are not swept yet. A file whose name is too long
 * to have them has none. Any other name is a scratch file's, as in a collection's folder.
 *
 * Each LOOKUP of a document makes a draft (tree/draft.c) of the text as it is now, whose key is
 * {COLLECTION_MEDIA, region, ino of the file}: a reader's is a snapshot, a writer's is his own, and the
 * kernel is to believe nothing of the name. One that is only looked at, from a listing, may be a moment older
 * (meta_pages.c). Saving is draft.c's, too; save_commit() leads to meta_commit().
 *
 * `place` is a PLACE_META or PLACE_META_REVISIONS. Errors that carry words are told in errors.jsonl.
 */
#pragma once

#include "tree/tree_media.h"

#define META_FOLDER ".meta"

/* The .meta of a folder of media. */
int meta_lookup_folder(struct tree *tree, const struct caller *caller, const struct place *folder,
                       struct entry *entry);
int meta_lookup(struct tree *tree, const struct caller *caller, const struct place *place, const char *name,
                struct entry *entry);
int meta_getattr(struct tree *tree, const struct caller *caller, const struct place *place, struct stat *attr,
                 int64_t *attr_ms);
/* Of the document of a key as it is now; -ENOENT. */
int meta_getattr_key(struct tree *tree, const struct caller *caller, const struct row_key *key,
                     struct stat *attr);
/* Its names but for the scratch files', each with its whole st_ino; free() them. */
int meta_list(struct tree *tree, const struct caller *caller, const struct place *place,
              struct media_names **out);

/* meta_pages.c: documents for a thread that goes through a listing, asked for by the page. Of a PLACE_META's
 * nodeid; closing takes NULL. */
struct meta_pages;
struct media_meta_page;
int meta_pages_open(struct tree *tree, uint64_t folder, struct meta_pages **out);
void meta_pages_close(struct tree *tree, struct meta_pages *pages);
/* The thread is given these names. */
void meta_pages_listed(struct tree *tree, const struct caller *caller, struct meta_pages *pages,
                       const struct media_names *names);
/* The page that a lookup of a file's document is answered from, the caller's reference; NULL: it is to be
 * asked for alone. *outdated: it was fetched by an earlier lookup, and who opens the document has to look
 * again. */
int meta_pages_take(struct tree *tree, const struct caller *caller, const struct place *place, uint64_t ino,
                    struct media_meta_page **out, bool *outdated, struct fail *f);
/* The thread opens what it finds: no more pages for its listings. */
void meta_pages_opened(struct tree *tree, const struct caller *caller);
/* Something was saved here: pages have to be asked for anew. */
void meta_pages_saved(struct tree *tree);

/* Whether a name in a PLACE_META is a document's: NAME_ROW, and its key; NAME_RESERVED for the folder of
 * revisions of a file, else NAME_SCRATCH. -errno when that cannot be known. */
int meta_name(struct tree *tree, const struct caller *caller, const struct place *place, const char *name,
              struct row_key *key);
/* A draft of the document as it is now, one reference; -ENOENT. */
int meta_draft(struct tree *tree, const struct caller *caller, const struct row_key *key, struct node **out);
/* open(O_CREAT) of a document that is there; the draft with one reference. */
int meta_create(struct tree *tree, const struct caller *caller, const struct row_key *key, int flags,
                struct node **out);
/* A scratch file with a document's text, as an editor keeps it as a backup; one reference. */
int meta_copy(struct tree *tree, const struct caller *caller, const struct row_key *key, struct node **out);
/* What is said of anything but reading there. */
#define META_REVISIONS_WORDS                                                                                 \
    "older revisions can only be read: they go by themselves, and one comes back by cp over the file"

/* Says why a name in such a folder cannot be made, removed or moved; -EPERM. */
int meta_refuse(struct tree *tree, const struct place *place, const char *name, const char *words);
/* Opens node->older for reading. */
int meta_open_older(struct tree *tree, const struct node *node, struct media_handle **handle);

/* For save_commit(): the text has been checked. */
int meta_commit(struct tree *tree, const struct caller *caller, const struct save *save,
                struct put_result *result, struct fail *f);

/* "regions/europe/media/5001/.meta/a.mp4.json" of a key. */
void path_of_meta(const struct tree *tree, const struct row_key *key, char *out, size_t size);
/* Where the text lies that a save was refused with: a .meta, and the name there. False when the file is gone.
 */
bool meta_refused_at(struct tree *tree, const struct row_key *key, uint64_t *folder, char *name, size_t size);
