#include "entity/feed.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    BATCH_MAX = 8192, /* changes that wait to be told; more, and everything has changed */
    ASKS_A_TTL = 5,   /* twice as many halves: asked every 2/5 of cache_ttl */
    ROUNDS = 2,
};

/* How often what has been told is told once more. */
static const int64_t round_ms[ROUNDS] = {50, 450};

struct batch {
    struct row_change changes[BATCH_MAX];
    size_t n;
    bool everything;
};

/* What is to be told once more: told since the last time, and in the one before. */
struct round {
    struct batch *newer, *older;
    int64_t at; /* clock_now_ms(); INT64_MAX = there is nothing */
};

struct feed {
    struct freshness *fresh;
    const struct config *config;
    feed_listener listener;
    void *arg;
    struct follow *follow; /* NULL with feed = poll */
    pthread_t thread;

    pthread_mutex_t lock; /* guards these; innermost */
    pthread_cond_t noted; /* a change, or the end */
    struct batch *waiting;
    bool up;  /* the last question was answered in time, or changes are streamed */
    bool due; /* to be asked for at once */
    bool stopping;

    /* The thread's own. */
    struct batch *now; /* being told */
    struct round rounds[ROUNDS];
    int64_t ask_at;
};

static void batch_add(struct batch *batch, const struct row_change *change)
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

/* Called by whoever learned of it. */
static void note(void *arg, const struct row_change *change)
{
    struct feed *feed = arg;
    pthread_mutex_lock(&feed->lock);
    batch_add(feed->waiting, change);
    pthread_cond_signal(&feed->noted);
    pthread_mutex_unlock(&feed->lock);
}

/* For freshness_each_folder(). */
struct telling {
    struct feed *feed;
    unsigned times;
};

static void tell_folder(void *arg, const struct row_change *change)
{
    const struct telling *telling = arg;
    telling->feed->listener(telling->feed->arg, change, 1, telling->times);
}

static void tell(struct feed *feed, const struct batch *batch, unsigned times)
{
    struct telling telling = {feed, times};
    if (batch->everything)
        freshness_each_folder(feed->fresh, tell_folder, &telling);
    else if (batch->n > 0)
        feed->listener(feed->arg, batch->changes, batch->n, times);
}

static void swap(struct batch **a, struct batch **b)
{
    struct batch *c = *a;
    *a = *b;
    *b = c;
}

/* What has been told is told once more, one to two intervals later. */
static void tell_again(struct feed *feed, unsigned i)
{
    struct round *round = &feed->rounds[i];
    tell(feed, round->older, i + 1);
    batch_clear(round->older);
    swap(&round->older, &round->newer);
    round->at = batch_is_empty(round->older) ? INT64_MAX : clock_now_ms() + round_ms[i];
}

static void tell_now(struct feed *feed)
{
    int64_t now = clock_now_ms();
    tell(feed, feed->now, 0);
    for (size_t i = 0; i < ROUNDS; i++) {
        batch_append(feed->rounds[i].newer, feed->now);
        if (feed->rounds[i].at == INT64_MAX)
            feed->rounds[i].at = now + round_ms[i];
    }
    batch_clear(feed->now);
}

static void set_up(struct feed *feed, bool up)
{
    pthread_mutex_lock(&feed->lock);
    if (feed->up && !up)
        feed->waiting->everything = true;
    feed->up = up;
    pthread_mutex_unlock(&feed->lock);
}

/* Called by who follows the stream. */
static void ask_now(void *arg)
{
    struct feed *feed = arg;
    pthread_mutex_lock(&feed->lock);
    feed->due = true;
    pthread_cond_signal(&feed->noted);
    pthread_mutex_unlock(&feed->lock);
}

static bool is_stopping(void *arg)
{
    struct feed *feed = arg;
    pthread_mutex_lock(&feed->lock);
    bool stopping = feed->stopping;
    pthread_mutex_unlock(&feed->lock);
    return stopping;
}

/* While all is streamed, or nobody has been told anything that he may still believe, nobody asks. */
static void ask(struct feed *feed)
{
    int64_t ttl = feed->config->cache_ttl_ms, now = clock_now_ms();
    feed->ask_at = now + ttl * 2 / ASKS_A_TTL;
    if (freshness_is_streamed(feed->fresh)) {
        set_up(feed, true);
        feed->ask_at = INT64_MAX; /* until ask_now() */
        return;
    }
    if (now - freshness_used_at(feed->fresh) > FEED_KEPT_MS + ttl)
        return;
    struct op op = op_within(ttl);
    op.interrupted = is_stopping;
    op.arg = feed;
    set_up(feed, freshness_renew_unused(feed->fresh, &op, NULL) == 0);
}

