/*
 * Rows by the values of their indexed fields. Which fields those are is declared in sql/code/ with each
 * collection; here a field is a number. Nothing is cached: what is answered is what a node that has replayed
 * the shard's token has. Every call takes an op and says why in *f, as those of store.h do.
 */
#pragma once

#include "entity/store.h"

/* Numbers and texts in one piece of memory: free() it. */
struct by_page {
    size_t count; /* less than asked for: there are no more */
    struct by_item {
        int64_t number;
        const char *text; /* within the page */
    } items[];
};

/* The fields of a collection, by name: at most a few dozen. */
int store_by_fields(struct store *store, unsigned collection, unsigned region, const struct op *op,
                    struct by_page **out, struct fail *f);
/* The values that a field has in a region, behind `after` (NULL = from the start) in the database's order. */
int store_by_values(struct store *store, unsigned collection, unsigned region, unsigned field,
                    const char *after, size_t limit, const struct op *op, struct by_page **out,
                    struct fail *f);
/* The rows that have a value (UTF-8), behind an id; of a revision no more than the rev is filled in. None for
 * a text that is no value of the field. */
int store_by_rows(struct store *store, unsigned collection, unsigned region, unsigned field,
                  const char *value, int64_t after, size_t limit, const struct op *op, struct page **out,
                  struct fail *f);
