#include "base/config_keys.h"

#include "base/cleanup.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FIELD(name) offsetof(struct config, name)

enum { KIB = 1024, MIB = 1024 * 1024 };
#define GIB ((int64_t)1024 * MIB)

const struct config_key config_keys[] = {
    {"database", CONFIG_TEXT, FIELD(database), "campusfs", .help = "database of every shard"},
    {"user", CONFIG_TEXT, FIELD(user), "campusfs_rw", .reload = true,
     .help = "role that the mount connects as"},
    {"password", CONFIG_TEXT, FIELD(password), NULL, .secret = true, .reload = true,
     .help = "password of user; better kept in passfile"},
    {"admin_user", CONFIG_TEXT, FIELD(admin_user), "postgres", .reload = true,
     .help = "role that init and seed connect as"},
    {"admin_password", CONFIG_TEXT, FIELD(admin_password), NULL, .secret = true, .reload = true,
     .help = "password of admin_user; better kept in passfile"},
    {"replication_user", CONFIG_TEXT, FIELD(replication_user), "campusfs_repl", .reload = true,
     .help = "role that the feed of changes connects as; empty: user"},
    {"replication_password", CONFIG_TEXT, FIELD(replication_password), NULL, .secret = true, .reload = true,
     .help = "password of replication_user; better kept in passfile"},
    {"passfile", CONFIG_PATH, FIELD(passfile), NULL, .reload = true,
     .help = "password file in the format of ~/.pgpass"},
    {"service_options", CONFIG_TEXT, FIELD(service_options), "", .reload = true,
     .help = "further libpq keywords for every node, such as sslmode=verify-full"},
    {"pool_size", CONFIG_COUNT, FIELD(pool_size), "8", 1, 200, .reload = true,
     .help = "connections to one node, besides one that watches it"},
    {"pool_min", CONFIG_COUNT, FIELD(pool_min), "1", 0, 200, .reload = true,
     .help = "connections to one node that are kept open"},
    {"pool_idle", CONFIG_DURATION, FIELD(pool_idle_ms), "5min", 0, 86400000, .reload = true,
     .help = "a further connection is closed when nobody has used it for so long; 0: never"},
    {"pool_lifetime", CONFIG_DURATION, FIELD(pool_lifetime_ms), "1h", 0, INT64_C(30) * 24 * 3600 * 1000,
     .reload = true, .help = "every connection is replaced before it is older; 0: never"},
    {"pool_waiters", CONFIG_COUNT, FIELD(pool_waiters), "64", 0, 10000, .reload = true,
     .help = "operations that may wait for a connection of one shard"},
    {"connect_timeout", CONFIG_DURATION, FIELD(connect_timeout_ms), "2s", 10, 60000, .reload = true,
     .help = "how long one attempt to connect may take"},
    {"timeout", CONFIG_DURATION, FIELD(timeout_ms), "5s", 100, 600000, .reload = true,
     .help = "how long one file operation may take in all"},
    {"max_lag", CONFIG_DURATION, FIELD(max_lag_ms), "10s", 0, 86400000, .reload = true,
     .help = "a replica further behind is read only when nothing better is there"},
    {"max_lag_bytes", CONFIG_SIZE, FIELD(max_lag_bytes), "64MB", 0, 1024 * GIB, .reload = true,
     .help = "the same in bytes of WAL; 0: any"},
    {"stale_reads", CONFIG_SWITCH, FIELD(stale_refused), "serve", .choices = "serve | refuse", .reload = true,
     .help = "what becomes of a read that no node can answer up to date"},
    {"primary_reads", CONFIG_COUNT, FIELD(primary_reads), "75", 1, 100, .reload = true,
     .help = "percent of a primary's connections for reads that no replica can answer"},
    {"failover_wait", CONFIG_DURATION, FIELD(failover_wait_ms), "10s", 0, 600000, .reload = true,
     .help = "how long a save waits for a shard's next primary, never longer than timeout"},
    {"failover_writes", CONFIG_COUNT, FIELD(failover_writes), "64", 0, 10000, .reload = true,
     .help = "how many saves of a shard may wait so"},
    {"failover_size", CONFIG_SIZE, FIELD(failover_size), "16MB", 0, GIB, .reload = true,
     .help = "how large these may be together"},
    {"unprotected", CONFIG_SWITCH, FIELD(unprotected_degrades), "report", .choices = "report | degrade",
     .reload = true, .help = "what a primary without a synchronous standby is to health"},
    {"mongodb_uri", CONFIG_TEXT, FIELD(mongodb_uri), "", .secret = true,
     .help = "MongoDB of media and preferences; empty: there are none"},
    {"mongodb_pool_size", CONFIG_COUNT, FIELD(mongodb_pool_size), "16", 1, 200,
     .help = "connections to MongoDB, and operations on it at a time"},
    {"media_cache_size", CONFIG_SIZE, FIELD(media_cache_size), "64MB", MIB, 64 * GIB,
     .help = "memory for parts of media files, for all readers together"},
    {"media_poll", CONFIG_DURATION, FIELD(media_poll_ms), "10s", 100, 86400000,
     .help = "how often names of media are read anew where MongoDB has no change streams"},
    {"media_write_size", CONFIG_SIZE, FIELD(media_write_size), "32MB", 4 * MIB, 64 * GIB,
     .help = "memory for media on its way to MongoDB, all uploads together"},
    {"media_course_quota", CONFIG_SIZE, FIELD(media_course_quota), "0", 0, 1000000 * GIB,
     .help = "bytes of media that a course may have; 0: no limit"},
    {"media_region_quota", CONFIG_SIZE, FIELD(media_region_quota), "0", 0, 1000000 * GIB,
     .help = "bytes of media that a region may have; 0: no limit"},
    {"media_file_max", CONFIG_SIZE, FIELD(media_file_max), "1024GB", MIB, 522240 * GIB, .reload = true,
     .help = "largest media file"},
    {"media_keep", CONFIG_DURATION, FIELD(media_keep_ms), "24h", 0, INT64_C(3650) * 24 * 3600 * 1000,
     .help = "how long the bytes of a replaced or deleted media file stay"},
    {"media_sweep", CONFIG_DURATION, FIELD(media_sweep_ms), "1min", 0, 86400000,
     .help = "how often what is to go from MongoDB is looked for; 0: not by this mount"},
    {"read_only", CONFIG_BOOL, FIELD(read_only), "no", .help = "refuse every change with EROFS"},
    {"conflicts", CONFIG_SWITCH, FIELD(conflicts_overwrite), "refuse", .choices = "refuse | overwrite",
     .reload = true, .help = "what a save does to a row that has changed since it was read"},
    {"credentials", CONFIG_SWITCH, FIELD(credentials), "off", .choices = "off | on",
     .help = "whether the tree has the password hashes, for backups"},
    {"uid", CONFIG_USER, FIELD(uid), NULL, .reload = true, .help = "owner of every file; unset: who mounts"},
    {"gid", CONFIG_GROUP, FIELD(gid), NULL, .reload = true,
     .help = "group of every file; unset: that of who mounts"},
    {"file_mode", CONFIG_MODE, FIELD(file_mode), "0640", .reload = true, .help = "mode of a file, octal"},
    {"dir_mode", CONFIG_MODE, FIELD(dir_mode), "0750", .reload = true, .help = "mode of a folder, octal"},
    {"cache_ttl", CONFIG_DURATION, FIELD(cache_ttl_ms), "1s", 0, 60000,
     .help = "how late a change made elsewhere may be seen; 0: nothing is kept"},
    {"feed", CONFIG_SWITCH, FIELD(feed_poll), "auto", .choices = "auto | poll",
     .help = "how changes made elsewhere are learned of: auto streams them where the server lets us"},
    {"cache_size", CONFIG_SIZE, FIELD(cache_size), "20MB", 0, 64 * GIB, .help = "documents kept in memory"},
    {"page_rows", CONFIG_ROWS, FIELD(page_rows), "1000", 1, 10000, .reload = true,
     .help = "rows read at once by a listing"},
    {"document_max", CONFIG_SIZE, FIELD(document_max), "1MB", KIB, 64 * MIB, .reload = true,
     .help = "largest document of a row"},
    {"scratch_size", CONFIG_SIZE, FIELD(scratch_size), "256MB", 0, 64 * GIB,
     .help = "memory for scratch files, all folders together"},
    {"scratch_files", CONFIG_ROWS, FIELD(scratch_files), "100000", 0, 100000000,
     .help = "number of scratch files"},
    {"scratch_keep", CONFIG_DURATION, FIELD(scratch_keep_ms), "24h", 0, INT64_C(30) * 24 * 3600 * 1000,
     .reload = true, .help = "how long an untouched scratch file outlives the process that made it"},
    {"by_folders", CONFIG_ROWS, FIELD(by_folders), "524288", 1, 100000000,
     .help = "folders of values below .by that the kernel may know, of 128 bytes each"},
    {"refused_size", CONFIG_SIZE, FIELD(refused_size), "16MB", 0, GIB, .reload = true,
     .help = "memory for refused documents"},
    {"refused_files", CONFIG_ROWS, FIELD(refused_files), "1000", 0, 1000000, .reload = true,
     .help = "number of refused documents"},
    {"errors_size", CONFIG_SIZE, FIELD(errors_size), "1MB", 4 * KIB, GIB,
     .help = "size of .campusfs/errors.jsonl"},
    {"state_dir", CONFIG_PATH, FIELD(state_dir), "",
     .help = "folder for what is to survive the mount; empty: nothing is"},
    {"log_level", CONFIG_CHOICE, FIELD(log_level), "info", .choices = "error | warning | info | debug",
     .reload = true, .help = "what the log holds"},
    {NULL},
};

