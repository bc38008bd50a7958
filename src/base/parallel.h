/* Several pieces of blocking work at once, for what asks every server a question. */
#pragma once

#include <stddef.h>

/*
 * Calls work(arg, 0) ... work(arg, n - 1), each on a thread of its own, and returns when all have. Where no
 * thread can be had the call is made here. What the calls share is theirs to lock.
 */
void parallel_run(size_t n, void (*work)(void *arg, size_t index), void *arg);
