#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/parallel.h"
#include "base/progress.h"
#include "command/command.h"
#include "command/seed_load.h"
#include "command/seed_media.h"

static const char help_text[] =
    "Usage: campusfs seed [--seed N] [--scale USERS] [--json]\n"
    "\n"
    "Fills an empty platform with sample data: users, courses, enrollments, reviews, payments and\n"
    "invoices in every region, and where MongoDB is configured, preferences and some media files.\n"
    "The same --seed gives the same bytes in every file of the tree, on every run and machine.\n"
    "A second run changes nothing, one that was interrupted is taken up where it stopped, and a\n"
    "platform that has other data is left alone. Connects to each shard's primary as admin_user.\n"
    "\n"
    "Options:\n"
    "  --seed N       what the data are made of, from 0 on; default 1\n"
    "  --scale USERS  how many users, 100 to 1000000, other collections in proportion;\n"
    "                 default 122: 100 students, 20 instructors, 2 admins, with 50 courses,\n"
    "                 200 enrollments and 150 transactions\n"
    "  --json         what was done, as JSON\n"
    "  --help         this text\n"
    "\n"
    "Every user's password is \"learning-NN\", NN being the last two digits of their id / 1000.\n"
    "\n"
    "Exit codes: 0 done, or was done before; 1 refused, there are other data; 2 a server cannot be\n"
    "reached or used.\n";

struct options {
    uint64_t seed;
    int64_t users;
    bool json;
};

/* One run. What the threads share is guarded by `lock`. */
struct seed_run {
    const struct config *config;
    const struct options *options;
    const struct seed_plan *plan;
    struct seed_loader *loaders; /* one a shard */
    bool again;                  /* an earlier run was interrupted */
    char hashes[SEED_HASHES][SEED_HASH_SIZE];
    int hash_err; /* 0, or why one could not be made; any thread's */
    struct seed_media_counts media;
    struct fail media_fail;
    int64_t started;
    pthread_mutex_t lock;
    struct progress progress;
    uint64_t done;
};

/* ---- looking, before anything is written ---- */

static void open_one(void *arg, size_t index)
{
    struct seed_run *run = arg;
    seed_load_open(&run->loaders[index]);
}

static int count_found(const struct seed_run *run, enum seed_found found)
{
    int n = 0;
    for (size_t i = 0; i < run->plan->nshards; i++)
        n += run->loaders[i].found == found;
    return n;
}

/* Tells of every shard that failed; the exit code for them all. */
static int report_failures(const struct seed_run *run)
{
    int code = COMMAND_OK;
    for (size_t i = 0; i < run->plan->nshards; i++) {
        const struct seed_loader *loader = &run->loaders[i];
        if (!loader->fail.err)
            continue;
        fprintf(stderr, "campusfs seed: shard %s: %s\n", run->config->shards[i].name, loader->fail.message);
        if (loader->fail.hint[0])
            fprintf(stderr, "campusfs seed: hint: %s\n", loader->fail.hint);
        int one = loader->fail.err == EBUSY ? COMMAND_REFUSED : COMMAND_DOWN;
        code = one > code ? one : code;
    }
    if (run->media_fail.err) {
        fprintf(stderr, "campusfs seed: %s\n", run->media_fail.message);
        int one = run->media_fail.err == EEXIST ? COMMAND_REFUSED : COMMAND_DOWN;
        code = one > code ? one : code;
    }
    return code;
}

static int refuse_others(const struct seed_run *run)
{
    int code = COMMAND_OK;
    for (size_t i = 0; i < run->plan->nshards; i++) {
        const struct seed_loader *loader = &run->loaders[i];
        if (loader->found == SEED_FOUND_ROWS)
            fprintf(stderr, "campusfs seed: shard %s is not empty: it has %s that no seed has made\n",
                    run->config->shards[i].name, loader->filled);
        else if (loader->found == SEED_FOUND_OTHER)
            fprintf(stderr,
                    "campusfs seed: shard %s has the sample data of --seed %" PRId64 " --scale %" PRId64 "\n",
                    run->config->shards[i].name, loader->seed, loader->users);
        else
            continue;
        code = COMMAND_REFUSED;
    }
    if (code)
        fprintf(stderr, "campusfs seed: hint: only an empty platform is seeded; nothing was changed\n");
    return code;
}