const struct config_key *config_key_find(const char *name)
{
    for (const struct config_key *key = config_keys; key->name; key++)
        if (strcmp(key->name, name) == 0)
            return key;
    return NULL;
}

const char *config_type_words(enum config_type type)
{
    static const char *const words[] = {
        [CONFIG_TEXT] = "text",
        [CONFIG_PATH] = "path",
        [CONFIG_COUNT] = "number",
        [CONFIG_ROWS] = "number",
        [CONFIG_SIZE] = "size, such as 512, 64kB, 24MB or 1GB",
        [CONFIG_DURATION] = "duration, such as 200ms, 5s or 2min",
        [CONFIG_BOOL] = "yes or no",
        [CONFIG_CHOICE] = "choice",
        [CONFIG_SWITCH] = "choice",
        [CONFIG_MODE] = "octal mode, such as 0640",
        [CONFIG_USER] = "user, by name or number",
        [CONFIG_GROUP] = "group, by name or number",
    };
    return words[type];
}

bool config_parse_number(const char *text, int64_t min, int64_t max, int64_t *out)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end || value < min || value > max)
        return false;
    *out = value;
    return true;
}

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit size_units[] = {{"", 1},
                                         {"B", 1},
                                         {"kB", KIB},
                                         {"KB", KIB},
                                         {"KiB", KIB},
                                         {"MB", MIB},
                                         {"MiB", MIB},
                                         {"GB", (int64_t)1 << 30},
                                         {"GiB", (int64_t)1 << 30},
                                         {NULL}};
