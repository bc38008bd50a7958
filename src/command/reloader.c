#include "command/reloader.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/config_reload.h"
#include "base/log.h"
#include "command/command.h"
#include "tree/process.h"

struct reloader {
    pthread_t thread;
    atomic_bool stopping;
    struct config *config;
    const char *path;
    bool read_only;
    struct cluster *cluster;
    struct tree *tree;
    json_t *report; /* the thread's, once it runs */
};

static void show(struct reloader *reloader)
{
    CLEANUP(freep) char *text = json_dumps(reloader->report, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    CLEANUP(buf_clear) struct buf whole = {0};
    if (!text || buf_printf(&whole, "%s\n", text) < 0 || tree_show_reload(reloader->tree, whole.data) < 0)
        log_warning("out of memory: .campusfs/reload does not tell of the reload");
}

/* The parts of a text between separators, as an array of strings. */
static json_t *split(const struct buf *text, const char *separator)
{
    json_t *parts = json_array();
    size_t gap = strlen(separator);
    for (const char *at = text->data ? text->data : ""; *at;) {
        const char *end = strstr(at, separator);
        size_t len = end ? (size_t)(end - at) : strlen(at);
        json_array_append_new(parts, json_stringn(at, len));
        at += len + (end ? gap : 0);
    }
    return parts;
}

static void begin_report(struct reloader *reloader)
{
    json_object_set_new(reloader->report, "running", json_true());
    show(reloader);
}

static void end_report(struct reloader *reloader, bool taken, const struct config_changes *changes,
                       const struct buf *errors)
{
    char text[32];
    struct tm tm;
    time_t now = time(NULL);
    json_t *report = reloader->report;
    gmtime_r(&now, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_object_set_new(report, "count",
                        json_integer(json_integer_value(json_object_get(report, "count")) + 1));
    json_object_set_new(report, "running", json_false());
    json_object_set_new(report, "time", json_string(text));
    json_object_set_new(report, "result", json_string(taken ? "taken" : "refused"));
    json_object_set_new(report, "taken", split(&changes->taken, ", "));
    json_object_set_new(report, "remount", split(&changes->remount, ", "));
    json_object_set_new(report, "errors", split(errors, "\n"));
    show(reloader);
}

static void log_lines(const struct buf *errors)
{
    const char *at = errors->data ? errors->data : "";
    while (*at) {
        int len = (int)strcspn(at, "\n");
        log_warning("reload: %.*s", len, at);
        at += len + (at[len] == '\n');
    }
}

/* Whoever holds state of its own follows. What fails is said; the rest is done nevertheless. */
static void follow(struct reloader *reloader, struct buf *errors)
{
    struct fail f = {.err = 0};
    enum log_level level;
    const struct config *now = config_hold(reloader->config);
    if (log_parse_level(now->log_level, &level))
        log_set_level(level);
    config_put(now);
    if (cluster_reload(reloader->cluster, &f) < 0)
        buf_printf(errors, "%s\n", f.message);
    int r = tree_reload(reloader->tree);
    if (r < 0)
        buf_printf(errors, "%s\n", strerrordesc_np(-r));
}

static void reload(struct reloader *reloader)
{
    CLEANUP(buf_clear) struct buf errors = {0};
    CLEANUP(config_changes_clear) struct config_changes changes = {0};
    struct config *next = NULL;
    begin_report(reloader);
    int r = config_load(reloader->path, command_is_collection, &next, &errors);
    if (r == 0) {
        next->read_only = next->read_only || reloader->read_only;
        r = config_reload(reloader->config, next, &changes, &errors);
    }
    if (r == -ENOMEM)
        buf_add_text(&errors, "out of memory\n");
    if (r == 0)
        follow(reloader, &errors);
    log_lines(&errors);
    if (r < 0)
        log_warning("reload: nothing has been changed");
    else
        log_info("reload: taken: %s", changes.taken.len ? changes.taken.data : "nothing, all is as before");
    if (r == 0 && changes.remount.len)
        log_warning("reload: changed in the file, and not before the next mount: %s", changes.remount.data);
    end_report(reloader, r == 0, &changes, &errors);
}

static void *reloader_main(void *arg)
{
    struct reloader *reloader = arg;
    sigset_t hup;
    int signum;
    sigemptyset(&hup);
    sigaddset(&hup, SIGHUP);
    while (sigwait(&hup, &signum) == 0 && !atomic_load(&reloader->stopping))
        reload(reloader);
    return NULL;
}

int reloader_start(struct config *config, const char *path, bool read_only, struct cluster *cluster,
                   struct tree *tree, struct reloader **out)
{
    struct reloader *reloader = calloc(1, sizeof *reloader);
    if (!reloader)
        return -ENOMEM;
    *reloader = (struct reloader){
        .config = config, .path = path, .read_only = read_only, .cluster = cluster, .tree = tree};
    reloader->report =
        json_pack("{s:I, s:I, s:i, s:b, s:n, s:n, s:[], s:[], s:[]}", "pid", (json_int_t)getpid(), "identity",
                  (json_int_t)process_of_thread(getpid()).identity, "count", 0, "running", 0, "time",
                  "result", "taken", "remount", "errors");
    int r = reloader->report ? 0 : -ENOMEM;
    if (r == 0) {
        show(reloader);
        r = -pthread_create(&reloader->thread, NULL, reloader_main, reloader);
    }
    if (r < 0) {
        json_decref(reloader->report);
        free(reloader);
        return r;
    }
    *out = reloader;
    return 0;
}

void reloader_stop(struct reloader *reloader)
{
    if (!reloader)
        return;
    atomic_store(&reloader->stopping, true);
    pthread_kill(reloader->thread, SIGHUP);
    pthread_join(reloader->thread, NULL);
    json_decref(reloader->report);
    free(reloader);
}
