/* The kinds of things and the tables that each goes to. */
#include "command/seed_make.h"

static int64_t count_categories(const struct seed_region *region)
{
    (void)region;
    return SEED_CATEGORIES;
}

static int64_t count_users(const struct seed_region *region)
{
    return region->users;
}

static int64_t count_courses(const struct seed_region *region)
{
    return region->courses;
}

static int64_t count_enrollments(const struct seed_region *region)
{
    return region->enrollments;
}

/* Students who have payment methods. */
static int64_t count_payers(const struct seed_region *region)
{
    return region->students < region->transactions ? region->students : region->transactions;
}

static int64_t count_transactions(const struct seed_region *region)
{
    return region->transactions;
}

#define FROM_STDIN ") FROM STDIN"
#define CLOCKS "created_at, updated_at, content_at"

const struct seed_step_kind seed_step_kinds[] = {
    {"categories",
     {"COPY course_categories (id, parent_id, name, slug, description, " CLOCKS FROM_STDIN},
     SEED_CATEGORIES,
     count_categories,
     seed_make_category},
    {"users",
     {"COPY users (region, id, email, username, first_name, last_name, role, status, email_verified, "
      "last_login_at, " CLOCKS FROM_STDIN,
      "COPY user_profiles (region, user_id, bio, avatar_url, phone, date_of_birth, country, city, timezone, "
      "language, "
      "website" FROM_STDIN,
      "COPY user_credentials (region, user_id, password_hash, changed_at" FROM_STDIN},
     3333,
     count_users,
     seed_make_user},
    {"courses", /* each with 3-8 modules of 3-7 lessons: 65 rows at most */
     {"COPY courses (region, id, instructor_id, category_id, title, slug, description, level, language, "
      "price, currency, "
      "status, duration_minutes, rating_sum, rating_count, enrollment_count, published_at, " CLOCKS
          FROM_STDIN,
      "COPY course_modules (id, course_id, position, title, description" FROM_STDIN,
      "COPY course_lessons (id, module_id, position, title, kind, duration_minutes, media, "
      "is_preview" FROM_STDIN},
     150,
     count_courses,
     seed_make_course},
    {"enrollments", /* 57 rows at most */
     {"COPY enrollments (region, id, user_id, course_id, status, progress_percent, enrolled_at, "
      "completed_at, " CLOCKS FROM_STDIN,
      "COPY lesson_progress (enrollment_id, lesson_id, status, position_seconds, completed_at" FROM_STDIN},
     170,
     count_enrollments,
     seed_make_enrollment},
    {"reviews",
     {"COPY course_reviews (region, id, user_id, course_id, rating, title, body, " CLOCKS FROM_STDIN},
     10000,
     count_enrollments,
     seed_make_review},
    {"payment methods",
     {"COPY payment_methods (region, id, user_id, kind, brand, last_four, token, expires_on, "
      "is_default, " CLOCKS FROM_STDIN},
     5000,
     count_payers,
     seed_make_methods},
    {"transactions",
     {"COPY transactions (region, id, user_id, course_id, payment_method_id, amount, currency, status, "
      "gateway, "
      "gateway_reference, " CLOCKS FROM_STDIN,
      "COPY invoices (region, id, transaction_id, number, status, issued_on, due_on, subtotal, tax, "
      "currency, " CLOCKS FROM_STDIN},
     5000,
     count_transactions,
     seed_make_transaction},
};
const size_t seed_step_kinds_count = sizeof(seed_step_kinds) / sizeof(*seed_step_kinds);

void seed_maker_free(struct seed_maker *maker)
{
    for (size_t i = 0; i < SEED_TABLES_MAX; i++)
        seed_row_free(&maker->rows[i]);
}
