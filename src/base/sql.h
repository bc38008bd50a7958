/*
 * The files of sql/, embedded at build time (sql/embed.py writes the table).
 */
#pragma once

#include <stddef.h>

struct sql_file {
    const char *name; /* path below sql/, such as "queries/changes.sql"; the last entry has NULL */
    const char *text; /* NUL-terminated */
    size_t len;       /* bytes, without the NUL */
};

/* Sorted by name. */
extern const struct sql_file sql_files[];

/* The text of one file; NULL when there is none of that name. Borrowed, lives for ever. */
const char *sql_text(const char *name);
