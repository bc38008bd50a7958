#include "entity/follow.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/utf8.h"
#include "entity/changes.h"
#include "shard/stream.h"

enum {
    SLOT_MS = 60000, /* one attempt at a slot; the server gives up sooner (shard/target.c) */
    ASK_MIN_MS = 20, /* from one sign of life to the next that is asked for */
    ASK_MAX_MS = 2000,
    FRAMES_AT_ONCE = 1000,    /* messages taken before anything else is looked at */
    STALL_MS = 10000,         /* without a word a stream is given up */
    RETRY_MS = 100,           /* after a loss; doubles */
    RETRY_MAX_MS = 5000,      /* and no longer */
    STEADY_MS = 1000,         /* a stream that has lasted so long is begun again at once */
    REFUSED_MS = 30000,       /* where the server does not allow it */
    CATCH_UP_MS = 100,        /* who waits for the present waits no longer */
    CATCH_UP_PAUSE_US = 1000, /* a server that is asked at once again gets to nothing else */
    VISIBLE_ASK_MS = 1000,    /* one question whether a transaction can be seen */
    VISIBLE_PAUSE_MS = 50,    /* between two of them, at most */
    CATCH_UP_ROUNDS = 5,      /* signs of life; on a busy server there is no end of news */
    BUSY_MS = 3, /* news that follow others so soon are let gather for as long, see let_gather() */
};

/* The wait for the present: see catch_up_sign(). */
struct catching_up {
    uint64_t wanted, done; /* calls so far, and those of them that are answered */
    uint64_t now;          /* the last call that is being answered, 0 = none */
    uint64_t lsn;          /* of the last sign of life */
    unsigned rounds;
};

struct follow {
    struct shard *shard;
    struct freshness *fresh;
    const struct config *config;
    void (*ask)(void *arg);
    void *ask_arg;
    pthread_t thread;
    int wake; /* an eventfd: the end, or somebody waits for the present */

    pthread_mutex_t lock; /* guards these; innermost */
    pthread_cond_t came;  /* catching.done has moved, or the stream has ended */
    bool stopping;
    struct catching_up catching;
    struct follow_report report;

    /* The thread's own. */
    struct stream *stream;
    uint32_t timeline; /* of the shard when the attempt began */
    struct changes *changes;
    uint64_t received;        /* all up to there has been dealt with */
    int64_t heard_at, ask_at; /* clock_now_ms() */
    int64_t sign_at_us;       /* clock_now_us() when another sign of life is asked for, 0 = need not be */
    int64_t news_at;          /* clock_now_ms() when there was the last transaction */
    bool busy;                /* it followed another so soon */
    bool counts;              /* as last seen */
    bool began;               /* the last attempt came to a stream */
    char logged[256];         /* the reason that was logged last; "" = that it streams */
    unsigned seed;
};

/* ---- what is known of it ---- */

static bool is_stopping(struct follow *follow)
{
    pthread_mutex_lock(&follow->lock);
    bool stopping = follow->stopping;
    pthread_mutex_unlock(&follow->lock);
    return stopping;
}

/* For the waits before the stream: the end, or another primary. */
static bool is_pointless(void *arg)
{
    struct follow *follow = arg;
    return is_stopping(follow) || shard_timeline(follow->shard) != follow->timeline;
}

static struct op op_of(struct follow *follow, int64_t ms)
{
    struct op op = op_within(ms);
    op.interrupted = is_pointless;
    op.arg = follow;
    return op;
}

static void say_streaming(struct follow *follow)
{
    pthread_mutex_lock(&follow->lock);
    follow->report.streaming = true;
    follow->report.reason[0] = '\0';
    pthread_mutex_unlock(&follow->lock);
    follow->logged[0] = '\0';
    log_info("shard %s: changes are streamed from node %s", shard_name(follow->shard),
             stream_node(follow->stream));
}

