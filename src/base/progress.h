/*
 * A progress bar on standard error, for commands that take more than a second: nothing is shown before, nor
 * when standard error is no terminal. One thread at a time.
 */
#pragma once

#include <stdint.h>

struct progress {
    const char *what; /* "users"; borrowed */
    uint64_t total;   /* 0 = not known */
    int64_t started;
    int64_t shown; /* when it was last drawn, 0 = never */
    int width;     /* of the line last drawn */
};

void progress_start(struct progress *p, const char *what, uint64_t total);

/* Tells how much is done in all; draws at most ten times a second. */
void progress_update(struct progress *p, uint64_t done);

/* Wipes the bar. May be called twice. */
void progress_end(struct progress *p);
