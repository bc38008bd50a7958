#include "tree/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/map.h"
#include "base/op.h"

enum {
    MEMORIES = 4096,     /* processes and users × rows remembered; each takes under 150 bytes */
    AWAY_MS = 60 * 1000, /* an editor writes again within that time */
};

struct memory_key {
    struct row_key row;
    struct process process;
};

struct remembered {
    struct map_entry entry;
    struct memory_key key;
    bool used;
    bool has_saved;
    int64_t content_us;
    uint64_t saved_at;        /* memory_now() of the save */
    char base[MEMORY_BASE];   /* of a user's delivery, at content_us */
    uint64_t deleted_at;      /* memory_now() of its rm; 0 = never */
    int64_t away_until;       /* clock_now_ms(); 0 = not away */
    struct list_entry listed; /* in memory->away_rows, while away */
};

struct memory {
    pthread_mutex_t lock; /* guards all below */
    struct map map;
    uint64_t now;
    size_t next;                  /* the slot that is used again next */
    int64_t away_until;           /* the latest of the entries'; read without the lock, too */
    unsigned away;                /* entries that are away, perhaps overdue; also read without the lock */
    struct list_entry *away_rows; /* these entries */
    struct remembered slots[MEMORIES];
};

struct memory *memory_new(void)
{
    struct memory *memory = calloc(1, sizeof *memory);
    if (memory)
        pthread_mutex_init(&memory->lock, NULL);
    return memory;
}

void memory_free(struct memory *memory)
{
    if (!memory)
        return;
    map_clear(&memory->map);
    pthread_mutex_destroy(&memory->lock);
    free(memory);
}

uint64_t memory_now(struct memory *memory)
{
    return __atomic_add_fetch(&memory->now, 1, __ATOMIC_RELAXED);
}

static uint64_t key_hash(const struct memory_key *key)
{
    return map_hash_number((uint64_t)key->row.id << 10 | (uint64_t)key->row.region << 4 |
                           key->row.collection) ^
           map_hash_number((uint64_t)key->process.tgid << 32 ^ key->process.identity);
}

static bool key_equal(const struct map_entry *entry, const void *wanted)
{
    const struct memory_key *a = &MAP_ELEMENT(entry, struct remembered, entry)->key, *b = wanted;
    return a->row.id == b->row.id && a->row.region == b->row.region &&
           a->row.collection == b->row.collection && process_equal(a->process, b->process);
}

/* Under the lock. */
static struct remembered *find(struct memory *memory, const struct memory_key *key)
{
    struct map_entry *entry = map_find(&memory->map, key_hash(key), key_equal, key);
    return entry ? MAP_ELEMENT(entry, struct remembered, entry) : NULL;
}

/* Under the lock. */
static void set_away(struct memory *memory, struct remembered *r, bool away)
{
    if ((r->away_until != 0) != away) {
        __atomic_store_n(&memory->away, memory->away + (away ? 1 : -1u), __ATOMIC_RELAXED);
        if (away)
            list_add(&memory->away_rows, &r->listed);
        else
            list_remove(&r->listed);
    }
    r->away_until = away ? clock_now_ms() + AWAY_MS : 0;
    if (away)
        __atomic_store_n(&memory->away_until, r->away_until, __ATOMIC_RELAXED);
}

/* Under the lock; NULL when memory is out. */
static struct remembered *find_or_add(struct memory *memory, const struct memory_key *key)
{
    struct remembered *r = find(memory, key);
    if (r)
        return r;
    r = &memory->slots[memory->next];
    memory->next = (memory->next + 1) % MEMORIES;
    if (r->used) {
        set_away(memory, r, false);
        map_remove(&memory->map, &r->entry);
    }
    *r = (struct remembered){.key = *key};
    r->used = map_add(&memory->map, &r->entry, key_hash(key)) == 0;
    return r->used ? r : NULL;
}

void memory_saved(struct memory *memory, const struct row_key *key, struct process process,
                  int64_t content_us)
{
    if (process.tgid == 0)
        return;
    struct memory_key wanted = {*key, process};
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = find_or_add(memory, &wanted);
    if (r) {
        r->has_saved = true;
        r->content_us = content_us;
        r->saved_at = memory_now(memory);
        set_away(memory, r, false);
    }
    pthread_mutex_unlock(&memory->lock);
}

