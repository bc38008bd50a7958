#include "command/seed_plan.h"

#include <errno.h>
#include <string.h>

static const struct seed_shard *shard_of(const struct seed_plan *plan, const struct seed_region *region)
{
    return &plan->shards[region->shard];
}

/* ---- counts ---- */

/* The share of part i when a total is dealt out evenly. */
static int64_t share(int64_t total, size_t parts, size_t i)
{
    return total / (int64_t)parts + ((int64_t)i < total % (int64_t)parts);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/*
 * The default's figures are 2 admins, 20 instructors and 100 students, 50 courses, 200 enrollments and 150
 * transactions. A larger platform has more students a course, and many users who only look around.
 */
static void count_region(const struct seed_plan *plan, struct seed_region *region, size_t i)
{
    size_t n = plan->nregions;
    int64_t courses = larger(50, plan->users / 100), instructors = larger(20, courses * 2 / 5);
    int64_t admins = larger(2, plan->users / 5000), enrollments = larger(200, plan->users * 2 / 5);
    region->admins = share(admins, n, i);
    region->instructors = share(instructors, n, n - 1 - i);
    region->students = share(plan->users - admins - instructors, n, (i + 1) % n);
    region->users = region->admins + region->instructors + region->students;
    region->courses = region->instructors ? share(courses, n, i) : 0;
    region->enrollments = region->students ? share(enrollments, n, i) : 0;
    region->transactions = region->students ? share(enrollments * 3 / 4, n, n - 1 - i) : 0;
}

/* Nobody takes a course twice, and what is not on offer cannot be taken. */
static void bound_learning(struct seed_region *region, const struct seed_shard *shard)
{
    region->transactions = smaller(region->transactions, region->students * shard->nfor_money);
    /* One payment in twelve fails or is still under way: nobody is enrolled by it. */
    region->paid = smaller(region->transactions - region->transactions / 12, region->enrollments);
    int64_t free_ones = smaller(region->enrollments - region->paid, region->students * shard->nfor_free);
    region->enrollments = region->paid + free_ones;
    /* The students who pay have a method each, every fourth of them a second one. */
    int64_t payers = smaller(region->students, region->transactions);
    region->methods = payers + payers / 4;
}

static void number_region(struct seed_shard *shard, struct seed_region *region)
{
    region->first_enrollment = shard->enrollments;
    region->first_transaction = shard->transactions;
    region->first_method = shard->methods;
    shard->enrollments += region->enrollments;
    shard->transactions += region->transactions;
    shard->methods += region->methods;
}

/* Deals out users and courses; region after region of every shard. */
static void lay_out_regions(const struct config *config, struct seed_plan *plan)
{
    int64_t base = 0;
    for (size_t s = 0; s < config->nshards; s++) {
        struct seed_shard *shard = &plan->shards[s];
        *shard = (struct seed_shard){.number = config->shards[s].number, .index = s};
        shard->regions = plan->regions + plan->nregions;
        for (size_t r = 0; r < config->nregions; r++) {
            if (config->regions[r].shard != s)
                continue;
            plan->regions[plan->nregions++] = (struct seed_region){
                .number = config->regions[r].number, .name = config->regions[r].name, .shard = s};
            shard->nregions++;
        }
    }
    for (size_t i = 0; i < plan->nregions; i++) {
        struct seed_region *region = &plan->regions[i];
        struct seed_shard *shard = &plan->shards[region->shard];
        count_region(plan, region, i);
        region->base = base;
        region->first_user = shard->users;
        region->first_course = shard->courses;
        base += region->users;
        shard->users += region->users;
        shard->courses += region->courses;
    }
}

static int count_courses(const struct seed_plan *plan, struct seed_shard *shard)
{
    size_t n = (size_t)shard->courses;
    shard->module_from = calloc(n + 1, sizeof(uint32_t));
    shard->lesson_from = calloc(n + 1, sizeof(uint32_t));
    shard->for_money = calloc(n + 1, sizeof(uint32_t));
    shard->for_free = calloc(n + 1, sizeof(uint32_t));
    shard->sums = calloc(n + 1, sizeof(*shard->sums));
    if (!shard->module_from || !shard->lesson_from || !shard->for_money || !shard->for_free || !shard->sums)
        return -ENOMEM;
    for (size_t k = 0; k < n; k++) {
        struct seed_course course;
        seed_course_of(plan, shard, (int64_t)k, &course);
        shard->module_from[k + 1] = shard->module_from[k] + (uint32_t)course.modules;
        shard->lesson_from[k + 1] = shard->lesson_from[k];
        for (int m = 0; m < course.modules; m++)
            shard->lesson_from[k + 1] += (uint32_t)seed_module_lessons(plan, shard, (int64_t)k, m);
        if (course.status != SEED_PUBLISHED)
            continue;
        if (course.cents)
            shard->for_money[shard->nfor_money++] = (uint32_t)k;
        else
            shard->for_free[shard->nfor_free++] = (uint32_t)k;
    }
    return 0;
}

static void sum_courses(const struct seed_plan *plan, struct seed_shard *shard)
{
    for (size_t r = 0; r < shard->nregions; r++) {
        const struct seed_region *region = &shard->regions[r];
        for (int64_t j = 0; j < region->enrollments; j++) {
            struct seed_enrollment e;
            seed_enrollment_of(plan, region, j, &e);
            struct seed_course_sums *sums = &shard->sums[e.course];
            sums->touched = larger(sums->touched, e.enrolled);
            if (e.status == SEED_CANCELLED)
                sums->touched = larger(sums->touched, e.updated);
            else
                sums->enrollments++;
            if (e.rating) {
                sums->ratings++;
                sums->stars += (uint32_t)e.rating;
                sums->touched = larger(sums->touched, e.reviewed);
            }
        }
    }
}

int seed_plan_make(const struct config *config, uint64_t seed, int64_t users, struct seed_plan **out)
{
    CLEANUP(seed_plan_freep) struct seed_plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return -ENOMEM;
    plan->seed = seed;
    plan->users = users;
    plan->authority = config->shards[0].number;
    plan->regions = calloc(config->nregions + 1, sizeof(*plan->regions));
    plan->shards = calloc(config->nshards + 1, sizeof(*plan->shards));
    if (!plan->regions || !plan->shards)
        return -ENOMEM;
    plan->nshards = config->nshards;
    /* Shares are dealt out over all regions, so their number has to be known first. */
    lay_out_regions(config, plan);
    for (size_t s = 0; s < plan->nshards; s++) {
        struct seed_shard *shard = &plan->shards[s];
        int r = count_courses(plan, shard);
        if (r < 0)
            return r;
        for (size_t i = 0; i < plan->nregions; i++) {
            if (plan->regions[i].shard != s)
                continue;
            bound_learning(&plan->regions[i], shard);
            number_region(shard, &plan->regions[i]);
        }
        sum_courses(plan, shard);
    }
    *out = STEAL(plan);
    return 0;
}

void seed_plan_free(struct seed_plan *plan)
{
    if (!plan)
        return;
    for (size_t s = 0; plan->shards && s < plan->nshards; s++) {
        struct seed_shard *shard = &plan->shards[s];
        free(shard->module_from);
        free(shard->lesson_from);
        free(shard->for_money);
        free(shard->for_free);
        free(shard->sums);
    }
    free(plan->shards);
    free(plan->regions);
    free(plan);
}

/* ---- people ---- */

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/*
 * The name of the nth person of a country: steps through all pairs of names before one comes again, and far
 * enough each time that neighbours share neither.
 */
static void choose_name(const struct seed_country *country, int64_t start, int64_t nth,
                        struct seed_user *user)
{
    int64_t given = (int64_t)seed_words_count(country->given),
            family = (int64_t)seed_words_count(country->family);
    int64_t pairs = given * family, stride = pairs * 5 / 8;
    while (common_divisor(stride, pairs) != 1)
        stride++;
    int64_t pair = (start + nth * stride) % pairs;
    user->given = (size_t)(pair % given);
    user->family = (size_t)((pair / given + pair % given) % family);
    user->again = nth / pairs;
}

/* Where the countries of a region begin to take turns. */
static int64_t first_turn(const struct seed_plan *plan, const struct seed_region *region)
{
    struct seed_random random = seed_random_of(plan->seed, SEED_KIND_REGION, region->number, 0);
    return seed_random_below(&random, 1 << 20);
}

static const struct seed_country *country_of(const struct seed_plan *plan, const struct seed_region *region,
                                             int64_t u)
{
    const struct seed_slot *slot = &seed_slots[(region->number - 1) % SEED_SLOTS];
    return &slot->countries[(size_t)(first_turn(plan, region) + u) % slot->n];
}

static int64_t username_number(const struct seed_plan *plan, int64_t index)
{
    int64_t range = 1000;
    while (range < plan->users * 3)
        range *= 10;
    /* The factor has no divisor in common with any power of ten, so that no number comes twice. */
    return (index * 40487 + (int64_t)(plan->seed % 1000)) % range;
}

void seed_user_of(const struct seed_plan *plan, const struct seed_region *region, int64_t u,
                  struct seed_user *out)
{
    static const int64_t since[] = {1735, 1695, 974},
                         until[] = {1700, 975, 78}; /* days before SEED_NOW, by role */
    struct seed_random random = seed_random_of(plan->seed, SEED_KIND_USER, region->number, (uint64_t)u);
    const struct seed_slot *slot = &seed_slots[(region->number - 1) % SEED_SLOTS];
    out->role = u < region->admins                         ? SEED_ADMIN
                : u < region->admins + region->instructors ? SEED_INSTRUCTOR
                                                           : SEED_STUDENT;
    out->country = country_of(plan, region, u);
    out->number = username_number(plan, region->base + u);
    choose_name(out->country, first_turn(plan, region), u / (int64_t)slot->n, out);
    out->created =
        SEED_NOW - seed_random_within(&random, until[out->role] * SEED_DAY, since[out->role] * SEED_DAY);
}

/* ---- courses ---- */

/* A decimal number of two places, as hundredths. */
static int64_t parse_cents(struct seed_span number)
{
    int64_t cents = 0;
    for (size_t i = 0; i < number.len; i++)
        if (number.text[i] != '.')
            cents = cents * 10 + (number.text[i] - '0');
    return cents;
}

static const struct seed_region *region_of_course(const struct seed_shard *shard, int64_t k)
{
    size_t r = 0;
    while (r + 1 < shard->nregions && k >= shard->regions[r + 1].first_course)
        r++;
    return &shard->regions[r];
}

static void choose_subject(const struct seed_plan *plan, struct seed_course *course, int64_t o)
{
    enum { TOPICS = SEED_CATEGORIES * SEED_TOPICS, SUBJECTS = TOPICS * SEED_LEVELS };
    struct seed_random random = seed_random_of(plan->seed, SEED_KIND_REGION, course->region->number, 1);
    int64_t subject =
        (seed_random_below(&random, SUBJECTS) + o * 31) % SUBJECTS; /* each once before any again */
    course->category = (int)(subject % TOPICS / SEED_TOPICS);
    course->topic = (int)(subject % TOPICS % SEED_TOPICS);
    course->level = (int)(subject / TOPICS);
}

void seed_course_of(const struct seed_plan *plan, const struct seed_shard *shard, int64_t k,
                    struct seed_course *out)
{
    struct seed_random random = seed_random_of(plan->seed, SEED_KIND_COURSE, shard->number, (uint64_t)k);
    const struct seed_region *region = region_of_course(shard, k);
    int64_t o = k - region->first_course;
    struct seed_user teacher;
    *out = (struct seed_course){.ordinal = k, .region = region};
    out->instructor = region->admins + o % region->instructors;
    seed_user_of(plan, region, out->instructor, &teacher);
    out->country = teacher.country;
    out->language = seed_language(teacher.country->teaches);
    choose_subject(plan, out, o);
    size_t price = (size_t)seed_random_low(&random, SEED_PRICES);
    out->cents = k % 4 == 3 ? 0 : parse_cents(seed_word(teacher.country->prices, price));
    /* The first of a region are always on offer, so that each has some. */
    int64_t fate = seed_random_below(&random, 100);
    out->status = o < 4 || fate < 84 ? SEED_PUBLISHED : fate < 93 ? SEED_DRAFT : SEED_ARCHIVED;
    out->created = teacher.created + seed_random_within(&random, 7 * SEED_DAY, 120 * SEED_DAY);
    int64_t published = out->created + seed_random_within(&random, 10 * SEED_DAY, 60 * SEED_DAY);
    out->edited = published + seed_random_low(&random, 300 * SEED_DAY);
    out->published = out->status == SEED_DRAFT ? 0 : published;
    out->modules = (int)seed_random_within(&random, 3, 8);
}

int seed_module_lessons(const struct seed_plan *plan, const struct seed_shard *shard, int64_t k, int module)
{
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_MODULE, shard->number, (uint64_t)k * 16 + (uint64_t)module);
    return (int)seed_random_within(&random, 3, 7);
}

