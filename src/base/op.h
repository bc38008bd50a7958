/*
 * What bounds one operation: every wait below the boundary takes its deadline from here, and asks here
 * whether the caller has been interrupted. Borrowed for the length of a call.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct op {
    int64_t deadline;            /* clock_now_ms() when to give up with -EIO; 0 = never allowed */
    bool (*interrupted)(void *); /* NULL = cannot be; true makes reads give up with -EINTR */
    void *arg;
    /* NULL = cannot be; true: whoever waits is being killed, or the mount has ended. What goes on beyond the
     * deadline, as a publication of media does, gives up then with -EINTR, while nothing is done yet. */
    bool (*abandoned)(void *);
    void *waiter; /* abandoned()'s argument */
};

/* CLOCK_MONOTONIC in milliseconds, in microseconds. */
int64_t clock_now_ms(void);
int64_t clock_now_us(void);

/* The time of day as every time of the tree: UTC, microseconds, 27 characters. */
enum { CLOCK_TEXT = 40 };
void clock_text(char out[CLOCK_TEXT]);

/* An operation without an interrupt that may take `ms` from now. */
struct op op_within(int64_t ms);

/* One step of an operation that takes as many as it needs: it may take `ms` from now, and ends as the whole
 * does. */
struct op op_step(const struct op *op, int64_t ms);

/* Milliseconds left, 0 when the deadline has passed. */
int64_t op_left_ms(const struct op *op);

bool op_interrupted(const struct op *op);

/*
 * Waits under the lock for the condition variable (of default attributes: the clock is this call's) until
 * clock_now_ms() is `until`. False when that has passed; true may be for nothing, as always.
 */
bool wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until);

/*
 * As wait_until() by the operation's deadline, and for no longer than OP_SLICE_MS, so that who waits in a
 * loop hears of an interrupt: 0, -EINTR, -EIO once the deadline has passed. Asks `interrupted` under the
 * lock.
 */
enum { OP_SLICE_MS = 50 };
int op_wait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct op *op);
