/*
 * What the nodes are: what they say is noted, and from all of it together follows each one's state, in
 * node_settle() alone.
 */
#include "shard/shard_private.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/utf8.h"
#include "shard/schema.h"
#include "shard/target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { MOVING = 8 }; /* the weight of what a moving value was, less one, to one of what is new */

/* ---- states ---- */

struct change {
    struct node *node;
    enum node_state from, to;
    uint32_t timeline;
    struct fail why; /* err 0 = nothing is wrong with the node itself */
};

/* Under the lock: whose the nodes are, as long as neither a primary nor what was kept has said it. */
static void settle_system(struct shard *shard, const struct node_facts *facts, size_t n)
{
    if (shard->system_sure)
        return;
    bool sure;
    uint64_t system = node_system(facts, n, &sure);
    if (system == 0)
        return;
    if (system != shard->facts.system) {
        shard->facts.timeline = 0;
        shard->trail = (struct trail){0};
        shard->token = (struct position){0};
    }
    shard->facts.system = system;
    shard->system_sure = sure;
}

/*
 * Under the lock. What an older history held beyond the fork is gone: reads follow the new one from here. The
 * first read or answer on the new primary would say so as well; until then a replica of the new history, at a
 * lower position than the old one's last, would be passed over as one that lacks what this mount has seen.
 */
static void begin_history(struct shard *shard, const struct node *node)
{
    if (node->state == NODE_PRIMARY && node->facts.timeline > shard->token.timeline)
        shard->token = (struct position){node->facts.timeline, node->role.lsn};
}

/* Under the lock. */
static void change_state(struct shard *shard, struct node *node, enum node_state to, struct change *change)
{
    *change = (struct change){.node = node, .from = node->state, .to = to, .timeline = node->facts.timeline};
    node_explain(node->name, to, &node->facts, &shard->facts, &change->why);
    node->failures += to >= NODE_SCHEMA && node->state < NODE_SCHEMA && node->state != NODE_CONNECTING;
    node->state = to;
    node->since = clock_now_ms();
    if (node_state_is_read(to))
        shard->away_since[NEED_NODE] = 0;
    if (to != NODE_PRIMARY)
        return;
    shard->leader = (int)(node - shard->nodes);
    shard->away_since[NEED_PRIMARY] = 0;
    pthread_cond_broadcast(&shard->changed);
}

/* Under the lock: what all of them say together, with a copy of what each says. */
static void survey(struct shard *shard, struct node_facts facts[CONFIG_MAX_NODES])
{
    size_t n = shard->nnodes; /* may grow meanwhile */
    for (size_t i = 0; i < n; i++) {
        struct node *node = &shard->nodes[i];
        /* A pool begins out of use, which is no failure. */
        node->facts.err = node->visited ? -pool_why_not(node->pool, NULL) : 0;
        facts[i] = node->facts;
    }
    settle_system(shard, facts, n);
    node_survey(facts, n, &shard->facts);
}

/* Makes one change that is due; false when none is. */
static bool settle_one(struct shard *shard, struct change *change)
{
    struct node_facts facts[CONFIG_MAX_NODES];
    bool changed = false;
    pthread_mutex_lock(&shard->lock);
    if (shard->begun)
        survey(shard, facts);
    for (size_t i = 0; shard->begun && i < shard->nnodes && !changed; i++) {
        struct node *node = &shard->nodes[i];
        enum node_state to = node_judge(&node->facts, &shard->facts, node->state);
        changed = to != node->state;
        if (changed)
            change_state(shard, node, to, change);
        begin_history(shard, node);
    }
    pthread_mutex_unlock(&shard->lock);
    return changed;
}

static void tell_change(const struct change *change)
{
    const struct node *node = change->node;
    const char *shard = node->shard->self->name, *name = node->name;
    const char *from = node_state_name(change->from), *to = node_state_name(change->to);
    struct fail why = change->why;
    bool away = change->to >= NODE_SCHEMA;
    if (away)
        pool_why_not(node->pool, &why);
    if (away && change->from == NODE_CONNECTING)
        log_warning("shard %s: node %s: is %s, going on without it: %s", shard, name, to, why.message);
    else if (away || why.err)
        log_warning("shard %s: node %s: was %s, is %s%s%s%s", shard, name, from, to,
                    away ? ", out of use" : "", why.err ? ": " : "", why.message);
    else if (change->from == NODE_CONNECTING)
        log_debug("shard %s: node %s: is %s on timeline %" PRIu32, shard, name, to, change->timeline);
    else if (change->from >= NODE_SCHEMA)
        log_info("shard %s: node %s: was %s, is %s on timeline %" PRIu32 ", in use again", shard, name, from,
                 to, change->timeline);
    else
        log_warning("shard %s: node %s: was %s, is %s on timeline %" PRIu32, shard, name, from, to,
                    change->timeline);
}

