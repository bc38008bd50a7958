#include "command/seed_media.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "command/seed_files.h"
#include "command/seed_make.h"
#include "media/gridfs.h"
#include "media/media_error.h"
#include "media/mongo.h"

enum { OP_MS = 60000, PREFERENCES_BATCH = 1000 };

/* What all writing shares. */
struct media_run {
    const struct seed_plan *plan;
    mongoc_client_t *client;
    const char *database;
    bool again;
    struct seed_media_counts *counts;
    void (*done)(void *arg, int64_t n);
    void *arg;
    struct fail *f;
};

/* Preferences
 * ---------------------------------------------------------------------------------------------------------
 */

/* Most people of a small platform have set something; of a large one few. */
static bool has_preferences(const struct seed_plan *plan, const struct seed_region *region, int64_t u)
{
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_PREFERENCES, region->number, ~(uint64_t)u);
    return seed_random_chance(&random, plan->users <= 1000 ? 80 : 10);
}

int64_t seed_media_preferences(const struct seed_plan *plan)
{
    int64_t n = 0;
    for (size_t r = 0; r < plan->nregions; r++)
        for (int64_t u = 0; u < plan->regions[r].users; u++)
            n += has_preferences(plan, &plan->regions[r], u);
    return n;
}

static void add_choices(bson_t *doc, const struct seed_country *country, struct seed_random *random)
{
    static const char *const digests[] = {"weekly", "daily", "never"};
    static const char *const qualities[] = {"auto", "720p", "1080p", "480p", "360p"};
    static const double speeds[] = {1.0, 1.25, 1.5, 0.75, 2.0};
    bson_t part;
    BSON_APPEND_DOCUMENT_BEGIN(doc, "notifications", &part);
    BSON_APPEND_BOOL(&part, "email", seed_random_chance(random, 80));
    BSON_APPEND_BOOL(&part, "push", seed_random_chance(random, 55));
    BSON_APPEND_BOOL(&part, "sms", seed_random_chance(random, 10));
    BSON_APPEND_BOOL(&part, "course_updates", seed_random_chance(random, 85));
    BSON_APPEND_BOOL(&part, "reminders", seed_random_chance(random, 60));
    BSON_APPEND_BOOL(&part, "newsletter", seed_random_chance(random, 25));
    const char *word = digests[seed_random_low(random, 3)]; /* the macro looks at it twice */
    BSON_APPEND_UTF8(&part, "digest", word);
    bson_append_document_end(doc, &part);
    BSON_APPEND_DOCUMENT_BEGIN(doc, "playback", &part);
    BSON_APPEND_DOUBLE(&part, "speed", speeds[seed_random_low(random, 5)]);
    word = qualities[seed_random_low(random, 5)];
    BSON_APPEND_UTF8(&part, "quality", word);
    BSON_APPEND_BOOL(&part, "autoplay", seed_random_chance(random, 65));
    BSON_APPEND_BOOL(&part, "captions", seed_random_chance(random, 35));
    BSON_APPEND_UTF8(&part, "captions_language", country->teaches);
    BSON_APPEND_INT32(&part, "volume", (int32_t)seed_random_within(random, 3, 10) * 10);
    bson_append_document_end(doc, &part);
    BSON_APPEND_DOCUMENT_BEGIN(doc, "accessibility", &part);
    BSON_APPEND_INT32(&part, "font_scale", seed_random_chance(random, 80) ? 100 : 125);
    BSON_APPEND_BOOL(&part, "high_contrast", seed_random_chance(random, 5));
    BSON_APPEND_BOOL(&part, "reduce_motion", seed_random_chance(random, 8));
    BSON_APPEND_BOOL(&part, "screen_reader", seed_random_chance(random, 2));
    BSON_APPEND_BOOL(&part, "transcripts", seed_random_chance(random, 15));
    bson_append_document_end(doc, &part);
}

static int64_t user_id(const struct seed_plan *plan, const struct seed_region *region, int64_t u)
{
    return seed_id(plan->shards[region->shard].number, region->first_user + u);
}

