/* Categories; courses with their modules and lessons. */
#include <stdio.h>
#include <string.h>

#include "command/seed_make.h"

static int64_t category_id(const struct seed_plan *plan, int category)
{
    return seed_id(plan->authority, category);
}

/* The same on every shard, bytes and ids. */
void seed_make_category(struct seed_maker *maker, const struct seed_region *region, int64_t i)
{
    (void)region;
    struct seed_row *row = &maker->rows[0];
    const struct seed_category *category = &seed_categories[i];
    int64_t created = SEED_NOW - 1736 * SEED_DAY + i * 97 * SEED_SECOND;
    seed_row_int(row, category_id(maker->plan, (int)i));
    if (category->parent < 0)
        seed_row_null(row);
    else
        seed_row_int(row, category_id(maker->plan, category->parent));
    seed_row_text(row, category->name);
    seed_row_text(row, category->slug);
    seed_row_text(row, category->description);
    for (int clock = 0; clock < 3; clock++)
        seed_row_time(row, created);
    seed_row_end(row);
}

struct seed_span seed_course_topic(const struct seed_course *course)
{
    return seed_word(course->language->topics, (size_t)(course->category * SEED_TOPICS + course->topic));
}

/* ---- lessons ---- */

void seed_lesson_of(const struct seed_plan *plan, const struct seed_shard *shard,
                    const struct seed_course *course, int module, int lessons, int lesson,
                    struct seed_lesson *out)
{
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_LESSON, shard->number,
                       (uint64_t)course->ordinal * 256 + (uint64_t)module * 16 + (uint64_t)lesson);
    const struct seed_language *language = course->language;
    if (lesson == lessons - 1) {
        *out = (struct seed_lesson){SEED_QUIZ, seed_word(language->quiz, 0), 10};
    } else if (lesson == lessons - 2 && lessons > 4) {
        int minutes = (int)seed_random_within(&random, 6, 18) * 5;
        *out = (struct seed_lesson){SEED_ASSIGNMENT, seed_word(language->assignment, 0), minutes};
    } else if (lesson == 1 || lesson == 4) {
        int minutes = (int)seed_random_within(&random, 4, 12);
        *out = (struct seed_lesson){SEED_DOCUMENT, seed_word(language->documents, lesson == 4), minutes};
    } else {
        int minutes = (int)seed_random_within(&random, 4, 19);
        *out = (struct seed_lesson){SEED_VIDEO, seed_word(language->videos, (size_t)((lesson + module) % 5)),
                                    minutes};
    }
}

bool seed_lesson_media(const struct seed_course *course, int module, int lesson,
                       const struct seed_lesson *what, char *path, size_t size)
{
    if (module != 0 || !seed_course_has_media(course) ||
        (what->kind != SEED_VIDEO && what->kind != SEED_DOCUMENT))
        return false;
    snprintf(path, size, "%d/%d.%d %.*s.%s", module + 1, module + 1, lesson + 1, (int)what->name.len,
             what->name.text, what->kind == SEED_VIDEO ? "avi" : "pdf");
    return true;
}

static void make_lesson(struct seed_maker *maker, const struct seed_course *course, int module, int lesson,
                        const struct seed_lesson *what, int64_t id, int64_t module_id)
{
    static const char *const kinds[] = {"video", "document", "quiz", "assignment"};
    struct seed_row *row = &maker->rows[2];
    char path[256];
    seed_row_int(row, id);
    seed_row_int(row, module_id);
    seed_row_int(row, lesson + 1);
    seed_row_begin(row);
    seed_row_format(row, "%d.%d ", module + 1, lesson + 1);
    seed_row_add(row, what->name);
    seed_row_text(row, kinds[what->kind]);
    seed_row_int(row, what->minutes);
    if (seed_lesson_media(course, module, lesson, what, path, sizeof(path)))
        seed_row_text(row, path);
    else
        seed_row_null(row);
    seed_row_bool(row, module == 0 && lesson == 0);
    seed_row_end(row);
}

