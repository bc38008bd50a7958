/*
 * Loading goes in three steps, so that every mistake is found in one run: the lines of the file and the
 * environment become entries; the entries become keys, shards, nodes, regions and access rules, shards first,
 * whatever their order in the file; last comes what only the whole can tell (a shard without a node).
 */
#include "base/config.h"

#include "base/cleanup.h"
#include "base/config_keys.h"
#include "base/config_pairs.h"
#include "base/config_reload.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum section {
    SECTION_KEYS,
    SECTION_SHARDS,
    SECTION_NODES,
    SECTION_REGIONS,
    SECTION_COLLECTIONS,
    SECTION_NONE
};

static const char *const section_names[] = {"campusfs", "shards", "nodes", "regions", "collections"};

enum { NAME_LEN_MAX = 63, FILE_LINES_MAX = 100000 };

struct entry {
    enum section section;
    char *name;
    char *value;
    const char *source; /* the file's path or the variable's name; borrowed */
    unsigned line;      /* 0 = the variable as a whole */
};

struct loader {
    struct config *config;
    struct buf *errors;
    struct entry *entries;
    size_t count;
    char *folder; /* of the file, NULL = none */
    bool (*is_collection)(const char *name);
    bool failed; /* errors were reported */
    bool broke;  /* out of memory */
};

__attribute__((format(printf, 4, 5))) static void complain(struct loader *l, const char *source,
                                                           unsigned line, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    l->failed = true;
    int r = line ? buf_printf(l->errors, "%s:%u: %s\n", source, line, text)
                 : buf_printf(l->errors, "%s: %s\n", source, text);
    if (r < 0)
        l->broke = true;
}

/* ---- lines to entries ---- */

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t len = strlen(text);
    while (len && isspace((unsigned char)text[len - 1]))
        text[--len] = '\0';
    return text;
}

/* Cuts a comment: ';' at the start or after a space, outside of quotes; '#' at the start only. */
static void cut_comment(char *text)
{
    bool quoted = false;
    for (char *p = text; *p; p++) {
        if (*p == '\\' && p[1]) {
            p++;
            continue;
        }
        if (*p == '\'')
            quoted = !quoted;
        if (*p == ';' && !quoted && (p == text || isspace((unsigned char)p[-1]))) {
            *p = '\0';
            return;
        }
    }
}

static void entry_add(struct loader *l, enum section section, const char *name, const char *value,
                      const char *source, unsigned line)
{
    for (size_t i = 0; i < l->count; i++) {
        struct entry *other = &l->entries[i];
        if (other->section != section || strcmp(other->source, source) != 0 || strcmp(other->name, name) != 0)
            continue;
        complain(l, source, line, "[%s] %s is there twice, first in line %u", section_names[section], name,
                 other->line);
        return;
    }
    struct entry *entries = reallocarray(l->entries, l->count + 1, sizeof *entries);
    if (!entries) {
        l->broke = true;
        return;
    }
    l->entries = entries;
    struct entry *entry = &entries[l->count];
    *entry = (struct entry){section, strdup(name), strdup(value), source, line};
    l->count++;
    if (!entry->name || !entry->value)
        l->broke = true;
}

/* "name = value" */
static void read_assignment(struct loader *l, enum section section, char *text, const char *source,
                            unsigned line)
{
    char *equals = strchr(text, '=');
    if (!equals) {
        complain(l, source, line, "not understood: expected \"name = value\"");
        return;
    }
    *equals = '\0';
    char *name = trim(text);
    if (!*name)
        complain(l, source, line, "not understood: nothing before the \"=\"");
    else
        entry_add(l, section, name, trim(equals + 1), source, line);
}

static enum section read_section(struct loader *l, char *text, const char *source, unsigned line)
{
    size_t len = strlen(text);
    if (text[len - 1] == ']') {
        text[len - 1] = '\0';
        for (size_t i = 0; i < SECTION_NONE; i++)
            if (strcmp(trim(text + 1), section_names[i]) == 0)
                return (enum section)i;
    }
    complain(l, source, line,
             "unknown section %s%s: there are [campusfs], [shards], [nodes], [regions], [collections]", text,
             text[len - 1] ? "" : "]");
    return SECTION_NONE;
}

