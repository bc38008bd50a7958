/*
 * Listings. The offset of a row is its id, so that a listing goes on by key wherever it is resumed, needs one
 * page of memory, and shows every row that was there all the while exactly once. Scratch names follow the
 * rows, as they were when the listing came to them.
 */
#include <stdio.h>
#include <string.h>

#include "tree/tree_by.h"
#include "tree/tree_meta.h"

enum {
    DOTS = 2,         /* "." and "..", before everything else */
    FIRST_PAGE = 128, /* rows: `ls | head` shall not wait for more */
    PAGE_GROWTH = 4,
};
#define SCRATCH_OFFSET (INT64_C(1) << 40) /* beyond the offset of every row */

/*
 * The next page, fetched while the kernel still reads the current one: the database renders on one processor
 * while the listing is laid out on another. One thread a listing at most, which ends with its page.
 */
struct read_ahead {
    pthread_t thread;
    bool running;   /* the thread is to be joined */
    bool cancelled; /* atomic: nobody wants the page any more */
    struct tree *tree;
    struct row_key folder;
    int64_t after;
    size_t limit;
    struct op op;      /* deadline of the request that began it */
    struct page *page; /* owned, the answer, once joined */
    struct fail f;
    int r;
};

struct listing {
    struct read_ahead ahead;
    uint64_t nodeid;
    struct place place;
    struct page *page; /* owned: the rows behind `after`; NULL before the first */
    int64_t after;
    int64_t loaded;             /* clock_now_ms() when the page came */
    size_t limit;               /* rows asked for in the current page */
    size_t index;               /* the row given out last, where the next one is looked for first */
    struct scratch_item *items; /* owned, with references; listed once */
    size_t nitems;
    struct media_names *media; /* owned: of a folder of media, listed once */
    struct meta_pages *meta;   /* owned: of a .meta; NULL for all else */
    struct by_listing *by;     /* owned: of a folder of .by; NULL for all else */
    bool listed;
    bool plus; /* the kernel wants attributes, too */
    char name[NAME_MAX_BYTES + 1];
    struct list_entry open; /* in tree->listings; under tree->lock */
};

int tree_open_folder(struct tree *tree, const struct caller *caller, uint64_t nodeid, struct listing **out)
{
    struct place place;
    struct listing *listing = calloc(1, sizeof *listing);
    (void)caller;
    if (!listing)
        return -ENOMEM;
    bool known = address_parse(nodeid, &place);
    if (!known || place.kind == PLACE_MEDIA_FILE || place.kind == PLACE_BY_LINK ||
        (place.kind == PLACE_NODE && !is_scratch_folder(tree, nodeid, &place))) {
        free(listing);
        return known ? -ENOTDIR : -ESTALE;
    }
    int r = place_is_by(&place)        ? by_listing_new(tree, &place, &listing->by)
            : place.kind == PLACE_META ? meta_pages_open(tree, nodeid, &listing->meta)
                                       : 0;
    if (r < 0) {
        free(listing);
        return r;
    }
    listing->nodeid = nodeid;
    listing->place = place;
    if (listing->by)
        listing->place.key = by_listing_key(listing->by);
    pthread_mutex_lock(&tree->lock);
    list_add(&tree->listings, &listing->open);
    pthread_mutex_unlock(&tree->lock);
    *out = listing;
    return 0;
}

static void items_free(struct tree *tree, struct listing *listing)
{
    for (size_t i = 0; i < listing->nitems; i++)
        node_unref(tree->nodes, listing->items[i].node);
    free(listing->items);
    free(listing->media);
    listing->media = NULL;
    listing->items = NULL;
    listing->nitems = 0;
    listing->listed = false;
}

static bool ahead_cancelled(void *arg)
{
    return __atomic_load_n(&((struct read_ahead *)arg)->cancelled, __ATOMIC_RELAXED);
}