void node_settle(struct shard *shard)
{
    struct change change;
    while (settle_one(shard, &change))
        tell_change(&change);
    node_keep(shard);
}

void node_keep(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    struct fence_mark mark = {shard->facts.timeline, shard->facts.system};
    bool sure = shard->begun && shard->system_sure;
    pthread_mutex_unlock(&shard->lock);
    if (sure)
        fence_keep(shard->fence, shard->index, mark);
}

/* ---- what they say ---- */

static int64_t moved(int64_t value, int64_t next)
{
    return value ? (value * (MOVING - 1) + next) / MOVING : next;
}

/* Under the lock: how far behind a standby is, see trail.h. */
static void note_lag(struct shard *shard, struct node *node)
{
    const struct conn_role *role = &node->role;
    struct node_facts *facts = &node->facts;
    const struct trail *trail = &shard->trail;
    int64_t now = clock_now_ms();
    uint64_t head = trail_head(trail);
    facts->lag_ms = facts->lag_bytes = 0;
    if (!role->standby)
        return;
    if (head == 0 || trail->timeline != facts->timeline) { /* no primary of its history was ever heard */
        if (role->received > role->lsn)
            facts->lag_bytes = (int64_t)(role->received - role->lsn);
        facts->lag_ms = role->lag_ms == CONN_LAG_UNKNOWN ? NODE_LAG_UNKNOWN
                        : role->lag_ms > 0               ? role->lag_ms
                                                         : 0;
        return;
    }
    /* Part of a record up to the end of a page (node_role.sql) is nothing that is missing. */
    bool whole = role->lag_ms == 0 && role->received >= head;
    if (role->lsn < head && !whole) {
        facts->lag_bytes = (int64_t)(head - role->lsn);
        facts->lag_ms = trail_age(trail, role->lsn, now);
    }
    bool led = shard->leader >= 0 && shard->nodes[shard->leader].state == NODE_PRIMARY;
    if (!led && now - trail->heard > facts->lag_ms)
        facts->lag_ms = now - trail->heard;
}

/* How a node came to say what it says. */
enum told_by { POOLED, MONITOR, NEW_MONITOR };

static void note(struct node *node, const struct conn_role *role, enum told_by by)
{
    struct shard *shard = node->shard;
    pthread_mutex_lock(&shard->lock);
    if ((role->asked <= node->asked && by != NEW_MONITOR) || atomic_load(&node->retired)) {
        pthread_mutex_unlock(&shard->lock);
        return; /* nothing new: what this connection was told when it was opened */
    }
    struct node_facts *facts = &node->facts, before = *facts;
    /* A standby that runs does not go back; what it knows of its timeline while it receives nothing may be
     * old. */
    bool same =
        before.known && by != NEW_MONITOR && before.standby && role->standby && before.system == role->system;
    facts->known = true;
    facts->silent = false;
    facts->standby = role->standby;
    facts->synchronous = role->synchronous;
    facts->system = role->system;
    facts->timeline = same && before.timeline > role->timeline ? before.timeline : role->timeline;
    node->role = *role;
    node->asked = role->asked;
    node->query_us = moved(node->query_us, role->answer_us);
    if (by != MONITOR)
        node->connect_us = moved(node->connect_us, role->connect_us);
    if (!role->standby && role->system == shard->facts.system && role->timeline >= shard->facts.timeline)
        trail_add(&shard->trail, role->timeline, role->lsn, role->asked);
    note_lag(shard, node);
    bool renewed = before.known && (before.standby != facts->standby || before.timeline != facts->timeline ||
                                    before.system != facts->system);
    pthread_mutex_unlock(&shard->lock);
    if (renewed)
        pool_renew(node->pool);
    node_settle(shard);
}

void node_note(struct node *node, const struct conn_role *role)
{
    note(node, role, POOLED);
}

bool node_is_other(struct node *node, const struct conn *conn)
{
    pthread_mutex_lock(&node->shard->lock);
    uint64_t system = node->shard->facts.system;
    pthread_mutex_unlock(&node->shard->lock);
    return system != 0 && conn_role(conn)->system != system;
}

