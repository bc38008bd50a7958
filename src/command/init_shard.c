#include "command/init_shard.h"

#include "base/cleanup.h"
#include "base/sql.h"
#include "postgres/conn.h"
#include "shard/fence.h"
#include "shard/schema.h"
#include "shard/target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_MS = 5000 };

static const char migrations[] = "migrations/", code[] = "code/";

struct run {
    struct init_shard *init;
    const struct op *op;
    struct conn *conn; /* to the primary */
    size_t node;       /* which one that is */
    void (*step)(void *);
    void *arg;
};

DEFINE_CLEANUP(struct conn, conn_close)
DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

static bool in_folder(const struct sql_file *file, const char *folder)
{
    return strncmp(file->name, folder, strlen(folder)) == 0;
}

unsigned init_shard_files(void)
{
    unsigned files = 0;
    for (const struct sql_file *file = sql_files; file->name; file++)
        files += in_folder(file, migrations) || in_folder(file, code);
    return files;
}

/* Runs one statement; its rows are the caller's. */
static int ask(struct run *run, const struct pg_statement *statement, const char *const *params,
               struct pg_rows **rows)
{
    struct conn_step step = {.statement = statement, .params = params, .commit = true};
    enum conn_outcome outcome = conn_run(run->conn, &step, 1, run->op, &run->init->fail);
    *rows = step.rows;
    return outcome == CONN_DONE ? 0 : -run->init->fail.err;
}

static int tell(struct run *run, const struct pg_statement *statement, const char *const *params)
{
    CLEANUP(pg_rows_freep) struct pg_rows *rows = NULL;
    return ask(run, statement, params, &rows);
}

static int exec(struct run *run, const char *sql)
{
    return conn_exec(run->conn, sql, run->op, NULL, &run->init->fail);
}

/* ---- the way to the primary ---- */

static int connect_node(struct run *run, size_t node, const char *database, struct conn **out, struct fail *f)
{
    struct conn_target target = target_of_admin(run->init->config, node);
    struct op op = *run->op;
    int64_t latest = clock_now_ms() + CONNECT_MS;
    if (op.deadline > latest)
        op.deadline = latest;
    target.force_database = database;
    return conn_open(&target, &op, out, f);
}

/* Whether a mount has seen the shard on a newer timeline than this primary's, and says so. */
static bool is_fenced(const struct config *config, size_t shard, size_t node, const struct conn_role *role,
                      struct buf *reasons)
{
    struct fence *fence = fence_open(config);
    struct fence_mark known = fence ? fence_known(fence, shard) : (struct fence_mark){.timeline = 0};
    fence_free(fence);
    if (known.system != role->system || known.timeline <= role->timeline)
        return false;
    buf_printf(reasons, "%snode %s is a primary on timeline %u, while %u has been seen",
               reasons->len ? "; " : "", config->nodes[node].name, (unsigned)role->timeline,
               (unsigned)known.timeline);
    return true;
}

/* Of two primaries it is known which is the right one only where the one was promoted behind the other. */
static int check_rivals(struct run *run, const char *name, const struct conn_role *role)
{
    struct fail *f = &run->init->fail;
    const struct conn_role *other = conn_role(run->conn);
    bool foreign = role->system != other->system;
    if (!foreign && role->timeline != other->timeline)
        return 0;
    *f = (struct fail){.err = 0};
    return fail_set(f, EEXIST,
                    "nodes %s and %s are both primaries, %s: stop all but the right one, or correct [nodes]",
                    run->init->node, name, foreign ? "of different clusters" : "on the same timeline");
}

/*
 * Asks every node of the shard what it is, and keeps the connection to the primary on the newest timeline.
 * One whose database is missing is asked in the database "postgres", which every server has; *missing tells
 * of the primary's.
 */
