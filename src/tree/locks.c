#include "tree/locks.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/map.h"

struct held {
    struct held *next;
    struct lock lock;
};

struct waiter {
    struct waiter *next;
    struct waiter **previous_of_all, *next_of_all; /* in locks->waiters */
    struct locked_file *file;
    struct lock wanted;
    struct lock_wait wait;
    int result;
};

/* One that has locks or waiters. */
struct locked_file {
    struct map_entry entry;
    uint64_t key;
    struct held *held;
    struct waiter *waiters; /* oldest first */
};

struct locks {
    pthread_mutex_t lock; /* guards all below */
    struct map files;
    struct waiter *waiters; /* of all files */
    size_t count, max;      /* locks and waiters */
};

struct locks *locks_new(size_t max)
{
    struct locks *locks = calloc(1, sizeof *locks);
    if (!locks)
        return NULL;
    locks->max = max;
    pthread_mutex_init(&locks->lock, NULL);
    return locks;
}

static bool file_equal(const struct map_entry *entry, const void *key)
{
    return MAP_ELEMENT(entry, struct locked_file, entry)->key == *(const uint64_t *)key;
}

static struct locked_file *file_find(const struct locks *locks, uint64_t key)
{
    struct map_entry *entry = map_find(&locks->files, map_hash_number(key), file_equal, &key);
    return entry ? MAP_ELEMENT(entry, struct locked_file, entry) : NULL;
}

static struct locked_file *file_take(struct locks *locks, uint64_t key)
{
    struct locked_file *file = file_find(locks, key);
    if (file)
        return file;
    file = calloc(1, sizeof *file);
    if (!file)
        return NULL;
    file->key = key;
    if (map_add(&locks->files, &file->entry, map_hash_number(key)) < 0) {
        free(file);
        return NULL;
    }
    return file;
}

static void file_leave(struct locks *locks, struct locked_file *file)
{
    if (!file || file->held || file->waiters)
        return;
    map_remove(&locks->files, &file->entry);
    free(file);
}

void locks_free(struct locks *locks)
{
    if (!locks)
        return;
    struct map_entry *entry;
    while ((entry = map_next(&locks->files, NULL))) {
        struct locked_file *file = MAP_ELEMENT(entry, struct locked_file, entry);
        for (struct held *held = file->held, *next; held; held = next) {
            next = held->next;
            free(held);
        }
        map_remove(&locks->files, entry);
        free(file);
    }
    map_clear(&locks->files);
    pthread_mutex_destroy(&locks->lock);
    free(locks);
}

static bool overlaps(const struct lock *a, const struct lock *b)
{
    return a->kind == b->kind && a->start <= b->end && b->start <= a->end;
}

static bool excludes(const struct lock *a, const struct lock *b)
{
    return overlaps(a, b) && a->owner != b->owner && (a->type == F_WRLCK || b->type == F_WRLCK);
}

static const struct held *find_excluding(const struct locked_file *file, const struct lock *wanted)
{
    for (const struct held *held = file ? file->held : NULL; held; held = held->next)
        if (excludes(&held->lock, wanted))
            return held;
    return NULL;
}

bool locks_find(struct locks *locks, uint64_t key, const struct lock *wanted, struct lock *out)
{
    pthread_mutex_lock(&locks->lock);
    const struct held *held = find_excluding(file_find(locks, key), wanted);
    if (held)
        *out = held->lock;
    pthread_mutex_unlock(&locks->lock);
    return held != NULL;
}

/* Under the lock. A piece of a former lock, or a new one. */
static int hold(struct locks *locks, struct locked_file *file, const struct lock *lock, uint64_t start,
                uint64_t end)
{
    struct held *held = malloc(sizeof *held);
    if (!held)
        return -ENOMEM;
    *held = (struct held){.next = file->held, .lock = *lock};
    held->lock.start = start;
    held->lock.end = end;
    file->held = held;
    locks->count++;
    return 0;
}

