/* See sample.h. */
#include "sample.h"

#include <stdlib.h>
#include <time.h>

int64_t sample_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* splitmix64: the same numbers on every machine, which random() does not promise. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t *sample_order(size_t n, size_t *count, uint64_t seed)
{
    uint32_t *order = calloc(n ? n : 1, sizeof *order);
    if (!order)
        return NULL;
    if (*count == 0 || *count > n)
        *count = n;
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = 0; i < *count; i++) {
        size_t j = i + (size_t)(next_random(&seed) % (n - i));
        uint32_t swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
    return order;
}

static int compare_latency(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void sample_print(FILE *out, int64_t *latency_ns, size_t n)
{
    static const struct {
        const char *name;
        unsigned permille;
    } points[] = {{"p50_us", 500}, {"p90_us", 900}, {"p99_us", 990}, {"max_us", 1000}};
    qsort(latency_ns, n, sizeof *latency_ns, compare_latency);
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        size_t at = n * points[i].permille / 1000;
        double us = n ? (double)latency_ns[at < n ? at : n - 1] / 1000 : 0;
        fprintf(out, "%s\"%s\": %.1f", i ? ", " : "", points[i].name, us);
    }
}
