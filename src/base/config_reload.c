/*
 * A reload goes in three steps. What must not be is looked for, and ends it. What cannot be taken is put
 * right in the new configuration, so that it says what will be in force. Then it is published: numbers and
 * new regions in the live one, the whole as the snapshot.
 */
#include "base/config_reload.h"

#include "base/cleanup.h"
#include "base/config_keys.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- snapshots ---- */

const struct config *config_hold(const struct config *config)
{
    struct config *live = (struct config *)config; /* a reference is no part of what it says */
    pthread_mutex_lock(&live->lock);
    struct config *held = live->now ? live->now : live;
    atomic_fetch_add_explicit(&held->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&live->lock);
    return held;
}

void config_put(const struct config *snapshot)
{
    struct config *config = (struct config *)snapshot;
    if (config && atomic_fetch_sub_explicit(&config->refs, 1, memory_order_acq_rel) == 1)
        config_destroy(config);
}

/* ---- lists ---- */

/* A section that is being put together; what it holds is given away by take_*(), or freed. */
struct draft {
    struct config *next;
    const struct config *now;
    struct config_changes *changes;
    size_t shard_of[CONFIG_MAX_SHARDS]; /* index in `next` to index in `now`, NO_SHARD = the mount has none */
    bool broke;                         /* out of memory */
};

enum { NO_SHARD = CONFIG_MAX_SHARDS };

static void name_change(struct draft *d, struct buf *list, const char *name)
{
    if (buf_printf(list, "%s%s", list->len ? ", " : "", name) < 0)
        d->broke = true;
}

static char *copy_text(struct draft *d, const char *text)
{
    char *copy = strdup(text);
    d->broke = d->broke || !copy;
    return copy;
}

static const struct config_shard *find_shard(const struct config *config, unsigned number)
{
    for (size_t i = 0; i < config->nshards; i++)
        if (config->shards[i].number == number)
            return &config->shards[i];
    return NULL;
}

static const struct config_region *find_region(const struct config *config, unsigned number)
{
    for (size_t i = 0; i < config->nregions; i++)
        if (config->regions[i].number == number)
            return &config->regions[i];
    return NULL;
}

static const struct config_node *find_node(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->nnodes; i++)
        if (strcmp(config->nodes[i].name, name) == 0)
            return &config->nodes[i];
    return NULL;
}

/* ---- what must not be ---- */

__attribute__((format(printf, 4, 5))) static void complain(struct buf *errors, const struct config *config,
                                                           unsigned line, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_printf(errors, "%s:%u: %s\n", config->path ? config->path : "environment", line, text);
}

static bool check_shards(const struct config *now, const struct config *next, struct buf *errors)
{
    bool good = true;
    for (size_t i = 0; i < next->nshards; i++) {
        const struct config_shard *shard = &next->shards[i];
        for (size_t k = 0; k < now->nshards; k++) {
            const struct config_shard *known = &now->shards[k];
            if (strcmp(known->name, shard->name) != 0 || known->number == shard->number)
                continue;
            complain(errors, next, shard->line,
                     "%s: number=%u, but the mount knows it as number=%u, which its ids are made of",
                     shard->name, shard->number, known->number);
            good = false;
        }
    }
    return good;
}

static bool check_regions(const struct config *now, const struct config *next, struct buf *errors)
{
    bool good = true;
    for (size_t i = 0; i < next->nregions; i++) {
        const struct config_region *region = &next->regions[i];
        const struct config_region *known = find_region(now, region->number);
        unsigned number = next->shards[region->shard].number;
        if (known && now->shards[known->shard].number != number) {
            complain(errors, next, region->line,
                     "%s: shard=%s, but its rows are on %s: end the mount, move them, and mount again",
                     region->name, next->shards[region->shard].name, now->shards[known->shard].name);
            good = false;
        }
        for (size_t k = 0; k < now->nregions; k++) {
            if (now->regions[k].number == region->number || strcmp(now->regions[k].name, region->name) != 0)
                continue;
            complain(errors, next, region->line,
                     "%s: number=%u, but the mount knows it as number=%u, which is stored with its rows",
                     region->name, region->number, now->regions[k].number);
            good = false;
        }
    }
    return good;
}

/* ---- what can be taken ---- */

static void settle_keys(struct draft *d)
{
    for (const struct config_key *key = config_keys; key->name; key++) {
        if (config_key_equal(key, d->now, d->next))
            continue;
        name_change(d, key->reload ? &d->changes->taken : &d->changes->remount, key->name);
        if (!key->reload && config_key_copy(key, d->now, d->next) < 0)
            d->broke = true;
    }
}

/* The shards stay those of the mount, and the indexes of nodes and regions are theirs. */
static void settle_shards(struct draft *d)
{
    struct config *next = d->next;
    bool same = next->nshards == d->now->nshards;
    for (size_t i = 0; i < next->nshards; i++) {
        const struct config_shard *known = find_shard(d->now, next->shards[i].number);
        d->shard_of[i] = known ? (size_t)(known - d->now->shards) : NO_SHARD;
        same = same && d->shard_of[i] == i && strcmp(known->name, next->shards[i].name) == 0;
        free(next->shards[i].name);
    }
    if (!same)
        name_change(d, &d->changes->remount, "[shards]");
    free(next->shards);
    next->nshards = 0;
    next->shards = calloc(d->now->nshards, sizeof *next->shards);
    d->broke = d->broke || !next->shards;
    for (size_t i = 0; next->shards && i < d->now->nshards; i++) {
        next->shards[i] = d->now->shards[i];
        next->shards[i].name = copy_text(d, d->now->shards[i].name);
        next->nshards++;
    }
}

static bool has_node(const struct config_node *nodes, size_t n, size_t shard)
{
    for (size_t i = 0; i < n; i++)
        if (nodes[i].shard == shard)
            return true;
    return false;
}

