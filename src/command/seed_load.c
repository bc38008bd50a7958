#include "command/seed_load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/sql.h"
#include "shard/schema.h"
#include "shard/target.h"

enum { CONNECT_MS = 5000, STEP_MS = 300000 };

DEFINE_CLEANUP(struct conn, conn_close)
DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

static int exec(struct seed_loader *loader, const char *sql, struct pg_rows **rows)
{
    struct op op = op_within(STEP_MS);
    return conn_exec(loader->conn, sql, &op, rows, &loader->fail);
}

/* ---- finding the shard ---- */

static int open_primary(struct seed_loader *loader)
{
    const struct config *config = loader->config;
    struct fail why = {0};
    for (size_t i = 0; i < config->nnodes; i++) {
        if (config->nodes[i].shard != loader->shard->index)
            continue;
        struct conn_target target = target_of_admin(config, i);
        struct op op = op_within(CONNECT_MS);
        CLEANUP(conn_closep) struct conn *conn = NULL;
        if (conn_open(&target, &op, &conn, &why) < 0 || conn_role(conn)->standby)
            continue;
        /* After a failover an old primary may still be up: the newest timeline is the one that counts. */
        if (loader->conn && conn_role(loader->conn)->timeline >= conn_role(conn)->timeline)
            continue;
        conn_close(loader->conn);
        loader->conn = STEAL(conn);
        loader->node = config->nodes[i].name;
    }
    if (loader->conn)
        return 0;
    schema_explain(&why);
    if (why.err)
        loader->fail = why;
    return fail_set(&loader->fail, EROFS, "no node of it is a primary");
}

static void read_state(struct seed_loader *loader, const struct pg_rows *rows)
{
    enum { SEED, USERS, STEPS, FINISHED, FILLED };
    if (pg_rows_text(rows, 0, FILLED))
        snprintf(loader->filled, sizeof(loader->filled), "%s", pg_rows_text(rows, 0, FILLED));
    loader->seed = pg_rows_i64(rows, 0, SEED, -1);
    loader->users = pg_rows_i64(rows, 0, USERS, 0);
    loader->steps = (int)pg_rows_i64(rows, 0, STEPS, 0);
    if (loader->seed < 0)
        loader->found = loader->filled[0] ? SEED_FOUND_ROWS : SEED_FOUND_NOTHING;
    else if (loader->seed != (int64_t)loader->plan->seed || loader->users != loader->plan->users)
        loader->found = SEED_FOUND_OTHER;
    else
        loader->found = *pg_rows_text(rows, 0, FINISHED) == 't' ? SEED_FOUND_FINISHED : SEED_FOUND_UNFINISHED;
}

int seed_load_open(struct seed_loader *loader)
{
    CLEANUP(pg_rows_freep) struct pg_rows *rows = NULL;
    struct op op = op_within(STEP_MS);
    int r = open_primary(loader);
    r = r < 0 ? r : schema_check(loader->conn, loader->shard->number, &op, &loader->fail);
    r = r < 0 ? r : exec(loader, sql_text("queries/seed_state.sql"), &rows);
    if (r < 0)
        return r;
    enum { LOCKED = 5 };
    if (*pg_rows_text(rows, 0, LOCKED) != 't')
        return fail_set(&loader->fail, EBUSY, "another seed is at work on it");
    read_state(loader, rows);
    return exec(
        loader,
        "SET campusfs.caller_keeps = 'all'; SET campusfs.actor = 'seed'; SET synchronous_commit = off", NULL);
}

void seed_load_close(struct seed_loader *loader)
{
    conn_close(loader->conn);
    loader->conn = NULL;
}

/* ---- writing it ---- */

static int move_sequence(struct buf *sql, const char *table, unsigned shard, int64_t used)
{
    if (used == 0)
        return 0;
    return buf_printf(
        sql, "SELECT setval('%s_id_seq', greatest(%" PRId64 ", (SELECT last_value FROM %s_id_seq)));\n",
        table, seed_id(shard, used - 1), table);
}

/*
 * The first transaction: the entry in seed_log, and sequences moved behind all ids to come, so that nobody
 * who creates a row meanwhile is given one of them.
 */
static int begin_shard(struct seed_loader *loader)
{
    const struct seed_shard *shard = loader->shard;
    const struct seed_plan *plan = loader->plan;
    struct buf sql = {0};
    int r = buf_printf(&sql, "INSERT INTO seed_log (seed, users) VALUES (%" PRIu64 ", %" PRId64 ");\n",
                       plan->seed, plan->users);
    r = r < 0 ? r : move_sequence(&sql, "users", shard->number, shard->users);
    r = r < 0 ? r : move_sequence(&sql, "courses", shard->number, shard->courses);
    r = r < 0 ? r : move_sequence(&sql, "course_modules", shard->number, shard->module_from[shard->courses]);
    r = r < 0 ? r : move_sequence(&sql, "course_lessons", shard->number, shard->lesson_from[shard->courses]);
    r = r < 0 ? r : move_sequence(&sql, "enrollments", shard->number, shard->enrollments);
    r = r < 0 ? r : move_sequence(&sql, "course_reviews", shard->number, shard->enrollments);
    r = r < 0 ? r : move_sequence(&sql, "payment_methods", shard->number, shard->methods);
    r = r < 0 ? r : move_sequence(&sql, "transactions", shard->number, shard->transactions);
    r = r < 0 ? r : move_sequence(&sql, "invoices", shard->number, shard->transactions);
    if (r == 0 && shard->number == plan->authority)
        r = move_sequence(&sql, "course_categories", shard->number, SEED_CATEGORIES);
    if (r == 0 && shard->transactions)
        r = buf_printf(&sql,
                       "SELECT setval('invoice_number_seq', greatest(%" PRId64
                       ", (SELECT last_value FROM invoice_number_seq)));\n",
                       shard->transactions);
    r = r < 0 ? r : exec(loader, sql.data, NULL);
    buf_clear(&sql);
    return r;
}

