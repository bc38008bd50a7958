#include "command/command.h"

#include "media/init.h"
#include "shard/health.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char help_text[] =
    "Usage: campusfs health [--json] [--timeout SECONDS]\n"
    "\n"
    "Asks every node of every shard, all at once, and MongoDB where one is configured.\n"
    "\n"
    "Options:\n"
    "  --json             as JSON\n"
    "  --timeout SECONDS  how long an answer may take (default: the key connect_timeout)\n"
    "  --help             this text\n"
    "\n"
    "Exit codes: 0 healthy; 1 degraded: everything can be read, something is missing; 2 down: some shard "
    "cannot be\n"
    "read.\n";

/* A number of milliseconds or bytes of the JSON as text, "-" when it is not known. */
static const char *number_text(const json_t *node, const char *key, const char *unit, char *out, size_t size)
{
    const json_t *value = json_object_get(node, key);
    if (json_is_integer(value))
        snprintf(out, size, "%" JSON_INTEGER_FORMAT "%s", json_integer_value(value), unit);
    else if (json_is_real(value))
        snprintf(out, size, "%.1f%s", json_real_value(value), unit);
    else
        snprintf(out, size, "-");
    return out;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

static void print_node(const json_t *node)
{
    char timeline[24], lag[32], bytes[32], latency[32], schema[24];
    const char *error = json_string_value(json_object_get(node, "error"));
    printf("  %-20s %-8s %8s %10s %12s %10s %7s  %s\n", text_of(node, "name"),
           json_is_true(json_object_get(node, "reachable")) ? text_of(node, "role") : "down",
           number_text(node, "timeline", "", timeline, sizeof timeline),
           number_text(node, "lag_ms", " ms", lag, sizeof lag),
           number_text(node, "lag_bytes", " B", bytes, sizeof bytes),
           number_text(node, "latency_ms", " ms", latency, sizeof latency),
           number_text(node, "schema_version", "", schema, sizeof schema), error ? error : "");
}

/* One that is meant lives for milliseconds. */
static void print_prepared(const json_t *prepared)
{
    char age[32];
    json_int_t count = json_integer_value(json_object_get(prepared, "count"));
    if (count > 0)
        printf("  prepared transactions: %" JSON_INTEGER_FORMAT ", the oldest for %s\n", count,
               number_text(prepared, "oldest_s", " s", age, sizeof age));
}

static void print_table(const json_t *health)
{
    size_t i, j;
    json_t *shard, *node;
    printf("%s\n\n", text_of(health, "status"));
    printf("  %-20s %-8s %8s %10s %12s %10s %7s\n", "node", "role", "timeline", "lag", "lag", "latency",
           "schema");
    json_array_foreach(json_object_get(health, "shards"), i, shard)
    {
        printf("shard %s (%d): %s, %s\n", text_of(shard, "name"),
               (int)json_integer_value(json_object_get(shard, "number")), text_of(shard, "status"),
               text_of(shard, "protection"));
        json_array_foreach(json_object_get(shard, "nodes"), j, node) print_node(node);
        print_prepared(json_object_get(shard, "prepared"));
    }
    const json_t *mongodb = json_object_get(health, "mongodb");
    if (!json_is_object(mongodb))
        return;
    char latency[32];
    bool reachable = json_is_true(json_object_get(mongodb, "reachable"));
    printf("MongoDB: %s", reachable ? "ok" : "down");
    if (reachable)
        printf(", %s %s, %s%s", text_of(mongodb, "server"), text_of(mongodb, "version"),
               number_text(mongodb, "latency_ms", " ms", latency, sizeof latency),
               json_is_true(json_object_get(json_object_get(mongodb, "capabilities"), "validators"))
                   ? ""
                   : ", checks no preferences itself");
    else
        printf(", %s", text_of(mongodb, "error"));
    putchar('\n');
}

/* MongoDB's part: what is missing there makes the whole degraded, for rows work without. */
static int add_mongodb(const struct config *config, const struct op *op, json_t *health,
                       enum health_status *status)
{
    json_t *mongodb = NULL;
    if (*config->mongodb_uri && media_ping(config->mongodb_uri, op, &mongodb) < 0)
        return -ENOMEM;
    if (mongodb && !json_is_true(json_object_get(mongodb, "reachable")) && *status == HEALTH_OK) {
        *status = HEALTH_DEGRADED;
        json_object_set_new(health, "status", json_string("degraded"));
    }
    return json_object_set_new(health, "mongodb", mongodb ? mongodb : json_null());
}

static int run_health(const struct config *config, int64_t timeout_ms, bool json)
{
    enum health_status status = HEALTH_OK;
    json_t *health = command_probe(config, timeout_ms, &status);
    if (!health)
        return COMMAND_DOWN;
    /* Its own time: what the nodes took is not MongoDB's fault. */
    struct op op = op_within(timeout_ms);
    if (add_mongodb(config, &op, health, &status) < 0) {
        json_decref(health);
        return COMMAND_DOWN;
    }
    if (json) {
        command_print_json(health);
    } else {
        print_table(health);
        json_decref(health);
    }
    return (int)status;
}

int command_health(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"timeout", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    bool json = false;
    int64_t timeout_ms = 0;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        char *end;
        if (option == 'h')
            return command_help(help_text);
        if (option == '?')
            return command_usage("health", "wrong option");
        json = json || option == 'j';
        if (option != 't')
            continue;
        double seconds = strtod(optarg, &end);
        if (*end || !(seconds >= 0.05 && seconds <= 3600))
            return command_usage("health", "--timeout %s: must be a number of seconds from 0.05 to 3600",
                                 optarg);
        timeout_ms = (int64_t)(seconds * 1000);
    }
    if (optind < argc)
        return command_usage("health", "unexpected word %s", argv[optind]);
    struct config *config;
    int code = command_load_config(&config);
    if (code)
        return code;
    code = run_health(config, timeout_ms ? timeout_ms : config->connect_timeout_ms, json);
    config_free(config);
    return code;
}
