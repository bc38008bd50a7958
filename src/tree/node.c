#include "tree/node.h"

#include "tree/media_draft.h"

#include <string.h>

struct nodes {
    pthread_mutex_t lock; /* guards all below, and every node's counts */
    struct map map;       /* by number */
    uint64_t next;        /* never used again, so generation can stay 0 */
    struct node_limits limits;
    struct node_usage usage;
};

struct nodes *nodes_new(struct node_limits limits)
{
    struct nodes *nodes = calloc(1, sizeof *nodes);
    if (!nodes)
        return NULL;
    pthread_mutex_init(&nodes->lock, NULL);
    nodes->limits = limits;
    nodes->next = 1;
    return nodes;
}

static void destroy(struct node *node)
{
    pthread_cond_destroy(&node->settled);
    pthread_mutex_destroy(&node->lock);
    buf_clear(&node->content);
    free(node->draft.why);
    media_draft_free(node->media);
    media_revision_unref(node->older);
    free(node);
}

void nodes_free(struct nodes *nodes)
{
    if (!nodes)
        return;
    struct map_entry *e;
    while ((e = map_next(&nodes->map, NULL))) {
        map_remove(&nodes->map, e);
        destroy(MAP_ELEMENT(e, struct node, entry));
    }
    map_clear(&nodes->map);
    pthread_mutex_destroy(&nodes->lock);
    free(nodes);
}

static int make(struct nodes *nodes, enum node_kind kind, bool free_of_charge, struct node **out)
{
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return -ENOMEM;
    node->kind = kind;
    node->free_of_charge = free_of_charge;
    node->references = 1;
    pthread_mutex_init(&node->lock, NULL);
    pthread_cond_init(&node->settled, NULL);
    clock_gettime(CLOCK_REALTIME, &node->mtime);
    node->ctime = node->mtime;
    pthread_mutex_lock(&nodes->lock);
    int r = !free_of_charge && nodes->usage.files >= nodes->limits.files ? -ENOSPC : 0;
    if (r == 0) {
        uint64_t number = nodes->next++;
        node->nodeid = node->shown_ino = address_node(number);
        r = map_add(&nodes->map, &node->entry, map_hash_number(node->nodeid));
    }
    if (r == 0 && !free_of_charge)
        nodes->usage.files++;
    pthread_mutex_unlock(&nodes->lock);
    if (r < 0) {
        destroy(node);
        return r;
    }
    *out = node;
    return 0;
}

int node_new(struct nodes *nodes, enum node_kind kind, struct node **out)
{
    return make(nodes, kind, false, out);
}

int node_new_free(struct nodes *nodes, enum node_kind kind, struct node **out)
{
    return make(nodes, kind, true, out);
}

void node_ref(struct nodes *nodes, struct node *node)
{
    pthread_mutex_lock(&nodes->lock);
    node->references++;
    pthread_mutex_unlock(&nodes->lock);
}

/* Unlocks the table, and frees the node when nobody has it any more. */
static void settle(struct nodes *nodes, struct node *node)
{
    bool last = node->references == 0 && node->lookups == 0;
    if (last) {
        map_remove(&nodes->map, &node->entry);
        nodes->usage.files -= !node->free_of_charge;
        nodes->usage.bytes -= node->charged;
    }
    pthread_mutex_unlock(&nodes->lock);
    if (last)
        destroy(node);
}

void node_unref(struct nodes *nodes, struct node *node)
{
    if (!node)
        return;
    pthread_mutex_lock(&nodes->lock);
    node->references--;
    settle(nodes, node);
}

static bool nodeid_equal(const struct map_entry *entry, const void *nodeid)
{
    return MAP_ELEMENT(entry, struct node, entry)->nodeid == *(const uint64_t *)nodeid;
}

/* Under the lock. */
static struct node *find(struct nodes *nodes, uint64_t nodeid)
{
    struct map_entry *entry = map_find(&nodes->map, map_hash_number(nodeid), nodeid_equal, &nodeid);
    return entry ? MAP_ELEMENT(entry, struct node, entry) : NULL;
}