static int look(struct seed_run *run)
{
    parallel_run(run->plan->nshards, open_one, run);
    int code = report_failures(run);
    if (code == COMMAND_OK)
        code = refuse_others(run);
    run->again = count_found(run, SEED_FOUND_UNFINISHED) || count_found(run, SEED_FOUND_FINISHED);
    bool finished = (size_t)count_found(run, SEED_FOUND_FINISHED) == run->plan->nshards;
    if (code == COMMAND_OK && !finished && run->config->mongodb_uri[0]) {
        seed_media_check(run->config, run->again, &run->media_fail);
        code = report_failures(run);
    }
    return code;
}

/* ---- writing ---- */

static void more_done(void *arg, int64_t n)
{
    struct seed_run *run = arg;
    pthread_mutex_lock(&run->lock);
    run->done += (uint64_t)n;
    progress_update(&run->progress, run->done);
    pthread_mutex_unlock(&run->lock);
}

/* The shards, and behind the last of them MongoDB. */
static void load_one(void *arg, size_t index)
{
    struct seed_run *run = arg;
    if (index < run->plan->nshards)
        seed_load_rows(&run->loaders[index], more_done, run);
    else
        seed_media_load(run->config, run->plan, run->again, &run->media, more_done, run, &run->media_fail);
}

/* Passwords, dealt out over the threads: each hash takes some milliseconds. */
static void hash_some(void *arg, size_t index)
{
    struct seed_run *run = arg;
    int64_t most = 0;
    for (size_t i = 0; i < run->plan->nshards; i++)
        most = run->plan->shards[i].users > most ? run->plan->shards[i].users : most;
    for (size_t slot = index; slot < SEED_HASHES && (int64_t)slot <= most; slot += run->plan->nshards) {
        int r = seed_hash_make(run->plan->seed, (int)slot, run->hashes[slot]);
        if (r < 0) {
            pthread_mutex_lock(&run->lock);
            run->hash_err = r;
            pthread_mutex_unlock(&run->lock);
        }
    }
}

static void finish_one(void *arg, size_t index)
{
    struct seed_run *run = arg;
    seed_load_finish(&run->loaders[index]);
}

static int load(struct seed_run *run)
{
    bool mongodb = run->config->mongodb_uri[0];
    int64_t total = mongodb ? seed_media_preferences(run->plan) : 0;
    for (size_t i = 0; i < run->plan->nshards; i++)
        total += seed_load_count(&run->plan->shards[i]);
    progress_start(&run->progress, "documents", (uint64_t)total);
    parallel_run(run->plan->nshards, hash_some, run);
    if (run->hash_err) {
        fprintf(stderr, "campusfs seed: cannot hash a password: %s\n", strerror(-run->hash_err));
        return COMMAND_DOWN;
    }
    parallel_run(run->plan->nshards + mongodb, load_one, run);
    int code = report_failures(run);
    /* Finished is what is finished everywhere. */
    if (code == COMMAND_OK) {
        parallel_run(run->plan->nshards, finish_one, run);
        code = report_failures(run);
    }
    progress_end(&run->progress);
    if (code)
        fprintf(
            stderr,
            "campusfs seed: hint: once that is mended, the same command goes on where this one stopped\n");
    return code;
}

/* ---- telling ---- */

/* What the plan has on all shards together. */
struct totals {
    int64_t courses, enrollments, reviews, methods, transactions;
};

static struct totals add_up(const struct seed_plan *plan)
{
    struct totals t = {0};
    for (size_t i = 0; i < plan->nshards; i++) {
        const struct seed_shard *shard = &plan->shards[i];
        t.courses += shard->courses;
        t.enrollments += shard->enrollments;
        t.methods += shard->methods;
        t.transactions += shard->transactions;
        for (int64_t k = 0; k < shard->courses; k++)
            t.reviews += shard->sums[k].ratings;
    }
    return t;
}

static int tell_json(const struct seed_run *run, bool changed, int64_t rows, double seconds)
{
    struct totals t = add_up(run->plan);
    json_t *documents = json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "categories", SEED_CATEGORIES,
                                  "users", (json_int_t)run->plan->users, "courses", (json_int_t)t.courses,
                                  "enrollments", (json_int_t)t.enrollments, "reviews", (json_int_t)t.reviews,
                                  "payment-methods", (json_int_t)t.methods, "transactions",
                                  (json_int_t)t.transactions, "invoices", (json_int_t)t.transactions);
    return command_print_json(json_pack(
        "{s:I, s:I, s:b, s:b, s:o, s:I, s:f, s:I, s:I, s:I, s:I}", "seed", (json_int_t)run->plan->seed,
        "users", (json_int_t)run->plan->users, "changed", changed, "resumed", changed && run->again,
        "documents", documents, "rows", (json_int_t)rows, "seconds", seconds, "rows_per_second",
        (json_int_t)((double)rows / seconds), "preferences", (json_int_t)run->media.preferences,
        "media_files", (json_int_t)run->media.files, "media_bytes", (json_int_t)run->media.bytes));
}