/* Under the lock: cuts a range out of what an owner holds; what sticks out on either side stays. Where one
 * lock would become two it may fail, and then nothing has changed: nothing else of the owner's overlaps. */
static int cut(struct locks *locks, struct locked_file *file, const struct lock *range)
{
    for (struct held **at = &file->held; *at;) {
        struct held *held = *at;
        struct lock former = held->lock;
        if (former.owner != range->owner || !overlaps(&former, range)) {
            at = &held->next;
            continue;
        }
        bool before = former.start<range->start, after = former.end> range->end;
        if (before && after) {
            int r =
                locks->count < locks->max ? hold(locks, file, &former, range->end + 1, former.end) : -ENOLCK;
            held->lock.end = r == 0 ? range->start - 1 : former.end;
            return r;
        }
        if (before || after) {
            held->lock.start = after ? range->end + 1 : former.start;
            held->lock.end = before ? range->start - 1 : former.end;
            at = &held->next;
            continue;
        }
        *at = held->next;
        free(held);
        locks->count--;
    }
    return 0;
}

/* Under the lock: nobody excludes it. */
static int set_now(struct locks *locks, struct locked_file *file, const struct lock *wanted)
{
    if (wanted->type != F_UNLCK && locks->count >= locks->max)
        return -ENOLCK;
    int r = cut(locks, file, wanted);
    if (r == 0 && wanted->type != F_UNLCK)
        r = hold(locks, file, wanted, wanted->start, wanted->end);
    return r;
}

/* Under the lock: the owners that a circle search has come to, each once. */
struct circle {
    uint64_t owners[LOCKS_CIRCLE_MAX];
    size_t n;
};

static void circle_add(struct circle *circle, uint64_t owner)
{
    for (size_t i = 0; i < circle->n; i++)
        if (circle->owners[i] == owner)
            return;
    if (circle->n < LOCKS_CIRCLE_MAX)
        circle->owners[circle->n++] = owner;
}

static void circle_add_holders(struct circle *circle, const struct locked_file *file,
                               const struct lock *wanted)
{
    for (const struct held *held = file->held; held; held = held->next)
        if (excludes(&held->lock, wanted))
            circle_add(circle, held->lock.owner);
}

/* Under the lock: whether who would be waited for waits, perhaps over others, for the one who asks. */
static bool closes_circle(const struct locks *locks, const struct locked_file *file,
                          const struct lock *wanted)
{
    struct circle circle = {.n = 0};
    circle_add_holders(&circle, file, wanted);
    for (size_t i = 0; i < circle.n; i++) {
        if (circle.owners[i] == wanted->owner)
            return true;
        for (const struct waiter *w = locks->waiters; w; w = w->next_of_all)
            if (w->wanted.kind == LOCK_KIND_RANGE && w->wanted.owner == circle.owners[i])
                circle_add_holders(&circle, w->file, &w->wanted);
    }
    return false;
}

/* Under the lock: takes a waiter out of the list of all; out of its file's line the caller has taken it. */
static void waits_no_more(struct locks *locks, struct waiter *waiter)
{
    *waiter->previous_of_all = waiter->next_of_all;
    if (waiter->next_of_all)
        waiter->next_of_all->previous_of_all = waiter->previous_of_all;
    locks->count--;
}

/* Under the lock: takes out of the line whose turn it is, in order; the caller answers them. */
static struct waiter *serve(struct locks *locks, struct locked_file *file)
{
    struct waiter *served = NULL, **end = &served;
    for (struct waiter **at = &file->waiters; *at;) {
        struct waiter *waiter = *at;
        if (find_excluding(file, &waiter->wanted)) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        waits_no_more(locks, waiter);
        waiter->result = set_now(locks, file, &waiter->wanted);
        waiter->next = NULL;
        *end = waiter;
        end = &waiter->next;
    }
    return served;
}