struct node *node_get(struct nodes *nodes, uint64_t nodeid)
{
    pthread_mutex_lock(&nodes->lock);
    struct node *node = find(nodes, nodeid);
    if (node)
        node->references++;
    pthread_mutex_unlock(&nodes->lock);
    return node;
}

void node_looked_up(struct nodes *nodes, struct node *node)
{
    pthread_mutex_lock(&nodes->lock);
    node->lookups++;
    pthread_mutex_unlock(&nodes->lock);
}

void node_forget(struct nodes *nodes, uint64_t nodeid, uint64_t n)
{
    pthread_mutex_lock(&nodes->lock);
    struct node *node = find(nodes, nodeid);
    if (!node) {
        pthread_mutex_unlock(&nodes->lock);
        return;
    }
    node->lookups -= n < node->lookups ? n : node->lookups;
    settle(nodes, node);
}

/* Counts the content's bytes against the scratch space before it grows, and after it shrank. */
static int charge(struct nodes *nodes, struct node *node, size_t size)
{
    int r = 0;
    pthread_mutex_lock(&nodes->lock);
    if (node->free_of_charge) {
        pthread_mutex_unlock(&nodes->lock);
        return 0;
    }
    if (size > node->charged && nodes->usage.bytes + (size - node->charged) > nodes->limits.bytes) {
        r = -ENOSPC;
    } else {
        nodes->usage.bytes += size - node->charged;
        node->charged = size;
    }
    pthread_mutex_unlock(&nodes->lock);
    return r;
}

int node_resize(struct nodes *nodes, struct node *node, size_t size)
{
    int r = node->content.max && size > node->content.max ? -EFBIG : charge(nodes, node, size);
    if (r < 0)
        return r;
    if (size < node->content.len)
        buf_shrink(&node->content, size); /* what is not counted any more is given back, too */
    else
        r = buf_resize(&node->content, size);
    if (r < 0)
        charge(nodes, node, node->content.len);
    return r;
}

int node_write(struct nodes *nodes, struct node *node, const void *data, size_t len, size_t offset)
{
    size_t end = offset + len;
    if (end < offset)
        return -EFBIG;
    if (end > node->content.len) {
        int r = node->content.max && end > node->content.max ? -EFBIG : charge(nodes, node, end);
        if (r < 0)
            return r;
    }
    int r = buf_write_at(&node->content, data, len, offset);
    if (r < 0)
        charge(nodes, node, node->content.len);
    return r;
}

int node_charge(struct nodes *nodes, struct node *node)
{
    int r = 0;
    size_t bytes = node->content.len;
    pthread_mutex_lock(&nodes->lock);
    if (node->free_of_charge &&
        (nodes->usage.files >= nodes->limits.files || nodes->usage.bytes + bytes > nodes->limits.bytes)) {
        r = -ENOSPC;
    } else if (node->free_of_charge) {
        node->free_of_charge = false;
        node->charged = bytes;
        nodes->usage.files++;
        nodes->usage.bytes += bytes;
    }
    pthread_mutex_unlock(&nodes->lock);
    return r;
}

void node_discharge(struct nodes *nodes, struct node *node)
{
    pthread_mutex_lock(&nodes->lock);
    if (!node->free_of_charge) {
        nodes->usage.files--;
        nodes->usage.bytes -= node->charged;
        node->charged = 0;
        node->free_of_charge = true;
    }
    pthread_mutex_unlock(&nodes->lock);
}

bool node_is_charged(struct nodes *nodes, const struct node *node)
{
    pthread_mutex_lock(&nodes->lock);
    bool charged = !node->free_of_charge;
    pthread_mutex_unlock(&nodes->lock);
    return charged;
}

void nodes_usage(struct nodes *nodes, struct node_usage *usage)
{
    pthread_mutex_lock(&nodes->lock);
    *usage = nodes->usage;
    pthread_mutex_unlock(&nodes->lock);
}
