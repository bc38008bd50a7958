#include "command/command.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "entity/collection.h"
#include "tree/address.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

const struct command commands[] = {
    {"init", "bring every shard and MongoDB to the current schema", command_init},
    {"seed", "fill the cluster with sample data", command_seed},
    {"mount", "mount the tree", command_mount},
    {"reload", "have a mount take its configuration anew", command_reload},
    {"health", "probe every node; exit 0 healthy, 1 degraded, 2 down", command_health},
    {"status", "what each node is to its shard, once or with --watch; exit codes of health", command_status},
    {"check", "look for what crashes left and shards disagree on; exit 0 clean, 1 found", command_check},
    {"version", "versions of program, schema and libraries", command_version},
    {"help", "help on a command, or on the keys of the configuration", command_help_topic},
    {NULL},
};

static const char *config_path;

const char *command_config_path(void)
{
    return config_path;
}

static void print_overview(FILE *to)
{
    fprintf(to, "Usage: campusfs [--config FILE] COMMAND [OPTION...]\n\n"
                "Shows a sharded e-learning database as a directory tree.\n\n"
                "Commands:\n");
    for (const struct command *command = commands; command->name; command++)
        if (command->run)
            fprintf(to, "  %-9s %s\n", command->name, command->summary);
    fprintf(to, "\nOptions:\n"
                "  --config FILE  configuration; else $CAMPUSFS_CONFIG, ./campusfs.conf, "
                "/etc/campusfs/campusfs.conf\n"
                "  --help         this text; after a command, the help of that command\n"
                "  --version      the same as campusfs version\n\n"
                "Exit codes: 0 done, 1 refused or degraded, 2 servers that cannot be reached or used,\n"
                "64 wrong use, 78 wrong configuration. See campusfs(8) and campusfs.conf(5).\n");
}

int command_help(const char *text)
{
    fputs(text, stdout);
    return fflush(stdout) == 0 ? COMMAND_OK : COMMAND_REFUSED;
}

int command_usage(const char *name, const char *format, ...)
{
    fprintf(stderr, "campusfs%s%s: ", *name ? " " : "", name);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry \"campusfs%s%s --help\".\n", *name ? " " : "", name);
    return COMMAND_USAGE;
}

int command_failed(const char *name, const struct fail *f)
{
    const char *text = *f->message ? f->message : strerror(f->err);
    /* A message may have a line for each shard. */
    while (*text) {
        int len = (int)strcspn(text, "\n");
        fprintf(stderr, "campusfs %s: %.*s\n", name, len, text);
        text += len + (text[len] == '\n');
    }
    if (*f->hint)
        fprintf(stderr, "campusfs %s: hint: %s\n", name, f->hint);
    return f->err == EINVAL ? COMMAND_CONFIG : COMMAND_DOWN;
}

int command_print_json(json_t *json)
{
    int bad = json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(json);
    bad = putchar('\n') == EOF || bad;
    return fflush(stdout) == 0 && !bad ? COMMAND_OK : COMMAND_REFUSED;
}

json_t *command_probe(const struct config *config, int64_t timeout_ms, enum health_status *status)
{
    char at[CLOCK_TEXT];
    json_t *health = NULL;
    struct op op = op_within(timeout_ms);
    clock_text(at);
    if (health_probe(config, NULL, &op, &health, status) < 0)
        return NULL;
    json_object_set_new(health, "probed_at", json_string(at));
    return health;
}

int command_open_mount(const char *directory)
{
    struct statx st;
    struct statfs fs;
    int fd CLEANUP(closep) = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if (fs.f_type != FUSE_SUPER_MAGIC || !(st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
        return -ENOTCONN;
    int mount = fd;
    fd = -1;
    return mount;
}

/* Control characters, also those of two bytes (U+0080 to U+009F), as question marks. */
static void blank_controls(char *text)
{
    for (unsigned char *at = (unsigned char *)text; *at; at++) {
        if (*at == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
            at[0] = at[1] = '?';
        else if (*at < ' ' || *at == 0x7f)
            *at = '?';
    }
}

static void blank_texts(json_t *json)
{
    size_t i;
    const char *key;
    json_t *item;
    if (json_is_string(json)) {
        char *text CLEANUP(freep) = strdup(json_string_value(json));
        if (text)
            blank_controls(text);
        json_string_set(json, text ? text : "");
    }
    json_array_foreach(json, i, item) blank_texts(item);
    json_object_foreach(json, key, item) blank_texts(item);
}

json_t *command_read_mount(int mount, const char *name, json_error_t *problem)
{
    int fd CLEANUP(closep) = openat(mount, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        snprintf(problem->text, sizeof problem->text, "%s", strerrordesc_np(errno));
        return NULL;
    }
    json_t *json = json_loadfd(fd, 0, problem);
    if (json)
        blank_texts(json);
    return json;
}

bool command_is_collection(const char *name)
{
    return strcmp(name, MEDIA_FOLDER) == 0 || collection_of_folder(name);
}

int command_load_config(struct config **out)
{
    struct buf errors = {0};
    int r = config_load(config_path, command_is_collection, out, &errors);
    if (r == -ENOMEM)
        fputs("campusfs: out of memory\n", stderr);
    else if (errors.data)
        fputs(errors.data, stderr);
    buf_clear(&errors);
    enum log_level level;
    if (r == 0 && log_parse_level((*out)->log_level, &level))
        log_set_level(level);
    return r < 0 ? COMMAND_CONFIG : COMMAND_OK;
}

/* Takes --config FILE or --config=FILE out of the words, wherever it stands before "--". */
static int take_config(int *argc, char **argv)
{
    int kept = 1;
    for (int i = 1; i < *argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            while (i < *argc)
                argv[kept++] = argv[i++];
        } else if (strncmp(argv[i], "--config=", 9) == 0) {
            config_path = argv[i] + 9;
        } else if (strcmp(argv[i], "--config") == 0) {
            if (i + 1 == *argc)
                return command_usage("", "--config needs a file");
            config_path = argv[++i];
        } else {
            argv[kept++] = argv[i];
        }
    }
    argv[kept] = NULL;
    *argc = kept;
    return 0;
}

int command_main(int argc, char **argv)
{
    int r = take_config(&argc, argv);
    if (r)
        return r;
    if (argc < 2) {
        print_overview(stderr);
        return COMMAND_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_overview(stdout);
        return COMMAND_OK;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return command_version(1, argv + 1);
    if (*argv[1] == '-')
        return command_usage("", "unknown option %s", argv[1]);
    for (const struct command *command = commands; command->name; command++)
        if (command->run && strcmp(command->name, argv[1]) == 0)
            return command->run(argc - 1, argv + 1);
    return command_usage("", "unknown command %s", argv[1]);
}
