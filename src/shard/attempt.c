#include "shard/shard_private.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static bool attempt_interrupted(void *arg)
{
    const struct attempt *attempt = arg;
    return op_interrupted(attempt->whole) || !pool_ready(attempt->node->pool);
}

void attempt_begin(struct attempt *attempt, const struct op *whole, struct node *node, unsigned percent)
{
    attempt->op.deadline = clock_now_ms() + op_left_ms(whole) * percent / 100;
    attempt->op.interrupted = attempt_interrupted;
    attempt->op.arg = attempt;
    attempt->whole = whole;
    attempt->node = node;
}

void attempt_explain(const struct attempt *attempt, struct fail *why)
{
    if (why->err != EINTR || op_interrupted(attempt->whole))
        return;
    *why = (struct fail){.err = 0};
    if (pool_why_not(attempt->node->pool, why) == 0)
        fail_set(why, EIO, "node %s: was out of use", attempt->node->name);
}

int shard_pause(const struct op *op, int64_t ms)
{
    int64_t until = clock_now_ms() + ms;
    if (until > op->deadline)
        until = op->deadline;
    for (int64_t left; (left = until - clock_now_ms()) > 0;) {
        if (op_interrupted(op))
            return -EINTR;
        int64_t slice = left < 50 ? left : 50;
        nanosleep(&(struct timespec){.tv_nsec = slice * 1000000}, NULL);
    }
    return op_interrupted(op) ? -EINTR : 0;
}
