/*
 * Log lines on standard error (under a supervisor) or the log file: "time level context: message". Passwords
 * and card numbers are blanked in every line (base/scrub.h), control bytes and what is not UTF-8 are escaped,
 * a line is at most 4 KiB.
 */
#pragma once

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);
/* Parses a level's name; false when there is none of that name. */
bool log_parse_level(const char *name, enum log_level *out);

__attribute__((format(printf, 1, 2))) void log_error(const char *format, ...);
__attribute__((format(printf, 1, 2))) void log_warning(const char *format, ...);
__attribute__((format(printf, 1, 2))) void log_info(const char *format, ...);
__attribute__((format(printf, 1, 2))) void log_debug(const char *format, ...);
