/*
 * campusfs mount: one daemon, in the foreground under a supervisor or in the background, where the command
 * returns once the mount answers. Threads and connections are made after the fork.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "command/command.h"
#include "command/reloader.h"
#include "fuse/session.h"

enum { LARGE_BYTES = 1 << 20 };

static const char help_text[] =
    "Usage: campusfs mount [OPTION...] DIR\n"
    "\n"
    "Mounts the tree at DIR, an existing folder. Returns when the mount answers, and serves it in\n"
    "the background until it is unmounted (fusermount3 -u DIR) or gets SIGTERM. By SIGHUP it\n"
    "takes the configuration anew, as by \"campusfs reload DIR\".\n"
    "\n"
    "Options:\n"
    "  --foreground     serve in the foreground, log on standard error\n"
    "  --log-file FILE  append the log to FILE; without it a daemon in the background logs nothing\n"
    "  --read-only      refuse every save with EROFS\n"
    "  -o OPTION,...    mount options: ro, or what fuse3 understands\n"
    "  --help           this text\n"
    "\n"
    "Exit codes: 0 mounted (in the foreground: ended), 1 cannot mount there, 2 servers that cannot be\n"
    "reached or used, 64 wrong use, 78 wrong configuration.\n";

struct mount_options {
    const char *directory; /* borrowed from argv */
    char *passed;          /* owned: the -o options that are passed on */
    const char *log_file;
    bool foreground, read_only;
};

/* Where the background daemon tells the waiting command how it went. */
static int ready_pipe = -1;
static int log_fd = -1;

/* The mount answers: the terminal is let go, and the command that waits may return. */
static void became_ready(void *arg)
{
    const struct mount_options *options = arg;
    if (log_fd >= 0)
        dup2(log_fd, STDERR_FILENO);
    if (log_fd >= 0 || ready_pipe < 0)
        log_info("mounted at %s", options->directory);
    if (ready_pipe < 0)
        return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        if (log_fd < 0)
            dup2(null, STDERR_FILENO);
        close(null);
    }
    char code = COMMAND_OK;
    while (write(ready_pipe, &code, 1) < 0 && errno == EINTR)
        ;
    close(ready_pipe);
    ready_pipe = -1;
}

/*
 * Messages of some MiB come and go in many threads. Left to itself malloc would take them from each thread's
 * own heap as soon as the first was freed, and keep them there.
 */
static void keep_heaps_small(void)
{
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
}

/* A connection a node and pool slot, and a descriptor of its own for little else: the default limit may be
 * low. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Serves until the mount ends; meanwhile a thread waits for SIGHUP. */
static int run_session(struct config *config, struct cluster *cluster, struct tree *tree,
                       struct session *session, struct mount_options *options, const sigset_t *signals,
                       struct fail *f)
{
    struct reloader *reloader = NULL;
    int r = reloader_start(config, command_config_path(), options->read_only, cluster, tree, &reloader);
    if (r < 0) {
        fail_set(f, -r, "cannot start a thread: %s", strerrordesc_np(-r));
        return COMMAND_DOWN;
    }
    session_serve(session, tree, became_ready, options);
    r = session_run(session, signals); /* only this thread is to be interrupted */
    reloader_stop(reloader);
    if (r < 0)
        fail_set(f, -r, "%s: the connection to the kernel failed", options->directory);
    log_info("unmounting %s", options->directory);
    return r < 0 ? COMMAND_REFUSED : COMMAND_OK;
}

static int serve_tree(struct config *config, struct cluster *cluster, struct mongo *mongo,
                      struct mount_options *options, const sigset_t *signals, struct fail *f)
{
    struct session *session = NULL;
    struct tree *tree = NULL;
    int code = COMMAND_REFUSED, r = session_mount(config, options->directory, options->passed, &session, f);
    if (r == 0) {
        code = COMMAND_DOWN;
        r = tree_open(config, cluster, mongo, session_invalidate, session, &tree, f);
    }
    if (r == 0)
        code = run_session(config, cluster, tree, session, options, signals, f);
    tree_quiet(tree);
    session_end(session);
    tree_close(tree);
    return code;
}

