#include "command/check.h"

#include "base/buf.h"
#include "base/log.h"
#include "command/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char help_head[] =
    "Usage: campusfs check [--repair] [--json] [--media | PART...]\n"
    "\n"
    "Looks for what a crash, a failover or SQL by hand may have left: whether the shards agree with each\n"
    "other, and whether derived values are right. Can run beside mounts at any time.\n"
    "\n"
    "Parts, all of them when none is named:\n";

static const char help_tail[] =
    "\n"
    "Options:\n"
    "  --media   the part media alone\n"
    "  --repair  mend what can be mended without guessing; the rest is told as without it\n"
    "  --json    as JSON\n"
    "  --help    this text\n"
    "\n"
    "Exit codes: 0 nothing found, 1 something found (repaired or not, which is told), 2 something could not\n"
    "be checked.\n";

static const struct check_part parts[] = {
    {"transfers", "moves between shards that broke off: settled", false, check_transfers},
    {"names", "e-mail addresses, usernames and slugs that two shards have", false, check_names},
    {"ids", "ids that two shards have; claims that are missing, or for rows that are gone: mended", false,
     check_ids},
    {"categories", "copies that differ from those of the first shard: copied", false, check_categories},
    {"regions", "rows whose region lives on another shard", false, check_regions},
    {"derived", "ratings, counts, durations and progress that are not what they add up to: mended", false,
     check_derived},
    {"sequences", "sequences whose next value is taken: moved on", false, check_sequences},
    {"preferences", "preferences of users who are gone: removed", false, check_preferences},
    {"media", "files that lost chunks or have no path; what nobody owns or swept: removed", false,
     check_media},
    {"checksums", "media whose bytes are not those of their SHA-256", true, check_checksums},
};

enum { PARTS = sizeof parts / sizeof parts[0] };

/* ---- what parts call ---- */

