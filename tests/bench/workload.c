/*
 * The loops of the bench that no shell tool does without hiding the time in fork and exec:
 *
 *   workload stat PACK DIR [--count N] [--seed N]         stat by name, in random order
 *   workload cat  PACK DIR [--count N] [--seed N]         open, read to the end, close, in random order
 *   workload save PACK DIR [--writers N] [--how HOW]      writes each file of the pack into DIR
 *
 * `cat` compares what it read with the pack (outside of the measured time). A writer's first file is saved
 * before the measured time, which makes whatever is made once. HOW is close (open with O_TRUNC, write,
 * close), fsync (the same with fsync before the close) or rename (write another name, rename it over).
 * Writers are processes, as editors and scripts are. Prints one line of JSON; exit code 1 when a file failed
 * or differed, with the first reason on standard error.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "pack.h"
#include "sample.h"

enum { MAX_WRITERS = 64 };

struct options {
    size_t count;
    uint64_t seed;
    unsigned writers;
    const char *how;
    const char *dir;
};

/* What writers report to their parent, in memory that they share. */
struct tally {
    int64_t finished_ns[MAX_WRITERS];
    unsigned failed[MAX_WRITERS];
    int64_t latency_ns[]; /* one for each file of the pack */
};

static void file_path(char *path, size_t size, const struct options *options, const char *prefix,
                      const struct pack_file *file)
{
    snprintf(path, size, "%s/%s%.*s", options->dir, prefix, (int)file->name_len, file->name);
}

static int stat_file(const char *path, const struct pack_file *file)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    return st.st_size == (off_t)file->size ? 0 : -EBADMSG;
}

/* Reads like cat does, into one buffer that holds any document. */
static int read_file(const char *path, char *buffer, size_t size, size_t *len)
{
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (*len = 0; *len < size;) {
        ssize_t n = read(fd, buffer + *len, size - *len);
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        *len += (size_t)n;
    }
    return -EFBIG;
}

static int run_reads(const struct pack *pack, struct options *options, bool whole)
{
    enum { BUFFER = 4 << 20 };
    CLEANUP(freep) char *buffer = malloc(BUFFER);
    CLEANUP(freep) uint32_t *order = sample_order(pack->nfiles, &options->count, options->seed);
    CLEANUP(freep) int64_t *latency = calloc(options->count + 1, sizeof *latency);
    if (!buffer || !order || !latency)
        return -ENOMEM;
    unsigned failed = 0;
    memset(buffer, 0, BUFFER);
    int64_t total = 0;
    for (size_t i = 0; i < options->count; i++) {
        const struct pack_file *file = &pack->files[order[i]];
        char path[4096];
        file_path(path, sizeof path, options, "", file);
        size_t len = file->size;
        int64_t start = sample_clock_ns();
        int r = whole ? read_file(path, buffer, BUFFER, &len) : stat_file(path, file);
        latency[i] = sample_clock_ns() - start;
        total += latency[i];
        if (r == 0 && whole && (len != file->size || memcmp(buffer, file->data, len) != 0))
            r = -EBADMSG;
        if (r < 0 && failed++ == 0)
            fprintf(stderr, "workload: %s: %s\n", path,
                    r == -EBADMSG ? "differs from the pack" : strerror(-r));
    }
    printf("{\"files\": %zu, \"failed\": %u, \"seconds\": %.6f, ", options->count, failed,
           (double)total / 1e9);
    sample_print(stdout, latency, options->count);
    puts("}");
    return failed ? -EIO : 0;
}

/* Writes a file as `how` says; what close() says is the answer, as it is where rows are committed. */
static int save_file(const struct options *options, const struct pack_file *file)
{
    bool by_rename = strcmp(options->how, "rename") == 0, by_fsync = strcmp(options->how, "fsync") == 0;
    char path[4096], target[4096];
    file_path(target, sizeof target, options, "", file);
    file_path(path, sizeof path, options, by_rename ? ".bench-" : "", file);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | (by_rename ? O_CREAT | O_EXCL : 0), 0644);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, file->data, file->size);
    int r = n == (ssize_t)file->size ? 0 : n < 0 ? -errno : -EIO;
    if (r == 0 && by_fsync && fsync(fd) < 0)
        r = -errno;
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r == 0 && by_rename && rename(path, target) < 0)
        r = -errno;
    if (r < 0 && by_rename)
        unlink(path);
    return r;
}

static void save_counted(const struct pack *pack, const struct options *options, unsigned writer, size_t i,
                         struct tally *tally)
{
    int64_t start = sample_clock_ns();
    int r = save_file(options, &pack->files[i]);
    tally->latency_ns[i] = sample_clock_ns() - start;
    if (r < 0 && tally->failed[writer]++ == 0)
        fprintf(stderr, "workload: %.*s: %s\n", (int)pack->files[i].name_len, pack->files[i].name,
                strerror(-r));
}