static bson_t *make_preferences(const struct seed_plan *plan, const struct seed_region *region, int64_t u)
{
    static const char *const themes[] = {"system", "dark", "light"};
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_PREFERENCES, region->number, (uint64_t)u);
    struct seed_user user;
    seed_user_of(plan, region, u, &user);
    struct seed_place place = seed_place_of(plan, region, u, user.country);
    int64_t id = user_id(plan, region, u);
    bson_t *doc =
        BCON_NEW("_id", BCON_INT64(id), "user_id", BCON_INT64(id), "language", BCON_UTF8(user.country->tag));
    const char *theme = themes[seed_random_below(&random, 3)]; /* the macro looks at it twice */
    BSON_APPEND_UTF8(doc, "theme", theme);
    bson_append_utf8(doc, "timezone", -1, place.zone.text, (int)place.zone.len);
    add_choices(doc, user.country, &random);
    int64_t updated = user.created + seed_random_below(&random, SEED_NOW - user.created);
    BSON_APPEND_DATE_TIME(doc, "updated_at", updated / 1000);
    return doc;
}

/* Inserts a batch and frees its documents. */
static int send_preferences(struct media_run *run, mongoc_collection_t *to, bson_t **docs, size_t n)
{
    bson_error_t error;
    bool sent = n == 0;
    if (!sent && run->again) {
        bson_t range = BSON_INITIALIZER, list;
        bson_t inner;
        BSON_APPEND_DOCUMENT_BEGIN(&range, "user_id", &inner);
        BSON_APPEND_ARRAY_BEGIN(&inner, "$in", &list);
        for (size_t i = 0; i < n; i++) {
            bson_iter_t id;
            char key[16];
            const char *name;
            size_t len = bson_uint32_to_string((uint32_t)i, &name, key, sizeof(key));
            if (bson_iter_init_find(&id, docs[i], "user_id"))
                bson_append_int64(&list, name, (int)len, bson_iter_int64(&id));
        }
        bson_append_array_end(&inner, &list);
        bson_append_document_end(&range, &inner);
        sent = mongoc_collection_delete_many(to, &range, NULL, NULL, &error) &&
               mongoc_collection_insert_many(to, (const bson_t **)docs, n, NULL, NULL, &error);
        bson_destroy(&range);
    } else if (!sent) {
        sent = mongoc_collection_insert_many(to, (const bson_t **)docs, n, NULL, NULL, &error);
    }
    for (size_t i = 0; i < n; i++)
        bson_destroy(docs[i]);
    if (!sent)
        return media_error_set(run->f, &error, "cannot write preferences");
    run->counts->preferences += (int64_t)n;
    run->done(run->arg, (int64_t)n);
    return 0;
}

static int write_preferences(struct media_run *run)
{
    CLEANUP(mongoc_collection_destroyp)
    mongoc_collection_t *to = mongoc_client_get_collection(run->client, run->database, "preferences");
    CLEANUP(freep) bson_t **docs = calloc(PREFERENCES_BATCH, sizeof(*docs));
    size_t n = 0;
    int r = docs ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < run->plan->nregions; i++) {
        const struct seed_region *region = &run->plan->regions[i];
        for (int64_t u = 0; r == 0 && u < region->users; u++) {
            if (!has_preferences(run->plan, region, u))
                continue;
            docs[n++] = make_preferences(run->plan, region, u);
            if (n == PREFERENCES_BATCH) {
                r = send_preferences(run, to, docs, n);
                n = 0;
            }
        }
    }
    return r < 0 ? r : send_preferences(run, to, docs, n);
}

/* Files
 * ---------------------------------------------------------------------------------------------------------------
 */