static void say_reason(struct follow *follow, const char *why)
{
    pthread_mutex_lock(&follow->lock);
    snprintf(follow->report.reason, sizeof follow->report.reason, "%.255s", why);
    utf8_clean(follow->report.reason);
    pthread_mutex_unlock(&follow->lock);
}

/* Logged when it is another reason than the last time. */
static void say_not_streaming(struct follow *follow, const struct fail *why)
{
    pthread_mutex_lock(&follow->lock);
    follow->report.losses += follow->report.streaming;
    follow->report.streaming = false;
    follow->report.lag_bytes = -1;
    bool stopping = follow->stopping;
    pthread_mutex_unlock(&follow->lock);
    say_reason(follow, why->message);
    if (stopping || strncmp(follow->logged, why->message, sizeof follow->logged - 1) == 0)
        return;
    snprintf(follow->logged, sizeof follow->logged, "%.255s", why->message);
    log_warning("shard %s: changes are asked for, not streamed: %s", shard_name(follow->shard), why->message);
}

void follow_report(struct follow *follow, struct follow_report *report)
{
    pthread_mutex_lock(&follow->lock);
    *report = follow->report;
    pthread_mutex_unlock(&follow->lock);
}

/* ---- coming to the present ---- */

bool follow_catch_up(struct follow *follow, const struct op *op)
{
    static const uint64_t one = 1;
    int64_t until_ms = clock_now_ms() + CATCH_UP_MS;
    if (until_ms > op->deadline)
        until_ms = op->deadline;
    pthread_mutex_lock(&follow->lock);
    bool possible = follow->report.streaming && write(follow->wake, &one, sizeof one) == sizeof one;
    uint64_t wanted = possible ? ++follow->catching.wanted : 0;
    while (possible && follow->catching.done < wanted && follow->report.streaming)
        possible = wait_until(&follow->came, &follow->lock, until_ms);
    bool done = wanted > 0 && follow->catching.done >= wanted;
    pthread_mutex_unlock(&follow->lock);
    return done;
}

/* True when a sign of life has to be asked for, since somebody waits for one. */
static bool catch_up_begin(struct follow *follow)
{
    struct catching_up *c = &follow->catching;
    pthread_mutex_lock(&follow->lock);
    bool begin = c->now == 0 && c->wanted > c->done;
    if (begin) {
        c->now = c->wanted;
        c->lsn = 0;
        c->rounds = 0;
    }
    pthread_mutex_unlock(&follow->lock);
    return begin;
}

/*
 * A sign of life. The server answers before it looks whether there is news: only two answers in a row from
 * the same place, with time to look between them, show that it had none. (All signs are answers:
 * PGOUTPUT_AHEAD.) True when one more has to be asked for.
 */
static bool catch_up_sign(struct follow *follow, uint64_t lsn)
{
    struct catching_up *c = &follow->catching;
    bool again = false;
    pthread_mutex_lock(&follow->lock);
    if (c->now != 0) {
        again = c->lsn != lsn && ++c->rounds < CATCH_UP_ROUNDS;
        c->lsn = lsn;
    }
    if (c->now != 0 && !again) {
        c->done = c->now;
        c->now = 0;
        pthread_cond_broadcast(&follow->came);
    }
    pthread_mutex_unlock(&follow->lock);
    return again;
}

/* Nobody waits for a stream that has ended. */
static void catch_up_end(struct follow *follow)
{
    pthread_mutex_lock(&follow->lock);
    follow->catching.now = 0;
    pthread_cond_broadcast(&follow->came);
    pthread_mutex_unlock(&follow->lock);
}

/* ---- the stream ---- */

static void reached(struct follow *follow, uint64_t lsn)
{
    if (lsn > follow->received)
        follow->received = lsn;
}

/* Tells when the stream counts no more. */
static void look_at_age(struct follow *follow)
{
    bool counts = freshness_is_streamed(follow->fresh);
    if (follow->counts && !counts)
        follow->ask(follow->ask_arg);
    follow->counts = counts;
}

