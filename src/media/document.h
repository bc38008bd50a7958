/* What documents of any driver hold, and how they are asked for; for the files of media/ only. */
#pragma once

#include <bson/bson.h>
#include <stdbool.h>
#include <stdint.h>

#include "media/index.h"

/* A whole number of any numeric type (int32, int64, double, decimal128); false for everything else. */
bool media_number(const bson_iter_t *at, int64_t *out);

/* A field of a document, by its own name (no path); false when it is not there. */
static inline bool media_field(const bson_t *document, const char *name, bson_iter_t *at)
{
    return document && bson_iter_init_find(at, document, name);
}

/*
 * Adds to a filter that a field is that very value: plainly, which servers answer from their indexes, but
 * {$eq: ...} where it would be read as a query.
 */
void media_where(bson_t *filter, const char *field, const bson_iter_t *value);
/*
 * {field: {$in: [values]}} in the making: begun, added to, ended, which gives the filter, the caller's to
 * destroy and to add to. Values are taken as they are, documents too; a regular expression would be a
 * pattern.
 */
struct media_in {
    const char *field; /* borrowed */
    bson_t *list;      /* owned until the end */
    uint32_t n;        /* values so far */
};
void media_in_begin(struct media_in *in, const char *field);
void media_in_add(struct media_in *in, const bson_value_t *value);
bson_t *media_in_end(struct media_in *in);
/* Adds the _id of a document, where it has one. */
void media_in_add_id(struct media_in *in, const bson_t *document);
void media_in_add_int64(struct media_in *in, int64_t value);
/* {field: the revision's id}. The caller's to destroy, and to add to. */
bson_t *media_id_filter(const struct media_revision *revision, const char *field);
/* The same by its _id, where metadata can be added to: they are a document, or there are none. */
bson_t *media_metadata_filter(const struct media_revision *revision);
/* A document of <bucket>.folders: its path, which lives as long as that; false for one that is none of ours.
 */
bool media_marker_parse(const bson_t *doc, const char **path, struct media_marker *marker);
