/*
 * campusfs status: what every node is to its shard, once or again and again. Of a mount that is named its own
 * view is shown, from its health.json: the states that it goes by and what it has done with them. Without one
 * the servers are asked, as campusfs health asks them: that works where nothing is mounted, and when a mount
 * hangs.
 */
#include "command/command.h"

#include "base/cleanup.h"
#include "base/op.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char help_text[] =
    "Usage: campusfs status [--watch] [--interval SECONDS] [--timeout SECONDS] [--json] [DIR]\n"
    "\n"
    "Shows the state of every node. With DIR, where a campusfs is mounted, as that mount sees it;\n"
    "else the servers of the configuration are asked.\n"
    "\n"
    "Options:\n"
    "  --watch             again and again, until interrupted\n"
    "  --interval SECONDS  how often (default: 2)\n"
    "  --timeout SECONDS   how long an answer may take (default: the key connect_timeout)\n"
    "  --json              as JSON, with --watch one line each time\n"
    "  --help              this text\n"
    "\n"
    "Exit codes, of the last look: 0 healthy; 1 degraded: everything can be read, something is missing;\n"
    "2 down: some shard cannot be read.\n";

struct status_options {
    const char *directory; /* NULL = ask the servers */
    int64_t interval_ms, timeout_ms;
    bool watch, json;
};

static volatile sig_atomic_t interrupted;

static void interrupt(int signum)
{
    (void)signum;
    interrupted = 1;
}

/* ---- looking ---- */

static json_t *look_at_mount(const char *directory)
{
    json_error_t problem;
    int mount CLEANUP(closep) = command_open_mount(directory);
    if (mount < 0)
        snprintf(problem.text, sizeof problem.text, "%s",
                 mount == -ENOTCONN ? "nothing is mounted there" : strerrordesc_np(-mount));
    json_t *health = mount < 0 ? NULL : command_read_mount(mount, ".campusfs/health.json", &problem);
    if (!health)
        fprintf(stderr, "campusfs status: %s: no campusfs answers there: %s\n", directory, problem.text);
    return health;
}

static int status_code(const json_t *health)
{
    const char *status = json_string_value(json_object_get(health, "status"));
    if (!status || strcmp(status, "down") == 0)
        return HEALTH_DOWN;
    return strcmp(status, "ok") == 0 ? HEALTH_OK : HEALTH_DEGRADED;
}

/* ---- showing ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

/* A number with its unit, "-" when it is not known; milliseconds of some size as seconds. */
static const char *number(const json_t *object, const char *key, const char *unit, char out[32])
{
    const json_t *value = json_object_get(object, key);
    if (json_is_integer(value))
        snprintf(out, 32, "%" JSON_INTEGER_FORMAT "%s", json_integer_value(value), unit);
    else if (json_is_real(value))
        snprintf(out, 32, "%.1f%s", json_real_value(value), unit);
    else
        snprintf(out, 32, "-");
    return out;
}

/* How much a node's counter has moved since the look before, a second; "-" when that is not known. */
static const char *rate(const json_t *node, const json_t *before, const char *key, int64_t ms, char out[32])
{
    const json_t *now = json_object_get(node, key);
    const json_t *then = json_object_get(before, key);
    if (json_is_integer(now) && json_is_integer(then) && ms > 0)
        snprintf(out, 32, "%.1f/s",
                 (double)(json_integer_value(now) - json_integer_value(then)) * 1000 / (double)ms);
    else
        number(node, key, "", out);
    return out;
}

static void print_node(const json_t *node, const json_t *before, int64_t ms)
{
    char since[32], lag[32], bytes[32], latency[32], reads[32], writes[32];
    const char *error = json_string_value(json_object_get(node, "error"));
    printf("  %-16s %-11s %10s %10s %10s %9s %9s %9s  %s\n", text_of(node, "name"), text_of(node, "state"),
           number(node, "since_s", " s", since), number(node, "lag_ms", " ms", lag),
           number(node, "lag_bytes", " B", bytes), number(node, "latency_ms", " ms", latency),
           rate(node, before, "reads", ms, reads), rate(node, before, "writes", ms, writes),
           error ? error : "");
}

static void print_traffic(const json_t *traffic)
{
    const json_t *reads = json_object_get(traffic, "reads");
    json_int_t replica = json_integer_value(json_object_get(reads, "replica"));
    json_int_t primary = json_integer_value(json_object_get(reads, "primary"));
    json_int_t stale = json_integer_value(json_object_get(reads, "stale"));
    json_int_t held = json_integer_value(json_object_get(traffic, "held_writes"));
    char ago[32];
    if (replica + primary > 0)
        printf(", %.0f %% of the reads on replicas", 100.0 * (double)replica / (double)(replica + primary));
    if (stale > 0)
        printf(", %" JSON_INTEGER_FORMAT " stale, the last %s ago", stale,
               number(traffic, "stale_ms", " ms", ago));
    if (held > 0)
        printf(", %" JSON_INTEGER_FORMAT " saves wait", held);
}