void check_found(struct check *check, const struct shard *shard, bool repaired, const char *format, ...)
{
    char message[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    check->found++;
    check->repaired += repaired;
    if (json_array_size(check->findings) < CHECK_LISTED)
        json_array_append_new(check->findings,
                              json_pack("{s:s?, s:s, s:b}", "shard", shard ? shard_name(shard) : NULL,
                                        "message", message, "repaired", repaired));
}

void check_saw(struct check *check, uint64_t rows)
{
    check->rows += rows;
    progress_update(&check->progress, check->rows);
}

int check_ask(struct check *check, struct shard *shard, const struct pg_statement *statement,
              const char *const *params, struct pg_rows **rows, struct fail *f)
{
    struct op op = op_within(check->config->timeout_ms);
    return shard_sync_read(shard, statement, params, &op, rows, f);
}

int check_change(struct check *check, struct shard *shard, const struct pg_statement *statement,
                 const char *const *params, struct pg_rows **rows, struct fail *f)
{
    struct op op = op_within(check->config->timeout_ms);
    return shard_write(shard, statement, params, NULL, &op, rows, f);
}

void check_shard_numbers(const struct check *check, char *out, size_t size)
{
    size_t len = 0;
    *out = '\0';
    for (size_t i = 0; i < cluster_shards(check->cluster) && len < size; i++)
        len += (size_t)snprintf(out + len, size - len, "%c%u", i ? ',' : '{',
                                shard_number(cluster_shard(check->cluster, i)));
    if (len + 1 < size)
        snprintf(out + len, size - len, "}");
}

/* ---- running them ---- */

static const char *status_of(const struct check *check, int r)
{
    return r < 0                             ? "unknown"
           : check->found == 0               ? "clean"
           : check->repaired == check->found ? "repaired"
                                             : "found";
}

/* Runs a part; its result as JSON. */
static json_t *run_part(struct check *check, const struct check_part *part, int *code)
{
    struct fail f = {.err = 0};
    check->findings = json_array();
    check->found = check->repaired = 0;
    check->rows = 0;
    progress_start(&check->progress, part->name, 0);
    int r = part->run(check, &f);
    progress_end(&check->progress);
    if (r < 0)
        *code = COMMAND_DOWN;
    else if (check->found && *code == COMMAND_OK)
        *code = COMMAND_REFUSED;
    return json_pack("{s:s, s:s, s:I, s:I, s:o, s:s?}", "name", part->name, "status", status_of(check, r),
                     "found", (json_int_t)check->found, "repaired", (json_int_t)check->repaired, "findings",
                     check->findings, "error", r < 0 ? f.message : NULL);
}

static void print_part(const json_t *part)
{
    size_t i;
    json_t *finding;
    const char *error = json_string_value(json_object_get(part, "error"));
    const char *name = json_string_value(json_object_get(part, "name"));
    json_int_t found = json_integer_value(json_object_get(part, "found"));
    json_int_t repaired = json_integer_value(json_object_get(part, "repaired"));
    const json_t *findings = json_object_get(part, "findings");
    printf("%s: ", name);
    if (error)
        printf("cannot be checked%s", found ? " to the end, " : "\n");
    if (found)
        printf("%" JSON_INTEGER_FORMAT " found, %" JSON_INTEGER_FORMAT " repaired\n", found, repaired);
    else if (!error)
        printf("clean\n");
    json_array_foreach(findings, i, finding)
    {
        const char *shard = json_string_value(json_object_get(finding, "shard"));
        printf("  %s%s%s%s\n", shard ? "shard " : "", shard ? shard : "", shard ? ": " : "",
               json_string_value(json_object_get(finding, "message")));
        if (json_is_true(json_object_get(finding, "repaired")))
            printf("    repaired\n");
    }
    if ((size_t)found > json_array_size(findings))
        printf("  and %zu more\n", (size_t)found - json_array_size(findings));
    fflush(stdout);
    if (error)
        fprintf(stderr, "campusfs check: %s: %s\n", name, error);
}

/* Whether a part is to run: one of the words, or any that is not optional when there are none. */
static bool is_wanted(const struct check_part *part, char *const *words)
{
    if (!*words)
        return !part->optional;
    for (; *words; words++)
        if (strcmp(*words, part->name) == 0)
            return true;
    return false;
}

static int run_parts(struct check *check, char *const *words, bool json)
{
    int code = COMMAND_OK;
    json_t *results = json_array();
    for (size_t i = 0; i < PARTS; i++) {
        if (!is_wanted(&parts[i], words))
            continue;
        json_t *result = run_part(check, &parts[i], &code);
        if (!json)
            print_part(result);
        json_array_append_new(results, result);
    }
    if (!json) {
        json_decref(results);
        return code;
    }
    const char *status = code == COMMAND_OK ? "clean" : code == COMMAND_DOWN ? "unknown" : "found";
    int printed = command_print_json(json_pack("{s:s, s:o}", "status", status, "parts", results));
    return printed == COMMAND_OK ? code : COMMAND_DOWN;
}

static int run_check(const struct config *config, bool repair, bool json, char *const *words)
{
    struct check check = {.config = config, .repair = repair};
    struct fail f = {.err = 0};
    log_set_level(LOG_LEVEL_WARNING); /* that all is well with the nodes is no news here */
    if (cluster_open(config, &check.cluster, &f) < 0) {
        command_failed("check", &f);
        return COMMAND_DOWN;
    }
    int code = run_parts(&check, words, json);
    cluster_close(check.cluster);
    return code;
}

static int print_help(void)
{
    struct buf text = {0};
    int r = buf_add_text(&text, help_head);
    for (size_t i = 0; r == 0 && i < PARTS; i++)
        r = buf_printf(&text, "  %-11s %s%s\n", parts[i].name, parts[i].summary,
                       parts[i].optional ? "; only where named" : "");
    if (r == 0)
        r = buf_add_text(&text, help_tail);
    int code = r < 0 ? COMMAND_REFUSED : command_help(text.data);
    buf_clear(&text);
    return code;
}

static bool is_part(const char *word)
{
    for (size_t i = 0; i < PARTS; i++)
        if (strcmp(parts[i].name, word) == 0)
            return true;
    return false;
}

int command_check(int argc, char **argv)
{
    static char media_word[] = "media";
    static char *const media_words[] = {media_word, NULL};
    static const struct option options[] = {{"media", no_argument, NULL, 'm'},
                                            {"repair", no_argument, NULL, 'r'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    bool repair = false, json = false, media = false;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (option == 'h')
            return print_help();
        if (option == '?')
            return command_usage("check", "wrong option");
        repair = repair || option == 'r';
        json = json || option == 'j';
        media = media || option == 'm';
    }
    if (media && optind < argc)
        return command_usage("check", "--media is the part media alone");
    for (int i = optind; i < argc; i++)
        if (!is_part(argv[i]))
            return command_usage("check", "there is no part %s", argv[i]);
    struct config *config;
    int code = command_load_config(&config);
    if (code)
        return code;
    code = run_check(config, repair, json, media ? media_words : argv + optind);
    config_free(config);
    return code;
}
