/* `campusfs help`: for people, and as JSON for what checks that the manual says the same. */
#include "command/command.h"

#include "base/config_keys.h"

#include <stdio.h>
#include <string.h>

static const char help_text[] =
    "Usage: campusfs help [COMMAND | config] [--json]\n"
    "\n"
    "Prints the help of a command, or the keys of the configuration: type, default,\n"
    "environment variable and meaning of each.\n"
    "\n"
    "Options:\n"
    "  --json  the keys of the configuration, or the commands, as JSON\n"
    "  --help  this text\n";

static void variable_of(const struct config_key *key, char *out, size_t size)
{
    snprintf(out, size, "CAMPUSFS_%s", key->name);
    for (char *p = out; *p; p++)
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
}

static int config_json(void)
{
    json_t *keys = json_array();
    for (const struct config_key *key = config_keys; key->name; key++) {
        char variable[64];
        struct buf bounds = {0};
        variable_of(key, variable, sizeof variable);
        config_key_bounds(key, &bounds);
        json_array_append_new(keys,
                              json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?, s:b, s:b, s:s}", "name", key->name,
                                        "variable", variable, "type", config_type_words(key->type), "bounds",
                                        bounds.data, "choices", key->choices, "default", key->fallback,
                                        "secret", key->secret, "reload", key->reload, "help", key->help));
        buf_clear(&bounds);
    }
    return command_print_json(keys);
}

static int config_text(void)
{
    printf("Keys of [campusfs] in campusfs.conf; each is also an environment variable, which wins.\n\n");
    for (const struct config_key *key = config_keys; key->name; key++) {
        char variable[64];
        variable_of(key, variable, sizeof variable);
        printf("%s (%s)\n    %s\n    %s", key->name, variable, key->help,
               key->choices ? key->choices : config_type_words(key->type));
        if (key->fallback && *key->fallback)
            printf("; default %s", key->fallback);
        printf("%s", key->reload ? "; can be reloaded" : "");
        putchar('\n');
    }
    printf(
        "\nOther sections, a line for each name: [shards] number=N; [nodes] shard=NAME and libpq keywords;\n"
        "[regions] number=N shard=NAME; [collections] owner=USER group=GROUP mode=OCTAL.\n"
        "CAMPUSFS_SHARDS, CAMPUSFS_NODES, CAMPUSFS_REGIONS and CAMPUSFS_COLLECTIONS replace a section; "
        "their\n"
        "lines are separated by newlines or \";\". See campusfs.conf(5).\n");
    return fflush(stdout) == 0 ? COMMAND_OK : COMMAND_REFUSED;
}

static int commands_json(void)
{
    json_t *list = json_array();
    for (const struct command *command = commands; command->name; command++)
        if (command->run)
            json_array_append_new(
                list, json_pack("{s:s, s:s}", "name", command->name, "summary", command->summary));
    return command_print_json(list);
}

int command_help_topic(int argc, char **argv)
{
    char *topic = NULL;
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return command_help(help_text);
        if (strcmp(argv[i], "--json") == 0)
            json = true;
        else if (*argv[i] == '-' || topic)
            return command_usage("help", "unexpected word %s", argv[i]);
        else
            topic = argv[i];
    }
    if (topic && strcmp(topic, "config") == 0)
        return json ? config_json() : config_text();
    char program[] = "campusfs", option[] = "--help";
    if (!topic)
        return json ? commands_json() : command_main(2, (char *[]){program, option, NULL});
    if (json)
        return command_usage("help", "only the list of commands and config can be had as JSON");
    return command_main(3, (char *[]){program, topic, option, NULL});
}
