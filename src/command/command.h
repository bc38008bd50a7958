/*
 * The commands of the program: `campusfs [--config FILE] COMMAND ...`. Each is int command_<name>(argc, argv)
 * in a file of its own, with argv[0] the command's name; it parses its own options (getopt_long), answers
 * --help by command_help(), and returns one of the codes below. What goes wrong is told on standard error,
 * once, by the command.
 */
#pragma once

#include <jansson.h>

#include "base/config.h"
#include "base/fail.h"
#include "shard/health.h"

enum command_exit {
    COMMAND_OK = 0,
    COMMAND_REFUSED = 1, /* refused, or degraded */
    COMMAND_DOWN = 2,    /* servers that cannot be reached or used */
    COMMAND_USAGE = 64,
    COMMAND_CONFIG = 78,
};

struct command {
    const char *name;
    const char *summary; /* one line, for `campusfs --help` */
    int (*run)(int argc, char **argv);
};

/* The table; the last entry has no name. */
extern const struct command commands[];

int command_main(int argc, char **argv);

/*
 * The configuration of --config or the usual places. When it cannot be used, all mistakes are printed and the
 * exit code is returned: COMMAND_CONFIG. *out is the caller's.
 */
int command_load_config(struct config **out);
/* Whether [collections] may name it: a collection, whatever the mount shows of it, or media. */
bool command_is_collection(const char *name);
/* The path given by --config, NULL when there was none. */
const char *command_config_path(void);

/* Prints a help text on standard output; COMMAND_OK. */
int command_help(const char *text);

/* "campusfs NAME: problem" and where help is; COMMAND_USAGE. */
__attribute__((format(printf, 2, 3))) int command_usage(const char *name, const char *format, ...);

/* Prints a failure, hint and all, for a person. Returns COMMAND_DOWN, or COMMAND_CONFIG for -EINVAL. */
int command_failed(const char *name, const struct fail *f);

/* Prints JSON on standard output, indented, with a final newline; takes the reference. COMMAND_OK. */
int command_print_json(json_t *json);

/* Asks all nodes (shard/health.h); the object tells also when: "probed_at". NULL: out of memory. */
json_t *command_probe(const struct config *config, int64_t timeout_ms, enum health_status *status);

/*
 * Opens the root of a mount whose daemon is to be asked or believed: any other folder may have been prepared
 * by somebody else, with files that look like a mount's. A descriptor for openat(); -ENOTCONN for a folder
 * that has nothing of FUSE mounted, -errno.
 */
int command_open_mount(const char *directory);
/* Reads a file of it as JSON, with what would move a terminal's cursor blanked in its texts; NULL, and
 * problem->text says why. */
json_t *command_read_mount(int mount, const char *name, json_error_t *problem);

int command_check(int argc, char **argv);
int command_health(int argc, char **argv);
int command_help_topic(int argc, char **argv);
int command_init(int argc, char **argv);
int command_mount(int argc, char **argv);
int command_reload(int argc, char **argv);
int command_seed(int argc, char **argv);
int command_status(int argc, char **argv);
int command_version(int argc, char **argv);
