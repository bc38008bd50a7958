#include "media/spans.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The first span that ends behind a number. */
static size_t find(const struct spans *spans, int64_t number)
{
    size_t low = 0, high = spans->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spans->list[middle].to > number)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool spans_has(const struct spans *spans, int64_t number)
{
    size_t i = find(spans, number);
    return i < spans->n && spans->list[i].from <= number;
}

bool spans_cover(const struct spans *spans, int64_t from, int64_t to)
{
    size_t i = find(spans, from);
    return from >= to || (i < spans->n && spans->list[i].from <= from && spans->list[i].to >= to);
}

/* Puts `count` spans in the place of `gone` ones from the i-th on. */
static int replace(struct spans *spans, size_t i, size_t gone, const struct span *with, size_t count)
{
    size_t n = spans->n - gone + count;
    if (n > spans->cap) {
        size_t cap = n * 2;
        struct span *list = realloc(spans->list, cap * sizeof(*list));
        if (!list)
            return -ENOMEM;
        spans->list = list;
        spans->cap = cap;
    }
    if (!spans->list)
        return 0;
    memmove(spans->list + i + count, spans->list + i + gone, (spans->n - i - gone) * sizeof(*spans->list));
    memcpy(spans->list + i, with, count * sizeof(*with));
    spans->n = n;
    return 0;
}

int spans_add(struct spans *spans, int64_t from, int64_t to)
{
    if (from >= to)
        return 0;
    size_t i = find(spans, from - 1), last = i; /* what ends at `from` is joined */
    struct span whole = {from, to};
    for (; last < spans->n && spans->list[last].from <= to; last++) {
        whole.from = spans->list[last].from < whole.from ? spans->list[last].from : whole.from;
        whole.to = spans->list[last].to > whole.to ? spans->list[last].to : whole.to;
    }
    return replace(spans, i, last - i, &whole, 1);
}

int spans_remove(struct spans *spans, int64_t from, int64_t to)
{
    if (from >= to)
        return 0;
    size_t i = find(spans, from), last = i, count = 0;
    struct span rest[2];
    for (; last < spans->n && spans->list[last].from < to; last++) {
        if (spans->list[last].from < from)
            rest[count++] = (struct span){spans->list[last].from, from};
        if (spans->list[last].to > to)
            rest[count++] = (struct span){to, spans->list[last].to};
    }
    return replace(spans, i, last - i, rest, count);
}

void spans_clear(struct spans *spans)
{
    free(spans->list);
    *spans = (struct spans){0};
}
