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
    uint64_t rev;        /* the row's rev (docs/data-model.md) */
    uint32_t generation; /* hash of rev, timeline and schema version: a revision number that repeats after a
                            failover is told apart */
    int64_t mtime_us;    /* updated_at, µs since the epoch */
    int64_t content_us;  /* content_at */
    size_t size;         /* bytes of the text */
};

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
