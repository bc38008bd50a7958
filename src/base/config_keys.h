/*
 * The table of the keys of [campusfs]: parsing, defaults, the masked dump, `campusfs help config` and, by a
 * test, the man page and the example all follow it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/config.h"

enum config_type {
    CONFIG_TEXT,     /* char * */
    CONFIG_PATH,     /* char *, relative to the configuration file's folder */
    CONFIG_COUNT,    /* unsigned */
    CONFIG_ROWS,     /* size_t, a plain number */
    CONFIG_SIZE,     /* size_t, bytes: 512, 64kB, 24MB, 1GB */
    CONFIG_DURATION, /* int64_t, milliseconds: 200ms, 5s, 2min */
    CONFIG_BOOL,     /* bool: yes, no */
    CONFIG_CHOICE,   /* char *, one of `choices` */
    CONFIG_SWITCH,   /* bool, the second of `choices` is true */
    CONFIG_MODE,     /* mode_t, octal */
    CONFIG_USER,     /* uid_t, a name or a number; unset: the process's own */
    CONFIG_GROUP,    /* gid_t */
};

struct config_key {
    const char *name;
    enum config_type type;
    size_t offset;        /* in struct config */
    const char *fallback; /* default, as it would be written; NULL = unset */
    int64_t min, max;     /* bounds of a number, both 0 = none */
    const char *choices;  /* "a | b | c" */
    bool secret;          /* masked wherever it is shown */
    bool reload;          /* a mount takes another value without being mounted anew (base/config_reload.h) */
    const char *help;
};

/* The last entry has no name. */
extern const struct config_key config_keys[];

const struct config_key *config_key_find(const char *name);

/* What may be written for a key, in words: "duration, such as 200ms or 5s". */
const char *config_type_words(enum config_type type);

/*
 * Parses `text` into the key's field of `config`; `folder` is where relative paths start. On failure -EINVAL,
 * with what is wrong and what would be right in `problem`.
 */
int config_key_parse(const struct config_key *key, const char *text, const char *folder,
                     struct config *config, struct buf *problem);

/* Appends a number's bounds as they could be written, "1 to 200"; nothing when it has none. */
int config_key_bounds(const struct config_key *key, struct buf *out);

/* Writes the value as it could be read back; a secret that is set becomes "********". */
int config_key_print(const struct config_key *key, const struct config *config, struct buf *out);

/* Whether two configurations have the same value. */
bool config_key_equal(const struct config_key *key, const struct config *one, const struct config *other);
/* Gives `to` the value of `from`: threads may be reading a number, nobody a text. -ENOMEM. */
int config_key_copy(const struct config_key *key, const struct config *from, struct config *to);
/* Whether its value is a text on the heap. */
bool config_key_is_text(const struct config_key *key);

/* The same parsers, for the values of the other sections. False when it is none. */
bool config_parse_number(const char *text, int64_t min, int64_t max, int64_t *out);
bool config_parse_mode(const char *text, mode_t *out);
bool config_parse_user(const char *text, uid_t *out);
bool config_parse_group(const char *text, gid_t *out);