static const struct unit duration_units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}, {NULL}};

/* A whole number and a unit, spaces between them allowed; a bare 0 needs no unit. */
static bool parse_with_unit(const char *text, const struct unit *units, int64_t *out)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno)
        return false;
    while (*end == ' ')
        end++;
    if (value == 0 && !*end) {
        *out = 0;
        return true;
    }
    for (const struct unit *unit = units; unit->name; unit++)
        if (strcmp(unit->name, end) == 0)
            return !__builtin_mul_overflow(value, unit->factor, out);
    return false;
}

static int print_with_unit(int64_t value, const struct unit *units, struct buf *out)
{
    const struct unit *best = &units[0];
    for (const struct unit *unit = units; unit->name; unit++)
        if (value && unit->factor > best->factor && value % unit->factor == 0)
            best = unit;
    return buf_printf(out, "%" PRId64 "%s", value / best->factor, best->name);
}

bool config_parse_mode(const char *text, mode_t *out)
{
    unsigned value = 0;
    size_t digits = strspn(text, "01234567");
    if (digits < 3 || digits > 5 || text[digits] || sscanf(text, "%o", &value) != 1 || value > 0777)
        return false;
    *out = (mode_t)value;
    return true;
}

bool config_parse_user(const char *text, uid_t *out)
{
    int64_t number;
    if (config_parse_number(text, 0, UINT32_MAX - 1, &number)) {
        *out = (uid_t)number;
        return true;
    }
    struct passwd entry, *found = NULL;
    char names[4096];
    if (getpwnam_r(text, &entry, names, sizeof names, &found) != 0 || !found)
        return false;
    *out = found->pw_uid;
    return true;
}