/* Waits for a change or the next thing to do; takes what is to be told into `now`. False at the end. */
static bool wait(struct feed *feed)
{
    int64_t until_ms = feed->ask_at;
    for (size_t i = 0; i < ROUNDS; i++)
        until_ms = feed->rounds[i].at < until_ms ? feed->rounds[i].at : until_ms;
    pthread_mutex_lock(&feed->lock);
    while (!feed->stopping && !feed->due && batch_is_empty(feed->waiting) &&
           wait_until(&feed->noted, &feed->lock, until_ms))
        ;
    bool go_on = !feed->stopping;
    swap(&feed->waiting, &feed->now);
    if (feed->due || (feed->ask_at == INT64_MAX && !batch_is_empty(feed->now)))
        feed->ask_at = 0; /* a stream that is lost has everything told */
    feed->due = false;
    pthread_mutex_unlock(&feed->lock);
    return go_on;
}

static void *feed_main(void *arg)
{
    struct feed *feed = arg;
    pthread_setname_np(pthread_self(), "feed");
    while (wait(feed)) {
        if (!batch_is_empty(feed->now))
            tell_now(feed);
        for (size_t i = 0; i < ROUNDS; i++)
            if (clock_now_ms() >= feed->rounds[i].at)
                tell_again(feed, (unsigned)i);
        if (clock_now_ms() >= feed->ask_at)
            ask(feed);
    }
    return NULL;
}

static void feed_free(struct feed *feed)
{
    pthread_cond_destroy(&feed->noted);
    pthread_mutex_destroy(&feed->lock);
    for (size_t i = 0; i < ROUNDS; i++) {
        free(feed->rounds[i].newer);
        free(feed->rounds[i].older);
    }
    free(feed->waiting);
    free(feed->now);
    free(feed);
}

static bool feed_allocate(struct feed *feed)
{
    feed->waiting = calloc(1, sizeof *feed->waiting);
    feed->now = calloc(1, sizeof *feed->now);
    bool complete = feed->waiting && feed->now;
    for (size_t i = 0; i < ROUNDS; i++) {
        struct round *round = &feed->rounds[i];
        *round = (struct round){calloc(1, sizeof *round->newer), calloc(1, sizeof *round->older), INT64_MAX};
        complete = complete && round->newer && round->older;
    }
    return complete;
}

int feed_start(struct shard *shard, struct freshness *fresh, const struct config *config,
               feed_listener listener, void *arg, struct feed **out)
{
    struct feed *feed = calloc(1, sizeof *feed);
    if (!feed)
        return -ENOMEM;
    *feed = (struct feed){.fresh = fresh, .config = config, .listener = listener, .arg = arg};
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->noted, NULL);
    int r = feed_allocate(feed) ? 0 : -ENOMEM;
    if (r == 0) {
        freshness_listen(fresh, note, feed);
        r = -pthread_create(&feed->thread, NULL, feed_main, feed);
    }
    if (r < 0) {
        freshness_listen(fresh, NULL, NULL);
        feed_free(feed);
        return r;
    }
    if (!config->feed_poll)
        r = follow_start(shard, fresh, config, ask_now, feed, &feed->follow);
    if (r < 0)
        feed_stop(feed);
    else
        *out = feed;
    return r;
}

void feed_ending(struct feed *feed)
{
    if (!feed)
        return;
    follow_ending(feed->follow);
    pthread_mutex_lock(&feed->lock);
    feed->stopping = true;
    pthread_cond_signal(&feed->noted);
    pthread_mutex_unlock(&feed->lock);
}

void feed_stop(struct feed *feed)
{
    if (!feed)
        return;
    feed_ending(feed);
    follow_stop(feed->follow);
    pthread_join(feed->thread, NULL);
    freshness_listen(feed->fresh, NULL, NULL);
    feed_free(feed);
}

int feed_renew(struct feed *feed, const struct op *op, struct fail *f)
{
    if (feed->follow && freshness_is_streamed(feed->fresh) && freshness_ensure(feed->fresh, op, f) == 0 &&
        follow_catch_up(feed->follow, op))
        return 0;
    return freshness_renew(feed->fresh, op, f);
}

static bool is_up(struct feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    bool up = feed->up;
    pthread_mutex_unlock(&feed->lock);
    return up && clock_now_ms() - freshness_known_at(feed->fresh) <= feed->config->cache_ttl_ms;
}

int64_t feed_kept_ms(struct feed *feed)
{
    return feed && is_up(feed) ? FEED_KEPT_MS : 0;
}

void feed_report(struct feed *feed, struct feed_report *report)
{
    *report = (struct feed_report){
        .state = freshness_is_streamed(feed->fresh) ? FEED_STREAMING
                 : is_up(feed)                      ? FEED_POLLING
                                                    : FEED_DOWN,
        .follow = {.lag_bytes = -1},
    };
    if (feed->follow)
        follow_report(feed->follow, &report->follow);
    else
        snprintf(report->follow.reason, sizeof report->follow.reason, "feed = poll");
    if (report->state != FEED_STREAMING && report->follow.streaming)
        snprintf(report->follow.reason, sizeof report->follow.reason,
                 "the stream is late, or transactions that were under way when it began have not ended");
}