static int tell(const struct seed_run *run, bool changed)
{
    double seconds = (double)(clock_now_ms() - run->started + 1) / 1000;
    int64_t rows = 0;
    for (size_t i = 0; i < run->plan->nshards; i++)
        rows += run->loaders[i].rows;
    if (run->options->json)
        return tell_json(run, changed, rows, seconds);
    if (!changed) {
        printf("already seeded with --seed %" PRIu64 ": %" PRId64 " users; nothing was changed\n",
               run->plan->seed, run->plan->users);
        return COMMAND_OK;
    }
    struct totals t = add_up(run->plan);
    printf("%sseeded with --seed %" PRIu64 ": %" PRId64 " users, %" PRId64 " courses, %" PRId64
           " enrollments, %" PRId64 " reviews, %" PRId64 " transactions with invoices\n",
           run->again ? "interrupted run completed; " : "", run->plan->seed, run->plan->users, t.courses,
           t.enrollments, t.reviews, t.transactions);
    printf("%" PRId64 " rows in %.1f s (%.0f a second)", rows, seconds, (double)rows / seconds);
    if (run->config->mongodb_uri[0])
        printf(", %" PRId64 " preferences, %" PRId64 " media files", run->media.preferences,
               run->media.files);
    putchar('\n');
    return COMMAND_OK;
}

/* ---- the command ---- */

static int seed_platform(const struct config *config, const struct options *options)
{
    struct seed_run run = {
        .config = config, .options = options, .started = clock_now_ms(), .lock = PTHREAD_MUTEX_INITIALIZER};
    CLEANUP(seed_plan_freep) struct seed_plan *plan = NULL;
    CLEANUP(freep) struct seed_loader *loaders = calloc(config->nshards, sizeof(*loaders));
    if (!loaders || seed_plan_make(config, options->seed, options->users, &plan) < 0) {
        fputs("campusfs seed: out of memory\n", stderr);
        return COMMAND_DOWN;
    }
    run.plan = plan;
    run.loaders = loaders;
    for (size_t i = 0; i < plan->nshards; i++)
        loaders[i] = (struct seed_loader){.config = config,
                                          .plan = plan,
                                          .shard = &plan->shards[i],
                                          .hashes = (const char(*)[SEED_HASH_SIZE])run.hashes};
    int code = look(&run);
    bool finished = (size_t)count_found(&run, SEED_FOUND_FINISHED) == plan->nshards;
    if (code == COMMAND_OK && !finished)
        code = load(&run);
    if (code == COMMAND_OK)
        code = tell(&run, !finished);
    for (size_t i = 0; i < plan->nshards; i++)
        seed_load_close(&loaders[i]);
    return code;
}

/* A whole number within bounds, all of the text. */
static bool parse_number(const char *text, int64_t lo, int64_t hi, int64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0 && *text >= '0' && *text <= '9' && !*end && *out >= lo && *out <= hi;
}

static int parse_options(int argc, char **argv, struct options *out, bool *help)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"scale", required_argument, NULL, 'n'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int64_t number = 1;
    *out = (struct options){.seed = 1, .users = SEED_USERS_DEFAULT};
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (option == 's' && !parse_number(optarg, 0, INT64_MAX, &number))
            return command_usage("seed", "--seed takes a number from 0 on, not %s", optarg);
        if (option == 'n' && !parse_number(optarg, SEED_USERS_MIN, SEED_USERS_MAX, &out->users))
            return command_usage("seed", "--scale takes a number from %d to %d, not %s", SEED_USERS_MIN,
                                 SEED_USERS_MAX, optarg);
        if (option == '?')
            return command_usage("seed", "wrong option");
        *help = *help || option == 'h';
        out->json = out->json || option == 'j';
    }
    out->seed = (uint64_t)number;
    return optind < argc ? command_usage("seed", "unexpected word %s", argv[optind]) : COMMAND_OK;
}

int command_seed(int argc, char **argv)
{
    struct options options;
    struct config *config;
    bool help = false;
    int code = parse_options(argc, argv, &options, &help);
    if (code)
        return code;
    if (help)
        return command_help(help_text);
    code = command_load_config(&config);
    if (code)
        return code;
    code = seed_platform(config, &options);
    config_free(config);
    return code;
}
