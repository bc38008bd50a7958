/*
 * Filenames as paths. A region's file lies at media/<filename>, so a filename must be "<course
 * id>/<name>...": the id canonical (no sign, no leading zero, 1 <= id < 2^38), then one name or more, each of
 * 1 to 255 bytes, none "." or "..", none ".meta", no NUL byte, at most MEDIA_FILENAME_MAX bytes in all.
 * Whatever else another driver calls its files is no path and never becomes one. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MEDIA_NAME_MAX = 255 };
#define MEDIA_COURSE_END (INT64_C(1) << 38)

/* Why a filename is no path, in words (static); NULL when it is one. A folder's path may be a course alone.
 */
const char *media_path_wrong(const char *filename, size_t len, bool folder);

/* The course of a path's first name; 0 for a name that is none. `len` bytes of it. */
int64_t media_path_course(const char *name, size_t len);

/* The bytes of the name that a path begins with: up to the next '/' or the end. */
size_t media_path_name(const char *path);