static void *ahead_run(void *arg)
{
    struct read_ahead *ahead = arg;
    ahead->r = store_page(ahead->tree->store, ahead->folder.collection, ahead->folder.region, ahead->after,
                          ahead->limit, &ahead->op, &ahead->page, &ahead->f);
    return NULL;
}

/* Begins to fetch the page behind a full one; when that fails the listing simply asks for it later. */
static void ahead_begin(struct tree *tree, const struct caller *caller, struct listing *listing, size_t limit)
{
    struct read_ahead *ahead = &listing->ahead;
    const struct page *page = listing->page;
    *ahead = (struct read_ahead){.tree = tree,
                                 .folder = listing->place.key,
                                 .limit = limit,
                                 .after = page->rows[page->count - 1].id,
                                 .op = caller->op};
    ahead->op.interrupted = ahead_cancelled;
    ahead->op.arg = ahead;
    ahead->running = pthread_create(&ahead->thread, NULL, ahead_run, ahead) == 0;
}

/* Waits for the thread, not longer than its deadline; cancelled, it ends at once. */
static void ahead_join(struct read_ahead *ahead)
{
    if (ahead->running)
        pthread_join(ahead->thread, NULL);
    ahead->running = false;
}

static void ahead_drop(struct read_ahead *ahead)
{
    __atomic_store_n(&ahead->cancelled, true, __ATOMIC_RELAXED);
    ahead_join(ahead);
    free(ahead->page);
    ahead->page = NULL;
}

/* The page behind a key when it was fetched ahead, and well; false when it has to be asked for. */
static bool ahead_take(struct listing *listing, int64_t after)
{
    struct read_ahead *ahead = &listing->ahead;
    if (!ahead->running)
        return false;
    if (ahead->after != after) {
        ahead_drop(ahead);
        return false;
    }
    ahead_join(ahead);
    if (ahead->r < 0)
        return false;
    listing->page = STEAL(ahead->page);
    listing->limit = ahead->limit;
    return true;
}

void tree_close_folder(struct tree *tree, struct listing *listing)
{
    if (!listing)
        return;
    pthread_mutex_lock(&tree->lock);
    list_remove(&listing->open);
    pthread_mutex_unlock(&tree->lock);
    ahead_drop(&listing->ahead);
    items_free(tree, listing);
    by_listing_free(listing->by);
    meta_pages_close(tree, listing->meta);
    free(listing->page);
    free(listing);
}

void listings_close(struct tree *tree)
{
    while (tree->listings)
        tree_close_folder(tree, MAP_ELEMENT(tree->listings, struct listing, open));
}

/* The folder above; for a scratch folder or one of media, whose way up is the kernel's, its own number. */
static uint64_t parent_of(const struct listing *listing)
{
    const struct row_key *key = &listing->place.key;
    switch (listing->place.kind) {
    case PLACE_REGION:
        return address_place(PLACE_REGIONS, 0, 0);
    case PLACE_COLLECTION:
        return key->region ? address_place(PLACE_REGION, 0, key->region) : address_place(PLACE_ROOT, 0, 0);
    case PLACE_REFUSED:
    case PLACE_DELETED:
        return address_place(PLACE_COLLECTION, key->collection, key->region);
    case PLACE_BY:
    case PLACE_BY_FIELD:
    case PLACE_BY_VALUE:
        return by_listing_parent(listing->by);
    case PLACE_MEDIA:
        return address_place(PLACE_REGION, 0, key->region);
    case PLACE_NODE:
    case PLACE_MEDIA_FOLDER:
    case PLACE_META:
    case PLACE_META_REVISIONS:
        return listing->nodeid;
    case PLACE_REPORTS:
        return address_place(PLACE_CONTROL, 0, 0);
    default:
        return address_place(PLACE_ROOT, 0, 0);
    }
}

/* "." and "..": their numbers are all that is shown. */
static int dot_at(struct listing *listing, off_t offset, struct listed *listed)
{
    *listed = (struct listed){.name = offset == 0 ? "." : "..", .next = offset + 1};
    listed->entry.attr.st_mode = S_IFDIR;
    listed->entry.attr.st_ino = offset != 0   ? parent_of(listing)
                                : listing->by ? by_listing_ino(listing->by)
                                              : listing->nodeid;
    return 1;
}