static void answer_all(struct waiter *served)
{
    for (struct waiter *next; served; served = next) {
        next = served->next;
        served->wait.answer(served->wait.arg, served->result);
        free(served);
    }
}

/* Under the lock. */
static int stand_in_line(struct locks *locks, struct locked_file *file, const struct lock *wanted,
                         const struct lock_wait *wait)
{
    if (locks->count >= locks->max)
        return -ENOLCK;
    if (wanted->kind == LOCK_KIND_RANGE && closes_circle(locks, file, wanted))
        return -EDEADLK;
    if (wait->gives_up(wait->arg))
        return -EINTR;
    struct waiter *waiter = malloc(sizeof *waiter), **end = &file->waiters;
    if (!waiter)
        return -ENOMEM;
    *waiter = (struct waiter){.wanted = *wanted, .wait = *wait, .file = file};
    waiter->next_of_all = locks->waiters;
    waiter->previous_of_all = &locks->waiters;
    if (locks->waiters)
        locks->waiters->previous_of_all = &waiter->next_of_all;
    locks->waiters = waiter;
    while (*end)
        end = &(*end)->next;
    *end = waiter;
    locks->count++;
    return 1;
}

int locks_set(struct locks *locks, uint64_t key, const struct lock *wanted, const struct lock_wait *wait)
{
    struct waiter *served = NULL;
    pthread_mutex_lock(&locks->lock);
    struct locked_file *file = file_take(locks, key);
    int r = file ? 0 : -ENOMEM;
    if (r == 0 && wanted->type != F_UNLCK && find_excluding(file, wanted))
        r = wait ? stand_in_line(locks, file, wanted, wait) : -EAGAIN;
    else if (r == 0)
        r = set_now(locks, file, wanted);
    if (r == 0) /* an unlock, or a write lock that became a read lock */
        served = serve(locks, file);
    file_leave(locks, file);
    pthread_mutex_unlock(&locks->lock);
    answer_all(served);
    return r;
}

/* Under the lock: takes waiters out of a file's line; ticket 0 = all. */
static struct waiter *leave_line(struct locks *locks, struct locked_file *file, uint64_t ticket)
{
    struct waiter *out = NULL;
    for (struct waiter **at = &file->waiters; *at;) {
        struct waiter *waiter = *at;
        if (ticket && waiter->wait.ticket != ticket) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        waits_no_more(locks, waiter);
        waiter->result = -EINTR;
        waiter->next = out;
        out = waiter;
    }
    return out;
}

/* Ends the waits of one file; false when nobody waits by that ticket (0 = any). */
static bool cancel(struct locks *locks, uint64_t ticket)
{
    struct waiter *out = NULL;
    pthread_mutex_lock(&locks->lock);
    for (struct map_entry *e = map_next(&locks->files, NULL); e && !out; e = map_next(&locks->files, e))
        out = leave_line(locks, MAP_ELEMENT(e, struct locked_file, entry), ticket);
    pthread_mutex_unlock(&locks->lock);
    bool any = out != NULL;
    answer_all(out);
    return any;
}

void locks_cancel(struct locks *locks, uint64_t ticket)
{
    cancel(locks, ticket);
}

void locks_cancel_all(struct locks *locks)
{
    while (cancel(locks, 0))
        ;
}

void locks_drop(struct locks *locks, uint64_t key, uint64_t owner, const void *through)
{
    struct waiter *served = NULL;
    pthread_mutex_lock(&locks->lock);
    struct locked_file *file = file_find(locks, key);
    for (struct held **at = file ? &file->held : NULL; at && *at;) {
        struct held *held = *at;
        bool his = through ? held->lock.through == through
                           : held->lock.owner == owner && held->lock.kind == LOCK_KIND_RANGE;
        if (!his) {
            at = &held->next;
            continue;
        }
        *at = held->next;
        free(held);
        locks->count--;
    }
    if (file)
        served = serve(locks, file);
    file_leave(locks, file);
    pthread_mutex_unlock(&locks->lock);
    answer_all(served);
}