static int find_primary(struct run *run, bool *missing)
{
    struct init_shard *init = run->init;
    const struct config *config = init->config;
    CLEANUP(buf_clear) struct buf reasons = {.max = 400};
    for (size_t i = 0; i < config->nnodes; i++) {
        CLEANUP(conn_closep) struct conn *conn = NULL;
        struct fail why = {.err = 0};
        if (config->nodes[i].shard != init->shard)
            continue;
        int r = connect_node(run, i, NULL, &conn, &why);
        bool none = r < 0 && strcmp(why.sqlstate, "3D000") == 0;
        if (none) {
            why = (struct fail){.err = 0};
            r = connect_node(run, i, "postgres", &conn, &why);
        }
        if (r < 0) {
            buf_printf(&reasons, "%s%s", reasons.len ? "; " : "", why.message);
            buf_printf(&init->notes, "going on without %s\n", why.message);
            if (init->fail.err == 0 || why.err == EACCES || why.err == EINVAL)
                init->fail.err = why.err;
        } else if (conn_role(conn)->standby) {
            buf_printf(&reasons, "%snode %s is a standby", reasons.len ? "; " : "", config->nodes[i].name);
        } else if (is_fenced(config, init->shard, i, conn_role(conn), &reasons)) {
            continue;
        } else if (run->conn && check_rivals(run, config->nodes[i].name, conn_role(conn)) < 0) {
            return -init->fail.err;
        } else if (!run->conn || conn_role(conn)->timeline > conn_role(run->conn)->timeline) {
            conn_close(run->conn);
            run->conn = STEAL(conn);
            run->node = i;
            *missing = none;
            init->node = config->nodes[i].name;
        }
    }
    if (!run->conn) {
        buf_clear(&init->notes);
        snprintf(init->fail.message, sizeof init->fail.message, "no primary can be reached: %s",
                 reasons.data ? reasons.data : "");
    }
    if (run->conn)
        init->fail.err = 0;
    else if (init->fail.err == 0)
        init->fail.err = EROFS;
    return -init->fail.err;
}

static const struct pg_statement database_statement = {
    "init_database",
    "SELECT FROM pg_catalog.pg_database WHERE datname = $1",
    1,
};

/* Called with the connection to "postgres"; leaves one to the new database. */
static int create_database(struct run *run)
{
    struct init_shard *init = run->init;
    struct conn_target target = target_of_admin(init->config, run->node);
    char name[128], quoted[260], sql[400];
    if (!conn_database(&target, name, sizeof name))
        return fail_set(&init->fail, EINVAL, "node %s: no database is named", init->node);
    size_t len = 0;
    for (const char *p = name; *p && len + 3 < sizeof quoted; p++) {
        if (*p == '"')
            quoted[len++] = '"';
        quoted[len++] = *p;
    }
    quoted[len] = '\0';
    /* Whoever runs init at the same time waits here, and then finds it. */
    CLEANUP(pg_rows_freep) struct pg_rows *rows = NULL;
    const char *params[] = {name};
    int r = exec(run, "SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtext('campusfs init'))");
    if (r == 0)
        r = ask(run, &database_statement, params, &rows);
    if (r == 0 && pg_rows_count(rows) == 0) {
        snprintf(sql, sizeof sql, "CREATE DATABASE \"%s\" TEMPLATE template0 ENCODING 'UTF8'", quoted);
        r = exec(run, sql);
        if (r == 0)
            buf_printf(&init->changes, "database %s created\n", name);
    }
    if (r < 0)
        return r;
    conn_close(STEAL(run->conn));
    return connect_node(run, run->node, NULL, &run->conn, &init->fail);
}

/* ---- the transaction ---- */

static const struct pg_statement there_statement = {
    "init_there",
    "SELECT pg_catalog.to_regclass('campusfs.schema_version') IS NOT NULL",
    0,
};
static const struct pg_statement current_statement = {
    "init_current",
    "SELECT version, code_hash, (SELECT number FROM campusfs.shard) FROM campusfs.schema_version"
    " ORDER BY entry DESC LIMIT 1",
    0,
};
static const struct pg_statement hash_statement = {
    "init_hash",
    "SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to($1, 'UTF8')), 'hex')",
    1,
};
static const struct pg_statement setting_statement = {
    "init_setting",
    "SELECT pg_catalog.set_config('campusfs.shard_number', $1, true)",
    1,
};
static const struct pg_statement record_statement = {
    "init_record",
    "INSERT INTO campusfs.schema_version (version, code_hash) VALUES ($1::int, $2)",
    2,
};
static const struct pg_statement roles_statement = {
    "init_roles",
    "SELECT coalesce(pg_catalog.string_agg(rolname, ', ' ORDER BY rolname), '') FROM pg_catalog.pg_roles"
    " WHERE rolname LIKE 'campusfs\\_%' AND rolname <> ALL (pg_catalog.string_to_array($1, ', '))",
    1,
};
static const struct pg_statement region_statement = {
    "init_region",
    "SELECT name, is_local::int FROM campusfs.regions WHERE number = $1::smallint",
    1,
};
static const struct pg_statement region_add_statement = {
    "init_region_add",
    "INSERT INTO campusfs.regions (number, name, is_local) VALUES ($1::smallint, $2, $3::boolean)",
    3,
};
static const struct pg_statement region_rename_statement = {
    "init_region_rename",
    "UPDATE campusfs.regions SET name = $2 WHERE number = $1::smallint",
    2,
};
static const struct pg_statement region_extra_statement = {
    "init_region_extra",
    "SELECT pg_catalog.string_agg(name || ' (' || number || ')', ', ' ORDER BY number) FROM campusfs.regions"
    " WHERE number <> ALL (pg_catalog.string_to_array($1, ' ')::smallint[])",
    1,
};

