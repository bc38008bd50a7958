#include "command/seed_media.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "command/seed_files.h"
#include "command/seed_make.h"
#include "media/gridfs.h"
#include "media/preferences.h"

enum { OP_MS = 60000, PREFERENCES_BATCH = 1000 };

/* What all writing shares. */
struct media_run {
    const struct seed_plan *plan;
    struct mongo *mongo;
    bool again;
    struct seed_media_counts *counts;
    void (*done)(void *arg, int64_t n);
    void *arg;
    struct fail *f;
};

/* ---- preferences ---- */

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

static void make_choices(struct preferences *p, struct seed_random *random)
{
    static const char *const themes[] = {"system", "dark", "light"};
    static const char *const digests[] = {"weekly", "daily", "never"};
    static const char *const qualities[] = {"auto", "720p", "1080p", "480p", "360p"};
    static const double speeds[] = {1.0, 1.25, 1.5, 0.75, 2.0};
    p->theme = themes[seed_random_below(random, 3)];
    p->notifications.email = seed_random_chance(random, 80);
    p->notifications.push = seed_random_chance(random, 55);
    p->notifications.sms = seed_random_chance(random, 10);
    p->notifications.course_updates = seed_random_chance(random, 85);
    p->notifications.reminders = seed_random_chance(random, 60);
    p->notifications.newsletter = seed_random_chance(random, 25);
    p->notifications.digest = digests[seed_random_low(random, 3)];
    p->playback.speed = speeds[seed_random_low(random, 5)];
    p->playback.quality = qualities[seed_random_low(random, 5)];
    p->playback.autoplay = seed_random_chance(random, 65);
    p->playback.captions = seed_random_chance(random, 35);
    p->playback.volume = (int)seed_random_within(random, 3, 10) * 10;
    p->accessibility.font_scale = seed_random_chance(random, 80) ? 100 : 125;
    p->accessibility.high_contrast = seed_random_chance(random, 5);
    p->accessibility.reduce_motion = seed_random_chance(random, 8);
    p->accessibility.screen_reader = seed_random_chance(random, 2);
    p->accessibility.transcripts = seed_random_chance(random, 15);
}

static void make_preferences(const struct seed_plan *plan, const struct seed_region *region, int64_t u,
                             struct preferences *out)
{
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_PREFERENCES, region->number, (uint64_t)u);
    struct seed_user user;
    seed_user_of(plan, region, u, &user);
    struct seed_place place = seed_place_of(plan, region, u, user.country);
    out->user_id = seed_id(plan->shards[region->shard].number, region->first_user + u);
    out->language = user.country->tag;
    snprintf(out->timezone, sizeof(out->timezone), "%.*s", (int)place.zone.len, place.zone.text);
    out->playback.captions_language = user.country->teaches;
    make_choices(out, &random);
    out->updated_ms = (user.created + seed_random_below(&random, SEED_NOW - user.created)) / 1000;
}

static int send_preferences(struct media_run *run, const struct preferences *list, size_t n)
{
    int r = run->again && n ? preferences_remove(run->mongo, list, n, run->f) : 0;
    r = r < 0 ? r : preferences_insert(run->mongo, list, n, run->f);
    if (r < 0)
        return r;
    run->counts->preferences += (int64_t)n;
    run->done(run->arg, (int64_t)n);
    return 0;
}

static int write_preferences(struct media_run *run)
{
    CLEANUP(freep) struct preferences *list = calloc(PREFERENCES_BATCH, sizeof(*list));
    size_t n = 0;
    int r = list ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < run->plan->nregions; i++) {
        const struct seed_region *region = &run->plan->regions[i];
        for (int64_t u = 0; r == 0 && u < region->users; u++) {
            if (!has_preferences(run->plan, region, u))
                continue;
            make_preferences(run->plan, region, u, &list[n++]);
            if (n == PREFERENCES_BATCH) {
                r = send_preferences(run, list, n);
                n = 0;
            }
        }
    }
    return r < 0 ? r : send_preferences(run, list, n);
}

/* ---- files ---- */

/* One file of a course; its id is made of the seed and its place, so that a second run finds it. */
static int write_file(struct media_run *run, const struct seed_course *course, int place, const char *path,
                      struct seed_span title, const char *type, int duration_ms, const struct buf *content)
{
    const struct seed_region *region = course->region;
    unsigned shard = run->plan->shards[region->shard].number;
    struct seed_random random = seed_random_of(run->plan->seed, SEED_KIND_MEDIA, shard,
                                               (uint64_t)course->ordinal * 64 + (uint64_t)place);
    uint64_t bits[2] = {seed_random_next(&random), seed_random_next(&random)};
    uint8_t id[GRIDFS_ID];
    char filename[384], title_text[256];
    for (size_t i = 0; i < sizeof(id); i++)
        id[i] = (uint8_t)(bits[i / 8] >> (i % 8 * 8));
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
    int r = run->again ? gridfs_remove(run->mongo, region->name, id, &op, run->f) : 0;
    r = r < 0 ? r : gridfs_upload_open(run->mongo, region->name, filename, id, &op, &upload, run->f);
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

/* ---- all of it ---- */

int seed_media_check(const struct config *config, bool again, struct fail *f)
{
    CLEANUP(mongo_closep) struct mongo *mongo = NULL;
    struct op op = op_within(OP_MS);
    char name[96] = "preferences";
    bool filled = false;
    int r = mongo_open(config->mongodb_uri, 1, 0, &mongo, f);
    r = r < 0 ? r : mongo_has_documents(mongo, name, &op, &filled, f);
    for (size_t i = 0; r == 0 && !filled && i < config->nregions; i++) {
        snprintf(name, sizeof(name), "media_%s.files", config->regions[i].name);
        r = mongo_has_documents(mongo, name, &op, &filled, f);
    }
    if (r == 0 && filled && !again) /* else an interrupted run's own */
        return fail_set(f, EEXIST, "MongoDB is not empty: database %s has documents in %s",
                        mongo_database(mongo), name);
    return r;
}

int seed_media_load(const struct config *config, const struct seed_plan *plan, bool again,
                    struct seed_media_counts *counts, void (*done)(void *arg, int64_t n), void *arg,
                    struct fail *f)
{
    CLEANUP(mongo_closep) struct mongo *mongo = NULL;
    int r = mongo_open(config->mongodb_uri, 1, 0, &mongo, f);
    if (r < 0)
        return r;
    struct media_run run = {plan, mongo, again, counts, done, arg, f};
    r = write_files(&run);
    return r < 0 ? r : write_preferences(&run);
}