bool config_parse_group(const char *text, gid_t *out)
{
    int64_t number;
    if (config_parse_number(text, 0, UINT32_MAX - 1, &number)) {
        *out = (gid_t)number;
        return true;
    }
    struct group entry, *found = NULL;
    char names[16384];
    if (getgrnam_r(text, &entry, names, sizeof names, &found) != 0 || !found)
        return false;
    *out = found->gr_gid;
    return true;
}

static bool parse_bool(const char *text, bool *out)
{
    static const char *const words[] = {"no", "yes", "off", "on", "false", "true", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *out = i % 2;
            return true;
        }
    }
    return false;
}

/* The place of `text` among "a | b | c", -1 when it is none of them. */
static int choice_index(const char *choices, const char *text)
{
    size_t len = strlen(text);
    int index = 0;
    for (const char *at = choices; at; index++) {
        size_t n = strcspn(at, " ");
        if (n == len && memcmp(at, text, n) == 0)
            return index;
        at = strstr(at, " | ");
        at = at ? at + 3 : NULL;
    }
    return -1;
}

static bool replace_text(char **field, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return false;
    free(*field);
    *field = copy;
    return true;
}

static bool replace_path(char **field, const char *text, const char *folder)
{
    if (*text == '/' || *text == '\0' || !folder)
        return replace_text(field, text);
    char *path;
    if (asprintf(&path, "%s/%s", folder, text) < 0)
        return false;
    free(*field);
    *field = path;
    return true;
}

/* Parses a number of the key's kind within its bounds into the field. */
static bool parse_numeric(const struct config_key *key, const char *text, void *field)
{
    int64_t value;
    bool good = key->type == CONFIG_SIZE       ? parse_with_unit(text, size_units, &value)
                : key->type == CONFIG_DURATION ? parse_with_unit(text, duration_units, &value)
                                               : config_parse_number(text, 0, INT64_MAX, &value);
    if (!good || value < key->min || value > key->max)
        return false;
    if (key->type == CONFIG_COUNT)
        *(unsigned *)field = (unsigned)value;
    else if (key->type == CONFIG_DURATION)
        *(int64_t *)field = value;
    else
        *(size_t *)field = (size_t)value;
    return true;
}

static bool parse_field(const struct config_key *key, const char *text, const char *folder, void *field)
{
    int index;
    switch (key->type) {
    case CONFIG_TEXT:
        return replace_text(field, text);
    case CONFIG_PATH:
        return replace_path(field, text, folder);
    case CONFIG_COUNT:
    case CONFIG_ROWS:
    case CONFIG_SIZE:
    case CONFIG_DURATION:
        return parse_numeric(key, text, field);
    case CONFIG_BOOL:
        return parse_bool(text, field);
    case CONFIG_CHOICE:
        return choice_index(key->choices, text) >= 0 && replace_text(field, text);
    case CONFIG_SWITCH:
        index = choice_index(key->choices, text);
        *(bool *)field = index == 1;
        return index >= 0;
    case CONFIG_MODE:
        return config_parse_mode(text, field);
    case CONFIG_USER:
        return config_parse_user(text, field);
    case CONFIG_GROUP:
        return config_parse_group(text, field);
    }
    return false;
}

static int print_bound(const struct config_key *key, int64_t value, struct buf *out)
{
    if (key->type == CONFIG_COUNT || key->type == CONFIG_ROWS || value == 0)
        return buf_printf(out, "%" PRId64, value);
    return print_with_unit(value, key->type == CONFIG_SIZE ? size_units : duration_units, out);
}

int config_key_bounds(const struct config_key *key, struct buf *out)
{
    if (key->max == 0)
        return 0;
    int r = print_bound(key, key->min, out);
    if (r == 0)
        r = buf_add_text(out, " to ");
    return r < 0 ? r : print_bound(key, key->max, out);
}

int config_key_parse(const struct config_key *key, const char *text, const char *folder,
                     struct config *config, struct buf *problem)
{
    if (parse_field(key, text, folder, (char *)config + key->offset))
        return 0;
    buf_printf(problem, "%s = %s: ", key->name, key->secret ? "********" : text);
    if (key->choices)
        buf_printf(problem, "expected one of %s", key->choices);
    else if (key->type == CONFIG_USER || key->type == CONFIG_GROUP)
        buf_printf(problem, "there is no such %s", key->type == CONFIG_USER ? "user" : "group");
    else
        buf_printf(problem, "expected %s", config_type_words(key->type));
    if (key->max)
        buf_add_text(problem, ", from ");
    config_key_bounds(key, problem);
    return -EINVAL;
}

