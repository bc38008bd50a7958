#include "shard/health.h"

#include "base/cleanup.h"
#include "base/parallel.h"
#include "base/utf8.h"
#include "postgres/conn.h"
#include "shard/fence.h"
#include "shard/live.h"
#include "shard/schema.h"
#include "shard/shard_private.h"
#include "shard/target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What one node said; filled by its own thread. */
struct probe {
    const struct config *config;
    size_t node;
    const struct op *op;
    bool reachable;
    struct conn_role role;
    unsigned schema;
    bool newer; /* its schema is newer than this program: read as ever, not written to */
    int64_t prepared, prepared_ms; /* transactions, and the oldest one's age; -1 = not known */
    struct fail why;               /* err 0 = nothing is wrong */
    /* What follows, once all have been heard. */
    struct node_facts facts;
    enum node_state state;
    bool live; /* a mount watches it */
    struct node_live use;
};

DEFINE_CLEANUP(struct conn, conn_close)
DEFINE_CLEANUP(struct fence, fence_free)

/* ---- asking ---- */

/* What nobody may forget: a transaction that stays prepared keeps its locks for ever. */
static void ask_prepared(struct probe *p, struct conn *conn)
{
    static const struct pg_statement statement = {"prepared_transactions", NULL, 0};
    struct conn_step step = {.statement = &statement, .commit = true};
    if (conn_run(conn, &step, 1, p->op, NULL) == CONN_DONE && pg_rows_count(step.rows) == 1) {
        p->prepared = pg_rows_i64(step.rows, 0, 0, -1);
        p->prepared_ms = pg_rows_i64(step.rows, 0, 1, 0);
    }
    pg_rows_free(step.rows);
}

static void probe_node(void *arg, size_t index)
{
    struct probe *p = (struct probe *)arg + index;
    struct conn_target target = target_of_node(p->config, p->node);
    CLEANUP(conn_closep) struct conn *conn = NULL;
    unsigned shard;
    if (conn_open(&target, p->op, &conn, &p->why) < 0) {
        p->facts.silent = op_left_ms(p->op) == 0;
        schema_explain(&p->why);
        return;
    }
    if (schema_check(conn, p->config->shards[p->config->nodes[p->node].shard].number, p->op, &p->why) < 0 &&
        p->why.err != EPROTO && p->why.err != EXDEV)
        return;
    struct fail ignored = {.err = 0};
    schema_read(conn, p->op, &p->schema, &shard, &ignored);
    p->newer = p->why.err == EPROTO && p->schema > schema_expected();
    p->reachable = conn_ask_role(conn, NULL, p->op, &p->role, &p->why) == 0;
    if (p->reachable && !p->role.standby) /* a standby does not show them */
        ask_prepared(p, conn);
    p->facts.silent = op_left_ms(p->op) == 0;
}

/* ---- judging a shard ---- */

/* The probes of one shard, in the order of the configuration. */
struct ward {
    const struct config *config;
    size_t shard;
    struct probe *probes[CONFIG_MAX_NODES];
    size_t n;
    struct shard_facts facts;
    const struct probe *primary; /* NULL = none, or several that claim it */
    struct shard *live;          /* as a mount sees it, NULL = none does */
};

static void note_facts(struct probe *p)
{
    p->facts.known = p->reachable;
    p->facts.err = p->newer ? 0 : p->why.err;
    p->facts.standby = p->role.standby;
    p->facts.synchronous = p->role.synchronous;
    p->facts.timeline = p->role.timeline;
    p->facts.system = p->role.system;
}

/* How far a standby lags, by what it and the primary have just said. */
static void note_lag(struct probe *p, const struct probe *primary)
{
    const struct conn_role *role = &p->role;
    struct node_facts *facts = &p->facts;
    facts->lag_ms = facts->lag_bytes = 0;
    if (!role->standby)
        return;
    bool behind = primary && primary->role.lsn > role->lsn;
    if (!primary)
        facts->lag_bytes = role->received > role->lsn ? (int64_t)(role->received - role->lsn) : 0;
    else if (behind)
        facts->lag_bytes = (int64_t)(primary->role.lsn - role->lsn);
    /* Asked at one moment, it is in line with what the primary had a moment before: what is under way is no
     * lag. */
    if (role->lag_ms == 0 || (primary && !behind))
        return;
    int64_t skew = primary ? primary->role.clock_ms - role->clock_ms : 0;
    facts->lag_ms = role->lag_ms == CONN_LAG_UNKNOWN ? NODE_LAG_UNKNOWN
                    : role->lag_ms + skew > 0        ? role->lag_ms + skew
                                                     : 0;
}

