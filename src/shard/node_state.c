#include "shard/node_state.h"

#include <errno.h>
#include <inttypes.h>

enum { WITHIN_AGAIN = 80 }; /* percent of a bound of lag */

const char *node_state_name(enum node_state state)
{
    static const char *const names[] = {
        [NODE_CONNECTING] = "connecting",   [NODE_PRIMARY] = "primary", [NODE_REPLICA] = "replica",
        [NODE_LAGGING] = "lagging",         [NODE_FENCED] = "fenced",   [NODE_RIVAL] = "rival",
        [NODE_FOREIGN] = "foreign",         [NODE_SCHEMA] = "schema",   [NODE_REFUSED] = "refused",
        [NODE_UNREACHABLE] = "unreachable", [NODE_FROZEN] = "frozen",
    };
    return names[state];
}

bool node_state_is_read(enum node_state state)
{
    return state == NODE_PRIMARY || state == NODE_REPLICA || state == NODE_LAGGING;
}

static bool in_use(const struct node_facts *facts)
{
    return facts->known && facts->err == 0;
}

/* How many nodes, or primaries, that are in use say this system. */
static unsigned count_votes(const struct node_facts *facts, size_t n, uint64_t system, bool primaries)
{
    unsigned votes = 0;
    for (size_t i = 0; i < n; i++)
        votes += in_use(&facts[i]) && facts[i].system == system && !(primaries && facts[i].standby);
    return votes;
}

uint64_t node_system(const struct node_facts *facts, size_t n, bool *sure)
{
    uint64_t best = 0;
    unsigned best_votes = 0;
    bool tie = false;
    *sure = false;
    for (size_t i = 0; i < n; i++)
        *sure = *sure || (in_use(&facts[i]) && !facts[i].standby);
    for (size_t i = 0; i < n; i++) {
        if (!in_use(&facts[i]) || facts[i].system == best ||
            (*sure && count_votes(facts, n, facts[i].system, true) == 0))
            continue;
        unsigned votes = count_votes(facts, n, facts[i].system, false);
        tie = votes == best_votes || (tie && votes < best_votes);
        if (votes > best_votes) {
            best = facts[i].system;
            best_votes = votes;
        }
    }
    return tie ? 0 : best;
}

void node_survey(const struct node_facts *facts, size_t n, struct shard_facts *shard)
{
    for (size_t i = 0; i < n; i++)
        if (facts[i].known && facts[i].system == shard->system && facts[i].timeline > shard->timeline)
            shard->timeline = facts[i].timeline;
    shard->claims = 0;
    for (size_t i = 0; i < n; i++)
        shard->claims += in_use(&facts[i]) && !facts[i].standby && facts[i].system == shard->system &&
                         facts[i].timeline == shard->timeline;
}

/* An unknown age says nothing against a replica that has all the bytes there are. */
static bool lags(const struct node_facts *facts, const struct shard_facts *shard, unsigned percent)
{
    if (facts->lag_ms == NODE_LAG_UNKNOWN || facts->lag_ms > shard->max_lag_ms * percent / 100)
        return true;
    return shard->max_lag_bytes && (facts->lag_bytes == NODE_LAG_UNKNOWN ||
                                    facts->lag_bytes > (int64_t)(shard->max_lag_bytes / 100 * percent));
}

static enum node_state judge_absent(const struct node_facts *facts)
{
    switch (facts->err) {
    case EACCES:
        return NODE_REFUSED;
    case EPROTO:
    case EXDEV:
        return NODE_SCHEMA;
    default:
        return facts->silent ? NODE_FROZEN : NODE_UNREACHABLE;
    }
}

enum node_state node_judge(const struct node_facts *facts, const struct shard_facts *shard,
                           enum node_state before)
{
    if (facts->err)
        return judge_absent(facts);
    if (!facts->known)
        return NODE_CONNECTING;
    if (facts->system != shard->system)
        return NODE_FOREIGN;
    if (facts->timeline < shard->timeline)
        return NODE_FENCED;
    if (!facts->standby)
        return shard->claims > 1 ? NODE_RIVAL : NODE_PRIMARY;
    return lags(facts, shard, before == NODE_LAGGING ? WITHIN_AGAIN : 100) ? NODE_LAGGING : NODE_REPLICA;
}

static void explain_lag(const char *name, const struct node_facts *facts, const struct shard_facts *shard,
                        struct fail *f)
{
    if (facts->lag_ms == NODE_LAG_UNKNOWN)
        fail_set(f, EIO, "node %s: not connected to a primary, how far it lags is not known", name);
    else if (facts->lag_ms > shard->max_lag_ms)
        fail_set(f, EIO, "node %s: lags %" PRId64 " ms, allowed are %" PRId64, name, facts->lag_ms,
                 shard->max_lag_ms);
    else
        fail_set(f, EIO, "node %s: lags %" PRId64 " bytes, allowed are %zu", name, facts->lag_bytes,
                 shard->max_lag_bytes);
}

void node_explain(const char *name, enum node_state state, const struct node_facts *facts,
                  const struct shard_facts *shard, struct fail *f)
{
    switch (state) {
    case NODE_LAGGING:
        explain_lag(name, facts, shard, f);
        break;
    case NODE_FENCED:
        fail_set(f, EROFS, "node %s: a %s on timeline %" PRIu32 ", while %" PRIu32 " has been seen", name,
                 facts->standby ? "standby" : "primary", facts->timeline, shard->timeline);
        break;
    case NODE_RIVAL:
        fail_set(f, EROFS, "node %s: one of %u primaries on timeline %" PRIu32 ": all but one must go", name,
                 shard->claims, facts->timeline);
        break;
    case NODE_FOREIGN:
        if (shard->system)
            fail_set(f, EIO, "node %s: of another cluster, system identifier %" PRIu64 ", not %" PRIu64, name,
                     facts->system, shard->system);
        else
            fail_set(f, EIO, "node %s: its system identifier %" PRIu64 " is not that of the others", name,
                     facts->system);
        break;
    default:
        break;
    }
}
