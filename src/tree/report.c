#include "tree/report.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/log.h"
#include "base/op.h"
#include "base/scrub.h"

struct report {
    pthread_mutex_t lock; /* guards both */
    struct buf lines;
    size_t limit;
};

struct report *report_new(size_t limit)
{
    struct report *report = calloc(1, sizeof *report);
    if (!report)
        return NULL;
    pthread_mutex_init(&report->lock, NULL);
    report->limit = limit;
    return report;
}

void report_free(struct report *report)
{
    if (!report)
        return;
    buf_clear(&report->lines);
    pthread_mutex_destroy(&report->lock);
    free(report);
}

/* "EINVAL" for 22; "E?" for what the contract does not name. */
static const char *errno_name(int err)
{
    const char *name = strerrorname_np(err);
    return name ? name : "E?";
}

static const char *error_text(int err)
{
    const char *text = strerrordesc_np(err);
    return text ? text : "unknown error";
}

static int add_field(struct buf *line, const char *key, const char *value)
{
    int r = buf_printf(line, ", \"%s\": ", key);
    if (r < 0)
        return r;
    return value && *value ? json_add_string(line, value, strlen(value)) : buf_add_text(line, "null");
}

static int format_line(struct buf *line, const char *path, const struct fail *f)
{
    char now[CLOCK_TEXT];
    clock_text(now);
    int r = buf_printf(line, "{\"time\": \"%s\"", now);
    const char *fields[][2] = {
        {"path", path},
        {"errno", errno_name(f->err)},
        {"sqlstate", f->sqlstate},
        {"constraint", f->constraint},
        {"column", f->column},
        {"message", f->message},
        {"hint", f->hint},
    };
    for (size_t i = 0; r == 0 && i < sizeof fields / sizeof fields[0]; i++)
        r = add_field(line, fields[i][0], fields[i][1]);
    return r < 0 ? r : buf_add_text(line, "}\n");
}

/* Under the lock: drops whole lines from the front until the rest fits. */
static void make_room(struct report *report, size_t needed)
{
    struct buf *lines = &report->lines;
    size_t drop = 0;
    while (lines->len - drop + needed > report->limit && drop < lines->len) {
        const char *end = memchr(lines->data + drop, '\n', lines->len - drop);
        drop = end ? (size_t)(end - lines->data) + 1 : lines->len;
    }
    if (drop == 0)
        return;
    memmove(lines->data, lines->data + drop, lines->len - drop);
    lines->len -= drop;
}

static bool is_failure(int err)
{
    return err == EIO || err == EROFS || err == ETIMEDOUT || err == ENOMEM || err == ENOSPC || err == EACCES;
}

void report_add(struct report *report, const char *path, const struct fail *f)
{
    struct buf line CLEANUP(buf_clear) = {0};
    if (format_line(&line, path, f) < 0)
        return;
    scrub_secrets(line.data, line.len);
    if (is_failure(f->err))
        log_warning("%s: %s: %s", path, errno_name(f->err), f->message);
    else
        log_info("%s: refused, %s: %s", path, errno_name(f->err), f->message);
    pthread_mutex_lock(&report->lock);
    if (line.len <= report->limit) {
        make_room(report, line.len);
        buf_add(&report->lines, line.data, line.len);
    }
    pthread_mutex_unlock(&report->lock);
}

int report_text(struct report *report, struct buf *out)
{
    pthread_mutex_lock(&report->lock);
    int r = report->lines.len ? buf_add(out, report->lines.data, report->lines.len) : 0;
    pthread_mutex_unlock(&report->lock);
    return r;
}

int report_words(const char *path, const struct fail *f, struct buf *out)
{
    char now[CLOCK_TEXT];
    clock_text(now);
    int r = buf_printf(out, "%s: %s (%s)\n%s\n", path, error_text(f->err), errno_name(f->err), f->message);
    if (r == 0 && f->column[0])
        r = buf_printf(out, "field: %s\n", f->column);
    if (r == 0 && f->constraint[0])
        r = buf_printf(out, "constraint: %s\n", f->constraint);
    if (r == 0 && f->sqlstate[0])
        r = buf_printf(out, "SQLSTATE: %s\n", f->sqlstate);
    if (r == 0 && f->hint[0])
        r = buf_printf(out, "hint: %s\n", f->hint);
    if (r == 0)
        r = buf_printf(out, "time: %s\n", now);
    if (r == 0)
        scrub_secrets(out->data, out->len);
    return r;
}