/* Copies what the maker holds for one table, in the transaction that is open. */
static int copy_table(struct seed_loader *loader, const char *copy, struct seed_row *row)
{
    enum { PIECE = 256 * 1024 };
    struct op op = op_within(STEP_MS);
    if (row->err)
        return fail_set(&loader->fail, -row->err, "cannot make a row: %s", strerror(-row->err));
    if (row->rows == 0)
        return 0;
    int r = conn_copy_start(loader->conn, copy, &op, &loader->fail);
    for (size_t at = 0; r == 0 && at < row->text.len; at += PIECE) {
        size_t len = row->text.len - at < PIECE ? row->text.len - at : PIECE;
        r = conn_copy_put(loader->conn, row->text.data + at, len, &op, &loader->fail);
    }
    r = r < 0 ? r : conn_copy_end(loader->conn, false, &op, &loader->fail);
    if (r == 0)
        loader->rows += row->rows;
    seed_row_clear(row);
    return r;
}

static int load_step(struct seed_loader *loader, struct seed_maker *maker, const struct seed_step_kind *kind,
                     const struct seed_region *region, int64_t from, int64_t to)
{
    char count[96];
    for (int64_t i = from; i < to; i++)
        kind->make(maker, region, i);
    int r = exec(loader, "BEGIN", NULL);
    for (size_t t = 0; r == 0 && t < SEED_TABLES_MAX && kind->copy[t]; t++)
        r = copy_table(loader, kind->copy[t], &maker->rows[t]);
    snprintf(count, sizeof(count), "UPDATE seed_log SET steps = %d; COMMIT", loader->steps + 1);
    r = r < 0 ? r : exec(loader, count, NULL);
    if (r == 0)
        loader->steps++;
    return r;
}

/* How many regions have things of the kind: categories are written once a shard. */
static size_t regions_of(const struct seed_shard *shard, const struct seed_step_kind *kind)
{
    return kind->make == seed_make_category && shard->nregions ? 1 : shard->nregions;
}

int seed_load_rows(struct seed_loader *loader, void (*done)(void *arg, int64_t n), void *arg)
{
    const struct seed_shard *shard = loader->shard;
    struct seed_maker maker = {.plan = loader->plan, .shard = shard, .hashes = loader->hashes};
    int step = 0, r = loader->found == SEED_FOUND_NOTHING ? begin_shard(loader) : 0;
    if (loader->found == SEED_FOUND_FINISHED)
        return 0;
    for (size_t k = 0; r == 0 && k < seed_step_kinds_count; k++) {
        const struct seed_step_kind *kind = &seed_step_kinds[k];
        for (size_t i = 0; r == 0 && i < regions_of(shard, kind); i++) {
            int64_t n = kind->count(&shard->regions[i]);
            for (int64_t from = 0; r == 0 && from < n; from += kind->batch, step++) {
                int64_t to = from + kind->batch < n ? from + kind->batch : n;
                if (step >= loader->steps) /* else committed by an earlier run */
                    r = load_step(loader, &maker, kind, &shard->regions[i], from, to);
                done(arg, to - from);
            }
        }
    }
    seed_maker_free(&maker);
    return r;
}

int64_t seed_load_count(const struct seed_shard *shard)
{
    int64_t n = 0;
    for (size_t k = 0; k < seed_step_kinds_count; k++)
        for (size_t i = 0; i < regions_of(shard, &seed_step_kinds[k]); i++)
            n += seed_step_kinds[k].count(&shard->regions[i]);
    return n;
}

int seed_load_finish(struct seed_loader *loader)
{
    if (loader->found == SEED_FOUND_FINISHED)
        return 0;
    int r = exec(loader,
                 "ANALYZE users, user_profiles, course_categories, courses, course_modules, course_lessons, "
                 "enrollments, "
                 "lesson_progress, course_reviews, payment_methods, transactions, invoices",
                 NULL);
    /* With this commit all earlier ones are on disk, too. */
    return r < 0 ? r
                 : exec(loader,
                        "BEGIN; SET LOCAL synchronous_commit = on; "
                        "UPDATE seed_log SET finished_at = clock_timestamp(); COMMIT",
                        NULL);
}
