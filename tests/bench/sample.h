/*
 * What the bench's programs share: a clock, latencies and their percentiles, and the order in which names are
 * taken. The same pack, count and seed give the same order in every program, so that a SELECT loop and a cat
 * loop go through the very same rows.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t sample_clock_ns(void);

/* `count` different numbers below `n` (all of them when count is larger; *count is corrected) in random
 * order. The caller's to free; NULL when there is no memory. */
uint32_t *sample_order(size_t n, size_t *count, uint64_t seed);

/* Sorts the latencies and prints `"p50_us": …, "p90_us": …, "p99_us": …, "max_us": …`. */
void sample_print(FILE *out, int64_t *latency_ns, size_t n);
