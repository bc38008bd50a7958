#include "base/progress.h"

#include "base/op.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { SHOW_AFTER_MS = 1000, REDRAW_MS = 100, BAR_CELLS = 30 };

void progress_start(struct progress *p, const char *what, uint64_t total)
{
    *p = (struct progress){.what = what, .total = total, .started = clock_now_ms()};
}

static void draw(struct progress *p, uint64_t done, double seconds)
{
    char line[160], bar[BAR_CELLS + 1];
    double rate = seconds > 0 ? (double)done / seconds : 0;
    int width;
    if (p->total) {
        double part = done < p->total ? (double)done / (double)p->total : 1;
        int cells = (int)(part * BAR_CELLS);
        for (int i = 0; i < BAR_CELLS; i++)
            bar[i] = i < cells ? '#' : '.';
        bar[BAR_CELLS] = '\0';
        width = snprintf(line, sizeof line, "%s [%s] %3.0f %%  %" PRIu64 "/%" PRIu64 "  %.0f/s", p->what, bar,
                         part * 100, done, p->total, rate);
    } else {
        width = snprintf(line, sizeof line, "%s %" PRIu64 "  %.0f/s", p->what, done, rate);
    }
    /* Blanks cover what a longer line left behind. */
    fprintf(stderr, "\r%s%*s", line, p->width > width ? p->width - width : 0, "");
    fflush(stderr);
    p->width = width;
}

void progress_update(struct progress *p, uint64_t done)
{
    int64_t now = clock_now_ms();
    if (now - p->started < SHOW_AFTER_MS || now - p->shown < REDRAW_MS || !isatty(STDERR_FILENO))
        return;
    p->shown = now;
    draw(p, done, (double)(now - p->started) / 1000);
}

void progress_end(struct progress *p)
{
    if (p->shown)
        fprintf(stderr, "\r%*s\r", p->width, "");
    p->shown = 0;
}
