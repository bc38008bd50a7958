#include "media/attributes.h"

#include <errno.h>

#include "media/bucket.h"
#include "media/document.h"

int media_set_attributes(struct mongo *mongo, const char *region, const struct media_revision *revision,
                         const struct media_attributes *attributes, const struct op *op,
                         struct media_revision **out, struct fail *f)
{
    CLEANUP(bson_destroyp) bson_t *filter = media_id_filter(revision, "_id");
    CLEANUP(bson_destroyp) bson_t *writable = media_metadata_filter(revision);
    CLEANUP(bson_destroyp) bson_t *update = bson_new();
    CLEANUP(bson_destroyp) bson_t *document = NULL;
    bson_t set;
    int64_t matched;
    BSON_APPEND_DOCUMENT_BEGIN(update, "$set", &set);
    if (attributes->set_mtime)
        BSON_APPEND_INT64(&set, "metadata.mtime", attributes->mtime_ns);
    if (attributes->set_mode)
        BSON_APPEND_INT32(&set, "metadata.mode", (int32_t)(attributes->mode & 07777));
    if (attributes->set_uid)
        BSON_APPEND_INT64(&set, "metadata.owner.uid", attributes->uid);
    if (attributes->set_gid)
        BSON_APPEND_INT64(&set, "metadata.owner.gid", attributes->gid);
    bson_append_document_end(update, &set);
    int r = bucket_update(mongo, region, "files", writable, update, false, &matched, "cannot set attributes",
                          op, f);
    if (r == 0)
        r = bucket_find_one(mongo, region, "files", filter, NULL, &document, "cannot look into GridFS", op,
                            f);
    if (r == 0 && document && matched == 0)
        return fail_set(
            f, EINVAL,
            "another program has stored metadata of this file that are no document: nothing can be "
            "noted there");
    if (r < 0)
        return r;
    return document ? media_revision_parse(document, out) : -ESTALE;
}