/* The child: saves its first file, says so, and waits until the pipe is closed, so that all start at once;
 * then saves every writers-th file. */
static void run_writer(const struct pack *pack, const struct options *options, unsigned writer, int ready_fd,
                       int start_fd, struct tally *tally)
{
    char c = 0;
    if (writer < pack->nfiles)
        save_counted(pack, options, writer, writer, tally);
    if (write(ready_fd, &c, 1) != 1)
        _exit(1);
    while (read(start_fd, &c, 1) < 0 && errno == EINTR)
        continue;
    for (size_t i = writer + options->writers; i < pack->nfiles; i += options->writers)
        save_counted(pack, options, writer, i, tally);
    tally->finished_ns[writer] = sample_clock_ns();
}

/* Waits until each child has said that it is ready, or is gone. */
static void wait_until_ready(int ready_fd, unsigned writers)
{
    char c;
    for (unsigned ready = 0; ready < writers;) {
        ssize_t n = read(ready_fd, &c, 1);
        if (n == 0 || (n < 0 && errno != EINTR))
            return;
        ready += n == 1;
    }
}

static int start_writers(const struct pack *pack, const struct options *options, struct tally *tally,
                         int64_t *start)
{
    int fds[2], ready[2], r = 0;
    if (pipe2(fds, O_CLOEXEC) < 0 || pipe2(ready, O_CLOEXEC) < 0)
        return -errno;
    for (unsigned w = 0; w < options->writers && r == 0; w++) {
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[1]);
            close(ready[0]);
            run_writer(pack, options, w, ready[1], fds[0], tally);
            _exit(0);
        }
        r = pid < 0 ? -errno : 0;
    }
    close(ready[1]);
    wait_until_ready(ready[0], options->writers);
    close(ready[0]);
    *start = sample_clock_ns();
    close(fds[1]);
    close(fds[0]);
    for (int status = 0; wait(&status) > 0 || errno == EINTR;)
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            r = r < 0 ? r : -EIO;
    return r;
}

static int run_saves(const struct pack *pack, const struct options *options)
{
    size_t size = sizeof(struct tally) + pack->nfiles * sizeof(int64_t);
    struct tally *tally = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED)
        return -errno;
    int64_t start = 0, finished = 0;
    int r = start_writers(pack, options, tally, &start);
    unsigned failed = 0;
    for (unsigned w = 0; w < options->writers; w++) {
        failed += tally->failed[w];
        finished = tally->finished_ns[w] > finished ? tally->finished_ns[w] : finished;
    }
    double seconds = (double)(finished - start) / 1e9;
    size_t before = options->writers < pack->nfiles ? options->writers : pack->nfiles;
    printf("{\"files\": %zu, \"failed\": %u, \"writers\": %u, \"how\": \"%s\", \"seconds\": %.6f, \"rate\": "
           "%.1f, ",
           pack->nfiles, failed, options->writers, options->how, seconds,
           (double)(pack->nfiles - before) / seconds);
    sample_print(stdout, tally->latency_ns + before, pack->nfiles - before);
    puts("}");
    munmap(tally, size);
    return r < 0 ? r : failed ? -EIO : 0;
}

static bool parse_options(int argc, char **argv, struct options *options)
{
    static const struct option longs[] = {{"count", required_argument, NULL, 'c'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"writers", required_argument, NULL, 'w'},
                                          {"how", required_argument, NULL, 'h'},
                                          {0}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (c == 'c')
            options->count = strtoul(optarg, NULL, 10);
        else if (c == 's')
            options->seed = strtoul(optarg, NULL, 10);
        else if (c == 'w')
            options->writers = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'h')
            options->how = optarg;
        else
            return false;
    }
    return argc - optind == 3 && options->writers >= 1 && options->writers <= MAX_WRITERS;
}

int main(int argc, char **argv)
{
    struct options options = {.seed = 1, .writers = 1, .how = "close"};
    if (!parse_options(argc, argv, &options)) {
        fputs("usage: workload stat|cat|save PACK DIR [--count N] [--seed N] [--writers N] [--how HOW]\n",
              stderr);
        return 64;
    }
    const char *what = argv[optind];
    options.dir = argv[optind + 2];
    CLEANUP(pack_freep) struct pack *pack = NULL;
    int r = pack_load(argv[optind + 1], &pack);
    if (r < 0) {
        fprintf(stderr, "workload: %s: %s\n", argv[optind + 1], strerror(-r));
        return 1;
    }
    if (strcmp(what, "stat") == 0 || strcmp(what, "cat") == 0)
        r = run_reads(pack, &options, *what == 'c');
    else if (strcmp(what, "save") == 0)
        r = run_saves(pack, &options);
    else
        return 64;
    return r < 0;
}