static void survey(struct ward *ward)
{
    struct node_facts facts[CONFIG_MAX_NODES];
    for (size_t i = 0; i < ward->n; i++)
        facts[i] = ward->probes[i]->facts;
    if (ward->facts.system == 0) {
        bool sure;
        ward->facts.system = node_system(facts, ward->n, &sure);
    }
    node_survey(facts, ward->n, &ward->facts);
}

/* What everybody is, first without and then with how far they lag behind the primary. */
static void judge_nodes(struct ward *ward)
{
    for (size_t i = 0; i < ward->n; i++)
        note_facts(ward->probes[i]);
    survey(ward);
    for (size_t i = 0; i < ward->n; i++)
        if (node_judge(&ward->probes[i]->facts, &ward->facts, NODE_CONNECTING) == NODE_PRIMARY)
            ward->primary = ward->probes[i];
    for (size_t i = 0; i < ward->n; i++) {
        struct probe *p = ward->probes[i];
        note_lag(p, ward->primary);
        p->live = ward->live && shard_node_named(ward->live, p->config->nodes[p->node].name, &p->use);
        if (p->live && p->reachable && p->use.lag_ms != NODE_LAG_UNKNOWN)
            p->facts.lag_ms = p->use.lag_ms; /* by one clock */
        p->state = node_judge(&p->facts, &ward->facts, NODE_CONNECTING);
        if (p->why.err == 0)
            node_explain(p->config->nodes[p->node].name, p->state, &p->facts, &ward->facts, &p->why);
    }
}

/* A node that answers us here, and that the mount does not use yet: it comes to that within a second. */
static void judge_use(struct probe *p)
{
    struct fail why = {.err = 0};
    if (!p->live || p->why.err)
        return;
    if (pool_why_not(p->use.pool, &why) < 0)
        fail_set(&p->why, EIO, "not in use yet again: %.1000s", why.message);
    else if (!node_state_is_read(p->use.state))
        fail_set(&p->why, EIO, "not in use yet again: was %s", node_state_name(p->use.state));
}

static const char *protection(const struct ward *ward)
{
    if (!ward->primary)
        return NULL;
    const struct conn_role *role = &ward->primary->role;
    return !role->synchronous ? "unprotected" : role->confirming == 0 ? "waiting" : "synchronous";
}

static enum health_status judge_shard(const struct ward *ward)
{
    bool readable = false, fault = !ward->primary;
    for (size_t i = 0; i < ward->n; i++) {
        const struct probe *p = ward->probes[i];
        readable = readable || node_state_is_read(p->state);
        fault = fault || p->why.err;
    }
    if (!readable)
        return HEALTH_DOWN;
    const char *kind = protection(ward);
    bool unsafe = kind && (strcmp(kind, "waiting") == 0 ||
                           (ward->config->unprotected_degrades && strcmp(kind, "unprotected") == 0));
    return fault || unsafe ? HEALTH_DEGRADED : HEALTH_OK;
}

/* ---- telling ---- */

static json_t *integer_if(bool known, int64_t value)
{
    return known ? json_integer(value) : json_null();
}

static json_t *pool_json(struct pool *pool)
{
    struct pool_stats stats = pool_stats(pool);
    return json_pack("{s:i, s:i, s:i}", "open", (int)stats.open, "busy", (int)stats.busy, "max",
                     (int)stats.max);
}

static json_t *node_json(const struct probe *p, const struct ward *ward)
{
    const struct conn_role *role = &p->role;
    const char *said = !p->reachable ? NULL : role->standby ? "standby" : "primary";
    bool lag = p->reachable && p->facts.lag_ms != NODE_LAG_UNKNOWN;
    bool bytes = p->reachable && (!role->standby || ward->primary);
    return json_pack(
        "{s:s, s:s, s:o, s:b, s:s?, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s?}", "name",
        p->config->nodes[p->node].name, "state", node_state_name(p->live ? p->use.state : p->state),
        "since_s", p->live ? json_real((double)p->use.since_ms / 1000) : json_null(), "reachable",
        p->reachable, "role", said, "timeline", integer_if(p->reachable, role->timeline), "lag_ms",
        integer_if(lag, p->facts.lag_ms), "lag_bytes", integer_if(bytes, p->facts.lag_bytes), "clock_ms",
        integer_if(p->reachable, role->clock_ms), "latency_ms",
        p->reachable ? json_real((double)role->answer_us / 1000) : json_null(), "connect_ms",
        p->reachable ? json_real((double)role->connect_us / 1000) : json_null(), "pool",
        p->live ? pool_json(p->use.pool) : json_null(), "reads", integer_if(p->live, (int64_t)p->use.reads),
        "writes", integer_if(p->live, (int64_t)p->use.writes), "failures",
        integer_if(p->live, (int64_t)p->use.failures), "schema_version", integer_if(p->schema, p->schema),
        "error", p->why.err ? p->why.message : NULL);
}