static bool same_nodes(const struct config *one, const struct config *other)
{
    bool same = one->nnodes == other->nnodes;
    for (size_t i = 0; same && i < one->nnodes; i++) {
        const struct config_node *a = &one->nodes[i], *b = find_node(other, a->name);
        same =
            b && a->shard == b->shard && a->priority == b->priority && strcmp(a->conninfo, b->conninfo) == 0;
    }
    return same;
}

/* Nodes of the mount's shards; a shard that has none any more keeps those that it has. */
static void settle_nodes(struct draft *d)
{
    struct config *next = d->next;
    const struct config *now = d->now;
    struct config_node *nodes = calloc(next->nnodes + now->nnodes, sizeof *nodes);
    size_t n = 0;
    if (!nodes) {
        d->broke = true;
        return;
    }
    for (size_t i = 0; i < next->nnodes; i++) {
        struct config_node *node = &next->nodes[i];
        node->shard = d->shard_of[node->shard];
        if (node->shard != NO_SHARD) {
            nodes[n++] = *node;
            continue;
        }
        free(node->name);
        free(node->conninfo);
    }
    size_t theirs = n;
    for (size_t i = 0; i < now->nnodes; i++)
        if (!has_node(nodes, theirs, now->nodes[i].shard))
            nodes[n++] =
                (struct config_node){copy_text(d, now->nodes[i].name), now->nodes[i].shard,
                                     copy_text(d, now->nodes[i].conninfo), now->nodes[i].priority, 0};
    free(next->nodes);
    next->nodes = nodes;
    next->nnodes = n;
    if (!d->broke && !same_nodes(now, next))
        name_change(d, &d->changes->taken, "[nodes]");
}

/* All that there are stay, under their names; new ones of the mount's shards are added behind them. */
static void settle_regions(struct draft *d)
{
    struct config *next = d->next;
    const struct config *now = d->now;
    struct config_region *regions = calloc(CONFIG_MAX_REGIONS, sizeof *regions);
    size_t n = 0, known = 0;
    bool grown = false, changed = false;
    if (!regions) {
        d->broke = true;
        return;
    }
    for (; n < now->nregions; n++) {
        regions[n] = now->regions[n];
        regions[n].name = copy_text(d, now->regions[n].name);
    }
    for (size_t i = 0; i < next->nregions; i++) {
        struct config_region *region = &next->regions[i];
        const struct config_region *same = find_region(now, region->number);
        size_t shard = d->shard_of[region->shard];
        if (same) {
            known++;
            changed = changed || strcmp(same->name, region->name) != 0;
        } else if (shard != NO_SHARD) {
            regions[n] = *region;
            regions[n++].shard = shard;
            region->name = NULL;
            grown = true;
        } else {
            changed = true;
        }
        free(region->name);
    }
    free(next->regions);
    next->regions = regions;
    next->nregions = n;
    if (grown)
        name_change(d, &d->changes->taken, "[regions]");
    if (changed || known < now->nregions)
        name_change(d, &d->changes->remount, "[regions]");
}

static bool same_access(const struct config *one, const struct config *other)
{
    bool same = one->naccess == other->naccess;
    for (size_t i = 0; same && i < one->naccess; i++) {
        const struct config_access *a = &one->access[i], *b = NULL;
        for (size_t k = 0; k < other->naccess; k++)
            if (strcmp(other->access[k].collection, a->collection) == 0)
                b = &other->access[k];
        same = b && a->uid == b->uid && a->gid == b->gid && a->mode == b->mode;
    }
    return same;
}

/* ---- in force ---- */

/* The regions that the live one does not have yet; nobody sees one before `nregions` says so. */
static bool add_regions(struct config *live, const struct config *next)
{
    char *names[CONFIG_MAX_REGIONS] = {NULL};
    bool good = true;
    for (size_t i = live->nregions; i < next->nregions; i++) {
        names[i] = strdup(next->regions[i].name);
        good = good && names[i];
    }
    for (size_t i = live->nregions; i < next->nregions; i++) {
        if (!good) {
            free(names[i]);
            continue;
        }
        live->regions[i] = next->regions[i];
        live->regions[i].name = names[i];
        live->nregions = i + 1;
    }
    return good;
}

static void publish(struct config *live, struct config *next)
{
    for (const struct config_key *key = config_keys; key->name; key++)
        if (key->reload && !config_key_is_text(key))
            config_key_copy(key, next, live);
    pthread_mutex_lock(&live->lock);
    struct config *before = live->now;
    live->now = next;
    pthread_mutex_unlock(&live->lock);
    config_put(before);
}

static int reload(struct config *live, struct config *next, const struct config *now,
                  struct config_changes *changes, struct buf *errors)
{
    bool good = check_shards(now, next, errors);
    good = check_regions(now, next, errors) && good;
    if (!good)
        return -EINVAL;
    struct draft d = {.next = next, .now = now, .changes = changes};
    settle_keys(&d);
    settle_shards(&d);
    if (!d.broke)
        settle_nodes(&d);
    if (!d.broke)
        settle_regions(&d);
    if (!same_access(now, next))
        name_change(&d, &changes->taken, "[collections]");
    return d.broke || !add_regions(live, next) ? -ENOMEM : 0;
}

int config_reload(struct config *live, struct config *next, struct config_changes *changes,
                  struct buf *errors)
{
    const struct config *now = config_hold(live);
    int r = reload(live, next, now, changes, errors);
    config_put(now);
    if (r < 0)
        config_free(next);
    else
        publish(live, next);
    return r;
}

void config_changes_clear(struct config_changes *changes)
{
    buf_clear(&changes->taken);
    buf_clear(&changes->remount);
}
