/*
 * The transactions of a shard's change log, read from a stream of pgoutput (postgres/pgoutput.h): which rows
 * each has changed, and where its commit lies. Pure, as the parser below it: whatever a stream says, it is
 * understood, or -EPROTO, after which the stream can only be ended.
 *
 * A transaction is taken whole or not at all. Of one that names more rows than CHANGES_ROWS_MAX, or whose log
 * was truncated, it is only said that everything has changed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "entity/collection.h"

/* A row has changed; its revision from then on. A key of id 0: any row of the collection and region; of
 * collection 0: of any, and all of a region; a rev of 0: not known. */
struct row_change {
    struct row_key key;
    uint64_t rev;
    int64_t changed_us; /* since the epoch: the folder's time from then on; 0 = not known */
};

enum { CHANGES_ROWS_MAX = 4096, CHANGES_RELATIONS_MAX = 16 };

struct changes {
    struct relation {
        uint32_t id;
        bool log;           /* it is the change log */
        uint16_t columns;   /* how many it has */
        uint16_t wanted[5]; /* where those that are read stand */
    } relations[CHANGES_RELATIONS_MAX];
    size_t nrelations;

    bool open; /* between begin and commit */
    uint64_t commit_lsn;

    /* The transaction that is being read, and after its commit the one that has been. */
    struct row_change rows[CHANGES_ROWS_MAX];
    size_t n;
    bool everything;      /* too many, or truncated */
    uint32_t xid;         /* the low half of its number */
    uint64_t end_lsn;     /* behind its commit */
    int64_t committed_us; /* the server's clock, microseconds since the year 2000 */
};

/* Zero-initialised is before the first message. One message: 1 when it ended a transaction (which may have
 * changed nothing), else 0; -EPROTO. */
int changes_read(struct changes *changes, const char *data, size_t len);