/*
 * Told before it can be seen, a change would have what is outdated read once more, and believed. While a
 * standby lets it wait for long the stream is silent, and the shard is asked.
 */
static void wait_until_visible(struct follow *follow)
{
    for (int64_t pause = 1; !is_stopping(follow) && stream_is_current(follow->stream); pause *= 2) {
        struct op op = op_of(follow, VISIBLE_ASK_MS);
        if (stream_is_visible(follow->stream, follow->changes->xid, &op))
            return;
        look_at_age(follow);
        pause = pause < VISIBLE_PAUSE_MS ? pause : VISIBLE_PAUSE_MS;
        nanosleep(&(struct timespec){.tv_nsec = pause * 1000000}, NULL);
    }
}

static void take_transaction(struct follow *follow, int64_t sent_us)
{
    const struct changes *changes = follow->changes;
    reached(follow, changes->end_lsn);
    if (changes->n == 0 && !changes->everything)
        return;
    int64_t now = clock_now_ms();
    follow->busy = now - follow->news_at <= BUSY_MS;
    follow->news_at = now;
    wait_until_visible(follow);
    stream_reached(follow->stream, changes->end_lsn); /* before anything is dropped, see freshness.h */
    freshness_apply(follow->fresh, changes);
    pthread_mutex_lock(&follow->lock);
    follow->report.transactions++;
    follow->report.lag_us = sent_us - changes->committed_us;
    pthread_mutex_unlock(&follow->lock);
}

static int ask_for_sign(struct follow *follow, struct fail *f)
{
    int64_t pause = follow->config->cache_ttl_ms * 3 / 5;
    pause = pause < ASK_MIN_MS ? ASK_MIN_MS : pause > ASK_MAX_MS ? ASK_MAX_MS : pause;
    follow->ask_at = clock_now_ms() + pause;
    follow->sign_at_us = 0;
    return replication_confirm(stream_replication(follow->stream), follow->received, true, f);
}

static int take_frame(struct follow *follow, const struct pgoutput_frame *frame, struct fail *f)
{
    if (frame->kind == PGOUTPUT_DATA) {
        int r = changes_read(follow->changes, frame->data, frame->len);
        if (r < 0)
            return fail_set(f, EPROTO, "node %s: a message of the stream that makes no sense",
                            stream_node(follow->stream));
        if (r > 0)
            take_transaction(follow, frame->sent_us);
        return 0;
    }
    reached(follow, frame->lsn);
    stream_heard(follow->stream, frame->lsn);
    if (!follow->sign_at_us && catch_up_sign(follow, frame->lsn)) /* in the pause none was asked for */
        follow->sign_at_us = clock_now_us() + CATCH_UP_PAUSE_US;
    if (frame->reply_wanted)
        return replication_confirm(stream_replication(follow->stream), follow->received, false, f);
    return 0;
}

/* Whether the stream has come to where the primary was a cache_ttl ago. */
static bool is_at_present(struct follow *follow)
{
    int64_t bytes, age = stream_lag(follow->stream, follow->received, &bytes);
    pthread_mutex_lock(&follow->lock);
    follow->report.lag_bytes = bytes;
    pthread_mutex_unlock(&follow->lock);
    return age <= follow->config->cache_ttl_ms;
}

/* What is there now: 0, 1 when there may be more, or why the stream has ended. */
static int take_some(struct follow *follow, struct fail *f)
{
    struct pgoutput_frame frame;
    int taken = 0, r;
    while ((r = replication_read(stream_replication(follow->stream), &frame, f)) > 0) {
        r = take_frame(follow, &frame, f);
        if (r < 0 || ++taken == FRAMES_AT_ONCE)
            break;
    }
    int64_t now = clock_now_ms();
    if (taken > 0)
        follow->heard_at = now;
    if (taken > 0 && is_at_present(follow))
        freshness_stream_alive(follow->fresh, now);
    return r < 0 ? r : taken == FRAMES_AT_ONCE;
}

