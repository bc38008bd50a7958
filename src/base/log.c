#include "base/log.h"

#include "base/scrub.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

static const char *const level_names[] = {"error", "warning", "info", "debug"};

static _Atomic int current_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

bool log_parse_level(const char *name, enum log_level *out)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static size_t print_head(char *line, size_t size, enum log_level level)
{
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &tm);
    int more = snprintf(line + len, size - len, ".%03ldZ %s ", now.tv_nsec / 1000000, level_names[level]);
    return len + (more > 0 ? (size_t)more : 0);
}

/* Copies with control bytes escaped, so that no message can forge a line, and with what is not UTF-8, which
 * readers of logs may stumble over. Returns the length. */
static size_t print_escaped(char *to, size_t size, const char *from)
{
    static const char hex[] = "0123456789abcdef";
    const unsigned char *p = (const unsigned char *)from, *end = p + strlen(from);
    size_t len = 0;
    for (size_t n; p < end && len + 4 < size; p += n ? n : 1) {
        n = utf8_sequence(p, (size_t)(end - p));
        if (n > 0 && *p >= 0x20 && *p != 0x7f) {
            memcpy(to + len, p, n);
            len += n;
        } else if (*p == '\n') {
            to[len++] = '\\';
            to[len++] = 'n';
        } else {
            to[len++] = '\\';
            to[len++] = 'x';
            to[len++] = hex[*p >> 4];
            to[len++] = hex[*p & 15];
        }
    }
    return len;
}

/* One write() a line: lines of several threads or processes do not mix. */
static void log_line(enum log_level level, const char *format, va_list args)
{
    if ((int)level > atomic_load_explicit(&current_level, memory_order_relaxed))
        return;
    int saved = errno;
    char text[LINE_MAX_BYTES], line[LINE_MAX_BYTES];
    errno = saved; /* for %m */
    vsnprintf(text, sizeof text, format, args);
    scrub_secrets(text, strlen(text));
    size_t len = print_head(line, sizeof line, level);
    len += print_escaped(line + len, sizeof line - 1 - len, text);
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* nowhere left to complain */
    errno = saved;
}

#define DEFINE_LEVEL(function, level)                                                                        \
    void function(const char *format, ...)                                                                   \
    {                                                                                                        \
        va_list args;                                                                                        \
        va_start(args, format);                                                                              \
        log_line(level, format, args);                                                                       \
        va_end(args);                                                                                        \
    }

DEFINE_LEVEL(log_error, LOG_LEVEL_ERROR)
DEFINE_LEVEL(log_warning, LOG_LEVEL_WARNING)
DEFINE_LEVEL(log_info, LOG_LEVEL_INFO)
DEFINE_LEVEL(log_debug, LOG_LEVEL_DEBUG)