int64_t memory_last_save(struct memory *memory, const struct row_key *key, struct process process,
                         uint64_t born, int64_t none)
{
    struct memory_key wanted = {*key, process};
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = process.tgid ? find(memory, &wanted) : NULL;
    int64_t us = r && r->has_saved && r->saved_at < born ? r->content_us : none;
    pthread_mutex_unlock(&memory->lock);
    return us;
}

/* No process has that number: one memory for all that a user's processes deliver. */
static struct memory_key key_of_user(const struct row_key *key, uid_t uid)
{
    return (struct memory_key){*key, {.tgid = -1, .identity = uid}};
}

void memory_delivered(struct memory *memory, const struct row_key *key, uid_t uid, const char *base,
                      int64_t at_us)
{
    struct memory_key wanted = key_of_user(key, uid);
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = find_or_add(memory, &wanted);
    if (r) {
        r->content_us = at_us;
        snprintf(r->base, sizeof r->base, "%s", base);
    }
    pthread_mutex_unlock(&memory->lock);
}

int64_t memory_last_delivery(struct memory *memory, const struct row_key *key, uid_t uid, const char *base,
                             int64_t at_us, int64_t none)
{
    struct memory_key wanted = key_of_user(key, uid);
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = find(memory, &wanted);
    int64_t us = r && strcmp(r->base, base) == 0 && r->content_us < at_us ? r->content_us : none;
    pthread_mutex_unlock(&memory->lock);
    return us;
}

void memory_deleted(struct memory *memory, const struct row_key *key, struct process process)
{
    if (process.tgid == 0)
        return;
    struct memory_key wanted = {*key, process};
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = find_or_add(memory, &wanted);
    if (r)
        r->deleted_at = memory_now(memory);
    pthread_mutex_unlock(&memory->lock);
}

bool memory_has_deleted(struct memory *memory, const struct row_key *key, struct process process,
                        uint64_t born)
{
    struct memory_key wanted = {*key, process};
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = process.tgid ? find(memory, &wanted) : NULL;
    bool deleted = r && r->deleted_at > born;
    pthread_mutex_unlock(&memory->lock);
    return deleted;
}

void memory_set_away(struct memory *memory, const struct row_key *key, struct process process, bool away)
{
    if (process.tgid == 0)
        return;
    struct memory_key wanted = {*key, process};
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = away ? find_or_add(memory, &wanted) : find(memory, &wanted);
    if (r)
        set_away(memory, r, away);
    pthread_mutex_unlock(&memory->lock);
}

/* Whether any row can be away; without the lock. */
static bool may_be_away(const struct memory *memory)
{
    return __atomic_load_n(&memory->away, __ATOMIC_RELAXED) != 0 &&
           __atomic_load_n(&memory->away_until, __ATOMIC_RELAXED) >= clock_now_ms();
}

bool memory_is_away_for_somebody(struct memory *memory, const struct row_key *key)
{
    bool away = false;
    if (!may_be_away(memory))
        return false;
    pthread_mutex_lock(&memory->lock);
    for (struct list_entry *e = memory->away_rows; e && !away; e = e->next) {
        const struct remembered *r = MAP_ELEMENT(e, struct remembered, listed);
        away = r->key.row.id == key->id && r->key.row.region == key->region &&
               r->key.row.collection == key->collection && r->away_until >= clock_now_ms();
    }
    pthread_mutex_unlock(&memory->lock);
    return away;
}

bool memory_is_away(struct memory *memory, const struct row_key *key, pid_t tid)
{
    if (!may_be_away(memory))
        return false;
    struct memory_key wanted = {*key, process_of_thread(tid)};
    if (wanted.process.tgid == 0)
        return false;
    pthread_mutex_lock(&memory->lock);
    struct remembered *r = find(memory, &wanted);
    if (r && r->away_until != 0 && r->away_until < clock_now_ms())
        set_away(memory, r, false);
    bool away = r && r->away_until != 0;
    pthread_mutex_unlock(&memory->lock);
    return away;
}
