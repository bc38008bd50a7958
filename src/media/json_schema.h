/*
 * The subset of JSON Schema (in MongoDB's dialect, $jsonSchema) that the files of sql/mongo/ use, checked
 * here as the server would: so one file serves its validator and ours, and ours can say which field is wrong
 * and what is allowed.
 *
 * Known: bsonType, enum, pattern, minLength, maxLength, minimum, maximum, required, properties,
 * additionalProperties (false), title, description. A file that says more is refused when it is loaded.
 *
 * A schema never changes, so threads share it.
 */
#pragma once

#include <bson/bson.h>
#include <regex.h>
#include <stdbool.h>

#include "base/cleanup.h"
#include "base/fail.h"

/* One level: what is said of a value. */
struct json_schema {
    char *name;                     /* of the property, "" of the whole; owned */
    uint32_t types;                 /* a bit for each allowed bson_type_t, see json_schema.c; 0 = any */
    bson_t *allowed;                /* the values of an enum, an array; NULL = any */
    char *pattern;                  /* NULL = none; owned */
    regex_t regex;                  /* of the pattern */
    int64_t min_length, max_length; /* characters of a text; -1 = any */
    double minimum, maximum;        /* of a number; infinite = any */
    bool closed;                    /* no other properties than these */
    struct json_schema *properties; /* in the order of the file; owned */
    size_t nproperties;
    char **required; /* names; owned */
    size_t nrequired;
};

/* Loads a file of sql/, such as "mongo/preferences.schema.json". -EINVAL with words. */
int json_schema_load(const char *file, struct json_schema **out, struct fail *f);
/* NULL is ignored. */
void json_schema_free(struct json_schema *schema);
DEFINE_CLEANUP(struct json_schema, json_schema_free)

/* The property of that name, NULL when it is not named. */
const struct json_schema *json_schema_property(const struct json_schema *schema, const char *name);

/* 0, or -EINVAL: f->column is the field's path ("playback.speed"), the message says what it may be. */
int json_schema_check(const struct json_schema *schema, const bson_t *document, struct fail *f);