static void read_line(struct loader *l, enum section *section, char *text, const char *source, unsigned line)
{
    cut_comment(text);
    text = trim(text);
    if (!*text || *text == '#')
        return;
    if (*text == '[') {
        *section = read_section(l, text, source, line);
        return;
    }
    if (*section != SECTION_NONE)
        read_assignment(l, *section, text, source, line);
}

static int read_file(struct loader *l, const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        int err = errno;
        complain(l, path, 0, "cannot be read: %s", strerror(err));
        return -err;
    }
    char *text = NULL;
    size_t size = 0;
    ssize_t len;
    unsigned line = 0;
    /* What stands before the first section belongs to none; complain once. */
    enum section section = SECTION_NONE;
    bool complained = false;
    while ((len = getline(&text, &size, file)) >= 0 && ++line <= FILE_LINES_MAX) {
        if (strlen(text) != (size_t)len) {
            complain(l, path, line, "holds a NUL byte");
            continue;
        }
        char *first = trim(text);
        if (section == SECTION_NONE && !complained && !l->failed && *first && !strchr(";#[", *first)) {
            complain(l, path, line, "stands in no section: expected [campusfs] first");
            complained = true;
        }
        read_line(l, &section, text, path, line);
    }
    int err = ferror(file) ? errno : 0; /* of a folder: EISDIR */
    free(text);
    fclose(file);
    if (err)
        complain(l, path, 0, "cannot be read: %s", strerror(err));
    return -err;
}

/* CAMPUSFS_<NAME> for a name in lower case. */
static const char *variable_name(const char *name, char *out, size_t size)
{
    int len = snprintf(out, size, "CAMPUSFS_%s", name);
    for (int i = 0; i < len && (size_t)i < size; i++)
        out[i] = (char)toupper((unsigned char)out[i]);
    return out;
}

static void drop_section(struct loader *l, enum section section)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (l->entries[i].section == section) {
            free(l->entries[i].name);
            free(l->entries[i].value);
        } else {
            l->entries[kept++] = l->entries[i];
        }
    }
    l->count = kept;
}

/* A whole section from CAMPUSFS_SHARDS and the like replaces that of the file. */
static void read_section_variable(struct loader *l, enum section section)
{
    static const char *const names[] = {NULL, "CAMPUSFS_SHARDS", "CAMPUSFS_NODES", "CAMPUSFS_REGIONS",
                                        "CAMPUSFS_COLLECTIONS"};
    const char *value = getenv(names[section]);
    if (!value)
        return;
    drop_section(l, section);
    CLEANUP(freep) char *copy = strdup(value);
    if (!copy) {
        l->broke = true;
        return;
    }
    char *rest = copy, *text;
    for (unsigned line = 1; (text = strsep(&rest, "\n;")); line++) {
        text = trim(text);
        if (*text)
            read_assignment(l, section, text, names[section], line);
    }
}

/* ---- entries to the configuration ---- */

static void build_key(struct loader *l, const char *name, const char *value, const char *source,
                      unsigned line)
{
    const struct config_key *key = config_key_find(name);
    if (!key) {
        complain(l, source, line, "unknown key %s (campusfs help config lists them)", name);
        return;
    }
    struct buf problem = {.max = 900};
    if (config_key_parse(key, value, l->folder, l->config, &problem) < 0)
        complain(l, source, line, "%s", problem.data ? problem.data : name);
    buf_clear(&problem);
}

static void build_defaults(struct loader *l)
{
    l->config->uid = geteuid();
    l->config->gid = getegid();
    for (const struct config_key *key = config_keys; key->name; key++)
        if (key->fallback)
            build_key(l, key->name, key->fallback, "default", 0);
}

static void build_keys(struct loader *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct entry *e = &l->entries[i];
        if (e->section == SECTION_KEYS)
            build_key(l, e->name, e->value, e->source, e->line);
    }
    for (const struct config_key *key = config_keys; key->name; key++) {
        char variable[64];
        const char *value = getenv(variable_name(key->name, variable, sizeof variable));
        if (value)
            build_key(l, key->name, value, variable, 0);
    }
}

