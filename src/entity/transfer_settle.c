/*
 * What moves between shards have left over. A transaction that is prepared somewhere ends as the journal of
 * the shard left says. A user who has left arrives: by the transaction that is prepared, or, where the server
 * has lost that in a failover, written again from the journal, once.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "entity/transfer_internal.h"
#include "shard/twophase.h"

enum {
    LEFT_MAX = 1000,        /* leftovers that are looked at in one search of a shard */
    KEEPER_MS = 60 * 1000,  /* from one search to the next */
    PRUNE_MS = 3600 * 1000, /* from one look for old entries of the logs to the next */
    AGAIN_MS = 10 * 1000,   /* when something could not be settled */
    WOKEN_MS = 1000,        /* after transfers_wake() and a timeout: until then it may be under way */
};

/* The columns of sql/queries/transfers_left.sql. */
enum left_column {
    LEFT_KIND,
    LEFT_TRANSFER,
    LEFT_SOURCE,
    LEFT_SHARDS,
    LEFT_USER,
    LEFT_TO_REGION,
    LEFT_TO_SHARD,
    LEFT_AGE_MS
};

/* One leftover; its texts are borrowed from the rows. */
struct leftover {
    struct cluster *cluster;
    struct shard *shard, *source; /* where it was found; the one left, NULL = not configured */
    const struct transfer_search *search;
    const struct op *op;
    const char *kind, *transfer, *shards;
    unsigned source_number, to_region, to_shard;
    int64_t user, age_ms;
};

static void tell(const struct leftover *left, const char *what, bool settled, const char *message)
{
    struct transfer_found found = {.shard = left->shard,
                                   .what = what,
                                   .transfer = left->transfer,
                                   .age_ms = left->age_ms,
                                   .settled = settled,
                                   .message = message};
    left->search->found(left->search->arg, &found);
}

static const char *reason(int r, const struct fail *f)
{
    return r < 0 ? f->message : "";
}

/* ---- a prepared transaction ---- */

static int settle_prepared(const struct leftover *left, bool *committed, struct fail *f)
{
    char gid[GID_TEXT];
    if (!left->source)
        return fail_set(f, EIO, "shard number %u, which decided it, is not configured", left->source_number);
    enum transfer_outcome outcome = transfer_ask(left->source, left->transfer, left->op, f);
    if (outcome == TRANSFER_UNKNOWN)
        return f->err ? -f->err
                      : fail_set(f, EIO, "shard %s does not say what was decided", shard_name(left->source));
    *committed = outcome == TRANSFER_COMMITTED;
    transfer_gid(left->source_number, (unsigned)strtoul(left->shards, NULL, 10), left->transfer, gid);
    int r = shard_finish_prepared(left->shard, gid, *committed, left->op, f);
    return r == -ENOENT ? 0 : r; /* somebody was faster */
}

static void handle_prepared(const struct leftover *left)
{
    char message[1024];
    struct fail why = {.err = 0};
    bool committed = false;
    int r = left->search->settle ? settle_prepared(left, &committed, &why) : 0;
    bool settled = left->search->settle && r == 0;
    snprintf(message, sizeof message,
             "transfer %s: its part on shard %s has been prepared for %" PRId64 " s%s%.500s", left->transfer,
             shard_name(left->shard), left->age_ms / 1000,
             r < 0       ? ", and cannot be ended: "
             : !settled  ? ""
             : committed ? ": committed, as decided"
                         : ": rolled back, as decided",
             reason(r, &why));
    tell(left, "prepared", settled, message);
}

/* ---- a user who has left ---- */

/* Whether a shard has its part. */
static int ask_done(struct shard *shard, const struct leftover *left, bool *done, struct fail *f)
{
    static const struct pg_statement statement = {"transfer_done", "SELECT transfer_done($1::uuid)", 1};
    const char *params[] = {left->transfer};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    /* By the way of writes: a standby may not know yet. */
    int r = shard_write(shard, &statement, params, NULL, left->op, &rows, f);
    if (r == 0)
        *done = pg_rows_count(rows) == 1 && strcmp(pg_rows_text(rows, 0, 0), "t") == 0;
    return r;
}

