/*
 * campusfs reload: finds the daemon by what its mount says of itself in .campusfs/reload, sends it SIGHUP,
 * and waits there for what became of it. So whoever may signal the daemon may have it reload, and nobody
 * else.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/op.h"
#include "command/command.h"
#include "tree/process.h"

enum { ANSWER_MS = 30000, POLL_MS = 20 };

static const char help_text[] =
    "Usage: campusfs reload [--json] DIR\n"
    "       campusfs reload --pid PID\n"
    "\n"
    "Has the mount at DIR take its configuration anew, the file that it was mounted with, without\n"
    "being mounted anew, and tells what has changed. A file with mistakes changes nothing. What can\n"
    "be reloaded is marked in campusfs.conf(5) and by \"campusfs help config\".\n"
    "\n"
    "Options:\n"
    "  --pid PID  send SIGHUP to that daemon, and wait for nothing: its log tells the rest\n"
    "  --json     what became of it, as JSON\n"
    "  --help     this text\n"
    "\n"
    "Exit codes: 0 taken; 1 no such mount, or not yours; 2 taken in part, or no answer; 64 wrong use;\n"
    "78 a configuration with mistakes: nothing has changed.\n";

static int refused(const char *what, const char *why)
{
    fprintf(stderr, "campusfs reload: %s: %s\n", what, why);
    return COMMAND_REFUSED;
}

/* What the mount says; NULL with the reason told. */
static json_t *read_report(int mount, const char *directory)
{
    json_error_t problem;
    json_t *report = command_read_mount(mount, ".campusfs/reload", &problem);
    if (!report)
        refused(directory, problem.text);
    return report;
}

static json_int_t number_of(const json_t *report, const char *key)
{
    return json_integer_value(json_object_get(report, key));
}

/* SIGHUP ends most other programs: a number that is mistaken, or a lie, must not cost one. */
static bool is_ours(pid_t pid)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    FILE *file = fopen(path, "re");
    if (file && !fgets(name, sizeof name, file))
        *name = '\0';
    if (file)
        fclose(file);
    return strcmp(name, "campusfs\n") == 0;
}

/* 0 or -errno; -ENOEXEC: it is no campusfs. `identity` 0: whichever it is. */
static int hang_up(pid_t pid, uint64_t identity)
{
    int fd CLEANUP(closep) = pidfd_open(pid, 0);
    if (fd < 0)
        return -errno;
    if (identity && process_of_thread(pid).identity != identity)
        return -ESRCH;
    if (!is_ours(pid))
        return -ENOEXEC;
    return pidfd_send_signal(fd, SIGHUP, NULL, 0) == 0 ? 0 : -errno;
}

static const char *why_not(int r)
{
    return r == -ENOEXEC ? "this is no campusfs" : strerrordesc_np(-r);
}

/* The report of a reload that began after `before` was read; NULL when none came. */
static json_t *wait_for_report(int mount, const char *directory, const json_t *before)
{
    /* One that was under way may have read the file before it was what it is now. */
    json_int_t enough = number_of(before, "count") + 1 + json_is_true(json_object_get(before, "running"));
    struct op op = op_within(ANSWER_MS);
    while (op_left_ms(&op) > 0) {
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000}, NULL);
        json_t *report = read_report(mount, directory);
        if (!report || number_of(report, "count") >= enough)
            return report;
        json_decref(report);
    }
    fprintf(stderr, "campusfs reload: %s: no answer within %d s\n", directory, ANSWER_MS / 1000);
    return NULL;
}

static void print_list(const char *head, const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) printf("%s%s", i ? ", " : head, json_string_value(item));
    if (json_array_size(list))
        putchar('\n');
}

static int tell(json_t *report, bool json)
{
    size_t i;
    json_t *line;
    const json_t *errors = json_object_get(report, "errors");
    const char *result = json_string_value(json_object_get(report, "result"));
    bool taken = result && strcmp(result, "taken") == 0;
    int code = !taken ? COMMAND_CONFIG : json_array_size(errors) ? COMMAND_DOWN : COMMAND_OK;
    json_array_foreach(errors, i, line) fprintf(stderr, "%s\n", json_string_value(line));
    if (!taken)
        fprintf(stderr, "campusfs reload: nothing has been changed\n");
    if (json) {
        command_print_json(report);
        return code;
    }
    if (taken && json_array_size(json_object_get(report, "taken")) == 0)
        puts("nothing to take: all is as before");
    print_list("taken: ", json_object_get(report, "taken"));
    print_list("not before the next mount: ", json_object_get(report, "remount"));
    json_decref(report);
    return code;
}

static int reload_mount(const char *directory, bool json)
{
    int mount CLEANUP(closep) = command_open_mount(directory);
    if (mount < 0)
        return refused(directory,
                       mount == -ENOTCONN ? "no mount: is campusfs mounted there?" : strerrordesc_np(-mount));
    json_t *before = read_report(mount, directory);
    if (!before)
        return COMMAND_REFUSED;
    pid_t pid = (pid_t)number_of(before, "pid");
    int r = hang_up(pid, (uint64_t)number_of(before, "identity"));
    json_t *after = r < 0 ? NULL : wait_for_report(mount, directory, before);
    json_decref(before);
    if (r == -ESRCH)
        return refused(directory, "its daemon is not to be seen from here (another pid namespace?)");
    if (r < 0)
        return refused(directory, why_not(r));
    return after ? tell(after, json) : COMMAND_DOWN;
}

static int reload_pid(const char *text)
{
    char *end;
    long pid = strtol(text, &end, 10);
    if (*end || pid <= 0 || pid > INT_MAX)
        return command_usage("reload", "--pid %s: must be a process id", text);
    int r = hang_up((pid_t)pid, 0);
    return r < 0 ? refused(text, why_not(r)) : COMMAND_OK;
}

int command_reload(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"pid", required_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *pid = NULL;
    bool json = false;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        if (option == 'h')
            return command_help(help_text);
        if (option == ':' || option == '?')
            return command_usage("reload", "%s %s",
                                 option == ':' ? "a value is missing for" : "unknown option",
                                 argv[optind - 1]);
        json = json || option == 'j';
        pid = option == 'p' ? optarg : pid;
    }
    if (pid && optind == argc)
        return reload_pid(pid);
    if (pid || argc - optind != 1)
        return command_usage("reload", pid ? "either DIR or --pid" : "which mount? one DIR, please");
    return reload_mount(argv[optind], json);
}