/* A single text value of a statement, on the heap; NULL on failure. */
static char *ask_text(struct run *run, const struct pg_statement *statement, const char *const *params)
{
    CLEANUP(pg_rows_freep) struct pg_rows *rows = NULL;
    if (ask(run, statement, params, &rows) < 0)
        return NULL;
    const char *text = pg_rows_count(rows) ? pg_rows_text(rows, 0, 0) : NULL;
    char *copy = strdup(text ? text : "");
    if (!copy)
        fail_set(&run->init->fail, ENOMEM, "out of memory");
    return copy;
}

/* What is there now: version 0 and an empty hash when there is nothing. */
static int read_current(struct run *run, char hash[65])
{
    struct init_shard *init = run->init;
    const struct config_shard *self = &init->config->shards[init->shard];
    CLEANUP(freep) char *there = ask_text(run, &there_statement, NULL);
    CLEANUP(pg_rows_freep) struct pg_rows *rows = NULL;
    hash[0] = '\0';
    if (!there)
        return -init->fail.err;
    if (strcmp(there, "t") != 0)
        return 0;
    int r = ask(run, &current_statement, NULL, &rows);
    if (r < 0 || pg_rows_count(rows) == 0)
        return r;
    init->from = (unsigned)pg_rows_i64(rows, 0, 0, 0);
    snprintf(hash, 65, "%s", pg_rows_text(rows, 0, 1));
    if (init->from > init->to)
        return fail_set(&init->fail, EPROTO,
                        "its schema is newer, version %u, than this program's, %u: install a newer campusfs",
                        init->from, init->to);
    if ((unsigned)pg_rows_i64(rows, 0, 2, 0) != self->number)
        return fail_set(&init->fail, EPROTO,
                        "it belongs to shard number %" PRId64 ", but the configuration says %u",
                        pg_rows_i64(rows, 0, 2, 0), self->number);
    return 0;
}

/* The hash of all files of code/, names included, as the server computes it. */
static char *code_hash(struct run *run)
{
    CLEANUP(buf_clear) struct buf all = {0};
    for (const struct sql_file *file = sql_files; file->name; file++) {
        if (in_folder(file, code) && buf_printf(&all, "%s\n%s", file->name, file->text) < 0) {
            fail_set(&run->init->fail, ENOMEM, "out of memory");
            return NULL;
        }
    }
    const char *params[] = {all.data ? all.data : ""};
    return ask_text(run, &hash_statement, params);
}

static int run_file(struct run *run, const struct sql_file *file)
{
    struct fail *f = &run->init->fail;
    int r = exec(run, file->text);
    if (r < 0) {
        char message[sizeof f->message];
        snprintf(message, sizeof message, "%s", f->message);
        snprintf(f->message, sizeof f->message, "sql/%.60s: %.400s", file->name, message);
        return r;
    }
    run->init->files++;
    if (run->step)
        run->step(run->arg);
    return 0;
}

static int run_migrations(struct run *run)
{
    for (const struct sql_file *file = sql_files; file->name; file++) {
        if (!in_folder(file, migrations) ||
            strtoul(file->name + sizeof migrations - 1, NULL, 10) <= run->init->from)
            continue;
        int r = run_file(run, file);
        if (r < 0)
            return r;
    }
    return 0;
}