/* Writes a lost part again. It notes the transfer as its request, so it can be there only once. */
static int write_again(struct shard *shard, const struct leftover *left, struct fail *f)
{
    static const struct pg_statement statement = {"transfer_content", "SELECT transfer_content($1::uuid)", 1};
    const char *params[] = {left->transfer};
    struct pg_rows *content CLEANUP(pg_rows_freep) = NULL, *rows CLEANUP(pg_rows_freep) = NULL;
    struct transfer_part part;
    int r = shard_write(left->source, &statement, params, NULL, left->op, &content, f);
    if (r < 0)
        return r;
    const char *text = pg_rows_count(content) ? pg_rows_text(content, 0, 0) : NULL;
    if (!text)
        return fail_set(f, EIO, "the journal of shard %s has it no more", shard_name(left->source));
    if (shard_number(shard) == left->to_shard)
        transfer_part_in(&part, text, left->to_region, left->transfer, "campusfs transfer");
    else
        transfer_part_claims(&part, text, left->to_shard, left->transfer);
    return shard_write(shard, part.statement, part.params, NULL, left->op, &rows, f);
}

/* *lost tells that the shard had lost its part (or, without settling, has not got it). */
static int settle_part(struct shard *shard, const struct leftover *left, bool *lost, struct fail *f)
{
    char gid[GID_TEXT];
    bool done = false;
    transfer_gid(left->source_number, shard_number(shard), left->transfer, gid);
    int r = left->search->settle ? shard_finish_prepared(shard, gid, true, left->op, f) : -ENOENT;
    if (r != -ENOENT)
        return r;
    if (f)
        *f = (struct fail){.err = 0};
    r = ask_done(shard, left, &done, f);
    if (r < 0 || done)
        return r;
    *lost = true;
    return left->search->settle ? write_again(shard, left, f) : 0;
}

static int settle_parts(const struct leftover *left, bool *lost, struct fail *f)
{
    int r = 0;
    char *end;
    for (const char *at = left->shards; r == 0 && *at; at = end + (*end == ' ')) {
        unsigned number = (unsigned)strtoul(at, &end, 10);
        struct shard *shard = cluster_shard_numbered(left->cluster, number);
        if (end == at)
            break;
        r = shard ? settle_part(shard, left, lost, f)
                  : fail_set(f, EIO, "shard number %u is not configured", number);
    }
    return r;
}

static void handle_left(const struct leftover *left)
{
    char message[1024];
    struct fail why = {.err = 0};
    bool over = strcmp(left->kind, "finished") == 0, lost = false;
    int r = over || left->search->settle ? settle_parts(left, &lost, &why) : 0;
    bool settled = left->search->settle && r == 0;
    if (over && r == 0 && !lost)
        return;
    if (settled && !over)
        transfer_finish(left->source, left->transfer, left->op, NULL);
    snprintf(message, sizeof message,
             "transfer %s: user %" PRId64 " left shard %s %" PRId64 " s ago, and %s shard number %u%s%.500s",
             left->transfer, left->user, shard_name(left->shard), left->age_ms / 1000,
             over && lost ? "a failover took the move back on" : "has not been known to arrive on",
             left->to_shard,
             r < 0     ? ", which cannot be mended: "
             : settled ? ": is there now"
                       : "",
             reason(r, &why));
    tell(left, over ? "lost" : "unfinished", settled, message);
}

/* ---- a shard ---- */

int transfers_settle(struct cluster *cluster, struct shard *shard, const struct transfer_search *search,
                     const struct op *op, struct fail *f)
{
    static const struct pg_statement statement = {"transfers_left", NULL, 3};
    char age[NUMBER_TEXT], most[NUMBER_TEXT];
    snprintf(age, sizeof age, "%" PRId64, search->age_ms);
    snprintf(most, sizeof most, "%d", LEFT_MAX);
    const char *params[] = {age, search->thorough ? "t" : "f", most};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    /* On the primary: a standby does not show what is prepared. */
    int r = shard_write(shard, &statement, params, NULL, op, &rows, f);
    for (size_t i = 0; r == 0 && i < pg_rows_count(rows); i++) {
        unsigned source = (unsigned)pg_rows_i64(rows, i, LEFT_SOURCE, 0);
        struct leftover left = {.cluster = cluster,
                                .shard = shard,
                                .source = cluster_shard_numbered(cluster, source),
                                .search = search,
                                .op = op,
                                .kind = pg_rows_text(rows, i, LEFT_KIND),
                                .transfer = pg_rows_text(rows, i, LEFT_TRANSFER),
                                .shards = pg_rows_text(rows, i, LEFT_SHARDS),
                                .source_number = source,
                                .to_region = (unsigned)pg_rows_i64(rows, i, LEFT_TO_REGION, 0),
                                .to_shard = (unsigned)pg_rows_i64(rows, i, LEFT_TO_SHARD, 0),
                                .user = pg_rows_i64(rows, i, LEFT_USER, 0),
                                .age_ms = pg_rows_i64(rows, i, LEFT_AGE_MS, 0)};
        if (strcmp(left.kind, "prepared") == 0)
            handle_prepared(&left);
        else
            handle_left(&left);
    }
    return r;
}

