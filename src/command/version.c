#include "command/command.h"

#include "postgres/statement.h"
#include "shard/schema.h"

#include <fuse_lowlevel.h>
#include <mongoc/mongoc.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

static const char help_text[] =
    "Usage: campusfs version [--json]\n"
    "\n"
    "Prints the version of the program, of the database schema it works with, and of the\n"
    "libraries it runs on.\n"
    "\n"
    "Options:\n"
    "  --json  as JSON\n"
    "  --help  this text\n";

static const char *libpq_version(char *out, size_t size)
{
    int number = pg_library_version();
    snprintf(out, size, "%d.%d", number / 10000, number % 10000);
    return out;
}

int command_version(int argc, char **argv)
{
    bool json = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return command_help(help_text);
        if (strcmp(argv[i], "--json") != 0)
            return command_usage("version", "unexpected word %s", argv[i]);
        json = true;
    }
    char libpq[32];
    json_t *version =
        json_pack("{s:s, s:i, s:{s:s, s:s, s:s, s:s, s:s}}", "campusfs", CAMPUSFS_VERSION, "schema",
                  (int)schema_expected(), "libraries", "libfuse", fuse_pkgversion(), "libpq",
                  libpq_version(libpq, sizeof libpq), "libmongoc", mongoc_get_version(), "jansson",
                  jansson_version_str(), "libzstd", ZSTD_versionString());
    if (json)
        return command_print_json(version);
    printf("campusfs %s\nschema %u\n", CAMPUSFS_VERSION, schema_expected());
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(version, "libraries"), name, value)
        printf("%s %s\n", name, json_string_value(value));
    json_decref(version);
    return fflush(stdout) == 0 ? COMMAND_OK : COMMAND_REFUSED;
}
