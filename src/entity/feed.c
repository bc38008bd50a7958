#include "entity/feed.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum {
    BATCH_MAX = 4096, /* changes that wait to be told; more, and everything has changed */
    AGAIN_MS = 50,
    ASKS_A_TTL = 5, /* twice as many halves: asked every 2/5 of cache_ttl */
};

struct batch {
    struct noted changes[BATCH_MAX];
    size_t n;
    bool everything;
};

struct feed {
    struct freshness *fresh;
    const struct config *config;
    feed_listener listener;
    void *arg;
    pthread_t thread;

    pthread_mutex_t lock; /* guards these; innermost */
    pthread_cond_t noted; /* a change, or the end */
    struct batch *waiting;
    bool up; /* the last question was answered in time */
    bool stopping;

    /* The thread's own. */
    struct batch *now, *newer, *older; /* being told, told since the last round, told in the one before */
    int64_t ask_at, again_at;
};

static void batch_add(struct batch *batch, const struct noted *change)
{
    if (batch->n == BATCH_MAX)
        batch->everything = true;
    else
        batch->changes[batch->n++] = *change;
}

static void batch_append(struct batch *to, const struct batch *from)
{
    for (size_t i = 0; i < from->n && !to->everything; i++)
        batch_add(to, &from->changes[i]);
    to->everything = to->everything || from->everything;
}

static void batch_clear(struct batch *batch)
{
    batch->n = 0;
    batch->everything = false;
}

static bool batch_is_empty(const struct batch *batch)
{
    return batch->n == 0 && !batch->everything;
}

/* Called by whoever asked the question. */
static void note(void *arg, const struct noted *change)
{
    struct feed *feed = arg;
    pthread_mutex_lock(&feed->lock);
    batch_add(feed->waiting, change);
    pthread_cond_signal(&feed->noted);
    pthread_mutex_unlock(&feed->lock);
}

static void tell_folder(void *arg, const struct noted *change)
{
    struct feed *feed = arg;
    feed->listener(feed->arg, change, 1);
}

static void tell(struct feed *feed, const struct batch *batch)
{
    if (batch->everything)
        freshness_each_folder(feed->fresh, tell_folder, feed);
    else if (batch->n > 0)
        feed->listener(feed->arg, batch->changes, batch->n);
}

static void swap(struct batch **a, struct batch **b)
{
    struct batch *c = *a;
    *a = *b;
    *b = c;
}

/* What has been told is told once more, one to two rounds later. */
static void tell_again(struct feed *feed)
{
    tell(feed, feed->older);
    batch_clear(feed->older);
    swap(&feed->older, &feed->newer);
    feed->again_at =
        batch_is_empty(feed->older) && batch_is_empty(feed->newer) ? INT64_MAX : clock_now_ms() + AGAIN_MS;
}

static void set_up(struct feed *feed, bool up)
{
    pthread_mutex_lock(&feed->lock);
    if (feed->up && !up)
        feed->waiting->everything = true;
    feed->up = up;
    pthread_mutex_unlock(&feed->lock);
}

/* While nobody has been told anything that he may still believe, nobody asks. */
static void ask(struct feed *feed)
{
    int64_t ttl = feed->config->cache_ttl_ms, now = clock_now_ms();
    feed->ask_at = now + ttl * 2 / ASKS_A_TTL;
    if (now - freshness_used_at(feed->fresh) > FEED_KEPT_MS + ttl)
        return;
    struct op op = op_within(ttl);
    set_up(feed, freshness_renew_unused(feed->fresh, &op, NULL) == 0);
}

/* Waits for a change or the next thing to do; takes what is to be told into `now`. False at the end. */
static bool wait(struct feed *feed)
{
    int64_t until_ms = feed->ask_at < feed->again_at ? feed->ask_at : feed->again_at;
    struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    pthread_mutex_lock(&feed->lock);
    while (!feed->stopping && batch_is_empty(feed->waiting) &&
           pthread_cond_clockwait(&feed->noted, &feed->lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT)
        ;
    bool go_on = !feed->stopping;
    swap(&feed->waiting, &feed->now);
    pthread_mutex_unlock(&feed->lock);
    return go_on;
}

static void *feed_main(void *arg)
{
    struct feed *feed = arg;
    while (wait(feed)) {
        if (!batch_is_empty(feed->now)) {
            tell(feed, feed->now);
            batch_append(feed->newer, feed->now);
            batch_clear(feed->now);
            if (feed->again_at == INT64_MAX)
                feed->again_at = clock_now_ms() + AGAIN_MS;
        }
        if (clock_now_ms() >= feed->again_at)
            tell_again(feed);
        if (clock_now_ms() >= feed->ask_at)
            ask(feed);
    }
    return NULL;
}

static void feed_free(struct feed *feed)
{
    pthread_cond_destroy(&feed->noted);
    pthread_mutex_destroy(&feed->lock);
    free(feed->waiting);
    free(feed->now);
    free(feed->newer);
    free(feed->older);
    free(feed);
}

int feed_start(struct freshness *fresh, const struct config *config, feed_listener listener, void *arg,
               struct feed **out)
{
    struct feed *feed = calloc(1, sizeof *feed);
    if (!feed)
        return -ENOMEM;
    *feed = (struct feed){
        .fresh = fresh, .config = config, .listener = listener, .arg = arg, .again_at = INT64_MAX};
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->noted, NULL);
    struct batch **batches[] = {&feed->waiting, &feed->now, &feed->newer, &feed->older};
    int r = 0;
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
        if (!(*batches[i] = calloc(1, sizeof **batches[i])))
            r = -ENOMEM;
    if (r == 0) {
        freshness_listen(fresh, note, feed);
        r = -pthread_create(&feed->thread, NULL, feed_main, feed);
    }
    if (r < 0) {
        freshness_listen(fresh, NULL, NULL);
        feed_free(feed);
        return r;
    }
    *out = feed;
    return 0;
}

void feed_stop(struct feed *feed)
{
    if (!feed)
        return;
    pthread_mutex_lock(&feed->lock);
    feed->stopping = true;
    pthread_cond_signal(&feed->noted);
    pthread_mutex_unlock(&feed->lock);
    pthread_join(feed->thread, NULL);
    freshness_listen(feed->fresh, NULL, NULL);
    feed_free(feed);
}

int64_t feed_kept_ms(struct feed *feed)
{
    if (!feed)
        return 0;
    pthread_mutex_lock(&feed->lock);
    bool up = feed->up;
    pthread_mutex_unlock(&feed->lock);
    int64_t age = clock_now_ms() - freshness_asked_at(feed->fresh);
    return up && age <= feed->config->cache_ttl_ms ? FEED_KEPT_MS : 0;
}
