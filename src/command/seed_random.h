/*
 * Numbers that depend on the seed and on what they are for, and on nothing else: no order of calls, no
 * thread, no machine. A stream is opened for one thing (the third course of a shard, say) and drawn from.
 * SplitMix64.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct seed_random {
    uint64_t state;
};

static inline uint64_t seed_random_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The stream of the thing number (a, b) of one kind. */
static inline struct seed_random seed_random_of(uint64_t seed, uint64_t kind, uint64_t a, uint64_t b)
{
    uint64_t s = seed_random_mix(seed + 0x9e3779b97f4a7c15u * (kind + 1));
    s = seed_random_mix(s + 0x9e3779b97f4a7c15u * (a + 1));
    return (struct seed_random){seed_random_mix(s + 0x9e3779b97f4a7c15u * (b + 1))};
}

static inline uint64_t seed_random_next(struct seed_random *r)
{
    r->state += 0x9e3779b97f4a7c15u;
    return seed_random_mix(r->state);
}

/* 0 ... n - 1; 0 when n is not positive. The bias of the remainder is below 2^-20 for all that is drawn here.
 */
static inline int64_t seed_random_below(struct seed_random *r, int64_t n)
{
    uint64_t drawn = seed_random_next(r);
    return n > 0 ? (int64_t)(drawn % (uint64_t)n) : 0;
}

/* Small numbers more often than large ones. */
static inline int64_t seed_random_low(struct seed_random *r, int64_t n)
{
    int64_t a = seed_random_below(r, n), b = seed_random_below(r, n);
    return a < b ? a : b;
}

/* lo ... hi, both included; lo when hi is less. */
static inline int64_t seed_random_within(struct seed_random *r, int64_t lo, int64_t hi)
{
    return lo + seed_random_below(r, hi - lo + 1);
}

static inline bool seed_random_chance(struct seed_random *r, int percent)
{
    return seed_random_below(r, 100) < percent;
}
