/*
 * The engine of revision inodes (docs/architecture.md). An operation on a nodeid that is not what the caller
 * should have is answered ESTALE; the kernel then walks the path once more, and the LOOKUP that it makes must
 * answer that one thread with something of its own: a draft to write, a copy to move away, the newest
 * revision to read. A note remembers what a thread came for as long as that may take. Bounded: four threads
 * of equal hash at a time. Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "entity/document.h"
#include "media/revision.h"
#include "tree/node.h"

enum note_purpose { NOTE_NONE, NOTE_READ, NOTE_WRITE, NOTE_MOVE };

struct note {
    enum note_purpose purpose;
    struct row_key key;
    bool looked;                  /* a LOOKUP has come since */
    struct node *node;            /* a reference: what LOOKUP answered; NULL before, and for NOTE_READ */
    struct document *document;    /* a reference: what LOOKUP answered to a reader */
    struct media_revision *media; /* the same for a file of media, under these numbers */
    uint64_t nodeid, ino;
};

struct notes;

/* Borrows the table of nodes. `walk_ms`: how long a LOOKUP may take. */
struct notes *notes_new(struct nodes *nodes, int64_t walk_ms);
void notes_free(struct notes *notes);

/* Replaces what the thread came for; nothing for thread 0, which may be anybody. */
void notes_leave(struct notes *notes, pid_t tid, const struct row_key *key, enum note_purpose purpose);

/* What the thread came for with that row: a copy with references of the caller's (note_clear); purpose
 * NOTE_NONE when there is nothing. */
struct note notes_find(struct notes *notes, pid_t tid, const struct row_key *key);
/* The same, and forgets it. */
struct note notes_take(struct notes *notes, pid_t tid, const struct row_key *key);
/* Notes what LOOKUP answered; takes references of its own. Nothing when the note is gone. */
void notes_answered(struct notes *notes, pid_t tid, const struct row_key *key, struct node *node,
                    struct document *document);

/* The same for a revision of a file of media; cheap while no thread comes back for anything. */
void notes_answered_media(struct notes *notes, pid_t tid, const struct row_key *key, uint64_t nodeid,
                          uint64_t ino, struct media_revision *revision);

void note_clear(struct notes *notes, struct note *note);