bool node_is_foreign(struct node *node)
{
    pthread_mutex_lock(&node->shard->lock);
    bool foreign = node->state == NODE_FOREIGN;
    pthread_mutex_unlock(&node->shard->lock);
    return foreign;
}

static void node_note_schema(struct node *node, unsigned version)
{
    unsigned ours = schema_expected(), newer = version > ours ? version : 0;
    if (atomic_exchange(&node->newer_schema, newer) == newer)
        return;
    const char *shard = node->shard->self->name;
    if (newer)
        log_warning(
            "shard %s: node %s: its schema is version %u now, newer than this program's, %u: saves are "
            "refused until a newer campusfs is mounted",
            shard, node->name, version, ours);
    else
        log_info("shard %s: node %s: its schema is version %u again", shard, node->name, version);
}

void node_unlearn(struct node *node)
{
    struct shard *shard = node->shard;
    pthread_mutex_lock(&shard->lock);
    node->facts = (struct node_facts){.lag_ms = NODE_LAG_UNKNOWN};
    node->asked = clock_now_ms();
    node->connect_us = node->query_us = 0;
    pthread_mutex_unlock(&shard->lock);
    node_settle(shard);
}

int node_ask(struct node *node, bool schema, const struct op *op, struct fail *f)
{
    struct conn_role role;
    struct conn_step question = schema_question();
    int r = conn_ask_role(node->monitor, schema ? &question : NULL, op, &role, f);
    if (question.done)
        node_note_schema(node, schema_answer(&question));
    pg_rows_free(question.rows);
    if (r == 0)
        note(node, &role, MONITOR);
    return r;
}

static bool node_stopping(void *arg)
{
    return atomic_load(&((struct node *)arg)->stopping);
}

int node_connect(struct node *node, bool strict, bool *standby, struct fail *f)
{
    struct op op = op_within(node->shard->config->connect_timeout_ms);
    op.interrupted = node_stopping;
    op.arg = node;
    struct target *target = pool_target(node->pool);
    int r = conn_open(target_conn(target), &op, &node->monitor, f);
    target_put(target);
    if (r < 0) {
        node_silent(node, op_left_ms(&op) == 0);
        schema_explain(f);
        return -f->err;
    }
    struct conn_role role = *conn_role(node->monitor);
    if (standby)
        *standby = role.standby;
    unsigned number = node->shard->self->number;
    r = strict ? schema_check(node->monitor, number, &op, f) : schema_belongs(node->monitor, number, &op, f);
    if (r < 0)
        conn_close(STEAL(node->monitor));
    else
        note(node, &role, NEW_MONITOR);
    return r;
}

void node_visited(struct node *node)
{
    pthread_mutex_lock(&node->shard->lock);
    node->visited = true;
    pthread_mutex_unlock(&node->shard->lock);
}

void node_silent(struct node *node, bool silent)
{
    pthread_mutex_lock(&node->shard->lock);
    node->facts.silent = silent;
    pthread_mutex_unlock(&node->shard->lock);
}

void node_begin(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    shard->begun = true;
    pthread_mutex_unlock(&shard->lock);
    node_settle(shard);
}

void node_foresee(struct node *node, struct fail *f)
{
    struct shard *shard = node->shard;
    struct node_facts facts[CONFIG_MAX_NODES];
    pthread_mutex_lock(&shard->lock);
    survey(shard, facts);
    enum node_state state = node_judge(&node->facts, &shard->facts, NODE_CONNECTING);
    if (!node_state_is_read(state))
        node_explain(node->name, state, &node->facts, &shard->facts, f);
    pthread_mutex_unlock(&shard->lock);
}

/* ---- who is there ---- */

/* Under the lock. */
static int find_leader(const struct shard *shard)
{
    bool quarrel = shard->facts.claims > 1 && shard->leader >= 0;
    return quarrel && shard->nodes[shard->leader].state == NODE_RIVAL &&
                   pool_ready(shard->nodes[shard->leader].pool)
               ? shard->leader
               : -1;
}

/* Under the lock: the primary, or any node that is read. -1 = none. */
static int find_ready(const struct shard *shard, enum need need)
{
    for (size_t i = 0; i < shard->nnodes; i++) {
        const struct node *node = &shard->nodes[i];
        bool fits = need == NEED_PRIMARY ? node->state == NODE_PRIMARY : node_state_is_read(node->state);
        if (fits && pool_ready(node->pool))
            return (int)i;
    }
    return need == NEED_NODE ? find_leader(shard) : -1;
}

