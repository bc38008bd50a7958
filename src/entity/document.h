/*
 * A document: one revision of one row, as its file shows it. It never changes, so that threads share it
 * without a lock and a reader keeps the one it opened.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

/* What stat() shows of a revision. */
struct revision {
    uint64_t rev;     /* the row's rev (docs/data-model.md) */
    uint32_t edition; /* hash of the timeline and of the SQL that renders documents: a rev that repeats after
                         a failover or an upgrade is another revision */
    int64_t mtime_us; /* updated_at, µs since the epoch */
    int64_t content_us; /* content_at */
    size_t size;        /* bytes of the text */
};

/* Tells a row's revisions apart: consecutive ones of an edition have consecutive marks. */
static inline uint64_t revision_mark(const struct revision *revision)
{
    return revision->rev + revision->edition;
}

struct document {
    struct revision revision;
    unsigned references; /* atomic */
    char text[];         /* revision.size bytes and a NUL */
};

/* A new document with room for `size` bytes and one reference; NULL when memory is out. */
struct document *document_new(size_t size);
struct document *document_ref(struct document *document);
/* Gives one reference back; NULL is ignored. */
void document_unref(struct document *document);
DEFINE_CLEANUP(struct document, document_unref)