bool seed_course_has_media(const struct seed_course *course)
{
    return course->ordinal - course->region->first_course < 2;
}

/* ---- learning ---- */

/* The qth course that a student takes of those that cost something, or of those that do not. */
static int64_t pick_course(const struct seed_plan *plan, const struct seed_region *region, int64_t student,
                           int64_t q, bool for_money)
{
    const struct seed_shard *shard = shard_of(plan, region);
    int64_t n = for_money ? shard->nfor_money : shard->nfor_free;
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_PICK, region->number, (uint64_t)student * 2 + for_money);
    int64_t first = seed_random_low(&random, n); /* some courses are more popular than others */
    return (for_money ? shard->for_money : shard->for_free)[(first + q) % n];
}

/* Who makes payment t, and for what: students take turns, so that nobody buys a course twice. */
static void place_paid(const struct seed_plan *plan, const struct seed_region *region, int64_t t,
                       int64_t *user, int64_t *course)
{
    int64_t student = t % region->students;
    *user = region->admins + region->instructors + student;
    *course = pick_course(plan, region, student, t / region->students, true);
}

static void place_free(const struct seed_plan *plan, const struct seed_region *region, int64_t i,
                       int64_t *user, int64_t *course)
{
    int64_t student = (i + region->paid) % region->students;
    *user = region->admins + region->instructors + student;
    *course = pick_course(plan, region, student, i / region->students, false);
}