/* Writes a module and its lessons; returns their minutes. The module's description lists what is in it. */
static int make_module(struct seed_maker *maker, const struct seed_course *course, int module,
                       int64_t first_lesson)
{
    const struct seed_shard *shard = maker->shard;
    int64_t id = seed_id(shard->number, shard->module_from[course->ordinal] + module);
    int n = seed_module_lessons(maker->plan, shard, course->ordinal, module), minutes = 0;
    struct seed_row *row = &maker->rows[1];
    seed_row_int(row, id);
    seed_row_int(row, seed_id(shard->number, course->ordinal));
    seed_row_int(row, module + 1);
    seed_row_begin(row);
    seed_row_add(row,
                 seed_word(course->language->modules, (size_t)(module == course->modules - 1 ? 7 : module)));
    seed_row_begin(row);
    for (int lesson = 0; lesson < n; lesson++) {
        struct seed_lesson what;
        seed_lesson_of(maker->plan, shard, course, module, n, lesson, &what);
        if (lesson < 3) {
            seed_row_add(row, (struct seed_span){" · ", lesson ? strlen(" · ") : 0});
            seed_row_add(row, what.name);
        }
        make_lesson(maker, course, module, lesson, &what, seed_id(shard->number, first_lesson + lesson), id);
        minutes += what.minutes;
    }
    seed_row_end(row);
    return minutes;
}

/* ---- courses ---- */

static void make_description(struct seed_row *row, const struct seed_course *course, struct seed_span topic)
{
    seed_row_begin(row);
    for (size_t i = 0; i < 3; i++) {
        seed_row_add(row, (struct seed_span){" ", i > 0 && !course->language->unspaced});
        seed_row_pattern(row, seed_word(course->language->description, i), topic, topic);
    }
}

static void make_texts(struct seed_row *row, const struct seed_course *course, int64_t id)
{
    static const char *const levels[] = {"beginner", "intermediate", "advanced"};
    static const char *const suffixes[] = {"basics", "practice", "advanced"};
    struct seed_span topic = seed_course_topic(course);
    struct seed_span slug = seed_word(seed_categories[course->category].topics, (size_t)course->topic);
    seed_row_begin(row);
    seed_row_pattern(row, seed_word(course->language->titles, (size_t)course->level), topic, topic);
    seed_row_begin(row);
    seed_row_format(row, "%.*s-%s-%s-%lld", (int)slug.len, slug.text, suffixes[course->level],
                    course->language->tag, (long long)id);
    make_description(row, course, topic);
    seed_row_text(row, levels[course->level]);
    seed_row_text(row, course->language->tag);
}

void seed_make_course(struct seed_maker *maker, const struct seed_region *region, int64_t o)
{
    static const char *const statuses[] = {"draft", "published", "archived"};
    const struct seed_shard *shard = maker->shard;
    int64_t k = region->first_course + o, id = seed_id(shard->number, k), lesson = shard->lesson_from[k];
    const struct seed_course_sums *sums = &shard->sums[k];
    struct seed_row *row = &maker->rows[0];
    struct seed_course course;
    int minutes = 0;
    seed_course_of(maker->plan, shard, k, &course);
    for (int module = 0; module < course.modules; module++) {
        minutes += make_module(maker, &course, module, lesson);
        lesson += seed_module_lessons(maker->plan, shard, k, module);
    }
    seed_row_int(row, region->number);
    seed_row_int(row, id);
    seed_row_int(row, seed_id(shard->number, region->first_user + course.instructor));
    seed_row_int(row, category_id(maker->plan, course.category));
    make_texts(row, &course, id);
    seed_row_cents(row, course.cents);
    seed_row_text(row, course.country->currency);
    seed_row_text(row, statuses[course.status]);
    seed_row_int(row, minutes);
    seed_row_int(row, sums->stars);
    seed_row_int(row, sums->ratings);
    seed_row_int(row, sums->enrollments);
    seed_row_time(row, course.published);
    seed_row_time(row, course.created);
    seed_row_time(row, sums->touched > course.edited ? sums->touched : course.edited);
    seed_row_time(row, course.edited);
    seed_row_end(row);
}