/* A reload may be storing another number at this moment. */
static unsigned load_unsigned(const void *field)
{
    return __atomic_load_n((const unsigned *)field, __ATOMIC_RELAXED);
}

static int64_t load_long(const void *field)
{
    return __atomic_load_n((const int64_t *)field, __ATOMIC_RELAXED);
}

static bool load_bool(const void *field)
{
    return __atomic_load_n((const bool *)field, __ATOMIC_RELAXED);
}

int config_key_print(const struct config_key *key, const struct config *config, struct buf *out)
{
    const void *field = (const char *)config + key->offset;
    const char *text = NULL;
    switch (key->type) {
    case CONFIG_TEXT:
    case CONFIG_PATH:
    case CONFIG_CHOICE:
        text = *(char *const *)field;
        return buf_add_text(out, !text ? "" : key->secret && *text ? "********" : text);
    case CONFIG_COUNT:
        return buf_printf(out, "%u", load_unsigned(field));
    case CONFIG_ROWS:
        return buf_printf(out, "%" PRId64, load_long(field));
    case CONFIG_SIZE:
        return print_with_unit(load_long(field), size_units, out);
    case CONFIG_DURATION:
        return print_with_unit(load_long(field), duration_units, out);
    case CONFIG_BOOL:
        return buf_add_text(out, load_bool(field) ? "yes" : "no");
    case CONFIG_SWITCH:
        text = strstr(key->choices, " | ");
        if (load_bool(field))
            return buf_add_text(out, text + 3);
        return buf_add(out, key->choices, (size_t)(text - key->choices));
    case CONFIG_MODE:
        return buf_printf(out, "%04o", load_unsigned(field));
    case CONFIG_USER:
    case CONFIG_GROUP:
        return buf_printf(out, "%u", load_unsigned(field));
    }
    return -EINVAL;
}

bool config_key_is_text(const struct config_key *key)
{
    return key->type == CONFIG_TEXT || key->type == CONFIG_PATH || key->type == CONFIG_CHOICE;
}

static size_t width_of(const struct config_key *key)
{
    switch (key->type) {
    case CONFIG_BOOL:
    case CONFIG_SWITCH:
        return sizeof(bool);
    case CONFIG_COUNT:
    case CONFIG_MODE:
    case CONFIG_USER:
    case CONFIG_GROUP:
        return sizeof(unsigned);
    default:
        return sizeof(int64_t);
    }
}
static_assert(sizeof(mode_t) == sizeof(unsigned) && sizeof(uid_t) == sizeof(unsigned) &&
                  sizeof(gid_t) == sizeof(unsigned) && sizeof(size_t) == sizeof(int64_t),
              "the widths of the keys' fields");

bool config_key_equal(const struct config_key *key, const struct config *one, const struct config *other)
{
    const void *a = (const char *)one + key->offset, *b = (const char *)other + key->offset;
    if (!config_key_is_text(key))
        return memcmp(a, b, width_of(key)) == 0;
    const char *left = *(char *const *)a, *right = *(char *const *)b;
    return strcmp(left ? left : "", right ? right : "") == 0;
}

int config_key_copy(const struct config_key *key, const struct config *from, struct config *to)
{
    const void *source = (const char *)from + key->offset;
    void *field = (char *)to + key->offset;
    if (config_key_is_text(key)) {
        const char *text = *(char *const *)source;
        if (text)
            return replace_text(field, text) ? 0 : -ENOMEM;
        free(*(char **)field);
        *(char **)field = NULL;
        return 0;
    }
    switch (width_of(key)) {
    case sizeof(bool):
        __atomic_store_n((bool *)field, *(const bool *)source, __ATOMIC_RELAXED);
        return 0;
    case sizeof(unsigned):
        __atomic_store_n((unsigned *)field, *(const unsigned *)source, __ATOMIC_RELAXED);
        return 0;
    default:
        __atomic_store_n((int64_t *)field, *(const int64_t *)source, __ATOMIC_RELAXED);
        return 0;
    }
}
