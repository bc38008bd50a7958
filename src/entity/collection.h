/*
 * The collections: one line each. All that the C side knows of a collection is here; its columns, rules and
 * rendering are in its file of sql/code/.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "postgres/statement.h"

enum { COLLECTIONS_MAX = 16 }; /* 4 bits of an inode number */

/* A row's address, on whatever shard its region lives. */
struct row_key {
    uint8_t collection; /* collection.number */
    uint8_t region;     /* region number; 0 for the collections that belong to no region */
    int64_t id;         /* 1 <= id < ROW_ID_END */
};

#define ROW_ID_END (INT64_C(1) << 38)

struct collection {
    unsigned number;    /* 1..11 (12 to 15: media), part of inode numbers: never renumbered */
    const char *folder; /* its name in the tree */
    const char *suffix; /* its name in SQL: doc_<suffix>, put_<suffix>, delete_<suffix>; NULL = not in SQL */
    bool global;        /* the same on every shard; the first configured shard is the authority */
    bool secret;        /* only where the configuration says credentials = on; files of mode 0400 */
    bool has_media;     /* a row has a folder media/<id>/ in its region, and is not deleted while files are in it */
    bool movable;       /* move_<suffix> takes a row to another region of its shard */
    bool of_users;      /* one for each user, in MongoDB, where one is configured (store_preferences.h) */

    /* Built from the suffix by collections_prepare(). */
    struct pg_statement get;          /* $1 region, $2 id → one document row (DOCUMENT_COLUMNS) */
    struct pg_statement page;         /* $1 region, $2 last id, $3 limit → document rows, by id */
    struct pg_statement put;          /* see sql/code: region, id, doc, at, base, claimed, request, actor */
    struct pg_statement put_existing; /* the same; no row comes back when there is none of that id */
    struct pg_statement delete;       /* region, id, request, actor → 'deleted' | 'missing' */
    struct pg_statement undelete;     /* region, id, request, actor → as put, no row when none is kept */
    struct pg_statement move;         /* region, id, to, request, actor → as put */
};

/* The columns of get and page. */
enum document_column { DOCUMENT_ID, DOCUMENT_REV, DOCUMENT_UPDATED_US, DOCUMENT_CONTENT_US, DOCUMENT_BODY };
/* The columns of put and move. */
enum put_column { PUT_OUTCOME, PUT_ID, PUT_REV, PUT_UPDATED_US, PUT_CONTENT_US, PUT_BODY };

/* Builds the statements; once, before any other call. */
void collections_prepare(void);

/* NULL when there is none of that number or folder. */
const struct collection *collection_numbered(unsigned number);
const struct collection *collection_of_folder(const char *folder);

/* Whether the tree has it: a secret one, and one in MongoDB, only where the configuration says so. */
bool collection_shown(const struct collection *collection, const struct config *config);

/* Walks the collections in the order of the listing: start with NULL. */
const struct collection *collection_next(const struct collection *previous);