/* One file of a course; its id is made of the seed and its place, so that a second run finds it. */
static int write_file(struct media_run *run, const struct seed_course *course, int place, const char *path,
                      struct seed_span title, const char *type, int duration_ms, const struct buf *content)
{
    const struct seed_region *region = course->region;
    unsigned shard = run->plan->shards[region->shard].number;
    struct seed_random random = seed_random_of(run->plan->seed, SEED_KIND_MEDIA, shard,
                                               (uint64_t)course->ordinal * 64 + (uint64_t)place);
    uint64_t bits[2] = {seed_random_next(&random), seed_random_next(&random)};
    uint8_t bytes[12];
    bson_oid_t id;
    char filename[384], title_text[256];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(bits[i / 8] >> (i % 8 * 8));
    bson_oid_init_from_data(&id, bytes);
    snprintf(filename, sizeof(filename), "%lld/%s", (long long)seed_id(shard, course->ordinal), path);
    snprintf(title_text, sizeof(title_text), "%.*s", (int)title.len, title.text);
    struct gridfs_meta meta = {.course_id = seed_id(shard, course->ordinal),
                               .title = title_text,
                               .content_type = type,
                               .duration_ms = duration_ms,
                               .mtime_ns = course->edited * 1000,
                               .mode = 0640,
                               .uploaded_ms = course->edited / 1000};
    struct op op = op_within(OP_MS);
    CLEANUP(gridfs_upload_closep) struct gridfs_upload *upload = NULL;
    int r = run->again ? gridfs_remove(run->client, run->database, region->name, &id, &op, run->f) : 0;
    r = r < 0 ? r
              : gridfs_upload_open(run->client, run->database, region->name, filename, &id, &op, &upload,
                                   run->f);
    r = r < 0 ? r : gridfs_upload_write(upload, content->data, content->len, &op, run->f);
    r = r < 0 ? r : gridfs_upload_publish(upload, &meta, &op, run->f);
    if (r < 0)
        return r;
    run->counts->files++;
    run->counts->bytes += (int64_t)content->len;
    run->done(run->arg, 1);
    return 0;
}

/* The film of a lesson and its captions. */
static int write_film(struct media_run *run, const struct seed_course *course, int place, const char *path,
                      const struct seed_lesson *lesson)
{
    struct buf content = {0};
    char captions[300];
    struct seed_random random =
        seed_random_of(run->plan->seed, SEED_KIND_MEDIA, course->region->number, (uint64_t)course->ordinal);
    int r = seed_files_film(&content, seed_random_next(&random) + (uint64_t)place * 977);
    r = r < 0 ? r
              : write_file(run, course, place, path, lesson->name, "video/x-msvideo", SEED_FILM_MS, &content);
    buf_clear(&content);
    snprintf(captions, sizeof(captions), "%.*s.%s.vtt", (int)(strrchr(path, '.') - path), path,
             course->language->tag);
    r = r < 0 ? r : seed_files_captions(&content, seed_course_topic(course), lesson->name);
    r = r < 0
            ? r
            : write_file(run, course, place + 16, captions, lesson->name, "text/vtt", SEED_FILM_MS, &content);
    buf_clear(&content);
    return r;
}

static int write_page(struct media_run *run, const struct seed_course *course, int place, const char *path,
                      const struct seed_lesson *lesson)
{
    struct buf content = {0};
    char text[160];
    struct seed_span topic = seed_word(seed_categories[course->category].topics, (size_t)course->topic);
    snprintf(text, sizeof(text), "Course %lld, lesson 1.%d: %.*s",
             (long long)seed_id(run->plan->shards[course->region->shard].number, course->ordinal), place + 1,
             (int)topic.len, topic.text);
    int r = seed_files_page(&content, lesson->name, text);
    r = r < 0 ? r : write_file(run, course, place, path, lesson->name, "application/pdf", -1, &content);
    buf_clear(&content);
    return r;
}

static int write_jingle(struct media_run *run, const struct seed_course *course)
{
    struct buf content = {0};
    struct seed_random random =
        seed_random_of(run->plan->seed, SEED_KIND_MEDIA, course->region->number, ~(uint64_t)course->ordinal);
    int r = seed_files_sound(&content, seed_random_next(&random));
    r = r < 0 ? r
              : write_file(run, course, 63, "intro.wav", seed_course_topic(course), "audio/x-wav",
                           SEED_SOUND_MS, &content);
    buf_clear(&content);
    return r;
}