/* From when on a user can be in a course. */
static int64_t earliest(const struct seed_plan *plan, const struct seed_region *region, int64_t u, int64_t k)
{
    struct seed_user user;
    struct seed_course course;
    seed_user_of(plan, region, u, &user);
    seed_course_of(plan, shard_of(plan, region), k, &course);
    return larger(user.created, course.published);
}

/* How far the student came, and when. */
static void choose_progress(struct seed_enrollment *e, struct seed_random *random)
{
    int64_t fate = seed_random_below(random, 100);
    int64_t span = seed_random_within(random, 9 * SEED_DAY, 90 * SEED_DAY);
    e->from = e->enrolled + seed_random_within(random, 10 * 60 * SEED_SECOND, 2 * SEED_DAY);
    e->to = e->from + span;
    if (e->to > SEED_LAST)
        e->to = SEED_LAST - seed_random_below(random, 6 * SEED_DAY);
    e->status = fate < 30 ? SEED_COMPLETED : fate < 91 ? SEED_ACTIVE : SEED_CANCELLED;
    if (e->status == SEED_COMPLETED) {
        e->done = e->lessons;
        e->completed = e->to;
    } else if (e->status == SEED_CANCELLED) {
        e->done = (int)seed_random_low(random, e->lessons / 3 + 1);
    } else {
        e->done = (int)seed_random_below(random, e->lessons);
        e->started = seed_random_chance(random, 70);
    }
    e->updated = e->done || e->started ? e->to : e->enrolled;
    if (e->status == SEED_CANCELLED)
        e->updated = e->to + seed_random_within(random, 60 * SEED_SECOND, 3 * SEED_DAY);
}

