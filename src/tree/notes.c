#include "tree/notes.h"

#include <pthread.h>

#include "base/op.h"

enum { SETS = 256, WAYS = 4, NOTE_MS = 1000 };

struct slot {
    pid_t tid; /* 0: free */
    int64_t until;
    int64_t told; /* when LOOKUP answered last; what it told a reader is good for NOTE_MS */
    struct note note;
};

struct notes {
    struct nodes *nodes;
    int64_t life_ms;      /* constant */
    pthread_mutex_t lock; /* guards the slots */
    unsigned used;        /* slots that are not free; also read without the lock */
    struct slot slots[SETS][WAYS];
};

struct notes *notes_new(struct nodes *nodes, int64_t walk_ms)
{
    struct notes *notes = calloc(1, sizeof *notes);
    if (!notes)
        return NULL;
    notes->nodes = nodes;
    notes->life_ms = walk_ms + NOTE_MS;
    pthread_mutex_init(&notes->lock, NULL);
    return notes;
}

void note_clear(struct notes *notes, struct note *note)
{
    node_unref(notes->nodes, note->node);
    document_unref(note->document);
    media_revision_unref(note->media);
    *note = (struct note){0};
}

/* Under the lock. */
static void slot_clear(struct notes *notes, struct slot *slot)
{
    if (slot->tid == 0)
        return;
    note_clear(notes, &slot->note);
    slot->tid = 0;
    __atomic_store_n(&notes->used, notes->used - 1, __ATOMIC_RELAXED);
}

void notes_free(struct notes *notes)
{
    if (!notes)
        return;
    for (size_t i = 0; i < SETS; i++)
        for (size_t k = 0; k < WAYS; k++)
            slot_clear(notes, &notes->slots[i][k]);
    pthread_mutex_destroy(&notes->lock);
    free(notes);
}

/*
 * Under the lock. The kernel may walk on through a LOOKUP that another thread has under way: what this one
 * came for is remembered for as long as that may take.
 */
static void answered(struct notes *notes, struct slot *slot)
{
    slot->note.looked = true;
    slot->told = clock_now_ms();
    slot->until = slot->told + notes->life_ms;
}

/* Under the lock: the thread's slot, and what is overdue in its set is freed. */
static struct slot *find(struct notes *notes, pid_t tid)
{
    struct slot *set = notes->slots[(unsigned)tid % SETS], *found = NULL;
    int64_t now = clock_now_ms();
    for (size_t k = 0; k < WAYS; k++) {
        if (set[k].tid != 0 && set[k].until < now)
            slot_clear(notes, &set[k]);
        if (set[k].tid == tid && tid != 0)
            found = &set[k];
    }
    return found;
}

static bool same_row(const struct row_key *a, const struct row_key *b)
{
    return a->id == b->id && a->region == b->region && a->collection == b->collection;
}

void notes_leave(struct notes *notes, pid_t tid, const struct row_key *key, enum note_purpose purpose)
{
    if (tid == 0)
        return;
    pthread_mutex_lock(&notes->lock);
    struct slot *slot = find(notes, tid);
    if (!slot) {
        struct slot *set = notes->slots[(unsigned)tid % SETS];
        slot = &set[0];
        for (size_t k = 1; k < WAYS && slot->tid != 0; k++)
            if (set[k].tid == 0 || set[k].until < slot->until)
                slot = &set[k];
    }
    slot_clear(notes, slot);
    *slot = (struct slot){
        .tid = tid, .until = clock_now_ms() + notes->life_ms, .note = {.purpose = purpose, .key = *key}};
    __atomic_store_n(&notes->used, notes->used + 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&notes->lock);
}

static struct note copy_of(struct notes *notes, const struct slot *slot)
{
    struct note note = slot->note;
    if (clock_now_ms() - slot->told > NOTE_MS) {
        note.document = NULL;
        note.media = NULL;
    }
    if (note.node)
        node_ref(notes->nodes, note.node);
    document_ref(note.document);
    media_revision_ref(note.media);
    return note;
}

static struct note get(struct notes *notes, pid_t tid, const struct row_key *key, bool take)
{
    struct note note = {0};
    if (__atomic_load_n(&notes->used, __ATOMIC_RELAXED) == 0)
        return note;
    pthread_mutex_lock(&notes->lock);
    struct slot *slot = find(notes, tid);
    if (slot && same_row(&slot->note.key, key)) {
        note = copy_of(notes, slot);
        if (take)
            slot_clear(notes, slot);
    }
    pthread_mutex_unlock(&notes->lock);
    return note;
}

struct note notes_find(struct notes *notes, pid_t tid, const struct row_key *key)
{
    return get(notes, tid, key, false);
}

struct note notes_take(struct notes *notes, pid_t tid, const struct row_key *key)
{
    return get(notes, tid, key, true);
}

void notes_answered(struct notes *notes, pid_t tid, const struct row_key *key, struct node *node,
                    struct document *document)
{
    pthread_mutex_lock(&notes->lock);
    struct slot *slot = find(notes, tid);
    if (slot && same_row(&slot->note.key, key)) {
        answered(notes, slot);
        if (node && slot->note.node != node) {
            node_ref(notes->nodes, node);
            node_unref(notes->nodes, slot->note.node);
            slot->note.node = node;
        }
        if (document && slot->note.document != document) {
            document_unref(slot->note.document);
            slot->note.document = document_ref(document);
        }
    }
    pthread_mutex_unlock(&notes->lock);
}

void notes_answered_media(struct notes *notes, pid_t tid, const struct row_key *key, uint64_t nodeid,
                          uint64_t ino, struct media_revision *revision)
{
    if (__atomic_load_n(&notes->used, __ATOMIC_RELAXED) == 0)
        return;
    pthread_mutex_lock(&notes->lock);
    struct slot *slot = find(notes, tid);
    if (slot && same_row(&slot->note.key, key)) {
        answered(notes, slot);
        media_revision_ref(revision);
        media_revision_unref(slot->note.media);
        slot->note.media = revision;
        slot->note.nodeid = nodeid;
        slot->note.ino = ino;
    }
    pthread_mutex_unlock(&notes->lock);
}