/* The n-th entry of a folder that is always the same; false behind the last. */
static bool fixed_name(struct tree *tree, const struct place *place, size_t n, char *name, size_t size)
{
    size_t i = 0;
    if (place->kind == PLACE_REGIONS) {
        if (n < tree->config->nregions)
            snprintf(name, size, "%s", tree->config->regions[n].name);
        return n < tree->config->nregions;
    }
    if (place->kind == PLACE_CONTROL) {
        const struct view *view = view_at(n);
        bool reports = !view && (n == 0 || view_at(n - 1));
        if (view || reports)
            snprintf(name, size, "%s", view ? view->name : VIEW_REPORTS);
        return view || reports;
    }
    if (place->kind == PLACE_REPORTS)
        return view_report_name(n, name, size);
    static const char *const root[] = {"README", "regions"};
    if (place->kind == PLACE_ROOT && n < sizeof root / sizeof root[0]) {
        snprintf(name, size, "%s", root[n]);
        return true;
    }
    n -= place->kind == PLACE_ROOT ? sizeof root / sizeof root[0] : 0;
    for (const struct collection *c = collection_next(NULL); c; c = collection_next(c)) {
        if (c->global != (place->kind == PLACE_ROOT) || !collection_shown(c, tree->config))
            continue;
        if (i++ == n) {
            snprintf(name, size, "%s", c->folder);
            return true;
        }
    }
    if (place->kind == PLACE_REGION && media_shown(tree, place->key.region) && i == n) {
        snprintf(name, size, "%s", MEDIA_FOLDER);
        return true;
    }
    return false;
}

static int fixed_at(struct tree *tree, const struct caller *caller, struct listing *listing, off_t offset,
                    struct listed *listed)
{
    if (!fixed_name(tree, &listing->place, (size_t)offset - DOTS, listing->name, sizeof listing->name))
        return 0;
    *listed = (struct listed){.name = listing->name, .next = offset + 1};
    size_t n = (size_t)offset - DOTS;
    bool reports = listing->place.kind == PLACE_REPORTS;
    if (reports || (listing->place.kind == PLACE_CONTROL && view_at(n))) {
        /* A snapshot is made when one is looked up, not for each listing. */
        listed->entry.attr.st_mode = S_IFREG;
        listed->entry.attr.st_ino = reports ? view_report_ino(n) : view_ino(n);
        return 1;
    }
    int r = tree_lookup(tree, caller, listing->nodeid, listing->name, &listed->entry);
    if (r < 0)
        return r;
    listed->counted = listed->entry.nodeid == tree->readme->nodeid;
    if (listed->counted) /* looked up here; counted again when the kernel takes it */
        tree_forget(tree, listed->entry.nodeid, 1);
    return 1;
}

static int ask_page(struct tree *tree, const struct caller *caller, struct listing *listing, int64_t after,
                    size_t limit)
{
    struct fail f = {0};
    const struct row_key *key = &listing->place.key;
    int r = listing->by ? by_listing_page(tree, caller, listing->by, after, limit, &listing->page, &f)
            : listing->place.kind == PLACE_DELETED
                ? store_deleted_page(tree->store, key->collection, key->region, after, limit, &caller->op,
                                     &listing->page, &f)
                : store_page(tree->store, key->collection, key->region, after, limit, &caller->op,
                             &listing->page, &f);
    if (r == 0)
        listing->limit = limit;
    if (f.err && r < 0 && r != -EINTR) {
        char path[320];
        path_of_name(tree, key, "", path, sizeof path);
        report_add(tree->report, path, &f);
    }
    return r;
}

static size_t grow(const struct tree *tree, size_t limit)
{
    size_t next = limit ? limit * PAGE_GROWTH : FIRST_PAGE;
    return next < tree->config->page_rows ? next : tree->config->page_rows;
}