static void choose_review(const struct seed_plan *plan, const struct seed_shard *shard,
                          struct seed_enrollment *e, struct seed_random *random)
{
    static const int good[] = {2, 5, 15, 48},
                     plain[] = {7, 20, 48, 80}; /* percent at most 1, 2, 3, 4 stars */
    int willing = e->status == SEED_COMPLETED                            ? 70
                  : e->status == SEED_ACTIVE && e->done * 3 > e->lessons ? 35
                                                                         : 0;
    if (!seed_random_chance(random, willing))
        return;
    struct seed_random quality =
        seed_random_of(plan->seed, SEED_KIND_REVIEW, shard->number, (uint64_t)e->course);
    const int *at_most = seed_random_chance(&quality, 65) ? good : plain;
    int64_t roll = seed_random_below(random, 100);
    e->rating = 1;
    while (e->rating < 5 && roll >= at_most[e->rating - 1])
        e->rating++;
    e->reviewed = e->updated + seed_random_within(random, 3600 * SEED_SECOND, 5 * SEED_DAY);
    e->review_edited = e->reviewed;
    if (seed_random_chance(random, 10))
        e->review_edited += seed_random_within(random, 120 * SEED_SECOND, 3 * SEED_DAY);
}

void seed_enrollment_of(const struct seed_plan *plan, const struct seed_region *region, int64_t j,
                        struct seed_enrollment *out)
{
    const struct seed_shard *shard = shard_of(plan, region);
    struct seed_random random = seed_random_of(plan->seed, SEED_KIND_ENROLLMENT, region->number, (uint64_t)j);
    *out = (struct seed_enrollment){0};
    if (j < region->paid)
        place_paid(plan, region, j, &out->user, &out->course);
    else
        place_free(plan, region, j - region->paid, &out->user, &out->course);
    out->lessons = (int)(shard->lesson_from[out->course + 1] - shard->lesson_from[out->course]);
    int64_t from = earliest(plan, region, out->user, out->course);
    int64_t room = smaller(SEED_LAST - 10 * SEED_DAY - from, 240 * SEED_DAY);
    out->enrolled = from + 600 * SEED_SECOND + seed_random_low(&random, room);
    choose_progress(out, &random);
    choose_review(plan, shard, out, &random);
}

