/* Users, their profiles and credentials. */
#include <crypt.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "command/seed_make.h"

/* ---- names as written, and in the letters that addresses may have ---- */

static struct seed_span native_part(struct seed_span word)
{
    const char *split = memchr(word.text, '=', word.len);
    return split ? (struct seed_span){word.text, (size_t)(split - word.text)} : word;
}

/* The plain letter of a code point above ASCII, of all that the names here are written in; 0 when it has
 * none. */
static char plain_letter(unsigned c)
{
    static const char latin1[] =
        "aaaaaaaceeeeiiiidnooooo*ouuuuytsaaaaaaaceeeeiiiidnooooo*ouuuuyty"; /* U+00C0... */
    static const char extended[] =
        "aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiiiijjkkklllllllllln" /* U+0100... */
        "nnnnnnnnoooooooorrrrrrssssssssttttttuuuuuuuuuuuuwwyyyzzzzzzs";
    static const struct {
        unsigned from, to;
        char letter;
    } others[] = {{0x1a0, 0x1a1, 'o'},   {0x1af, 0x1b0, 'u'},   {0x1e62, 0x1e63, 's'},
                  {0x1ea0, 0x1eb7, 'a'}, {0x1eb8, 0x1ec7, 'e'}, {0x1ec8, 0x1ecb, 'i'},
                  {0x1ecc, 0x1ee3, 'o'}, {0x1ee4, 0x1ef1, 'u'}, {0x1ef2, 0x1ef9, 'y'}};
    _Static_assert(sizeof(latin1) == 0x40 + 1, "one letter for each of U+00C0 to U+00FF");
    _Static_assert(sizeof(extended) == 0x80 + 1, "one letter for each of U+0100 to U+017F");
    if (c >= 0xc0 && c < 0x100)
        return latin1[c - 0xc0];
    if (c >= 0x100 && c < 0x180)
        return extended[c - 0x100];
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        if (c >= others[i].from && c <= others[i].to)
            return others[i].letter;
    return 0;
}

/* Reads one code point of valid UTF-8. */
static unsigned next_code_point(const char **at)
{
    const unsigned char *p = (const unsigned char *)*at;
    int more = p[0] < 0x80 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    unsigned c = more == 0 ? p[0] : p[0] & (0x3fu >> more);
    for (int i = 1; i <= more; i++)
        c = c << 6 | (p[i] & 0x3f);
    *at += 1 + more;
    return c;
}

/* A name in small letters a to z. */
static void latin_part(struct seed_span word, char *out, size_t size)
{
    const char *split = memchr(word.text, '=', word.len);
    const char *at = split ? split + 1 : word.text, *end = word.text + word.len;
    size_t n = 0;
    while (at < end && n + 1 < size) {
        unsigned c = next_code_point(&at);
        char letter = c < 0x80 ? (char)(isalpha((int)c) ? tolower((int)c) : 0) : plain_letter(c);
        if (letter)
            out[n++] = letter;
    }
    out[n] = '\0';
}

/* ---- where and when ---- */

struct seed_place seed_place_of(const struct seed_plan *plan, const struct seed_region *region, int64_t u,
                                const struct seed_country *country)
{
    struct seed_random random =
        seed_random_of(plan->seed, SEED_KIND_PROFILE, region->number, (uint64_t)u * 2 + 1);
    size_t n = seed_words_count(country->cities);
    struct seed_span city = seed_word(country->cities, (size_t)seed_random_below(&random, (int64_t)n));
    const char *split = memchr(city.text, '@', city.len);
    if (!split)
        return (struct seed_place){city, {country->zone, strlen(country->zone)}};
    return (struct seed_place){{city.text, (size_t)(split - city.text)},
                               {split + 1, city.len - (size_t)(split - city.text) - 1}};
}

/* Whether anything of the learning is the user's; the others only look around. */
static bool takes_part(const struct seed_region *region, const struct seed_user *user, int64_t u)
{
    int64_t student = u - region->admins - region->instructors;
    return user->role != SEED_STUDENT || student < region->transactions || student < region->enrollments;
}

