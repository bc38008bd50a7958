/*
 * Drafts that nobody has opened. A LOOKUP whose caller came back may be followed by an open for writing, and
 * is answered with a draft; after access(), chmod() or touch nothing opens it, and the kernel may remember
 * its number for as long as it likes. So only the newest of them keep their texts. Who uses an older one,
 * which takes a descriptor, since the kernel believes nothing of such a name, is served by what is now the
 * row.
 */
#include "tree/unopened.h"

enum { TEXTS_MAX = 1024, BYTES_MAX = 4 << 20 };

struct unopened {
    struct nodes *nodes;
    pthread_mutex_t lock; /* guards all below; innermost */
    struct {
        struct node *node; /* a reference */
        size_t bytes;
    } ring[TEXTS_MAX];
    size_t first, n, bytes;
};

struct unopened *unopened_new(struct nodes *nodes)
{
    struct unopened *unopened = calloc(1, sizeof *unopened);
    if (!unopened)
        return NULL;
    unopened->nodes = nodes;
    pthread_mutex_init(&unopened->lock, NULL);
    return unopened;
}

void unopened_free(struct unopened *unopened)
{
    if (!unopened)
        return;
    pthread_mutex_destroy(&unopened->lock);
    free(unopened); /* the nodes go with their table */
}

/* Takes a reference over. False when there is no room: then *oldest, a reference, has to go first. */
static bool add(struct unopened *unopened, struct node *node, size_t bytes, struct node **oldest)
{
    pthread_mutex_lock(&unopened->lock);
    bool room = unopened->n == 0 || (unopened->n < TEXTS_MAX && unopened->bytes + bytes <= BYTES_MAX);
    size_t first = unopened->first;
    if (room) {
        size_t at = (first + unopened->n++) % TEXTS_MAX;
        unopened->ring[at].node = node;
        unopened->ring[at].bytes = bytes;
        unopened->bytes += bytes;
    } else {
        *oldest = unopened->ring[first].node;
        unopened->bytes -= unopened->ring[first].bytes;
        unopened->first = (first + 1) % TEXTS_MAX;
        unopened->n--;
    }
    pthread_mutex_unlock(&unopened->lock);
    return room;
}

/* What truncate() has written to one is on its way to be saved, or was refused and is kept elsewhere. */
static void give_up(struct unopened *unopened, struct node *node)
{
    pthread_mutex_lock(&node->lock);
    const struct draft *draft = &node->draft;
    bool under_way = draft->dirty && draft->refused != draft->version;
    if (draft->active && node->handles == 0 && !draft->committing && !under_way)
        draft_spend(unopened->nodes, node);
    pthread_mutex_unlock(&node->lock);
    node_unref(unopened->nodes, node);
}

void unopened_add(struct unopened *unopened, struct node *node)
{
    struct node *oldest;
    pthread_mutex_lock(&node->lock);
    size_t bytes = node->content.len;
    pthread_mutex_unlock(&node->lock);
    node_ref(unopened->nodes, node);
    while (!add(unopened, node, bytes, &oldest))
        give_up(unopened, oldest);
}

void unopened_usage(struct unopened *unopened, struct node_usage *usage)
{
    pthread_mutex_lock(&unopened->lock);
    *usage = (struct node_usage){.bytes = unopened->bytes, .files = unopened->n};
    pthread_mutex_unlock(&unopened->lock);
}