/* The files that the lessons of the course's first module name, and a jingle. */
static int write_course(struct media_run *run, const struct seed_shard *shard,
                        const struct seed_course *course)
{
    int lessons = seed_module_lessons(run->plan, shard, course->ordinal, 0);
    int r = write_jingle(run, course);
    for (int i = 0; r == 0 && i < lessons; i++) {
        struct seed_lesson lesson;
        char path[256];
        seed_lesson_of(run->plan, shard, course, 0, lessons, i, &lesson);
        if (!seed_lesson_media(course, 0, i, &lesson, path, sizeof(path)))
            continue;
        r = lesson.kind == SEED_VIDEO ? write_film(run, course, i, path, &lesson)
                                      : write_page(run, course, i, path, &lesson);
    }
    return r;
}

static int write_files(struct media_run *run)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < run->plan->nregions; i++) {
        const struct seed_region *region = &run->plan->regions[i];
        const struct seed_shard *shard = &run->plan->shards[region->shard];
        for (int64_t o = 0; r == 0 && o < region->courses; o++) {
            struct seed_course course;
            seed_course_of(run->plan, shard, region->first_course + o, &course);
            if (!seed_course_has_media(&course))
                break;
            r = write_course(run, shard, &course);
        }
    }
    return r;
}

/* All of it
 * -----------------------------------------------------------------------------------------------------------
 */

/* Whether a collection has any document. */
static int check_empty(mongoc_client_t *client, const char *database, const char *name, struct fail *f)
{
    CLEANUP(mongoc_collection_destroyp)
    mongoc_collection_t *collection = mongoc_client_get_collection(client, database, name);
    CLEANUP(bson_destroyp) bson_t *all = bson_new();
    CLEANUP(bson_destroyp) bson_t *opts = BCON_NEW("limit", BCON_INT64(1), "singleBatch", BCON_BOOL(true));
    CLEANUP(mongoc_cursor_destroyp)
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(collection, all, opts, NULL);
    const bson_t *doc;
    bson_error_t error;
    if (mongoc_cursor_next(cursor, &doc))
        return fail_set(f, EEXIST, "MongoDB is not empty: database %s has documents in %s", database, name);
    return mongoc_cursor_error(cursor, &error) ? media_error_set(f, &error, "cannot read MongoDB") : 0;
}

int seed_media_check(const struct config *config, bool again, struct fail *f)
{
    CLEANUP(mongoc_client_destroyp) mongoc_client_t *client = NULL;
    CLEANUP(freep) char *database = NULL;
    struct op op = op_within(OP_MS);
    int r = mongo_client(config->mongodb_uri, &op, &client, &database, f);
    if (r < 0)
        return r;
    r = check_empty(client, database, "preferences", f);
    for (size_t i = 0; r == 0 && i < config->nregions; i++) {
        char files[96];
        snprintf(files, sizeof(files), "media_%s.files", config->regions[i].name);
        r = check_empty(client, database, files, f);
    }
    if (r == -EEXIST && again) { /* an interrupted run's own */
        *f = (struct fail){0};
        r = 0;
    }
    return r;
}

int seed_media_load(const struct config *config, const struct seed_plan *plan, bool again,
                    struct seed_media_counts *counts, void (*done)(void *arg, int64_t n), void *arg,
                    struct fail *f)
{
    CLEANUP(mongoc_client_destroyp) mongoc_client_t *client = NULL;
    CLEANUP(freep) char *database = NULL;
    struct op op = op_within(OP_MS);
    int r = mongo_client(config->mongodb_uri, &op, &client, &database, f);
    if (r < 0)
        return r;
    struct media_run run = {plan, client, database, again, counts, done, arg, f};
    r = write_files(&run);
    return r < 0 ? r : write_preferences(&run);
}
