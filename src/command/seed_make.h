/*
 * Makes the rows of one thing of the plan: a document and its parts, each into the table it belongs to. A
 * step loads some hundreds of such things in one transaction.
 */
#pragma once

#include "command/seed_plan.h"
#include "command/seed_row.h"

enum { SEED_TABLES_MAX = 3, SEED_HASHES = 100, SEED_HASH_SIZE = 64 };

/* The workplace of one shard's loader; one thread at a time. Zero-initialised but for plan and shard. */
struct seed_maker {
    const struct seed_plan *plan;
    const struct seed_shard *shard;
    struct seed_row rows[SEED_TABLES_MAX]; /* in the order of the kind's tables */
    const char (*hashes)[SEED_HASH_SIZE];  /* SEED_HASHES of them; borrowed */
};

struct seed_step_kind {
    const char *noun;
    const char *copy[SEED_TABLES_MAX]; /* COPY statements, parents first */
    int64_t batch;                     /* things a transaction, for at most 10,000 rows */
    /* How many a region has; the things of no region are given the shard's first. */
    int64_t (*count)(const struct seed_region *region);
    void (*make)(struct seed_maker *maker, const struct seed_region *region, int64_t i);
};

/* In the order of the references. */
extern const struct seed_step_kind seed_step_kinds[];
extern const size_t seed_step_kinds_count;

void seed_make_category(struct seed_maker *maker, const struct seed_region *region, int64_t i);
void seed_make_user(struct seed_maker *maker, const struct seed_region *region, int64_t u);
void seed_make_course(struct seed_maker *maker, const struct seed_region *region, int64_t o);
void seed_make_enrollment(struct seed_maker *maker, const struct seed_region *region, int64_t j);
void seed_make_review(struct seed_maker *maker, const struct seed_region *region, int64_t j);
void seed_make_methods(struct seed_maker *maker, const struct seed_region *region, int64_t student);
void seed_make_transaction(struct seed_maker *maker, const struct seed_region *region, int64_t t);

/* What several of them tell alike. */
struct seed_span seed_course_topic(const struct seed_course *course);
/* The name of a lesson and what kind it is, the same in the course and in its media folder. */
enum seed_lesson_kind { SEED_VIDEO, SEED_DOCUMENT, SEED_QUIZ, SEED_ASSIGNMENT };
struct seed_lesson {
    enum seed_lesson_kind kind;
    struct seed_span name;
    int minutes;
};
void seed_lesson_of(const struct seed_plan *plan, const struct seed_shard *shard,
                    const struct seed_course *course, int module, int lessons, int lesson,
                    struct seed_lesson *out);
/* The file of a lesson that has one, below the course's media folder; false when it has none. */
bool seed_lesson_media(const struct seed_course *course, int module, int lesson,
                       const struct seed_lesson *what, char *path, size_t size);

/* A city of the country and its time zone. */
struct seed_place {
    struct seed_span city, zone;
};
struct seed_place seed_place_of(const struct seed_plan *plan, const struct seed_region *region, int64_t u,
                                const struct seed_country *country);

/*
 * The bcrypt hash of "learning-<slot>", its salt made of the seed. A hundred of them serve all users: a
 * million one by one would take hours. "$2a$" is the variant that pgcrypto knows. -ENOMEM, -EINVAL when
 * crypt(3) has no bcrypt.
 */
int seed_hash_make(uint64_t seed, int slot, char out[SEED_HASH_SIZE]);

void seed_maker_free(struct seed_maker *maker);
