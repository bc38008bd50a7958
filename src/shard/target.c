#include "shard/target.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct target {
    struct conn_target conn; /* its strings, but for the node's name, are owned */
    atomic_uint refs;
};

enum { SLOT_WAIT_MS = 10000 }; /* a server goes on waiting for so long when we are gone */

struct conn_target target_of_node(const struct config *config, size_t node)
{
    return (struct conn_target){
        .node = config->nodes[node].name,
        .conninfo = config->nodes[node].conninfo,
        .options = config->service_options,
        .database = config->database,
        .user = config->user,
        .password = config->password,
        .passfile = config->passfile,
        .statement_timeout_ms = config->timeout_ms * 7 / 10,
        .lock_timeout_ms = config->timeout_ms * 6 / 10,
    };
}

struct conn_target target_of_admin(const struct config *config, size_t node)
{
    struct conn_target target = target_of_node(config, node);
    target.user = config->admin_user;
    target.password = config->admin_password;
    target.override_user = true;
    target.statement_timeout_ms = 0;
    target.lock_timeout_ms = 0;
    return target;
}

/* The strings of a target that are owned, or would be. */
enum { WORDS = 6, PLACE_WORDS = 3 };

static void words_of(struct conn_target *conn, const char **words[WORDS])
{
    words[0] = &conn->conninfo;
    words[1] = &conn->options;
    words[2] = &conn->database;
    words[3] = &conn->user;
    words[4] = &conn->password;
    words[5] = &conn->passfile;
}

static void target_free(struct target *target)
{
    const char **words[WORDS];
    words_of(&target->conn, words);
    for (size_t i = 0; i < WORDS; i++)
        free((char *)*words[i]);
    free(target);
}

struct target *target_new(const struct config *config, size_t node, const char *name)
{
    struct target *target = calloc(1, sizeof *target);
    if (!target)
        return NULL;
    const char **words[WORDS];
    bool whole = true;
    target->conn = target_of_node(config, node);
    target->conn.node = name;
    atomic_init(&target->refs, 1);
    words_of(&target->conn, words);
    for (size_t i = 0; i < WORDS; i++) {
        const char *word = *words[i];
        *words[i] = word ? strdup(word) : NULL;
        whole = whole && (!word || *words[i]);
    }
    if (whole)
        return target;
    target_free(target);
    return NULL;
}

struct target *target_hold(struct target *target)
{
    atomic_fetch_add_explicit(&target->refs, 1, memory_order_relaxed);
    return target;
}

void target_put(struct target *target)
{
    if (target && atomic_fetch_sub_explicit(&target->refs, 1, memory_order_acq_rel) == 1)
        target_free(target);
}

bool target_equal(const struct target *one, const struct target *other)
{
    struct conn_target a = one->conn, b = other->conn;
    const char **left[WORDS], **right[WORDS];
    bool equal = a.statement_timeout_ms == b.statement_timeout_ms && a.lock_timeout_ms == b.lock_timeout_ms;
    words_of(&a, left);
    words_of(&b, right);
    for (size_t i = 0; i < WORDS; i++)
        equal = equal && strcmp(*left[i] ? *left[i] : "", *right[i] ? *right[i] : "") == 0;
    return equal;
}

bool target_same_place(const struct target *one, const struct target *other)
{
    struct conn_target a = one->conn, b = other->conn;
    const char **left[WORDS], **right[WORDS];
    bool same = true;
    words_of(&a, left);
    words_of(&b, right);
    for (size_t i = 0; i < PLACE_WORDS; i++)
        same = same && strcmp(*left[i] ? *left[i] : "", *right[i] ? *right[i] : "") == 0;
    return same;
}

const struct conn_target *target_conn(const struct target *target)
{
    return &target->conn;
}

struct conn_target target_of_feed(const struct config *config, size_t node)
{
    struct conn_target target = target_of_node(config, node);
    if (*config->replication_user) {
        target.user = config->replication_user;
        target.password = config->replication_password;
        target.override_user = true;
    }
    target.replication = true;
    target.statement_timeout_ms = 0;
    target.lock_timeout_ms = SLOT_WAIT_MS;
    return target;
}