struct user_times {
    int64_t edited, login, updated; /* login 0 = never */
};

static struct user_times choose_times(const struct seed_region *region, const struct seed_user *user,
                                      int64_t u, struct seed_random *random)
{
    struct user_times t;
    t.edited = user->created + seed_random_low(random, SEED_NOW - 10 * SEED_DAY - user->created);
    if (seed_random_chance(random, 45))
        t.edited = user->created;
    if (takes_part(region, user, u)) /* later than all that they did */
        t.login = seed_random_within(random, SEED_NOW - 9 * SEED_DAY, SEED_NOW - SEED_SECOND);
    else if (seed_random_chance(random, 15))
        t.login = 0;
    else
        t.login =
            user->created + 60 * SEED_SECOND + seed_random_low(random, SEED_NOW - SEED_DAY - user->created);
    t.updated = t.login > t.edited ? t.login : t.edited;
    return t;
}

/*
 * The family name. Once all pairs of names are used up, which only large platforms come to, people whose
 * names are written in Latin letters bear two; others share theirs, as they do.
 */
static void add_family(struct seed_row *row, const struct seed_user *user)
{
    const struct seed_country *country = user->country;
    size_t n = seed_words_count(country->family), second = (user->family + (size_t)user->again) % n;
    seed_row_add(row, native_part(seed_word(country->family, user->family)));
    if (second == user->family || strchr(country->family, '='))
        return;
    bool spanish = strcmp(country->teaches, "es") == 0 || strcmp(country->teaches, "pt") == 0;
    seed_row_add(row, (struct seed_span){spanish ? " " : "-", 1});
    seed_row_add(row, native_part(seed_word(country->family, second)));
}

/* ---- rows ---- */

static void make_account(struct seed_row *row, const struct seed_region *region, const struct seed_user *user,
                         int64_t id, const struct user_times *times, struct seed_random *random,
                         char *username, size_t size)
{
    static const char *const roles[] = {"admin", "instructor", "student"};
    struct seed_span given = seed_word(user->country->given, user->given);
    struct seed_span family = seed_word(user->country->family, user->family);
    char given_latin[64], family_latin[64], again[32] = "", place[16] = "";
    latin_part(given, given_latin, sizeof(given_latin));
    latin_part(family, family_latin, sizeof(family_latin));
    if (user->again)
        snprintf(again, sizeof(again), "%lld", (long long)user->again + 1);
    if (region->number > SEED_SLOTS) /* shares its countries with another region */
        snprintf(place, sizeof(place), ".%u", region->number);
    snprintf(username, size, "%.1s%s%lld", given_latin, family_latin, (long long)user->number);
    seed_row_int(row, region->number);
    seed_row_int(row, id);
    seed_row_begin(row);
    seed_row_format(row, "%s.%s%s%s@%s", given_latin, family_latin, again, place, user->country->domain);
    seed_row_text(row, username);
    seed_row_begin(row);
    seed_row_add(row, native_part(given));
    seed_row_begin(row);
    add_family(row, user);
    seed_row_text(row, roles[user->role]);
    seed_row_text(row, user->role == SEED_STUDENT && seed_random_chance(random, 3) ? "suspended" : "active");
    seed_row_bool(row, times->login && !seed_random_chance(random, 6));
    seed_row_time(row, times->login);
    seed_row_time(row, user->created);
    seed_row_time(row, times->updated);
    seed_row_time(row, times->edited);
    seed_row_end(row);
}

