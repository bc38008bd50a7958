/*
 * Users' preferences: one document a user in the collection `preferences`, as
 * sql/mongo/preferences.schema.json says. Errors are those of media_error_set().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "media/mongo.h"

/* The fields in the document's order. Texts are borrowed. */
struct preferences {
    int64_t user_id;
    const char *language, *theme;
    char timezone[65];
    struct {
        bool email, push, sms, course_updates, reminders, newsletter;
        const char *digest;
    } notifications;
    struct {
        double speed;
        const char *quality;
        bool autoplay, captions;
        const char *captions_language;
        int volume;
    } playback;
    struct {
        int font_scale;
        bool high_contrast, reduce_motion, screen_reader, transcripts;
    } accessibility;
    int64_t updated_ms; /* since the epoch */
};

/* Inserts documents of users who have none: -EEXIST when one has. Some may have been inserted when it fails.
 */
int preferences_insert(struct mongo *mongo, const struct preferences *list, size_t n, struct fail *f);

/* Deletes those of the users of a list. */
int preferences_remove(struct mongo *mongo, const struct preferences *list, size_t n, struct fail *f);