/* ---- the keeper ---- */

/* What a shard's primary said last. */
struct prepared {
    int64_t count, age_ms, unfinished; /* count -1 = not known */
};

struct transfers {
    struct cluster *cluster;
    int64_t timeout_ms;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool stopping;
    int64_t next_at; /* clock_now_ms() of the next search */
    int64_t wake_at; /* of one that was asked for, perhaps while another ran; INT64_MAX = none */
    struct prepared prepared[CONFIG_MAX_SHARDS];

    int64_t prune_at[CONFIG_MAX_SHARDS]; /* clock_now_ms(); the thread's own */
};

/* What a search of one shard comes to. */
struct keeper_round {
    int64_t before; /* unfinished the last time: the log need not hear of it again */
    int64_t unfinished;
};

static void keeper_found(void *arg, const struct transfer_found *found)
{
    struct keeper_round *round = arg;
    round->unfinished += !found->settled;
    if (found->settled || round->unfinished > round->before)
        log_warning("%s", found->message);
}

static bool keeper_stopping(void *arg)
{
    struct transfers *transfers = arg;
    pthread_mutex_lock(&transfers->lock);
    bool stopping = transfers->stopping;
    pthread_mutex_unlock(&transfers->lock);
    return stopping;
}

/* False when something is left that has to be looked at again soon. */
static bool look_at(struct transfers *transfers, size_t index, int64_t age_ms)
{
    static const struct pg_statement statement = {"prepared_transactions", NULL, 0};
    struct shard *shard = cluster_shard(transfers->cluster, index);
    pthread_mutex_lock(&transfers->lock);
    struct keeper_round round = {.before = transfers->prepared[index].unfinished};
    pthread_mutex_unlock(&transfers->lock);
    struct transfer_search search = {.age_ms = age_ms, .settle = true, .found = keeper_found, .arg = &round};
    struct op op = op_within(transfers->timeout_ms);
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    struct prepared prepared = {.count = -1};
    /* A shard that is away is told of by its watchers. */
    if (transfers_settle(transfers->cluster, shard, &search, &op, NULL) == 0 &&
        shard_write(shard, &statement, NULL, NULL, &op, &rows, NULL) == 0 && pg_rows_count(rows) == 1)
        prepared =
            (struct prepared){.count = pg_rows_i64(rows, 0, 0, 0), .age_ms = pg_rows_i64(rows, 0, 1, 0)};
    prepared.unfinished = round.unfinished;
    pthread_mutex_lock(&transfers->lock);
    transfers->prepared[index] = prepared;
    pthread_mutex_unlock(&transfers->lock);
    return round.unfinished == 0;
}

/* Whether some shard has moves that are not finished, or has not said: who takes part knows it by its log. */
static bool may_be_open(struct transfers *transfers)
{
    bool open = false;
    pthread_mutex_lock(&transfers->lock);
    for (size_t i = 0; i < cluster_shards(transfers->cluster); i++)
        open = open || transfers->prepared[i].count < 0 || transfers->prepared[i].unfinished > 0;
    pthread_mutex_unlock(&transfers->lock);
    return open;
}

/*
 * Lets a shard forget what its logs have had for long enough; a part at a time, so that no statement takes
 * long where nobody did so for a year. What fails is tried the next time.
 */
static void prune(struct transfers *transfers, size_t index)
{
    static const struct pg_statement statement = {
        "prune_logs", "SELECT prune_logs(p_requests => $1::interval, p_limit => 5000)", 1};
    const char *params[] = {may_be_open(transfers) ? "100 years" : "7 days"};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    struct op op = op_within(transfers->timeout_ms);
    if (clock_now_ms() < transfers->prune_at[index])
        return;
    int r = shard_write(cluster_shard(transfers->cluster, index), &statement, params, NULL, &op, &rows, NULL);
    if (r == 0 && pg_rows_count(rows) == 1 && pg_rows_i64(rows, 0, 0, 0) == 0)
        transfers->prune_at[index] = clock_now_ms() + PRUNE_MS;
}

/* Until it is time again. False at the end. */
static bool keeper_wait(struct transfers *transfers, int64_t ms)
{
    pthread_mutex_lock(&transfers->lock);
    transfers->next_at = clock_now_ms() + ms;
    if (transfers->next_at > transfers->wake_at)
        transfers->next_at = transfers->wake_at;
    while (!transfers->stopping && clock_now_ms() < transfers->next_at)
        wait_until(&transfers->changed, &transfers->lock, transfers->next_at);
    if (clock_now_ms() >= transfers->wake_at)
        transfers->wake_at = INT64_MAX;
    bool goes_on = !transfers->stopping;
    pthread_mutex_unlock(&transfers->lock);
    return goes_on;
}

