/*
 * What is known of a file of media beside its bytes, as a JSON document: sql/mongo/media_meta.schema.json
 * says which fields it has, in which order, and what those that can be written may be.
 *
 * They lie in `metadata` of the files document: title, language, durationMs, contentType (with
 * contentTypeGiven when somebody chose it, else it follows from the content), updatedAt (when they were
 * saved last). What other programs put there under these names counts where it is what a field may be; else
 * the field is null, and what is there is left alone until the field is saved.
 *
 * A save changes these fields of that one document, never the bytes, the time or the revision. Errors are
 * those of media_error_set(). Thread-safe.
 */
#pragma once

#include "media/media.h"

/* "None" and "any" of times, which are µs since the epoch; the same as entity/store.h's. */
#define MEDIA_META_TIME_NONE INT64_MIN
#define MEDIA_META_TIME_FOREVER INT64_MAX

struct media_meta {
    char *text; /* laid out as rows are, owned */
    size_t len;
    int64_t updated_us; /* as shown: of the last save, else of the upload */
};
void media_meta_clear(struct media_meta *meta);

/*
 * What is asked of MongoDB for the documents of many files, by one query, for who looks at one after the
 * other. Does not change; references are counted atomically.
 */
enum { MEDIA_META_PAGE = 256 };
struct media_meta_page;
/* Of the newest revisions of n <= MEDIA_META_PAGE files, by their inos; the caller's reference. Some may be
 * missing: they are gone, or have to be asked for one by one. */
int media_meta_page(struct media *media, unsigned region, const uint64_t *inos, size_t n, const struct op *op,
                    struct media_meta_page **out, struct fail *f);
/* Both take NULL. */
struct media_meta_page *media_meta_page_ref(struct media_meta_page *page);
void media_meta_page_unref(struct media_meta_page *page);
DEFINE_CLEANUP(struct media_meta_page, media_meta_page_unref)

/* The document of the file that `info` tells of, as it was when `page` (NULL = none) was fetched if that has
 * it. A content type that nobody has stored is found out now, from the first bytes. -ESTALE when the revision
 * has been replaced or removed meanwhile. */
int media_meta_read(struct media *media, unsigned region, const char *name, const struct media_info *info,
                    const struct media_meta_page *page, const struct op *op, struct media_meta *out,
                    struct fail *f);

struct media_meta_put {
    const char *text; /* that json_check() has passed */
    size_t len;
    int64_t base_us; /* the version it is based on when later than its updated_at; MEDIA_META_TIME_NONE, or
                        MEDIA_META_TIME_FOREVER: never a conflict */
};
/*
 * A text becomes what is known of the file of that ino. -EINVAL with the field and what it may be, -ECANCELED
 * when that was saved after the version that the text is based on, or the file has gone; -EAGAIN when others
 * change it again and again. *updated_us as shown from now on; *unchanged: it said that already, and nothing
 * was written. A new revision that is published meanwhile gets it, too.
 */
int media_meta_save(struct media *media, unsigned region, uint64_t ino, const struct media_meta_put *put,
                    const struct op *op, int64_t *updated_us, bool *unchanged, struct fail *f);