static int run_code(struct run *run)
{
    for (const struct sql_file *file = sql_files; file->name; file++) {
        int r = in_folder(file, code) ? run_file(run, file) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static int set_region(struct run *run, const struct config_region *region)
{
    struct init_shard *init = run->init;
    CLEANUP(pg_rows_freep) struct pg_rows *rows = NULL;
    char number[16];
    bool local = region->shard == init->shard;
    snprintf(number, sizeof number, "%u", region->number);
    const char *params[] = {number, region->name, local ? "true" : "false"};
    int r = ask(run, &region_statement, params, &rows);
    if (r < 0)
        return r;
    if (pg_rows_count(rows) == 0) {
        r = tell(run, &region_add_statement, params);
        if (r == 0)
            buf_printf(&init->changes, "region %s (%u) added%s\n", region->name, region->number,
                       local ? "" : ", of another shard");
        return r;
    }
    if ((pg_rows_i64(rows, 0, 1, 0) != 0) != local)
        return fail_set(&init->fail, EEXIST,
                        "region %s (%u) %s according to the database: a region cannot change its shard",
                        region->name, region->number,
                        local ? "lives on another shard" : "lives on this shard");
    if (strcmp(pg_rows_text(rows, 0, 0), region->name) == 0)
        return 0;
    r = tell(run, &region_rename_statement, params);
    if (r == 0)
        buf_printf(&init->changes, "region %u renamed from %s to %s\n", region->number,
                   pg_rows_text(rows, 0, 0), region->name);
    return r;
}

static int set_regions(struct run *run)
{
    const struct config *config = run->init->config;
    CLEANUP(buf_clear) struct buf numbers = {0};
    for (size_t i = 0; i < config->nregions; i++) {
        int r = set_region(run, &config->regions[i]);
        if (r < 0)
            return r;
        buf_printf(&numbers, "%s%u", i ? " " : "", config->regions[i].number);
    }
    const char *params[] = {numbers.data ? numbers.data : ""};
    CLEANUP(freep) char *extra = ask_text(run, &region_extra_statement, params);
    if (!extra)
        return -run->init->fail.err;
    if (*extra)
        buf_printf(&run->init->notes, "regions in the database that the configuration does not name: %s\n",
                   extra);
    return 0;
}

static int record(struct run *run, const char *hash)
{
    char version[16];
    snprintf(version, sizeof version, "%u", run->init->to);
    const char *params[] = {version, hash};
    return tell(run, &record_statement, params);
}

/* Brings tables, regions and code to the current state; everything but BEGIN and COMMIT. */
static int upgrade(struct run *run)
{
    struct init_shard *init = run->init;
    char have[65], number[16];
    const char *none[] = {""};
    snprintf(number, sizeof number, "%u", init->config->shards[init->shard].number);
    const char *setting[] = {number};
    CLEANUP(freep) char *roles = ask_text(run, &roles_statement, none);
    CLEANUP(freep) char *want = roles ? code_hash(run) : NULL;
    if (!want)
        return -init->fail.err;
    int r = read_current(run, have);
    if (r == 0)
        r = tell(run, &setting_statement, setting);
    bool stale = strcmp(have, want) != 0 || init->from < init->to;
    if (r == 0)
        r = run_migrations(run);
    if (r == 0)
        r = set_regions(run);
    if (r == 0 && stale)
        r = run_code(run);
    if (r == 0 && stale)
        r = record(run, want);
    if (r < 0)
        return r;
    const char *before[] = {roles};
    CLEANUP(freep) char *created = ask_text(run, &roles_statement, before);
    if (!created)
        return -init->fail.err;
    if (*created)
        buf_printf(&init->changes, "roles created: %s\n", created);
    return 0;
}

void init_shard(struct init_shard *init, const struct op *op, void (*step)(void *), void *arg)
{
    struct run run = {.init = init, .op = op, .step = step, .arg = arg};
    bool missing = false;
    init->to = schema_expected();
    int r = find_primary(&run, &missing);
    if (r == 0 && missing)
        r = create_database(&run);
    /* The lock lets a second init wait; no table is waited for longer than half a minute. */
    if (r == 0)
        r = exec(&run, "BEGIN; SET LOCAL lock_timeout = '30s'; SET LOCAL client_min_messages = warning;"
                       " SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('campusfs init'))");
    if (r == 0)
        r = upgrade(&run);
    if (r == 0)
        r = exec(&run, "COMMIT");
    conn_close(run.conn);
}
