/* What a name in a collection's folder means. Pure. */
#pragma once

#include <stdint.h>

enum name_kind {
    NAME_ROW,      /* <id>.json, canonical: no sign, no leading zero, 1 <= id < 2^38 */
    NAME_NEW,      /* new.json: a row under the next id */
    NAME_NEXT_ID,  /* .next-id */
    NAME_REFUSED,  /* .refused */
    NAME_DELETED,  /* .deleted */
    NAME_BY,       /* .by */
    NAME_EXPORT,   /* .export.jsonl */
    NAME_RESERVED, /* the contract's, but not in this collection: nothing may be made under it */
    NAME_MISTAKEN, /* looks like a row's but is not one (01.json, +1.json, 1.JSON): never exists, cannot be
                      made */
    NAME_SCRATCH,  /* anything else */
};

/* The row's id in *id for NAME_ROW. */
enum name_kind name_parse(const char *name, int64_t *id);

/* Longest name in bytes; longer ones are -ENAMETOOLONG. */
enum { NAME_MAX_BYTES = 255 };