/*
 * Where many write, who is woken by each of the three messages of each transaction costs the server, which
 * wakes him, more than what they say: they are taken some at a time. Who wants something does not wait for
 * that.
 */
static void let_gather(struct follow *follow)
{
    struct pollfd fd = {.fd = follow->wake, .events = POLLIN};
    pthread_mutex_lock(&follow->lock);
    bool wanted = follow->catching.now != 0;
    pthread_mutex_unlock(&follow->lock);
    if (follow->busy && !wanted)
        poll(&fd, 1, BUSY_MS);
    follow->busy = false;
}

/* Waits for the stream, for who wants something, for the next question's time, or for the stream to be late.
 */
static void wait_for_news(struct follow *follow)
{
    struct replication *replication = stream_replication(follow->stream);
    struct pollfd fds[] = {
        {.fd = replication_socket(replication), .events = replication_events(replication)},
        {.fd = follow->wake, .events = POLLIN},
    };
    int64_t late_at = follow->heard_at + freshness_silence_ms(follow->config) + 1;
    int64_t until = follow->counts && late_at < follow->ask_at ? late_at : follow->ask_at;
    int64_t left_us = (until - clock_now_ms()) * 1000;
    if (follow->sign_at_us && follow->sign_at_us - clock_now_us() < left_us)
        left_us = follow->sign_at_us - clock_now_us();
    left_us = left_us > 0 ? left_us : 0;
    struct timespec left = {.tv_sec = left_us / 1000000, .tv_nsec = left_us % 1000000 * 1000};
    uint64_t woken;
    ppoll(fds, 2, &left, NULL);
    if (fds[1].revents && read(follow->wake, &woken, sizeof woken) < 0)
        return; /* somebody else's, then: it is not blocking */
}

static int run_stream(struct follow *follow, struct fail *f)
{
    for (;;) {
        int more = take_some(follow, f), r = 0;
        if (more < 0)
            return more;
        int64_t now = clock_now_ms();
        if (is_stopping(follow))
            return fail_set(f, EINTR, "the mount ends");
        if (!stream_is_current(follow->stream))
            return fail_set(f, EROFS, "node %s: is not the primary any more", stream_node(follow->stream));
        if (now - follow->heard_at > STALL_MS)
            return fail_set(f, EIO, "node %s: the stream is silent", stream_node(follow->stream));
        look_at_age(follow);
        bool again = follow->sign_at_us && clock_now_us() >= follow->sign_at_us;
        if (catch_up_begin(follow) || again || now >= follow->ask_at)
            r = ask_for_sign(follow, f);
        if (r < 0)
            return r;
        if (!more) {
            let_gather(follow);
            wait_for_news(follow);
        }
    }
}

/* ---- attempts ---- */

/* Everything up to a running stream. */
static int begin_stream(struct follow *follow, struct fail *f)
{
    struct op op = op_of(follow, follow->config->connect_timeout_ms);
    uint64_t newest;
    int r = stream_open(follow->shard, &op, &follow->stream, f);
    if (r < 0)
        return r;
    say_reason(follow, "transactions that are open on the primary, or prepared, are waited for");
    op = op_of(follow, SLOT_MS);
    r = stream_begin(follow->stream, &op, &newest, f);
    if (r < 0)
        return r;
    *follow->changes = (struct changes){.nrelations = 0};
    follow->received = 0;
    follow->sign_at_us = 0;
    follow->heard_at = clock_now_ms();
    follow->ask_at = 0;
    follow->counts = follow->busy = false;
    freshness_stream_begin(follow->fresh, replication_timeline(stream_replication(follow->stream)), newest);
    say_streaming(follow);
    follow->ask(follow->ask_arg);
    return 0;
}

/* From connecting to the loss. */
static void attempt(struct follow *follow, struct fail *f)
{
    follow->timeline = shard_timeline(follow->shard);
    follow->began = begin_stream(follow, f) == 0;
    if (follow->began) {
        run_stream(follow, f);
        say_not_streaming(follow, f);
        catch_up_end(follow);
        freshness_stream_end(follow->fresh);
    } else {
        say_not_streaming(follow, f);
    }
    stream_close(STEAL(follow->stream));
}