static int load_page(struct tree *tree, const struct caller *caller, struct listing *listing, int64_t after)
{
    bool goes_on = listing->page != NULL;
    free(listing->page);
    listing->page = NULL;
    size_t limit = grow(tree, listing->limit);
    int r = ahead_take(listing, after) ? 0 : ask_page(tree, caller, listing, after, limit);
    if (r < 0)
        return r;
    listing->after = after;
    listing->index = 0;
    listing->loaded = clock_now_ms();
    if (goes_on && listing->page->count == listing->limit && /* not for `ls | head` */
        listing->place.kind == PLACE_COLLECTION)
        ahead_begin(tree, caller, listing, grow(tree, listing->limit));
    return 0;
}

/* The index of the first row of the page behind a key; the count when there is none. */
static size_t page_find(const struct listing *listing, int64_t after)
{
    const struct page *page = listing->page;
    size_t i = listing->index;
    if (i < page->count && page->rows[i].id <= after &&
        (i + 1 == page->count || page->rows[i + 1].id > after))
        return i + 1;
    size_t low = 0, high = page->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (page->rows[middle].id > after)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/*
 * Whether the page tells what is behind a key: the row of index *i, or with *i its count that there is none.
 * Later than the kernel may believe it, the page is asked for again: a slow reader sees what has changed.
 */
static bool page_tells(const struct tree *tree, const struct listing *listing, int64_t after, size_t *i)
{
    if (!listing->page || listing->after > after || clock_now_ms() - listing->loaded > tree->kernel_ms)
        return false;
    *i = page_find(listing, after);
    return *i < listing->page->count || listing->page->count < listing->limit;
}

static int row_at(struct tree *tree, const struct caller *caller, struct listing *listing, int64_t after,
                  struct listed *listed)
{
    size_t i;
    if (!page_tells(tree, listing, after, &i)) {
        int r = load_page(tree, caller, listing, after);
        if (r < 0)
            return r;
        i = 0;
    }
    if (i >= listing->page->count)
        return 0;
    const struct page_row *row = &listing->page->rows[i];
    struct row_key key = listing->place.key;
    listing->index = i;
    key.id = row->id;
    snprintf(listing->name, sizeof listing->name, "%lld.json", (long long)row->id);
    *listed = (struct listed){.name = listing->name, .next = row->id + DOTS};
    if (listing->by && listing->plus)
        entry_by_link(tree, &key, row->revision.rev, &listed->entry);
    else if (listing->by)
        listed->entry.attr = (struct stat){.st_ino = address_by_link(&key, 0), .st_mode = S_IFLNK};
    else if (listing->place.kind == PLACE_DELETED && listing->plus)
        entry_deleted_listed(tree, &key, &row->revision, &listed->entry);
    else if (listing->place.kind == PLACE_DELETED)
        entry_deleted(tree, &key, &row->revision, &listed->entry);
    else if (listing->plus)
        entry_revision(tree, &key, &row->revision, listing->page->epoch, &listed->entry);
    else
        listed->entry.attr = (struct stat){.st_ino = address_row(&key), .st_mode = S_IFREG};
    return 1;
}

static int scratch_at(struct tree *tree, struct listing *listing, off_t offset, struct listed *listed)
{
    size_t i = offset < SCRATCH_OFFSET ? 0 : (size_t)(offset - SCRATCH_OFFSET);
    if (!listing->listed) {
        tree_sweep(tree);
        int r = scratch_list(tree->scratch, listing->nodeid, &listing->items, &listing->nitems);
        if (r < 0)
            return r;
        listing->listed = true;
    }
    if (i >= listing->nitems)
        return 0;
    struct node *node = listing->items[i].node;
    *listed = (struct listed){
        .name = listing->items[i].name, .next = SCRATCH_OFFSET + (off_t)i + 1, .counted = true};
    listed->entry = (struct entry){.nodeid = node->nodeid};
    attr_node(node, &listed->entry.attr);
    return 1;
}

/* Names of media, as they were when the listing came to them; those that have gone since are left out. */
static int media_at(struct tree *tree, const struct caller *caller, struct listing *listing, off_t offset,
                    struct listed *listed)
{
    int r = 0;
    if (!listing->media && (r = media_list(tree, caller, &listing->place, &listing->media)) == 0 &&
        listing->meta)
        meta_pages_listed(tree, caller, listing->meta, listing->media);
    for (size_t i = (size_t)offset - DOTS; r == 0 && i < listing->media->n; i++) {
        const struct media_name *name = &listing->media->list[i];
        *listed = (struct listed){.name = name->name, .next = (off_t)i + DOTS + 1};
        r = media_list_at(tree, caller, &listing->place, name, listing->plus, &listed->entry);
        if (r == 0)
            return 1;
        r = r == -ENOENT ? 0 : r;
    }
    return r;
}

static int by_at(struct tree *tree, const struct caller *caller, struct listing *listing, off_t offset,
                 struct listed *listed)
{
    int r = by_listing_at(tree, caller, listing->by, (size_t)offset - DOTS, listing->name, listed);
    listed->next += r > 0 ? DOTS : 0;
    return r;
}

/* A listing that starts again shows the names as they are now. */
static void rewind_listing(struct tree *tree, struct listing *listing)
{
    items_free(tree, listing);
    by_listing_rewind(listing->by);
    ahead_drop(&listing->ahead);
    free(listing->page);
    listing->page = NULL;
    listing->limit = 0;
}

int tree_listing_at(struct tree *tree, const struct caller *caller, struct listing *listing, off_t offset,
                    bool plus, struct listed *listed)
{
    listing->plus = plus;
    if (offset < DOTS) {
        if (offset == 0)
            rewind_listing(tree, listing);
        return dot_at(listing, offset, listed);
    }
    switch (listing->place.kind) {
    case PLACE_COLLECTION:
        if (offset < SCRATCH_OFFSET) {
            int r = row_at(tree, caller, listing, offset - DOTS, listed);
            if (r != 0)
                return r;
        }
        return scratch_at(tree, listing, offset, listed);
    case PLACE_MEDIA:
    case PLACE_MEDIA_FOLDER:
        return tree->media ? media_at(tree, caller, listing, offset, listed) : 0;
    case PLACE_META:
        if (tree->media && offset < SCRATCH_OFFSET) {
            int r = media_at(tree, caller, listing, offset, listed);
            if (r != 0)
                return r;
        }
        return scratch_at(tree, listing, offset, listed);
    case PLACE_META_REVISIONS:
        return tree->media ? media_at(tree, caller, listing, offset, listed) : 0;
    case PLACE_BY:
    case PLACE_BY_FIELD:
        return by_at(tree, caller, listing, offset, listed);
    case PLACE_DELETED:
    case PLACE_BY_VALUE:
        return row_at(tree, caller, listing, offset - DOTS, listed);
    case PLACE_REFUSED:
    case PLACE_NODE:
        return scratch_at(tree, listing, offset, listed);
    default:
        return fixed_at(tree, caller, listing, offset, listed);
    }
}

bool tree_listing_waits(const struct tree *tree, const struct listing *listing, off_t offset)
{
    size_t i;
    if (listing->place.kind == PLACE_BY || listing->place.kind == PLACE_BY_FIELD)
        return offset > DOTS && by_listing_waits(listing->by, (size_t)offset - DOTS);
    bool rows = listing->place.kind == PLACE_DELETED || listing->place.kind == PLACE_BY_VALUE ||
                (listing->place.kind == PLACE_COLLECTION && offset < SCRATCH_OFFSET);
    return rows && offset > DOTS && !page_tells(tree, listing, offset - DOTS, &i);
}

void tree_listing_took(struct tree *tree, const struct listed *listed)
{
    struct node *node = listed->counted ? node_get(tree->nodes, listed->entry.nodeid) : NULL;
    if (node)
        node_looked_up(tree->nodes, node);
    node_unref(tree->nodes, node);
}