/* ---- money ---- */

void seed_transaction_of(const struct seed_plan *plan, const struct seed_region *region, int64_t t,
                         struct seed_transaction *out)
{
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_TRANSACTION, region->number, (uint64_t)t);
    *out = (struct seed_transaction){0};
    place_paid(plan, region, t, &out->user, &out->course);
    int64_t student = out->user - region->admins - region->instructors;
    out->method = region->first_method + student + student / 4;
    int64_t takes = seed_random_within(&random, 2 * SEED_SECOND, 25 * SEED_SECOND);
    if (t < region->paid) {
        struct seed_enrollment e;
        seed_enrollment_of(plan, region, t, &e);
        out->created = e.enrolled - seed_random_within(&random, 30 * SEED_SECOND, 300 * SEED_SECOND);
        out->settled = out->created + takes;
        out->status = e.status == SEED_CANCELLED ? SEED_REFUNDED : SEED_PAID;
        out->updated = e.status == SEED_CANCELLED ? e.updated : out->settled;
        return;
    }
    out->status = t % 2 ? SEED_FAILED : SEED_PENDING;
    if (out->status == SEED_PENDING) {
        out->created = seed_random_within(&random, SEED_NOW - 10 * SEED_DAY, SEED_NOW - SEED_DAY);
        takes = 0;
    } else {
        int64_t from = earliest(plan, region, out->user, out->course);
        out->created = from + 600 * SEED_SECOND + seed_random_low(&random, SEED_LAST - from);
    }
    out->settled = out->updated = out->created + takes;
}
