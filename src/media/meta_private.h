/* What media/meta.c and media/meta_save.c share. */
#pragma once

#include <bson/bson.h>

#include "media/json_schema.h"
#include "media/meta.h"

/* What the fields that can be written are now: texts are owned, NULL = null. */
struct media_meta_fields {
    char *title, *language, *content_type;
    int64_t duration_ms; /* -1 = null */
    bool given;          /* somebody chose the content type */
    bool found;          /* it was found out just now: nobody has stored it */
    int64_t updated_us;  /* MEDIA_META_TIME_NONE = they were never saved */
};
/* Of a files document, without finding anything out; -ENOMEM. */
int media_meta_fields(const bson_t *document, struct media_meta_fields *out);
void media_meta_fields_clear(struct media_meta_fields *fields);
/* The document of a revision, what is needed of it; NULL in *out when it is gone. The caller's to destroy. */
int media_meta_document(struct media *media, unsigned region, const struct media_revision *revision,
                        const struct op *op, bson_t **out, struct fail *f);
/* Adds to the options of a find that no more is needed of a files document. */
void media_meta_projection(bson_t *opts);
/* The document of a revision in a page, as long as that lives; NULL when it has none, and for a page of NULL.
 */
const bson_t *media_meta_page_find(const struct media_meta_page *page, const struct media_revision *revision);
/* What its first bytes say; NULL when they say nothing, or cannot be read. The caller's to free. */
char *media_meta_find_type(struct media *media, unsigned region, struct media_revision *revision,
                           const struct op *op);

/* The schema; -EINVAL with words: a mistake in sql/. */
int media_meta_schema(const struct json_schema **out, struct fail *f);
