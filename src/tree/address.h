/*
 * Inode numbers. A row's is its address, so that a million rows need no table: collection (4 bits), region
 * (6), id (38), and in the lowest 16 bits those of its revision's mark (entity/document.h). What the kernel
 * holds (the nodeid) is thus one revision of one row; st_ino and d_ino have zeros there and never change.
 *
 * Collection 0 is for what is no row: the fixed places (below) and the nodes of tree/node.h.
 *
 * Collections 14 and 15 are media (media/index.h), with a region and 54 bits: 15 and an `ino` is the nodeid
 * and st_ino of a folder, and the st_ino of a file; 14 and a `node` is the nodeid of one revision of one
 * file. 13 is what is known of a file beside its bytes (tree/tree_meta.h): with a folder's ino the nodeid and
 * st_ino of its .meta, with a file's the st_ino of its document there; 12 with a file's ino is the folder of
 * its older revisions.
 *
 * Of .by (tree/tree_by.h) a link is its row, a field its collection, region and number.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "entity/collection.h"

enum place_kind {
    PLACE_ROOT = 1, /* FUSE_ROOT_ID */
    PLACE_README,
    PLACE_REGIONS,
    PLACE_REGION,         /* region */
    PLACE_COLLECTION,     /* collection, region (0 for a global one) */
    PLACE_CONTROL,        /* .campusfs */
    PLACE_REFUSED,        /* collection, region: its .refused */
    PLACE_NEXT_ID,        /* collection, region: its .next-id */
    PLACE_DELETED,        /* collection, region: its .deleted */
    PLACE_EXPORT,         /* collection, region: its .export.jsonl */
    PLACE_MEDIA,          /* region: its media */
    PLACE_REPORTS,        /* .campusfs/reports */
    PLACE_BY,             /* collection, region: its .by */
    PLACE_BY_FIELD,       /* collection, region: a field in .by, by its number */
    PLACE_BY_VALUE,       /* a value in .by, by number (tree/by_folders.h) */
    PLACE_NODE,           /* a node, by number */
    PLACE_ROW,            /* a revision of a row */
    PLACE_DELETED_ROW,    /* a row in .deleted */
    PLACE_BY_LINK,        /* a link to a row in .by */
    PLACE_MEDIA_FOLDER,   /* a folder of media, by ino; region */
    PLACE_MEDIA_FILE,     /* a revision of a file of media, by node; region */
    PLACE_META,           /* the .meta of a folder of media, by its ino; region */
    PLACE_META_REVISIONS, /* in a .meta: the older revisions of a file, by its ino; region */
};

struct place {
    enum place_kind kind;
    struct row_key key; /* collection and region where the kind has them; id and mark for a row */
    uint16_t mark;      /* the lowest 16 bits; of a deleted row 11, of a link 10 */
    uint64_t number;    /* of a node, of media, and in .by */
};

/* Beside the collections' numbers, in keys: a file of media, by its ino. What is saved under such a key is
 * its metadata; notes have it, too. */
enum { COLLECTION_MEDIA = 15 };
#define MEDIA_FOLDER "media" /* in each region */

/* The nodeid of a revision, by its mark, and the st_ino of its row (of a file of media: of its document in
 * .meta). */
uint64_t address_revision(const struct row_key *key, uint64_t mark);
uint64_t address_row(const struct row_key *key);
/* The nodeid of a deleted row, its st_ino with a mark of 0. They lie beside the fixed places: collection
 * 0, and in the lowest 16 bits a 1, the collection and 11 of the mark. */
uint64_t address_deleted(const struct row_key *key, uint64_t mark);
/* The nodeid of a link in .by, its st_ino with a rev of 0; likewise, with a 01 and 10 of the row's rev. */
uint64_t address_by_link(const struct row_key *key, uint64_t rev);
/* The nodeid and st_ino of a field in .by, the nodeid of a value there, and its st_ino by a hash. */
uint64_t address_by_field(const struct row_key *key, unsigned field);
uint64_t address_by_value(uint64_t number);
uint64_t address_by_value_ino(uint64_t hash);
/* The nodeid (and st_ino) of a fixed place. */
uint64_t address_place(enum place_kind kind, unsigned collection, unsigned region);
/* The nodeid of a node: 1 <= number < 2^38. */
uint64_t address_node(uint64_t number);

/* The numbers of media: of a folder and, as st_ino, of a file; and of a revision of a file. */
uint64_t address_media(unsigned region, uint64_t ino);
uint64_t address_media_file(unsigned region, uint64_t node);

/* Of .meta and of a document there, and of the folder of a file's older revisions: see above. */
uint64_t address_meta(unsigned region, uint64_t ino);
uint64_t address_meta_revisions(unsigned region, uint64_t ino);

/* Whether the place is that revision of its row. */
bool address_is_revision(const struct place *place, uint64_t mark);

/* What a nodeid stands for; false for a number that is none of ours. */
bool address_parse(uint64_t nodeid, struct place *place);
