/*
 * The words that seed makes its people and courses of. Lists are strings with '|' between the entries, so
 * that the tables stay readable; seed_word() takes one apart. All text is UTF-8.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* One kind of people, by where they live and which language they speak. */
struct seed_country {
    const char *code;     /* ISO 3166-1 alpha-2 */
    const char *tag;      /* BCP 47 tag of their profile */
    const char *teaches;  /* tag of the seed_language of their courses */
    const char *currency; /* ISO 4217 */
    const char *prices;   /* five, in that currency, '|' between */
    int tax_permille;     /* on what they buy */
    const char *zone;     /* IANA time zone, unless a city has its own */
    const char *phone;    /* country code */
    const char
        *domain; /* of their e-mail; one of those reserved for documentation, different in every country */
    const char *gateway; /* who handles their payments */
    const char *given;   /* names; what is not written in Latin letters has "=latin" behind it */
    const char *family;
    const char *cities; /* a city in another zone than the country's has "@zone" behind it */
};

enum { SEED_SLOTS = 6, SEED_CATEGORIES = 8, SEED_TOPICS = 3, SEED_LEVELS = 3, SEED_PRICES = 5 };

/* The countries of a region; region n takes slot (n - 1) % SEED_SLOTS, so no name of a region is known here.
 */
struct seed_slot {
    const struct seed_country *countries;
    size_t n;
};
extern const struct seed_slot seed_slots[SEED_SLOTS];

/* What a course in one language is made of. {t} stands for the topic, {c} for the city. */
struct seed_language {
    const char *tag;
    const char *titles;      /* SEED_LEVELS patterns, beginner first */
    const char *topics;      /* SEED_TOPICS for each category, in the categories' order */
    const char *modules;     /* eight, in the order of a course */
    const char *videos;      /* five names of lessons */
    const char *documents;   /* two */
    const char *quiz;        /* one */
    const char *assignment;  /* one */
    const char *description; /* three sentences */
    const char *bios;        /* the first third of instructors, the others of students */
    const char *praise;      /* three titles and four texts of good reviews */
    const char *measured;    /* one title and two texts of middling ones */
    const char *blame;       /* one title and two texts of poor ones */
    bool unspaced;           /* its sentences are not set apart by a space */
};
extern const struct seed_language seed_languages[];
extern const size_t seed_languages_count;

/* Never NULL for the tags that seed_country.teaches has. */
const struct seed_language *seed_language(const char *tag);

struct seed_category {
    const char *name, *slug, *description;
    int parent;         /* index, -1 at the top; parents come first */
    const char *topics; /* slugs of the topics, as in seed_language.topics */
};
extern const struct seed_category seed_categories[SEED_CATEGORIES];

/* An entry of a list, borrowed, not NUL-terminated. */
struct seed_span {
    const char *text;
    size_t len;
};
size_t seed_words_count(const char *list);
/* The entry of that index, which must be less than the count. */
struct seed_span seed_word(const char *list, size_t index);