/* All in one process: connections, tree, loop. Signals are held back from the threads that these start. */
static int serve(struct config *config, struct mount_options *options)
{
    struct fail f = {0};
    struct cluster *cluster = NULL;
    struct mongo *mongo = NULL;
    sigset_t all, before;
    enum log_level level;
    if (log_parse_level(config->log_level, &level))
        log_set_level(level);
    raise_descriptor_limit();
    keep_heaps_small();
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    sigaddset(&before, SIGHUP); /* the reloader's alone */
    int code = COMMAND_DOWN;
    int r = cluster_open(config, &cluster, &f);
    if (r == 0 && *config->mongodb_uri) /* contacts no server: rows work without it */
        r = mongo_open(config->mongodb_uri, config->mongodb_pool_size, config->timeout_ms, &mongo, &f);
    if (r == 0)
        code = serve_tree(config, cluster, mongo, options, &before, &f);
    mongo_close(mongo);
    cluster_close(cluster);
    if (code != COMMAND_OK)
        command_failed("mount", &f);
    return code;
}

/* The command waits for the daemon's word; without one, its exit code is the answer. */
static int wait_for_daemon(pid_t pid, int fd)
{
    char code;
    ssize_t n;
    int status = 0;
    while ((n = read(fd, &code, 1)) < 0 && errno == EINTR)
        ;
    if (n == 1)
        return code;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) != 0 ? WEXITSTATUS(status) : COMMAND_REFUSED;
}

static int serve_in_background(struct config *config, struct mount_options *options)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0) {
        perror("campusfs mount");
        return COMMAND_REFUSED;
    }
    pid_t pid = fork();
    if (pid < 0) {
        perror("campusfs mount");
        return COMMAND_REFUSED;
    }
    if (pid > 0) {
        close(fds[1]);
        int code = wait_for_daemon(pid, fds[0]);
        close(fds[0]);
        return code;
    }
    close(fds[0]);
    ready_pipe = fds[1];
    setsid();
    return serve(config, options);
}

/* ro is ours; the rest goes to fuse3. */
static int add_mount_options(struct mount_options *options, const char *text)
{
    char *copy CLEANUP(freep) = strdup(text), *rest = copy, *one;
    while (copy && (one = strsep(&rest, ","))) {
        if (strcmp(one, "ro") == 0 || strcmp(one, "rw") == 0) {
            options->read_only = one[1] == 'o';
            continue;
        }
        char *joined;
        if (asprintf(&joined, "%s%s%s", options->passed ? options->passed : "", options->passed ? "," : "",
                     one) < 0)
            return -ENOMEM;
        free(options->passed);
        options->passed = joined;
    }
    return copy ? 0 : -ENOMEM;
}

/* An exit code, or -1 to go on. */
static int parse(int argc, char **argv, struct mount_options *options)
{
    static const struct option longs[] = {
        {"foreground", no_argument, NULL, 'f'},
        {"log-file", required_argument, NULL, 'l'},
        {"read-only", no_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int c;
    optind = 0;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":fo:h", longs, NULL)) != -1) {
        if (c == 'h')
            return command_help(help_text);
        if (c == 'f')
            options->foreground = true;
        else if (c == 'l')
            options->log_file = optarg;
        else if (c == 'r')
            options->read_only = true;
        else if (c == 'o' && add_mount_options(options, optarg) == 0)
            continue;
        else
            return command_usage("mount", "%s %s", c == ':' ? "a value is missing for" : "unknown option",
                                 argv[optind - 1]);
    }
    if (argc - optind != 1)
        return command_usage("mount", argc == optind ? "where to? DIR is missing" : "one DIR only");
    options->directory = argv[optind];
    return -1;
}

static int run(struct mount_options *options)
{
    struct config *config = NULL;
    int code = command_load_config(&config);
    if (code != COMMAND_OK)
        return code;
    config->read_only = config->read_only || options->read_only;
    if (options->log_file) {
        log_fd = open(options->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        if (log_fd < 0) {
            fprintf(stderr, "campusfs mount: %s: %s\n", options->log_file, strerrordesc_np(errno));
            config_free(config);
            return COMMAND_REFUSED;
        }
    }
    code = options->foreground ? serve(config, options) : serve_in_background(config, options);
    config_free(config);
    return code;
}

int command_mount(int argc, char **argv)
{
    struct mount_options options = {0};
    int code = parse(argc, argv, &options);
    if (code < 0)
        code = run(&options);
    free(options.passed);
    return code;
}