int node_find_primary(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    int found = find_ready(shard, NEED_PRIMARY);
    pthread_mutex_unlock(&shard->lock);
    return found;
}

int node_find_leader(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    int found = find_leader(shard);
    pthread_mutex_unlock(&shard->lock);
    return found;
}

bool node_all_well(struct shard *shard)
{
    pthread_mutex_lock(&shard->lock);
    bool well = find_ready(shard, NEED_PRIMARY) >= 0;
    for (size_t i = 0; well && i < shard->nnodes; i++) {
        const struct node *node = &shard->nodes[i];
        bool fit = node->state == NODE_PRIMARY || node->state == NODE_REPLICA;
        well = atomic_load(&node->retired) || (fit && pool_ready(node->pool));
    }
    pthread_mutex_unlock(&shard->lock);
    return well;
}

size_t node_count_read(struct shard *shard)
{
    size_t count = 0;
    pthread_mutex_lock(&shard->lock);
    for (size_t i = 0; i < shard->nnodes; i++)
        count += node_state_is_read(shard->nodes[i].state) && pool_ready(shard->nodes[i].pool);
    pthread_mutex_unlock(&shard->lock);
    return count;
}

/* How welcome a replica is, the highest first: one with room, the preferred, the least loaded. */
struct rank {
    bool room;
    int priority;
    unsigned load;
};

static bool outranks(const struct rank *a, const struct rank *b)
{
    if (a->room != b->room)
        return a->room;
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->load < b->load;
}

int node_find_replica(struct shard *shard, uint64_t tried, bool lagging)
{
    unsigned turn = atomic_fetch_add(&shard->turn, 1);
    struct rank best = {.room = false};
    int found = -1;
    pthread_mutex_lock(&shard->lock);
    /* While two claim to be the primary nobody can say whose replica one is. */
    for (size_t k = 0; k < shard->nnodes && shard->facts.claims <= 1; k++) {
        size_t i = (k + turn) % shard->nnodes;
        const struct node *node = &shard->nodes[i];
        bool fits = node->state == NODE_REPLICA || (lagging && node->state == NODE_LAGGING);
        if (!fits || (tried >> i & 1) || !pool_ready(node->pool))
            continue;
        unsigned load = pool_load(node->pool);
        struct rank rank = {load < shard->config->pool_size, node->priority, load};
        if (found < 0 || outranks(&rank, &best)) {
            found = (int)i;
            best = rank;
        }
    }
    pthread_mutex_unlock(&shard->lock);
    return found;
}

/* How long the shard must have been without. */
static int64_t patience(const struct config *config, enum need need)
{
    return need == NEED_PRIMARY && config->failover_wait_ms < config->timeout_ms ? config->failover_wait_ms
                                                                                 : config->timeout_ms;
}

bool node_give_up(struct shard *shard, enum need need)
{
    int64_t now = clock_now_ms();
    pthread_mutex_lock(&shard->lock);
    int64_t *since = &shard->away_since[need];
    if (find_ready(shard, need) >= 0)
        *since = 0;
    else if (*since == 0)
        *since = now;
    bool late = *since != 0 && now - *since >= patience(shard->config, need);
    pthread_mutex_unlock(&shard->lock);
    return late;
}

void node_back(struct node *node)
{
    struct shard *shard = node->shard;
    pthread_mutex_lock(&shard->lock);
    shard->away_since[NEED_NODE] = 0;
    if (node->state == NODE_PRIMARY)
        shard->away_since[NEED_PRIMARY] = 0;
    pthread_mutex_unlock(&shard->lock);
}

void node_why_not(struct shard *shard, struct fail *f)
{
    fail_set(f, EIO, "shard %s: no node can be used", shard->self->name);
    for (size_t i = 0; i < shard->nnodes; i++) {
        const struct node *node = &shard->nodes[i];
        struct fail why = {.err = 0};
        size_t len = strlen(f->message);
        if (atomic_load(&node->retired))
            continue;
        if (pool_why_not(node->pool, &why) == 0) {
            pthread_mutex_lock(&shard->lock);
            node_explain(node->name, node->state, &node->facts, &shard->facts, &why);
            pthread_mutex_unlock(&shard->lock);
        }
        if (why.err)
            snprintf(f->message + len, sizeof f->message - len, "; %s", why.message);
    }
    utf8_clean(f->message);
}
