/*
 * Who lists a .meta and looks at each name, as `ls -l` does, asks for one document after the other: while a
 * thread has the listing open, its lookups are answered from pages, each one query for many documents.
 *
 * The size and the time that it is shown may so be as old as the page, which is no longer used than the
 * kernel may believe anything. A text is never: who opens such a document is sent to look it up again
 * (-ESTALE), and the thread asks for one document at a time from then on. What this mount saves drops all
 * pages.
 */
#include <string.h>

#include "media/meta.h"
#include "tree/tree_meta.h"

struct meta_pages {
    struct list_entry open; /* in tree->meta_pages; all below under tree->lock, too */
    uint64_t folder;        /* nodeid of the .meta */
    pid_t tid;              /* the thread that lists; 0 = none yet, or it opens what it finds */
    uint64_t *inos;         /* owned: the files that were listed, in that order */
    size_t n;
    size_t at; /* where the last one was found: the next is looked for there first */
    struct media_meta_page
        *page; /* a reference, NULL = none: of the files first to first + MEDIA_META_PAGE */
    size_t first;
    int64_t asked; /* clock_now_ms() before the page was */
};

static void drop_page(struct meta_pages *pages)
{
    media_meta_page_unref(pages->page);
    pages->page = NULL;
}

int meta_pages_open(struct tree *tree, uint64_t folder, struct meta_pages **out)
{
    struct meta_pages *pages = calloc(1, sizeof *pages);
    if (!pages)
        return -ENOMEM;
    pages->folder = folder;
    pthread_mutex_lock(&tree->lock);
    list_add(&tree->meta_pages, &pages->open);
    pthread_mutex_unlock(&tree->lock);
    *out = pages;
    return 0;
}

void meta_pages_close(struct tree *tree, struct meta_pages *pages)
{
    if (!pages)
        return;
    pthread_mutex_lock(&tree->lock);
    list_remove(&pages->open);
    pthread_mutex_unlock(&tree->lock);
    drop_page(pages);
    free(pages->inos);
    free(pages);
}

void meta_pages_listed(struct tree *tree, const struct caller *caller, struct meta_pages *pages,
                       const struct media_names *names)
{
    struct place place;
    size_t n = 0;
    uint64_t *inos = malloc(names->n * sizeof *inos + 1); /* without memory each is asked for alone */
    for (size_t i = 0; inos && i < names->n; i++)
        if (!names->list[i].folder && address_parse(names->list[i].ino, &place))
            inos[n++] = place.number;
    pthread_mutex_lock(&tree->lock);
    drop_page(pages);
    free(pages->inos);
    pages->inos = inos;
    pages->n = n;
    pages->at = 0;
    pages->tid = caller->tid;
    pthread_mutex_unlock(&tree->lock);
}

/* Under the lock: the listing of a folder that a thread has open, and goes through. */
static struct meta_pages *pages_of(struct tree *tree, uint64_t folder, pid_t tid)
{
    for (struct list_entry *l = tree->meta_pages; tid && l; l = l->next) {
        struct meta_pages *pages = MAP_ELEMENT(l, struct meta_pages, open);
        if (pages->folder == folder && pages->tid == tid)
            return pages;
    }
    return NULL;
}

/* Under the lock: where a file is in the listing; false when it is not there. */
static bool find_ino(struct meta_pages *pages, uint64_t ino)
{
    for (size_t i = 0; i < pages->n; i++) {
        size_t at = (pages->at + i) % pages->n;
        if (pages->inos[at] != ino)
            continue;
        pages->at = at;
        return true;
    }
    return false;
}

/* Under the lock: whether the file at `at` is in a page that may still be used. */
static bool is_covered(const struct tree *tree, const struct meta_pages *pages)
{
    return pages->page && pages->at >= pages->first && pages->at - pages->first < MEDIA_META_PAGE &&
           clock_now_ms() - pages->asked <= tree->kernel_ms;
}

/* A page that has been fetched is for the lookups that follow, if they still come. */
static void keep(struct tree *tree, uint64_t folder, pid_t tid, uint64_t ino, int64_t asked,
                 struct media_meta_page *page)
{
    pthread_mutex_lock(&tree->lock);
    struct meta_pages *pages = pages_of(tree, folder, tid);
    if (pages && find_ino(pages, ino)) {
        drop_page(pages);
        pages->page = media_meta_page_ref(page);
        pages->first = pages->at;
        pages->asked = asked;
    }
    pthread_mutex_unlock(&tree->lock);
}

int meta_pages_take(struct tree *tree, const struct caller *caller, const struct place *place, uint64_t ino,
                    struct media_meta_page **out, bool *outdated, struct fail *f)
{
    uint64_t inos[MEDIA_META_PAGE], folder = address_meta(place->key.region, place->number);
    int64_t asked = clock_now_ms();
    size_t n = 0;
    pthread_mutex_lock(&tree->lock);
    struct meta_pages *pages = pages_of(tree, folder, caller->tid);
    bool listed = pages && find_ino(pages, ino);
    *outdated = listed && is_covered(tree, pages);
    *out = *outdated ? media_meta_page_ref(pages->page) : NULL;
    if (listed && !*outdated) {
        n = pages->n - pages->at < MEDIA_META_PAGE ? pages->n - pages->at : MEDIA_META_PAGE;
        memcpy(inos, pages->inos + pages->at, n * sizeof *inos);
    }
    pthread_mutex_unlock(&tree->lock);
    if (n < 2)
        return 0;
    int r = media_meta_page(tree->media, place->key.region, inos, n, &caller->op, out, f);
    if (r == 0)
        keep(tree, folder, caller->tid, ino, asked, *out);
    return r;
}

void meta_pages_opened(struct tree *tree, const struct caller *caller)
{
    pthread_mutex_lock(&tree->lock);
    for (struct list_entry *l = tree->meta_pages; l; l = l->next) {
        struct meta_pages *pages = MAP_ELEMENT(l, struct meta_pages, open);
        if (pages->tid == caller->tid)
            pages->tid = 0;
    }
    pthread_mutex_unlock(&tree->lock);
}

void meta_pages_saved(struct tree *tree)
{
    pthread_mutex_lock(&tree->lock);
    for (struct list_entry *l = tree->meta_pages; l; l = l->next)
        drop_page(MAP_ELEMENT(l, struct meta_pages, open));
    pthread_mutex_unlock(&tree->lock);
}