static json_t *traffic_json(struct shard *shard)
{
    if (!shard)
        return json_null();
    struct shard_live live = shard_live(shard);
    return json_pack(
        "{s:{s:I, s:I, s:I}, s:o, s:o, s:i, s:I, s:I}", "reads", "replica", (json_int_t)live.reads_replica,
        "primary", (json_int_t)live.reads_primary, "stale", (json_int_t)live.reads_stale, "stale_ms",
        integer_if(live.stale_ms >= 0, live.stale_ms), "stale_age_ms",
        integer_if(live.stale_ms >= 0 && live.stale_age_ms != NODE_LAG_UNKNOWN, live.stale_age_ms),
        "held_writes", (int)live.held, "held_writes_total", (json_int_t)live.held_total,
        "held_writes_refused", (json_int_t)live.held_refused);
}

static json_t *prepared_json(const struct probe *primary)
{
    if (!primary || primary->prepared < 0)
        return json_null();
    return json_pack("{s:I, s:f}", "count", (json_int_t)primary->prepared, "oldest_s",
                     (double)primary->prepared_ms / 1000);
}

static const char *status_name(enum health_status status)
{
    return status == HEALTH_OK ? "ok" : status == HEALTH_DEGRADED ? "degraded" : "down";
}

static json_t *shard_json(struct ward *ward, enum health_status *status)
{
    const struct config_shard *self = &ward->config->shards[ward->shard];
    json_t *nodes = json_array();
    judge_nodes(ward);
    for (size_t i = 0; i < ward->n; i++) {
        judge_use(ward->probes[i]);
        utf8_clean(ward->probes[i]->why.message); /* words that were cut */
        json_array_append_new(nodes, node_json(ward->probes[i], ward));
    }
    *status = judge_shard(ward);
    const char *primary = ward->primary ? ward->config->nodes[ward->primary->node].name : NULL;
    return json_pack("{s:s, s:i, s:s, s:s?, s:o, s:s?, s:o, s:o, s:o}", "name", self->name, "number",
                     (int)self->number, "status", status_name(*status), "primary", primary, "timeline",
                     integer_if(ward->facts.timeline, ward->facts.timeline), "protection", protection(ward),
                     "prepared", prepared_json(ward->primary), "traffic", traffic_json(ward->live), "nodes",
                     nodes);
}

/* What is known of the shard beforehand: by the mount, else by what mounts have kept. */
static struct shard_facts facts_of(const struct config *config, struct shard *live, struct fence *fence,
                                   size_t shard)
{
    struct fence_mark mark = fence ? fence_known(fence, shard) : (struct fence_mark){.timeline = 0};
    struct shard_facts facts = {.system = mark.system,
                                .timeline = mark.timeline,
                                .max_lag_ms = config->max_lag_ms,
                                .max_lag_bytes = config->max_lag_bytes};
    return live ? shard_live(live).facts : facts;
}

int health_probe(const struct config *config, struct cluster *cluster, const struct op *op, json_t **out,
                 enum health_status *status)
{
    struct probe *probes = calloc(config->nnodes, sizeof *probes);
    if (!probes)
        return -ENOMEM;
    for (size_t i = 0; i < config->nnodes; i++)
        probes[i] = (struct probe){.config = config, .node = i, .op = op, .prepared = -1};
    parallel_run(config->nnodes, probe_node, probes);
    CLEANUP(fence_freep) struct fence *fence = cluster ? NULL : fence_open(config);
    json_t *shards = json_array();
    *status = HEALTH_OK;
    for (size_t s = 0; s < config->nshards; s++) {
        enum health_status one;
        struct ward ward = {.config = config, .shard = s, .live = cluster ? cluster_shard(cluster, s) : NULL};
        if (ward.live) /* whoever looks is told again soon, and then by what is so now */
            watch_hurry(ward.live);
        ward.facts = facts_of(config, ward.live, fence, s);
        for (size_t i = 0; i < config->nnodes; i++)
            if (config->nodes[i].shard == s)
                ward.probes[ward.n++] = &probes[i];
        json_array_append_new(shards, shard_json(&ward, &one));
        *status = one > *status ? one : *status;
    }
    free(probes);
    *out = json_pack("{s:s, s:o}", "status", status_name(*status), "shards", shards);
    return *out ? 0 : -ENOMEM;
}
