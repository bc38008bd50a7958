#include "entity/reports.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/config.h"
#include "base/json.h"
#include "base/parallel.h"

enum {
    PART_SHARE = 60,  /* percent of the time for the parts, the rest is for merging them */
    MERGE_SHARE = 60, /* of what is left, for the first shard that is to merge */
};

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

#define REPORT(name)                                                                                         \
    {                                                                                                        \
        name, {"report_" name, "SELECT report_" name "($1::timestamptz)", 1},                                \
            {"merge_" name, "SELECT merge_" name "($1::jsonb)", 1},                                          \
    }

static const struct report {
    const char *name;
    struct pg_statement part, merge;
} reports[REPORTS] = {
    REPORT("completion_funnel"), REPORT("course_statistics"), REPORT("platform_overview"),
    REPORT("revenue_by_month"),  REPORT("top_courses"),
};

static atomic_uint under_way;

/* What one shard answered; filled by its own thread. */
struct part {
    struct shard *shard;
    struct pg_rows *rows; /* NULL = it did not */
    struct fail why;
};

struct gathering {
    const struct report *report;
    char at[CLOCK_TEXT]; /* this mount's clock: the same months for all */
    struct op op;        /* for the parts */
    struct part parts[CONFIG_MAX_SHARDS];
    size_t n;
};

const char *report_name_at(size_t index)
{
    return index < REPORTS ? reports[index].name : NULL;
}

static void ask_part(void *arg, size_t index)
{
    struct gathering *g = arg;
    struct part *part = &g->parts[index];
    const char *params[] = {g->at};
    if (shard_read(part->shard, &g->report->part, params, &g->op, &part->rows, &part->why) == 0 &&
        (pg_rows_count(part->rows) != 1 || !pg_rows_text(part->rows, 0, 0))) {
        pg_rows_free(STEAL(part->rows));
        fail_set(&part->why, EIO, "shard %s: sent no report", shard_name(part->shard));
    }
}

static void gather(struct gathering *g, struct cluster *cluster, const struct op *op)
{
    g->op = *op;
    g->op.deadline = clock_now_ms() + op_left_ms(op) * PART_SHARE / 100;
    g->n = cluster_shards(cluster);
    for (size_t i = 0; i < g->n; i++)
        g->parts[i].shard = cluster_shard(cluster, i);
    parallel_run(g->n, ask_part, g);
}

/* The parts there are, as one array. */
static int join_parts(const struct gathering *g, struct buf *out)
{
    size_t joined = 0;
    int r = buf_add_char(out, '[');
    for (size_t i = 0; r == 0 && i < g->n; i++)
        if (g->parts[i].rows) {
            r = joined++ ? buf_add_char(out, ',') : 0;
            r = r < 0 ? r : buf_add_text(out, pg_rows_text(g->parts[i].rows, 0, 0));
        }
    return r < 0 ? r : buf_add_char(out, ']');
}

/* On the first shard that answered, or the next. *rows is the caller's. */
static int merge(const struct gathering *g, const struct op *op, struct pg_rows **rows, struct fail *f)
{
    struct buf joined CLEANUP(buf_clear) = {.max = REPORT_BYTES};
    struct fail why = {.err = 0};
    int r = join_parts(g, &joined);
    if (r < 0)
        return fail_set(f, -r, "the parts of the report are too large");
    const char *params[] = {joined.data};
    r = -EIO;
    for (size_t i = 0; r < 0 && i < g->n; i++) {
        struct op part = *op;
        if (!g->parts[i].rows)
            continue;
        part.deadline = clock_now_ms() + op_left_ms(op) * MERGE_SHARE / 100;
        why = (struct fail){.err = 0};
        r = shard_read(g->parts[i].shard, &g->report->merge, params, &part, rows, &why);
    }
    if (r < 0 && f && f->err == 0)
        *f = why;
    return r;
}

static int add_shards(const struct gathering *g, struct buf *out)
{
    int r = buf_add_text(out, ",\"shards\":[");
    for (size_t i = 0; r == 0 && i < g->n; i++) {
        const struct part *part = &g->parts[i];
        const char *name = shard_name(part->shard);
        r = buf_add_text(out, i ? ",{\"name\":" : "{\"name\":");
        if (r == 0)
            r = json_add_string(out, name, strlen(name));
        if (r == 0)
            r = buf_printf(out, ",\"answered\":%s,\"error\":", part->rows ? "true" : "false");
        if (r == 0)
            r = part->rows ? buf_add_text(out, "null")
                           : json_add_string(out, part->why.message, strlen(part->why.message));
        if (r == 0)
            r = buf_add_char(out, '}');
    }
    return r < 0 ? r : buf_add_char(out, ']');
}

static int compose(const struct gathering *g, size_t answered, const char *data, struct buf *out)
{
    struct buf compact CLEANUP(buf_clear) = {.max = REPORT_BYTES};
    int r = buf_printf(&compact, "{\"report\":\"%s\",\"generated_at\":\"%s\",\"partial\":%s", g->report->name,
                       g->at, answered < g->n ? "true" : "false");
    if (r == 0)
        r = add_shards(g, &compact);
    if (r == 0)
        r = buf_printf(&compact, ",\"data\":%s}", data);
    return r < 0 ? r : json_layout(compact.data, compact.len, out);
}

static int render(struct gathering *g, const struct op *op, struct buf *out, struct fail *f)
{
    size_t answered = 0;
    struct pg_rows *merged CLEANUP(pg_rows_freep) = NULL;
    for (size_t i = 0; i < g->n; i++)
        answered += g->parts[i].rows != NULL;
    if (answered == 0)
        return fail_set(f, g->parts[0].why.err == EINTR ? EINTR : EIO, "no shard answered: %.400s",
                        g->parts[0].why.message);
    int r = merge(g, op, &merged, f);
    if (r < 0)
        return r;
    const char *data = pg_rows_count(merged) == 1 ? pg_rows_text(merged, 0, 0) : NULL;
    r = compose(g, answered, data ? data : "null", out);
    return r < 0 ? fail_set(f, -r, "the report cannot be laid out") : 0;
}

int report_render(struct cluster *cluster, size_t index, const struct op *op, struct buf *out, struct fail *f)
{
    struct gathering *g CLEANUP(freep) = calloc(1, sizeof *g);
    if (!g)
        return fail_set(f, ENOMEM, "out of memory");
    if (atomic_fetch_add(&under_way, 1) >= REPORTS_MAX) {
        atomic_fetch_sub(&under_way, 1);
        return fail_set(f, EAGAIN, "%d reports are being made already", REPORTS_MAX);
    }
    g->report = &reports[index];
    clock_text(g->at);
    gather(g, cluster, op);
    int r = render(g, op, out, f);
    atomic_fetch_sub(&under_way, 1);
    for (size_t i = 0; i < g->n; i++)
        pg_rows_free(g->parts[i].rows);
    return r;
}
