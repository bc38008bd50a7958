/*
 * What seed makes, before any of it is written: how many of everything in each region, and every fact that
 * more than one table tells, as a function of the seed and the thing's ordinal. So any row can be made at any
 * time, shards and batches need not know of each other, and a run that was interrupted goes on where it
 * stopped.
 *
 * Ordinals count from 0 within the shard ("k") or the region ("u", "o", "j", "t": user, course, enrollment,
 * transaction). The id of ordinal k is what the shard's sequence gives as its (k + 1)th value; parts of which
 * there is not one for each ordinal (reviews) leave gaps, as deleted rows do.
 *
 * Read-only once made, so that threads share it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/config.h"
#include "base/fail.h"
#include "command/seed_random.h"
#include "command/seed_words.h"

enum { SEED_USERS_MIN = 100, SEED_USERS_DEFAULT = 122, SEED_USERS_MAX = 1000000 };

#define SEED_SECOND INT64_C(1000000)
#define SEED_DAY (86400 * SEED_SECOND)
/* Microseconds since the epoch of 2026-09-01 00:00 UTC. Nothing that seed writes is later. */
#define SEED_NOW (INT64_C(1788220800) * SEED_SECOND)
/* The last moment at which anybody learned anything; what follows is reviews, logins and payments under way.
 */
#define SEED_LAST (SEED_NOW - 20 * SEED_DAY)

/* Kinds of random streams. Their numbers are part of what a seed means: never renumber. */
enum seed_kind {
    SEED_KIND_REGION,
    SEED_KIND_USER,
    SEED_KIND_PROFILE,
    SEED_KIND_SALT,
    SEED_KIND_COURSE,
    SEED_KIND_MODULE,
    SEED_KIND_LESSON,
    SEED_KIND_PICK,
    SEED_KIND_ENROLLMENT,
    SEED_KIND_PROGRESS,
    SEED_KIND_REVIEW,
    SEED_KIND_METHOD,
    SEED_KIND_TRANSACTION,
    SEED_KIND_PREFERENCES,
    SEED_KIND_MEDIA,
};

struct seed_region {
    unsigned number;
    const char *name; /* the configuration's */
    size_t shard;     /* index into plan.shards */
    int64_t base;     /* users of the regions before it, on all shards */
    int64_t admins, instructors, students, users;
    int64_t courses, enrollments, transactions, methods;
    int64_t paid; /* the first so many enrollments were paid for, by the transactions of the same ordinals */
    int64_t first_user, first_course, first_enrollment, first_transaction,
        first_method; /* ordinals in the shard */
};

/* What other documents add up to in a course. */
struct seed_course_sums {
    uint32_t enrollments, ratings, stars;
    int64_t touched; /* when the last of them changed, 0 = never */
};

struct seed_shard {
    unsigned number;
    size_t index;                      /* in the configuration */
    const struct seed_region *regions; /* borrowed from the plan */
    size_t nregions;
    int64_t users, courses, enrollments, transactions, methods;
    uint32_t *module_from,
        *lesson_from;               /* owned: ordinal of a course's first module and lesson; courses + 1 */
    uint32_t *for_money, *for_free; /* owned: ordinals of the published courses that cost something or not */
    int64_t nfor_money, nfor_free;
    struct seed_course_sums *sums; /* owned, one a course */
};

struct seed_plan {
    uint64_t seed;
    int64_t users;
    struct seed_region *regions; /* owned, shard after shard */
    size_t nregions;
    struct seed_shard *shards; /* owned, in the configuration's order */
    size_t nshards;
    unsigned authority; /* number of the shard whose ids the categories have */
};

/* Counts everything. -ENOMEM. */
int seed_plan_make(const struct config *config, uint64_t seed, int64_t users, struct seed_plan **out);
void seed_plan_free(struct seed_plan *plan);
DEFINE_CLEANUP(struct seed_plan, seed_plan_free)

/* The id of an ordinal. */
static inline int64_t seed_id(unsigned shard_number, int64_t ordinal)
{
    return (shard_number ? shard_number : 1000) + 1000 * ordinal;
}

enum seed_role { SEED_ADMIN, SEED_INSTRUCTOR, SEED_STUDENT };

struct seed_user {
    enum seed_role role;
    const struct seed_country *country;
    int64_t number;       /* of its username; no two users have the same */
    size_t given, family; /* indexes into the country's names */
    int64_t again;        /* how many people of that name came before */
    int64_t created;
};
void seed_user_of(const struct seed_plan *plan, const struct seed_region *region, int64_t u,
                  struct seed_user *out);

struct seed_course {
    int64_t ordinal;
    const struct seed_region *region;
    int64_t instructor; /* u */
    const struct seed_country *country;
    const struct seed_language *language;
    int category, topic, level;
    int64_t cents; /* 0 = free */
    enum { SEED_DRAFT, SEED_PUBLISHED, SEED_ARCHIVED } status;
    int64_t created, published, edited; /* published 0 = never */
    int modules;
};
/* `k` is the course's ordinal in the shard. */
void seed_course_of(const struct seed_plan *plan, const struct seed_shard *shard, int64_t k,
                    struct seed_course *out);
/* Lessons of a module of a course, 3 to 7. */
int seed_module_lessons(const struct seed_plan *plan, const struct seed_shard *shard, int64_t k, int module);
/* Whether the course has files; `o` is its ordinal in its region. */
bool seed_course_has_media(const struct seed_course *course);

struct seed_enrollment {
    int64_t user;   /* u */
    int64_t course; /* k */
    enum { SEED_ACTIVE, SEED_COMPLETED, SEED_CANCELLED } status;
    int64_t enrolled, updated;
    int64_t completed; /* 0 = not yet */
    int lessons, done; /* of the course; of them completed, in order */
    bool started;      /* whether the lesson after those is in progress */
    int64_t from, to;  /* while the lessons were taken */
    int rating;        /* of its review, 0 = none */
    int64_t reviewed, review_edited;
};
void seed_enrollment_of(const struct seed_plan *plan, const struct seed_region *region, int64_t j,
                        struct seed_enrollment *out);

struct seed_transaction {
    int64_t user;   /* u */
    int64_t course; /* k */
    int64_t method; /* ordinal in the shard */
    enum { SEED_PAID, SEED_REFUNDED, SEED_FAILED, SEED_PENDING } status;
    int64_t created, settled, updated;
};
void seed_transaction_of(const struct seed_plan *plan, const struct seed_region *region, int64_t t,
                         struct seed_transaction *out);