static const json_t *named(const json_t *array, const char *name)
{
    size_t i;
    json_t *one;
    json_array_foreach(array, i, one) if (strcmp(text_of(one, "name"), name) == 0) return one;
    return NULL;
}

static void print_shard(const json_t *shard, const json_t *before, int64_t ms)
{
    size_t i;
    json_t *node;
    char timeline[32];
    printf("shard %s: %s, primary %s, timeline %s, %s", text_of(shard, "name"), text_of(shard, "status"),
           text_of(shard, "primary"), number(shard, "timeline", "", timeline), text_of(shard, "protection"));
    if (json_is_object(json_object_get(shard, "traffic")))
        print_traffic(json_object_get(shard, "traffic"));
    putchar('\n');
    json_array_foreach(json_object_get(shard, "nodes"), i, node)
        print_node(node, named(json_object_get(before, "nodes"), text_of(node, "name")), ms);
}

static void print_table(const json_t *health, const json_t *before, int64_t ms)
{
    char when[32];
    time_t now = time(NULL);
    struct tm tm;
    size_t i;
    json_t *shard;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    printf("%s at %s\n\n", text_of(health, "status"), when);
    printf("  %-16s %-11s %10s %10s %10s %9s %9s %9s\n", "node", "state", "since", "lag", "lag", "answers",
           "reads", "writes");
    json_array_foreach(json_object_get(health, "shards"), i, shard)
        print_shard(shard, named(json_object_get(before, "shards"), text_of(shard, "name")), ms);
    const json_t *mongodb = json_object_get(health, "mongodb");
    if (json_is_object(mongodb))
        printf("MongoDB: %s\n",
               json_is_true(json_object_get(mongodb, "reachable")) ? "ok" : text_of(mongodb, "error"));
}

/* False when nobody reads it any more. */
static bool show(const struct status_options *options, const json_t *health, const json_t *before, int64_t ms,
                 bool again)
{
    bool terminal = isatty(STDOUT_FILENO);
    if (options->json) {
        json_dumpf(health, stdout, (options->watch ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(6));
        putchar('\n');
    } else {
        if (options->watch && terminal)
            fputs("\033[H\033[2J", stdout);
        else if (again)
            putchar('\n');
        print_table(health, before, ms);
    }
    return fflush(stdout) == 0;
}

static void pause_ms(int64_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static int run(const struct config *config, const struct status_options *options)
{
    int code = HEALTH_DOWN;
    enum health_status status;
    json_t *before = NULL;
    int64_t then = 0;
    struct sigaction action = {.sa_handler = interrupt};
    if (options->watch) {
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
    }
    for (bool again = false; !interrupted; again = true) {
        json_t *health = options->directory ? look_at_mount(options->directory)
                                            : command_probe(config, options->timeout_ms, &status);
        int64_t now = clock_now_ms();
        code = health ? status_code(health) : HEALTH_DOWN;
        bool heard = !health || show(options, health, before, now - then, again);
        json_decref(before);
        before = health;
        then = now;
        if (!options->watch || !heard)
            break;
        pause_ms(options->interval_ms);
    }
    json_decref(before);
    return code;
}

/* ---- options ---- */

/* A number of seconds as milliseconds; false when it is none, or out of bounds. */
static bool parse_seconds(const char *text, int64_t *ms)
{
    char *end;
    double seconds = strtod(text, &end);
    *ms = (int64_t)(seconds * 1000);
    return !*end && end != text && seconds >= 0.05 && seconds <= 3600;
}

/* An exit code, or -1 to go on. */
static int parse(int argc, char **argv, struct status_options *o)
{
    static const struct option longs[] = {
        {"watch", no_argument, NULL, 'w'},         {"interval", required_argument, NULL, 'i'},
        {"timeout", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},          {0},
    };
    optind = 0;
    for (int option; (option = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        if (option == 'h')
            return command_help(help_text);
        if (option == '?')
            return command_usage("status", "wrong option");
        o->watch = o->watch || option == 'w';
        o->json = o->json || option == 'j';
        if ((option == 'i' && !parse_seconds(optarg, &o->interval_ms)) ||
            (option == 't' && !parse_seconds(optarg, &o->timeout_ms)))
            return command_usage("status", "--%s %s: must be a number of seconds from 0.05 to 3600",
                                 option == 'i' ? "interval" : "timeout", optarg);
    }
    if (argc - optind > 1)
        return command_usage("status", "unexpected word %s", argv[optind + 1]);
    o->directory = argv[optind]; /* NULL at the end */
    return -1;
}

int command_status(int argc, char **argv)
{
    struct status_options options = {.interval_ms = 2000};
    int code = parse(argc, argv, &options);
    if (code >= 0)
        return code;
    struct config *config = NULL;
    if (!options.directory) {
        code = command_load_config(&config);
        if (code != COMMAND_OK)
            return code;
        if (options.timeout_ms == 0)
            options.timeout_ms = config->connect_timeout_ms;
    }
    code = run(config, &options);
    config_free(config);
    return code;
}
