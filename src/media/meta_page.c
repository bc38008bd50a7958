/* The documents of many files at once. */
#include <errno.h>

#include "media/bucket.h"
#include "media/document.h"
#include "media/media_error.h"
#include "media/meta_private.h"

struct media_meta_page {
    unsigned references; /* atomic */
    size_t n;
    struct {
        struct media_revision *revision; /* what the document says of itself: its _id counts */
        bson_t *document;
    } list[MEDIA_META_PAGE]; /* owned */
};

struct media_meta_page *media_meta_page_ref(struct media_meta_page *page)
{
    if (page)
        __atomic_add_fetch(&page->references, 1, __ATOMIC_RELAXED);
    return page;
}

static void empty(struct media_meta_page *page)
{
    for (size_t i = 0; i < page->n; i++) {
        media_revision_unref(page->list[i].revision);
        bson_destroy(page->list[i].document);
    }
    page->n = 0;
}

void media_meta_page_unref(struct media_meta_page *page)
{
    if (!page || __atomic_sub_fetch(&page->references, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    empty(page);
    free(page);
}

const bson_t *media_meta_page_find(const struct media_meta_page *page, const struct media_revision *revision)
{
    for (size_t i = 0; page && i < page->n; i++)
        if (media_revision_same(page->list[i].revision, revision))
            return page->list[i].document;
    return NULL;
}

/* Adds the _id of a file's revision; ids that a server would read as a condition are asked for
 * one by one, and files that are gone not at all. */
static void add_id(struct media_index *index, uint64_t ino, const struct op *op, struct media_in *in)
{
    char name[MEDIA_NAME_MAX + 1];
    struct media_info info = {0};
    uint64_t folder;
    bson_t id;
    bson_iter_t value;
    if (media_index_file_of(index, ino, op, &info, &folder, name, NULL) < 0)
        return;
    if (bson_init_static(&id, info.revision->id, info.revision->id_len) && media_field(&id, "_id", &value) &&
        !BSON_ITER_HOLDS_DOCUMENT(&value) && !BSON_ITER_HOLDS_REGEX(&value))
        media_in_add(in, bson_iter_value(&value));
    media_info_clear(&info);
}

/* {_id: {$in: [...]}}; *asked how many. The caller's to destroy. */
static bson_t *filter_of(struct media_index *index, const uint64_t *inos, size_t n, const struct op *op,
                         uint32_t *asked)
{
    struct media_in in;
    media_in_begin(&in, "_id");
    for (size_t i = 0; i < n && i < MEDIA_META_PAGE; i++)
        add_id(index, inos[i], op, &in);
    *asked = in.n;
    return media_in_end(&in);
}

static int fetch(struct mongo_collection *files, const bson_t *filter, uint32_t asked, const struct op *op,
                 struct media_meta_page *page, struct fail *f)
{
    for (;;) {
        CLEANUP(bson_destroyp) bson_t *opts = mongo_find_options(op, asked);
        media_meta_projection(opts);
        CLEANUP(mongoc_cursor_destroyp)
        mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(files->handle, filter, opts, NULL);
        const bson_t *document;
        bson_error_t error;
        empty(page);
        while (page->n < MEDIA_META_PAGE && mongoc_cursor_next(cursor, &document)) {
            if (media_revision_parse(document, &page->list[page->n].revision) < 0)
                return -ENOMEM;
            page->list[page->n++].document = bson_copy(document);
        }
        if (!mongoc_cursor_error(cursor, &error))
            return 0;
        if (!mongo_try_again(&error, op))
            return media_error_set(f, &error, "cannot look into GridFS");
    }
}

int media_meta_page(struct media *media, unsigned region, const uint64_t *inos, size_t n, const struct op *op,
                    struct media_meta_page **out, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection files = {0};
    CLEANUP(media_meta_page_unrefp) struct media_meta_page *page = calloc(1, sizeof *page);
    uint32_t asked;
    if (!page)
        return -ENOMEM;
    page->references = 1;
    CLEANUP(bson_destroyp) bson_t *filter = filter_of(media_index(media, region), inos, n, op, &asked);
    int r = asked ? mongo_part_open(media_mongo(media), media_region(media, region), "files", &files, f) : 0;
    if (r == 0 && asked)
        r = fetch(&files, filter, asked, op, page, f);
    if (r == 0)
        *out = STEAL(page);
    return r;
}
