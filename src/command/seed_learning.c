/* Enrollments with their progress; reviews. */
#include "command/seed_make.h"

static int64_t user_id(const struct seed_maker *maker, const struct seed_region *region, int64_t u)
{
    return seed_id(maker->shard->number, region->first_user + u);
}

/* One entry; `at` is when the lesson was completed, 0 = it was not. */
static void make_entry(struct seed_maker *maker, int64_t enrollment, int64_t lesson, int64_t at, bool begun,
                       int position)
{
    struct seed_row *row = &maker->rows[1];
    seed_row_int(row, enrollment);
    seed_row_int(row, lesson);
    seed_row_text(row, at ? "completed" : begun ? "in_progress" : "not_started");
    seed_row_int(row, position);
    seed_row_time(row, at);
    seed_row_end(row);
}

/*
 * The entries of an enrollment: the first `done` lessons completed one after the other, the last of them at
 * the end of the time spent; the next one perhaps begun. Only films have a position.
 */
static void make_progress(struct seed_maker *maker, const struct seed_enrollment *e, int64_t id,
                          int64_t ordinal)
{
    const struct seed_shard *shard = maker->shard;
    struct seed_course course;
    struct seed_random random =
        seed_random_of(maker->plan->seed, SEED_KIND_PROGRESS, shard->number, (uint64_t)ordinal);
    int64_t first = shard->lesson_from[e->course];
    int steps = e->done + e->started, i = 0;
    int64_t step = steps ? (e->to - e->from) / steps : 0;
    seed_course_of(maker->plan, shard, e->course, &course);
    for (int module = 0; module < course.modules; module++) {
        int lessons = seed_module_lessons(maker->plan, shard, e->course, module);
        for (int n = 0; n < lessons; n++, i++) {
            struct seed_lesson what;
            seed_lesson_of(maker->plan, shard, &course, module, lessons, n, &what);
            bool done = i < e->done, begun = i == e->done && e->started;
            int seconds = what.kind == SEED_VIDEO ? what.minutes * 60 : 0;
            int position = done ? seconds : begun ? (int)seed_random_below(&random, seconds) : 0;
            /* Somewhere in the second half of its share of the time; the last event of all exactly at the
             * end. */
            int64_t at =
                i + 1 == steps ? e->to : e->from + (i + 1) * step - seed_random_below(&random, step / 2);
            make_entry(maker, id, seed_id(shard->number, first + i), done ? at : 0, begun, position);
        }
    }
}

void seed_make_enrollment(struct seed_maker *maker, const struct seed_region *region, int64_t j)
{
    static const char *const statuses[] = {"active", "completed", "cancelled"};
    const struct seed_shard *shard = maker->shard;
    struct seed_row *row = &maker->rows[0];
    struct seed_enrollment e;
    seed_enrollment_of(maker->plan, region, j, &e);
    int64_t ordinal = region->first_enrollment + j, id = seed_id(shard->number, ordinal);
    seed_row_int(row, region->number);
    seed_row_int(row, id);
    seed_row_int(row, user_id(maker, region, e.user));
    seed_row_int(row, seed_id(shard->number, e.course));
    seed_row_text(row, statuses[e.status]);
    seed_row_cents(row,
                   ((int64_t)e.done * 20000 + e.lessons) / (2 * e.lessons)); /* percent, half rounded up */
    seed_row_time(row, e.enrolled);
    seed_row_time(row, e.completed);
    seed_row_time(row, e.enrolled);
    seed_row_time(row, e.updated);
    seed_row_time(row, e.updated);
    seed_row_end(row);
    make_progress(maker, &e, id, ordinal);
}

static const char *words_of_rating(const struct seed_language *language, int rating)
{
    return rating >= 4 ? language->praise : rating == 3 ? language->measured : language->blame;
}

/* A title, and one or two sentences behind it. Lists hold the titles first: three of praise, one of the
 * others. */
static void make_opinion(struct seed_row *row, const struct seed_course *course, int rating,
                         struct seed_random *random)
{
    const char *words = words_of_rating(course->language, rating);
    int64_t titles = rating >= 4 ? 3 : 1, texts = (int64_t)seed_words_count(words) - titles;
    struct seed_span topic = seed_course_topic(course);
    if (seed_random_chance(random, 15)) {
        seed_row_null(row); /* stars say it all */
        seed_row_null(row);
        return;
    }
    seed_row_begin(row);
    seed_row_pattern(row, seed_word(words, (size_t)seed_random_below(random, titles)), topic, topic);
    int64_t first = seed_random_below(random, texts);
    seed_row_begin(row);
    seed_row_pattern(row, seed_word(words, (size_t)(titles + first)), topic, topic);
    if (!seed_random_chance(random, 60))
        return;
    int64_t second = (first + seed_random_within(random, 1, texts - 1)) % texts;
    seed_row_add(row, (struct seed_span){" ", !course->language->unspaced});
    seed_row_pattern(row, seed_word(words, (size_t)(titles + second)), topic, topic);
}

/* The review of an enrollment, if there is one; it has the ordinal of the enrollment. */
void seed_make_review(struct seed_maker *maker, const struct seed_region *region, int64_t j)
{
    struct seed_row *row = &maker->rows[0];
    struct seed_enrollment e;
    struct seed_course course;
    seed_enrollment_of(maker->plan, region, j, &e);
    if (!e.rating)
        return;
    int64_t ordinal = region->first_enrollment + j;
    struct seed_random random =
        seed_random_of(maker->plan->seed, SEED_KIND_REVIEW, maker->shard->number, ~(uint64_t)ordinal);
    seed_course_of(maker->plan, maker->shard, e.course, &course);
    seed_row_int(row, region->number);
    seed_row_int(row, seed_id(maker->shard->number, ordinal));
    seed_row_int(row, user_id(maker, region, e.user));
    seed_row_int(row, seed_id(maker->shard->number, e.course));
    seed_row_int(row, e.rating);
    make_opinion(row, &course, e.rating, &random);
    seed_row_time(row, e.reviewed);
    seed_row_time(row, e.review_edited);
    seed_row_time(row, e.review_edited);
    seed_row_end(row);
}