static bool check_name(struct loader *l, const struct entry *e)
{
    size_t good = strspn(e->name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    if (e->name[good] == '\0' && good <= NAME_LEN_MAX)
        return true;
    complain(l, e->source, e->line, "%s: a name is at most %d of a-z, 0-9, \"_\" and \"-\"", e->name,
             NAME_LEN_MAX);
    return false;
}

/* Takes the value of `key` out of the pairs of an entry; NULL when it is missing or empty, which is reported.
 */
static char *need_value(struct loader *l, const struct entry *e, const char *key)
{
    struct config_pair pair;
    for (const char *at = e->value; config_pair_next(&at, &pair) > 0;) {
        if (!config_pair_is(&pair, key))
            continue;
        char *value = config_pair_value(&pair);
        if (!value)
            l->broke = true;
        else if (*value)
            return value;
        free(value);
        break;
    }
    complain(l, e->source, e->line, "%s: %s=... is missing", e->name, key);
    return NULL;
}

/* Reports pairs that cannot be read, are there twice, or are none of the `known` ones (NULL: any). */
static bool check_pairs(struct loader *l, const struct entry *e, const char *const *known)
{
    struct config_pair pair, other;
    int r;
    const char *at = e->value;
    bool good = true;
    while ((r = config_pair_next(&at, &pair)) > 0) {
        bool found = known == NULL;
        for (size_t i = 0; known && known[i]; i++)
            found = found || config_pair_is(&pair, known[i]);
        if (!found)
            complain(l, e->source, e->line, "%s: unknown word %.*s", e->name, (int)pair.key_len, pair.key);
        bool again = false;
        for (const char *rest = at; config_pair_next(&rest, &other) > 0;)
            again =
                again || (other.key_len == pair.key_len && memcmp(other.key, pair.key, pair.key_len) == 0);
        if (again)
            complain(l, e->source, e->line, "%s: %.*s is there twice", e->name, (int)pair.key_len, pair.key);
        good = good && found && !again;
    }
    if (r < 0)
        complain(l, e->source, e->line, "%s: not understood: expected words such as key=value", e->name);
    return good && r == 0;
}

static bool need_number(struct loader *l, const struct entry *e, int64_t min, int64_t max, unsigned *out)
{
    CLEANUP(freep) char *text = need_value(l, e, "number");
    int64_t value;
    if (!text)
        return false;
    if (!config_parse_number(text, min, max, &value)) {
        complain(l, e->source, e->line, "%s: number=%s: must be a number from %" PRId64 " to %" PRId64,
                 e->name, text, min, max);
        return false;
    }
    *out = (unsigned)value;
    return true;
}

/* The index of the shard that `shard=` names. */
static bool need_shard(struct loader *l, const struct entry *e, size_t *out)
{
    CLEANUP(freep) char *name = need_value(l, e, "shard");
    if (!name)
        return false;
    for (size_t i = 0; i < l->config->nshards; i++) {
        if (strcmp(l->config->shards[i].name, name) == 0) {
            *out = i;
            return true;
        }
    }
    /* A shard whose own line is wrong has been reported there. */
    for (size_t i = 0; i < l->count; i++)
        if (l->entries[i].section == SECTION_SHARDS && strcmp(l->entries[i].name, name) == 0)
            return false;
    complain(l, e->source, e->line, "%s: there is no shard %s in [shards]", e->name, name);
    return false;
}

/* Room for one more in one of the four arrays; NULL when it is full or memory is. */
static void *grow(struct loader *l, const struct entry *e, void **array, size_t count, size_t max,
                  size_t size)
{
    if (count == max) {
        complain(l, e->source, e->line, "%s: there can be %zu [%s] at most", e->name, max,
                 section_names[e->section]);
        return NULL;
    }
    void *grown = reallocarray(*array, count + 1, size);
    if (!grown) {
        l->broke = true;
        return NULL;
    }
    *array = grown;
    char *room = (char *)grown + count * size;
    memset(room, 0, size);
    return room;
}

static char *copy_text(struct loader *l, const char *text)
{
    char *copy = strdup(text);
    l->broke = l->broke || !copy;
    return copy;
}

static void build_shard(struct loader *l, const struct entry *e)
{
    static const char *const known[] = {"number", NULL};
    struct config *c = l->config;
    unsigned number = 0;
    if (!check_name(l, e) || !check_pairs(l, e, known) || !need_number(l, e, 0, 999, &number))
        return;
    for (size_t i = 0; i < c->nshards; i++) {
        if (c->shards[i].number == number) {
            complain(l, e->source, e->line, "%s: number=%u is that of shard %s", e->name, number,
                     c->shards[i].name);
            return;
        }
    }
    struct config_shard *shard =
        grow(l, e, (void **)&c->shards, c->nshards, CONFIG_MAX_SHARDS, sizeof *shard);
    if (!shard)
        return;
    *shard = (struct config_shard){copy_text(l, e->name), number, e->line};
    c->nshards++;
}

/* Words of a node's line that are ours, not libpq's. */
static bool is_own_word(const struct config_pair *pair)
{
    return config_pair_is(pair, "shard") || config_pair_is(pair, "priority");
}

/* A node's connection string is what its line says without these. */
static char *node_conninfo(struct loader *l, const struct entry *e)
{
    struct buf out = {0};
    struct config_pair pair;
    for (const char *at = e->value; config_pair_next(&at, &pair) > 0;) {
        if (is_own_word(&pair))
            continue;
        if (buf_printf(&out, "%s%.*s=%.*s", out.len ? " " : "", (int)pair.key_len, pair.key,
                       (int)pair.raw_len, pair.raw) < 0)
            l->broke = true;
    }
    return out.data ? out.data : copy_text(l, "");
}

static bool read_priority(struct loader *l, const struct entry *e, int *out)
{
    struct config_pair pair;
    bool good = true;
    for (const char *at = e->value; config_pair_next(&at, &pair) > 0;) {
        if (!config_pair_is(&pair, "priority"))
            continue;
        CLEANUP(freep) char *text = config_pair_value(&pair);
        int64_t value = 0;
        good = text && config_parse_number(text, 0, 100, &value);
        if (!good)
            complain(l, e->source, e->line, "%s: priority=%s: must be a number from 0 to 100", e->name,
                     text ? text : "");
        *out = (int)value;
    }
    return good;
}

static void build_node(struct loader *l, const struct entry *e)
{
    struct config *c = l->config;
    size_t shard = 0;
    int priority = 0;
    bool good = check_name(l, e);
    good = check_pairs(l, e, NULL) && good;
    good = need_shard(l, e, &shard) && good;
    if (!read_priority(l, e, &priority) || !good)
        return;
    struct config_node *node = grow(l, e, (void **)&c->nodes, c->nnodes, CONFIG_MAX_NODES, sizeof *node);
    if (!node)
        return;
    *node = (struct config_node){copy_text(l, e->name), shard, node_conninfo(l, e), priority, e->line};
    c->nnodes++;
}

static void build_region(struct loader *l, const struct entry *e)
{
    static const char *const known[] = {"number", "shard", NULL};
    struct config *c = l->config;
    unsigned number = 0;
    size_t shard = 0;
    if (!check_name(l, e) || !check_pairs(l, e, known))
        return;
    bool good = need_number(l, e, 1, CONFIG_MAX_REGIONS, &number);
    if (!need_shard(l, e, &shard) || !good)
        return;
    for (size_t i = 0; i < c->nregions; i++) {
        if (c->regions[i].number == number) {
            complain(l, e->source, e->line, "%s: number=%u is that of region %s", e->name, number,
                     c->regions[i].name);
            return;
        }
    }
    struct config_region *region =
        grow(l, e, (void **)&c->regions, c->nregions, CONFIG_MAX_REGIONS, sizeof *region);
    if (!region)
        return;
    *region = (struct config_region){copy_text(l, e->name), number, shard, e->line};
    c->nregions++;
}

static void build_access(struct loader *l, const struct entry *e)
{
    static const char *const known[] = {"owner", "group", "mode", NULL};
    struct config *c = l->config;
    struct config_access access = {NULL, (uid_t)-1, (gid_t)-1, (mode_t)-1};
    if (!l->is_collection(e->name))
        complain(l, e->source, e->line, "%s: there is no such collection", e->name);
    if (!check_pairs(l, e, known))
        return;
    struct config_pair pair;
    for (const char *at = e->value; config_pair_next(&at, &pair) > 0;) {
        CLEANUP(freep) char *value = config_pair_value(&pair);
        if (!value) {
            l->broke = true;
            return;
        }
        if (config_pair_is(&pair, "owner") && !config_parse_user(value, &access.uid))
            complain(l, e->source, e->line, "%s: owner=%s: there is no such user", e->name, value);
        if (config_pair_is(&pair, "group") && !config_parse_group(value, &access.gid))
            complain(l, e->source, e->line, "%s: group=%s: there is no such group", e->name, value);
        if (config_pair_is(&pair, "mode") && !config_parse_mode(value, &access.mode))
            complain(l, e->source, e->line, "%s: mode=%s: must be an octal mode, such as 0640", e->name,
                     value);
    }
    struct config_access *room =
        grow(l, e, (void **)&c->access, c->naccess, CONFIG_MAX_COLLECTIONS, sizeof *room);
    if (!room)
        return;
    access.collection = copy_text(l, e->name);
    *room = access;
    c->naccess++;
}

static void build_sections(struct loader *l)
{
    static void (*const build[])(struct loader *, const struct entry *) = {
        [SECTION_SHARDS] = build_shard,
        [SECTION_NODES] = build_node,
        [SECTION_REGIONS] = build_region,
        [SECTION_COLLECTIONS] = build_access,
    };
    for (enum section section = SECTION_SHARDS; section < SECTION_NONE; section++)
        for (size_t i = 0; i < l->count; i++)
            if (l->entries[i].section == section)
                build[section](l, &l->entries[i]);
}

/* What only the whole can tell. */
static void check_whole(struct loader *l)
{
    const struct config *c = l->config;
    const char *source = c->path ? c->path : "environment";
    bool any = false;
    for (size_t i = 0; i < l->count; i++)
        any = any || l->entries[i].section == SECTION_SHARDS;
    if (!any)
        complain(l, source, 0, "[shards] is empty: at least one shard is needed");
    for (size_t s = 0; s < c->nshards; s++) {
        bool served = false;
        for (size_t i = 0; i < l->count && !served; i++) {
            /* A line that is wrong otherwise still names its shard. */
            const struct entry *e = &l->entries[i];
            struct config_pair pair;
            for (const char *at = e->value; e->section == SECTION_NODES && config_pair_next(&at, &pair) > 0;)
                served =
                    served || (config_pair_is(&pair, "shard") && pair.raw_len == strlen(c->shards[s].name) &&
                               memcmp(pair.raw, c->shards[s].name, pair.raw_len) == 0);
        }
        if (!served)
            complain(l, source, c->shards[s].line, "shard %s has no node in [nodes]", c->shards[s].name);
    }
}

/* ---- the way in and out ---- */

/* The file to read: told, $CAMPUSFS_CONFIG, or the first usual place where there is one; NULL = none. */
static const char *find_file(const char *path)
{
    static const char *const usual[] = {"campusfs.conf", "/etc/campusfs/campusfs.conf"};
    if (path)
        return path;
    const char *named = getenv("CAMPUSFS_CONFIG");
    if (named && *named)
        return named;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (access(usual[i], F_OK) == 0)
            return usual[i];
    return NULL;
}

static int load_file(struct loader *l, const char *path)
{
    if (!path) {
        if (getenv("CAMPUSFS_NODES"))
            return 0;
        complain(l, "configuration", 0,
                 "found none: name one by --config or CAMPUSFS_CONFIG, or write ./campusfs.conf or "
                 "/etc/campusfs/campusfs.conf");
        return -ENOENT;
    }
    l->config->path = realpath(path, NULL);
    if (!l->config->path) {
        int err = errno;
        complain(l, path, 0, "cannot be read: %s", strerror(err));
        return -err;
    }
    const char *slash = strrchr(l->config->path, '/');
    l->folder = strndup(l->config->path, (size_t)(slash - l->config->path));
    if (!l->folder)
        l->broke = true;
    return read_file(l, path);
}

/* For regions that a reload adds: the array must stay where it is. */
static bool make_room(struct config *config)
{
    struct config_region *regions = reallocarray(config->regions, CONFIG_MAX_REGIONS, sizeof *regions);
    if (!regions)
        return false;
    config->regions = regions;
    return true;
}

static void loader_clear(struct loader *l)
{
    for (enum section section = 0; section < SECTION_NONE; section++)
        drop_section(l, section);
    free(l->entries);
    free(l->folder);
    config_free(l->config);
}

int config_load(const char *path, bool (*is_collection)(const char *name), struct config **out,
                struct buf *errors)
{
    CLEANUP(loader_clear)
    struct loader l = {
        .errors = errors, .is_collection = is_collection, .config = calloc(1, sizeof *l.config)};
    if (!l.config)
        return -ENOMEM;
    pthread_mutex_init(&l.config->lock, NULL);
    atomic_init(&l.config->refs, 1);
    const char *file = find_file(path);
    int r = load_file(&l, file);
    if (r < 0)
        return r == -ENOENT || r == -EACCES ? r : -EINVAL;
    for (enum section section = SECTION_SHARDS; section < SECTION_NONE; section++)
        read_section_variable(&l, section);
    build_defaults(&l);
    build_keys(&l);
    build_sections(&l);
    check_whole(&l);
    if (l.broke || !make_room(l.config))
        return -ENOMEM;
    if (l.failed)
        return -EINVAL;
    *out = STEAL(l.config);
    return 0;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    config_put(config->now);
    config_put(config);
}

void config_destroy(struct config *config)
{
    for (size_t i = 0; i < config->nshards; i++)
        free(config->shards[i].name);
    for (size_t i = 0; i < config->nnodes; i++) {
        free(config->nodes[i].name);
        free(config->nodes[i].conninfo);
    }
    for (size_t i = 0; i < config->nregions; i++)
        free(config->regions[i].name);
    for (size_t i = 0; i < config->naccess; i++)
        free(config->access[i].collection);
    free(config->shards);
    free(config->nodes);
    free(config->regions);
    free(config->access);
    for (const struct config_key *key = config_keys; key->name; key++)
        if (config_key_is_text(key))
            free(*(char **)((char *)config + key->offset));
    free(config->path);
    pthread_mutex_destroy(&config->lock);
    free(config);
}

/* ---- the dump ---- */

/* Connection words with every password masked. */
static int dump_words(const char *words, struct buf *out)
{
    struct config_pair pair;
    int r = 0;
    const char *gap = "";
    for (const char *at = words; r == 0 && config_pair_next(&at, &pair) > 0; gap = " ") {
        bool secret = memmem(pair.key, pair.key_len, "password", 8) != NULL;
        r = secret ? buf_printf(out, "%s%.*s=********", gap, (int)pair.key_len, pair.key)
                   : buf_printf(out, "%s%.*s=%.*s", gap, (int)pair.key_len, pair.key, (int)pair.raw_len,
                                pair.raw);
    }
    return r;
}

static int dump_keys(const struct config *config, struct buf *out)
{
    int r = buf_add_text(out, "[campusfs]\n");
    for (const struct config_key *key = config_keys; r == 0 && key->name; key++) {
        r = buf_printf(out, "%s = ", key->name);
        if (r == 0)
            r = key->offset == offsetof(struct config, service_options)
                    ? dump_words(config->service_options, out)
                    : config_key_print(key, config, out);
        if (r == 0)
            r = buf_add_char(out, '\n');
    }
    return r;
}

static int dump_access(const struct config_access *access, struct buf *out)
{
    int r = buf_printf(out, "%s =", access->collection);
    if (r == 0 && access->uid != (uid_t)-1)
        r = buf_printf(out, " owner=%u", (unsigned)access->uid);
    if (r == 0 && access->gid != (gid_t)-1)
        r = buf_printf(out, " group=%u", (unsigned)access->gid);
    if (r == 0 && access->mode != (mode_t)-1)
        r = buf_printf(out, " mode=%04o", (unsigned)access->mode);
    return r < 0 ? r : buf_add_char(out, '\n');
}

int config_dump(const struct config *config, struct buf *out)
{
    int r = dump_keys(config, out);
    if (r == 0)
        r = buf_add_text(out, "\n[shards]\n");
    for (size_t i = 0; r == 0 && i < config->nshards; i++)
        r = buf_printf(out, "%s = number=%u\n", config->shards[i].name, config->shards[i].number);
    if (r == 0)
        r = buf_add_text(out, "\n[nodes]\n");
    for (size_t i = 0; r == 0 && i < config->nnodes; i++) {
        const struct config_node *node = &config->nodes[i];
        r = buf_printf(out, "%s = shard=%s ", node->name, config->shards[node->shard].name);
        if (r == 0 && node->priority)
            r = buf_printf(out, "priority=%d ", node->priority);
        if (r == 0)
            r = dump_words(node->conninfo, out);
        if (r == 0)
            r = buf_add_char(out, '\n');
    }
    if (r == 0)
        r = buf_add_text(out, "\n[regions]\n");
    for (size_t i = 0; r == 0 && i < config->nregions; i++)
        r = buf_printf(out, "%s = number=%u shard=%s\n", config->regions[i].name, config->regions[i].number,
                       config->shards[config->regions[i].shard].name);
    if (r == 0 && config->naccess)
        r = buf_add_text(out, "\n[collections]\n");
    for (size_t i = 0; r == 0 && i < config->naccess; i++)
        r = dump_access(&config->access[i], out);
    return r;
}