/* Whether another try a moment later is of no use: rights, settings and resources of the server. */
static bool is_refused(const struct fail *why)
{
    static const char *const transient[] = {"57P01", "57P02", "57P03", "55P03", "57014"};
    for (size_t i = 0; i < sizeof transient / sizeof *transient; i++)
        if (strcmp(why->sqlstate, transient[i]) == 0)
            return false;
    return *why->sqlstate || why->err == EPERM || why->err == EACCES || why->err == EPROTO;
}

/* Sleeps, unless it is the end. */
static void pause_between(struct follow *follow, int64_t ms)
{
    int64_t until = clock_now_ms() + ms / 2 + rand_r(&follow->seed) % (ms + 1), left;
    uint64_t woken;
    while (!is_stopping(follow) && (left = until - clock_now_ms()) > 0) {
        struct pollfd fd = {.fd = follow->wake, .events = POLLIN};
        if (poll(&fd, 1, (int)left) > 0 && read(follow->wake, &woken, sizeof woken) < 0)
            return;
    }
}

static void *follow_main(void *arg)
{
    struct follow *follow = arg;
    int64_t retry = RETRY_MS;
    pthread_setname_np(pthread_self(), "stream"); /* for top -H */
    while (!is_stopping(follow)) {
        int64_t begun = clock_now_ms();
        struct fail why = {.err = 0};
        attempt(follow, &why);
        /* Without a primary there is nothing to spare: the next one is to be found as soon as it is there. */
        if (why.err == EROFS || (follow->began && clock_now_ms() - begun > STEADY_MS))
            retry = RETRY_MS;
        pause_between(follow, is_refused(&why) ? REFUSED_MS : retry);
        retry = retry * 2 < RETRY_MAX_MS ? retry * 2 : RETRY_MAX_MS;
    }
    return NULL;
}

static void follow_free(struct follow *follow)
{
    if (follow->wake >= 0)
        close(follow->wake);
    pthread_cond_destroy(&follow->came);
    pthread_mutex_destroy(&follow->lock);
    free(follow->changes);
    free(follow);
}

int follow_start(struct shard *shard, struct freshness *fresh, const struct config *config,
                 void (*ask)(void *arg), void *arg, struct follow **out)
{
    struct follow *follow = calloc(1, sizeof *follow);
    if (!follow)
        return -ENOMEM;
    *follow = (struct follow){.shard = shard, .fresh = fresh, .config = config, .ask = ask, .ask_arg = arg};
    pthread_mutex_init(&follow->lock, NULL);
    pthread_cond_init(&follow->came, NULL);
    follow->report.lag_bytes = -1;
    follow->seed = (unsigned)clock_now_ms() ^ (unsigned)(uintptr_t)follow;
    follow->changes = calloc(1, sizeof *follow->changes);
    follow->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int r = !follow->changes ? -ENOMEM : follow->wake < 0 ? -errno : 0;
    if (r == 0)
        r = -pthread_create(&follow->thread, NULL, follow_main, follow);
    if (r < 0) {
        follow_free(follow);
        return r;
    }
    *out = follow;
    return 0;
}

void follow_ending(struct follow *follow)
{
    static const uint64_t one = 1;
    if (!follow)
        return;
    pthread_mutex_lock(&follow->lock);
    follow->stopping = true;
    pthread_mutex_unlock(&follow->lock);
    if (write(follow->wake, &one, sizeof one) < 0)
        log_warning("shard %s: the feed cannot be woken: %s", shard_name(follow->shard),
                    strerrordesc_np(errno));
}

void follow_stop(struct follow *follow)
{
    if (!follow)
        return;
    follow_ending(follow);
    pthread_join(follow->thread, NULL);
    follow_free(follow);
}