static void make_bio(struct seed_row *row, const struct seed_user *user, struct seed_span city,
                     struct seed_random *random)
{
    const struct seed_language *language = seed_language(user->country->teaches);
    struct seed_span topic =
        seed_word(language->topics, (size_t)seed_random_below(random, SEED_CATEGORIES * SEED_TOPICS));
    int64_t bios = (int64_t)seed_words_count(language->bios), teachers = bios / 3;
    int64_t which = user->role == SEED_INSTRUCTOR ? seed_random_below(random, teachers)
                                                  : seed_random_within(random, teachers, bios - 1);
    if (user->role != SEED_INSTRUCTOR && seed_random_chance(random, 40)) {
        seed_row_null(row);
        return;
    }
    seed_row_begin(row);
    seed_row_pattern(row, seed_word(language->bios, (size_t)which), topic, city);
}

static void make_profile(struct seed_maker *maker, const struct seed_region *region,
                         const struct seed_user *user, int64_t u, int64_t id, const char *username)
{
    struct seed_row *row = &maker->rows[1];
    struct seed_random random =
        seed_random_of(maker->plan->seed, SEED_KIND_PROFILE, region->number, (uint64_t)u * 2);
    struct seed_place place = seed_place_of(maker->plan, region, u, user->country);
    seed_row_int(row, region->number);
    seed_row_int(row, id);
    make_bio(row, user, place.city, &random);
    seed_row_begin(row);
    seed_row_format(row, "https://avatars.example.org/%s.png", username);
    if (seed_random_chance(&random, 70)) {
        seed_row_begin(row);
        seed_row_format(row, "%s 555 %03d %03d", user->country->phone, (int)seed_random_below(&random, 1000),
                        (int)seed_random_below(&random, 1000));
    } else {
        seed_row_null(row);
    }
    seed_row_day(row, SEED_NOW - seed_random_within(&random, 18 * 366, 64 * 365) * SEED_DAY);
    seed_row_text(row, user->country->code);
    seed_row_begin(row);
    seed_row_add(row, place.city);
    seed_row_begin(row);
    seed_row_add(row, place.zone);
    seed_row_text(row, user->country->tag);
    if (seed_random_chance(&random, user->role == SEED_INSTRUCTOR ? 70 : 6)) {
        seed_row_begin(row);
        seed_row_format(row, "https://%s.example.net/", username);
    } else {
        seed_row_null(row);
    }
    seed_row_end(row);
}

int seed_hash_make(uint64_t seed, int slot, char out[SEED_HASH_SIZE])
{
    static const char alphabet[] = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    char setting[32] = "$2a$08$", password[16];
    struct seed_random random = seed_random_of(seed, SEED_KIND_SALT, 0, (uint64_t)slot);
    for (size_t i = 7; i < 7 + 21; i++)
        setting[i] = alphabet[seed_random_below(&random, 64)];
    setting[28] = ".Oeu"[seed_random_below(&random, 4)]; /* only two bits of the last character count */
    snprintf(password, sizeof(password), "learning-%02d", slot);
    CLEANUP(freep) struct crypt_data *data = calloc(1, sizeof(*data));
    const char *made = data ? crypt_rn(password, setting, data, sizeof(*data)) : NULL;
    if (!made || strlen(made) != 60)
        return data ? -EINVAL : -ENOMEM;
    snprintf(out, SEED_HASH_SIZE, "%s", made);
    return 0;
}

void seed_make_user(struct seed_maker *maker, const struct seed_region *region, int64_t u)
{
    struct seed_user user;
    char username[128];
    int64_t ordinal = region->first_user + u, id = seed_id(maker->shard->number, ordinal);
    struct seed_random random =
        seed_random_of(maker->plan->seed, SEED_KIND_USER, region->number, ~(uint64_t)u);
    seed_user_of(maker->plan, region, u, &user);
    struct user_times times = choose_times(region, &user, u, &random);
    make_account(&maker->rows[0], region, &user, id, &times, &random, username, sizeof(username));
    make_profile(maker, region, &user, u, id, username);
    struct seed_row *row = &maker->rows[2];
    seed_row_int(row, region->number);
    seed_row_int(row, id);
    seed_row_text(row, maker->hashes[id / 1000 % SEED_HASHES]);
    seed_row_time(row, user.created);
    seed_row_end(row);
}
