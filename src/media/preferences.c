#include "media/preferences.h"

#include <errno.h>
#include <stdlib.h>

#include "media/document.h"
#include "media/media_error.h"
#include "media/mongo_client.h"

static bson_t *document_of(const struct preferences *p)
{
    /* The user is also the _id, so that no two writers can make two documents even before the index is there.
     */
    bson_t *doc =
        BCON_NEW("_id", BCON_INT64(p->user_id), "user_id", BCON_INT64(p->user_id), "language",
                 BCON_UTF8(p->language), "theme", BCON_UTF8(p->theme), "timezone", BCON_UTF8(p->timezone));
    bson_t part;
    BSON_APPEND_DOCUMENT_BEGIN(doc, "notifications", &part);
    BSON_APPEND_BOOL(&part, "email", p->notifications.email);
    BSON_APPEND_BOOL(&part, "push", p->notifications.push);
    BSON_APPEND_BOOL(&part, "sms", p->notifications.sms);
    BSON_APPEND_BOOL(&part, "course_updates", p->notifications.course_updates);
    BSON_APPEND_BOOL(&part, "reminders", p->notifications.reminders);
    BSON_APPEND_BOOL(&part, "newsletter", p->notifications.newsletter);
    BSON_APPEND_UTF8(&part, "digest", p->notifications.digest);
    bson_append_document_end(doc, &part);
    BSON_APPEND_DOCUMENT_BEGIN(doc, "playback", &part);
    BSON_APPEND_DOUBLE(&part, "speed", p->playback.speed);
    BSON_APPEND_UTF8(&part, "quality", p->playback.quality);
    BSON_APPEND_BOOL(&part, "autoplay", p->playback.autoplay);
    BSON_APPEND_BOOL(&part, "captions", p->playback.captions);
    BSON_APPEND_UTF8(&part, "captions_language", p->playback.captions_language);
    BSON_APPEND_INT32(&part, "volume", p->playback.volume);
    bson_append_document_end(doc, &part);
    BSON_APPEND_DOCUMENT_BEGIN(doc, "accessibility", &part);
    BSON_APPEND_INT32(&part, "font_scale", p->accessibility.font_scale);
    BSON_APPEND_BOOL(&part, "high_contrast", p->accessibility.high_contrast);
    BSON_APPEND_BOOL(&part, "reduce_motion", p->accessibility.reduce_motion);
    BSON_APPEND_BOOL(&part, "screen_reader", p->accessibility.screen_reader);
    BSON_APPEND_BOOL(&part, "transcripts", p->accessibility.transcripts);
    bson_append_document_end(doc, &part);
    BSON_APPEND_DATE_TIME(doc, "updated_at", p->updated_ms);
    return doc;
}

int preferences_insert(struct mongo *mongo, const struct preferences *list, size_t n, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection to;
    CLEANUP(freep) bson_t **docs = calloc(n + 1, sizeof(*docs));
    bson_error_t error;
    int r = mongo_collection_open(mongo, "preferences", &to, f);
    if (r < 0 || !docs || n == 0)
        return r < 0 ? r : docs ? 0 : -ENOMEM;
    for (size_t i = 0; i < n; i++)
        docs[i] = document_of(&list[i]);
    if (!mongoc_collection_insert_many(to.handle, (const bson_t **)docs, n, NULL, NULL, &error))
        r = media_error_set(f, &error, "cannot write preferences");
    for (size_t i = 0; i < n; i++)
        bson_destroy(docs[i]);
    return r;
}

int preferences_remove(struct mongo *mongo, const struct preferences *list, size_t n, struct fail *f)
{
    CLEANUP(mongo_collection_close) struct mongo_collection from;
    bson_error_t error;
    struct media_in in;
    int r = mongo_collection_open(mongo, "preferences", &from, f);
    if (r < 0)
        return r;
    media_in_begin(&in, "user_id");
    for (size_t i = 0; i < n; i++)
        media_in_add_int64(&in, list[i].user_id);
    CLEANUP(bson_destroyp) bson_t *filter = media_in_end(&in);
    if (!mongoc_collection_delete_many(from.handle, filter, NULL, NULL, &error))
        r = media_error_set(f, &error, "cannot delete preferences");
    return r;
}
