#include "command/command.h"

#include "base/parallel.h"
#include "base/progress.h"
#include "command/init_shard.h"
#include "media/init.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] = "Usage: campusfs init [--json]\n"
                                "\n"
                                "Brings every shard, and MongoDB where one is configured, to the schema of "
                                "this program: creates the database,\n"
                                "the roles, tables and functions that are missing, and the regions of the "
                                "configuration. Each shard in one\n"
                                "transaction on its primary, which is found by its role. Can be run again at "
                                "any time; refuses a schema that is\n"
                                "newer than the program. Connects as admin_user; sets no password.\n"
                                "\n"
                                "Options:\n"
                                "  --json  what was changed, as JSON\n"
                                "  --help  this text\n"
                                "\n"
                                "Exit codes: 0 done, 1 refused (a newer schema, another shard's database), 2 "
                                "a server cannot be reached or used.\n";

enum { INIT_MS = 600000, MONGODB_MS = 30000 };

struct work {
    struct init_shard *shards;
    struct op op;
    pthread_mutex_t lock; /* guards progress and done */
    struct progress progress;
    uint64_t done;
};

static void file_done(void *arg)
{
    struct work *work = arg;
    pthread_mutex_lock(&work->lock);
    progress_update(&work->progress, ++work->done);
    pthread_mutex_unlock(&work->lock);
}

static void init_one(void *arg, size_t index)
{
    struct work *work = arg;
    init_shard(&work->shards[index], &work->op, file_done, work);
}

/* Turns lines into a JSON array of them. */
static json_t *lines_json(const struct buf *lines)
{
    json_t *array = json_array();
    for (const char *p = lines->data; p && *p;) {
        size_t len = strcspn(p, "\n");
        json_array_append_new(array, json_stringn(p, len));
        p += len + (p[len] == '\n');
    }
    return array;
}

/* Prints each line behind "who: ". */
static void print_lines(FILE *to, const char *who, const struct buf *lines)
{
    for (const char *p = lines->data; p && *p;) {
        size_t len = strcspn(p, "\n");
        fprintf(to, "%s: %.*s\n", who, (int)len, p);
        p += len + (p[len] == '\n');
    }
}

static json_t *fail_json(const struct fail *f)
{
    return f->err ? json_string(f->message) : json_null();
}

static json_t *shard_json(const struct init_shard *init)
{
    return json_pack("{s:s, s:s?, s:i, s:i, s:i, s:o, s:o, s:o}", "name",
                     init->config->shards[init->shard].name, "node", init->node, "from", (int)init->from,
                     "to", (int)init->to, "files", (int)init->files, "changes", lines_json(&init->changes),
                     "notes", lines_json(&init->notes), "error", fail_json(&init->fail));
}

static void print_shard(const struct init_shard *init)
{
    char who[96];
    snprintf(who, sizeof who, "shard %s", init->config->shards[init->shard].name);
    print_lines(stderr, who, &init->notes);
    if (init->fail.err) {
        fprintf(stderr, "campusfs init: %s%s%s: %s\n", who, init->node ? ": node " : "",
                init->node ? init->node : "", init->fail.message);
        if (*init->fail.hint)
            fprintf(stderr, "campusfs init: hint: %s\n", init->fail.hint);
        return;
    }
    if (init->files && init->from < init->to)
        printf("%s: schema %u → %u, %u files\n", who, init->from, init->to, init->files);
    else if (init->files)
        printf("%s: functions and views brought up to date, %u files\n", who, init->files);
    print_lines(stdout, who, &init->changes);
    if (!init->files && !init->changes.len)
        printf("%s: nothing to do\n", who);
}

/* The exit code of a failure: refused when the server answered and the answer is no. */
static int exit_code(const struct fail *f)
{
    return !f->err ? COMMAND_OK : f->err == EPROTO || f->err == EEXIST ? COMMAND_REFUSED : COMMAND_DOWN;
}

static int report(const struct config *config, struct init_shard *shards, const struct buf *mongodb,
                  const struct fail *mongodb_fail, bool json)
{
    int code = exit_code(mongodb_fail);
    json_t *list = json ? json_array() : NULL;
    for (size_t i = 0; i < config->nshards; i++) {
        int one = exit_code(&shards[i].fail);
        code = one > code ? one : code;
        if (json)
            json_array_append_new(list, shard_json(&shards[i]));
        else
            print_shard(&shards[i]);
    }
    if (json) {
        json_t *side = *config->mongodb_uri ? json_pack("{s:o, s:o}", "changes", lines_json(mongodb), "error",
                                                        fail_json(mongodb_fail))
                                            : json_null();
        command_print_json(json_pack("{s:o, s:o}", "shards", list, "mongodb", side));
    } else if (*config->mongodb_uri) {
        print_lines(stdout, "MongoDB", mongodb);
        if (mongodb_fail->err)
            fprintf(stderr, "campusfs init: MongoDB: %s\n", mongodb_fail->message);
        else if (!mongodb->len)
            printf("MongoDB: nothing to do\n");
    }
    return code;
}

static int init_all(const struct config *config, bool json)
{
    struct work work = {.op = op_within(INIT_MS), .lock = PTHREAD_MUTEX_INITIALIZER};
    struct buf mongodb = {0};
    struct fail mongodb_fail = {.err = 0};
    work.shards = calloc(config->nshards, sizeof *work.shards);
    if (!work.shards)
        return COMMAND_DOWN;
    for (size_t i = 0; i < config->nshards; i++)
        work.shards[i] = (struct init_shard){.config = config, .shard = i};
    progress_start(&work.progress, "SQL files", (uint64_t)init_shard_files() * config->nshards);
    parallel_run(config->nshards, init_one, &work);
    if (*config->mongodb_uri) {
        struct op op = op_within(MONGODB_MS);
        media_init(config, &op, &mongodb, &mongodb_fail);
    }
    progress_end(&work.progress);
    int code = report(config, work.shards, &mongodb, &mongodb_fail, json);
    for (size_t i = 0; i < config->nshards; i++) {
        buf_clear(&work.shards[i].changes);
        buf_clear(&work.shards[i].notes);
    }
    free(work.shards);
    buf_clear(&mongodb);
    return code;
}

int command_init(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool json = false;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (option == 'h')
            return command_help(help_text);
        if (option != 'j')
            return command_usage("init", "wrong option");
        json = true;
    }
    if (optind < argc)
        return command_usage("init", "unexpected word %s", argv[optind]);
    struct config *config;
    int code = command_load_config(&config);
    if (code)
        return code;
    code = init_all(config, json);
    config_free(config);
    return code;
}
