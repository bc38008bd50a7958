#include "base/op.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>

int64_t clock_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

struct op op_within(int64_t ms)
{
    return (struct op){.deadline = clock_now_ms() + ms};
}

struct op op_step(const struct op *op, int64_t ms)
{
    struct op step = *op;
    step.deadline = clock_now_ms() + ms;
    return step;
}

int64_t op_left_ms(const struct op *op)
{
    int64_t left = op->deadline - clock_now_ms();
    return left > 0 ? left : 0;
}

bool op_interrupted(const struct op *op)
{
    return op->interrupted && op->interrupted(op->arg);
}

bool wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t until)
{
    struct timespec time = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    return pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &time) != ETIMEDOUT;
}

int op_wait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct op *op)
{
    int64_t slice = clock_now_ms() + OP_SLICE_MS;
    if (op_interrupted(op))
        return -EINTR;
    if (op_left_ms(op) == 0)
        return -EIO;
    wait_until(cond, lock, slice < op->deadline ? slice : op->deadline);
    return 0;
}

void clock_text(char out[CLOCK_TEXT])
{
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t len = strftime(out, CLOCK_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + len, CLOCK_TEXT - len, ".%06ldZ", now.tv_nsec / 1000 % 1000000);
}
