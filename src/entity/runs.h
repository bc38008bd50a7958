/*
 * The rows of pages that were listed, without their documents: listing a folder again needs no query.
 * Bounded, the oldest page first out; a change in a folder drops all of its pages. Coherence is the store's
 * (freshness.h). Thread-safe.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct runs;

/* What a listing shows of a row. */
struct run_row {
    int64_t id;
    uint64_t rev;
    int64_t mtime_us;
    uint32_t edition;
    uint32_t size; /* of a document, in bytes */
};

/* A page is the answer to these; `limit` since a shorter one would end elsewhere. */
struct run_key {
    unsigned collection, region;
    int64_t after;
    size_t limit;
};

/* `limit` bounds the bytes of all pages. NULL when memory is out. */
struct runs *runs_new(size_t limit);
void runs_free(struct runs *runs);

/* Remembers a page's rows; failing to (memory) only costs a query later. */
void runs_put(struct runs *runs, const struct run_key *key, const struct run_row *rows, size_t n);
/* The rows of a page, *n of them (perhaps 0), to be free()d; NULL when the page is not known. */
struct run_row *runs_get(struct runs *runs, const struct run_key *key, size_t *n);
/* Forgets the pages of a folder; collection 0 or region 0 stand for every one. */
void runs_drop(struct runs *runs, unsigned collection, unsigned region);