static void *keeper_main(void *arg)
{
    struct transfers *transfers = arg;
    int64_t age_ms = 0; /* whoever left it is most likely gone; what is under way is waited for */
    for (bool goes_on = true; goes_on; age_ms = transfers->timeout_ms) {
        bool clean = true;
        size_t n = cluster_shards(transfers->cluster);
        for (size_t i = 0; i < n && !keeper_stopping(transfers); i++)
            clean = look_at(transfers, i, age_ms) && clean;
        for (size_t i = 0; i < n && !keeper_stopping(transfers); i++)
            prune(transfers, i);
        goes_on = keeper_wait(transfers, clean ? KEEPER_MS : AGAIN_MS);
    }
    return NULL;
}

int transfers_start(struct cluster *cluster, int64_t timeout_ms, struct transfers **out)
{
    struct transfers *transfers = calloc(1, sizeof *transfers);
    if (!transfers)
        return -ENOMEM;
    transfers->cluster = cluster;
    transfers->timeout_ms = timeout_ms;
    transfers->wake_at = INT64_MAX;
    for (size_t i = 0; i < CONFIG_MAX_SHARDS; i++)
        transfers->prepared[i].count = -1;
    pthread_mutex_init(&transfers->lock, NULL);
    pthread_cond_init(&transfers->changed, NULL);
    int err = pthread_create(&transfers->thread, NULL, keeper_main, transfers);
    if (err) {
        pthread_cond_destroy(&transfers->changed);
        pthread_mutex_destroy(&transfers->lock);
        free(transfers);
        return -err;
    }
    *out = transfers;
    return 0;
}

void transfers_ending(struct transfers *transfers)
{
    if (!transfers)
        return;
    pthread_mutex_lock(&transfers->lock);
    transfers->stopping = true;
    pthread_cond_signal(&transfers->changed);
    pthread_mutex_unlock(&transfers->lock);
}

void transfers_stop(struct transfers *transfers)
{
    if (!transfers)
        return;
    transfers_ending(transfers);
    pthread_join(transfers->thread, NULL);
    pthread_cond_destroy(&transfers->changed);
    pthread_mutex_destroy(&transfers->lock);
    free(transfers);
}

void transfers_wake(struct transfers *transfers)
{
    if (!transfers)
        return;
    int64_t soon = clock_now_ms() + transfers->timeout_ms + WOKEN_MS;
    pthread_mutex_lock(&transfers->lock);
    transfers->wake_at = soon; /* the latest counts: by then all that was left until now can be settled */
    if (transfers->next_at > soon)
        transfers->next_at = soon;
    pthread_cond_signal(&transfers->changed);
    pthread_mutex_unlock(&transfers->lock);
}

/* One family: a sample for each shard whose primary has said it. */
static int add_family(struct cluster *cluster, const char *family, const int64_t *values, double unit,
                      struct buf *out)
{
    int r = buf_printf(out, "# TYPE campusfs_%s gauge\n", family);
    for (size_t i = 0; r == 0 && i < cluster_shards(cluster); i++)
        if (values[i] >= 0)
            r = buf_printf(out, "campusfs_%s{shard=\"%s\"} %.*f\n", family,
                           shard_name(cluster_shard(cluster, i)), unit == 1 ? 0 : 3,
                           (double)values[i] / unit);
    return r;
}

int transfers_metrics(struct transfers *transfers, struct buf *out)
{
    int64_t counts[CONFIG_MAX_SHARDS], ages[CONFIG_MAX_SHARDS], unfinished[CONFIG_MAX_SHARDS];
    if (!transfers)
        return 0;
    pthread_mutex_lock(&transfers->lock);
    for (size_t i = 0; i < CONFIG_MAX_SHARDS; i++) {
        counts[i] = transfers->prepared[i].count;
        ages[i] = counts[i] < 0 ? -1 : transfers->prepared[i].age_ms;
        unfinished[i] = transfers->prepared[i].unfinished;
    }
    pthread_mutex_unlock(&transfers->lock);
    int r = add_family(transfers->cluster, "prepared_transactions", counts, 1, out);
    if (r == 0)
        r = add_family(transfers->cluster, "prepared_transaction_age_seconds", ages, 1000, out);
    return r < 0 ? r : add_family(transfers->cluster, "transfers_unfinished", unfinished, 1, out);
}
