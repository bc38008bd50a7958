/* What the files of staging share. */
#pragma once

#include <openssl/evp.h>
#include <pthread.h>

#include "base/list.h"
#include "media/bucket.h"
#include "media/spans.h"
#include "media/staging.h"

#define STAGED_LEASE_LOST "the upload has been swept: its lease was lost"

enum {
    CHUNK_HEAD = 61,             /* bytes of a chunk's document before its data */
    BUFFER_BYTES = 256 * 1024,   /* of a struct buffer: one mapping of whole pages */
    SLOTS_MAX = 2 * GRIDFS_BATCH /* two batches: on its way, to follow it, or being filled */
};

/* One chunk in memory, as the very document that is sent: nothing is copied for it. */
struct buffer {
    struct buffer *next; /* in the list of free ones */
    int64_t n;
    uint32_t len; /* bytes that have been written; what is behind them reads as zeros */
    bool sending; /* handed to the senders: constant until it is gone */
    bool hashed;  /* the checksum has seen it: who is busy may see to the next */
    uint8_t raw[CHUNK_HEAD + GRIDFS_CHUNK + 1];
};
_Static_assert(sizeof(struct buffer) <= BUFFER_BYTES, "a buffer is a mapping");

/* Chunks of a staged file that was given up, to be deleted. */
struct leftover {
    struct leftover *next;
    char *region; /* owned */
    bson_oid_t id;
    int64_t from; /* the first chunk that has not been deleted */
    int64_t end;  /* behind the last chunk that was sent */
};

struct staging {
    struct mongo *mongo; /* borrowed */
    struct staging_options options;

    pthread_mutex_t lock; /* guards all below; before a staged file's */
    pthread_cond_t work;  /* something is in the queue, or all is to end */
    pthread_cond_t freed; /* a buffer is free */
    pthread_cond_t ended; /* the keeper is to end */
    struct staged *queue, **queue_end;
    struct buffer *free;
    size_t nfree, nbuffers, max_buffers;
    struct list_entry *all; /* struct staged */
    struct leftover *leftovers;
    unsigned uploads; /* staged files with an entry in the journal */
    uint64_t sent;
    bool counting; /* somebody counts chunks ahead: one at a time, since it costs the server memory */
    bool stop;
    int64_t stop_at; /* clock_now_ms() of it */
    pthread_t senders[STAGING_SENDERS], keeper;
    unsigned nsenders;
    bool has_keeper;
};

struct staged {
    struct staging *staging;
    char *region, *filename;   /* owned */
    struct list_entry entry;   /* in staging->all; that lock */
    struct staged *queue_next; /* in staging->queue, while something is on its way; that lock */

    pthread_mutex_t lock;   /* guards all below; not held while the database works */
    pthread_cond_t settled; /* busy or sending has ended */
    bool busy;              /* somebody works on the content: only he reads or changes it */
    unsigned sending;       /* buffers handed to the senders; one message at a time */
    int failed;             /* errno of what failed it for good */
    struct fail why;        /* the same in words */
    bool unsure;            /* its publication: what is in the database under its id is the sweep's */
    struct buffer *slots[SLOTS_MAX];
    size_t nslots;
    int64_t used;         /* clock_now_ms() of the last write */
    struct spans sent;    /* chunks whose content is in the database under the new id */
    struct spans touched; /* chunks that may be there, of whatever content */
    bool rehash;          /* what was hashed has changed */

    /* Of who is busy. */
    struct media_revision *base; /* a reference */
    int64_t base_end;            /* bytes of the base that still count */
    struct spans holes;          /* whole chunks below it that do not */
    int64_t length;
    uint8_t *peeked; /* owned: the chunk that was read last, of those not in memory */
    int64_t peeked_n;
    int64_t counted; /* the first so many chunks were found in the database, after they had been sent */
    bool miscounted; /* not all were found, or not in time: nothing is counted ahead any more */

    /* Of who sends: a sender while something is on its way, else who is busy. */
    bool journalled;
    bson_oid_t id;
    struct media_revision *own; /* a reference: how the new id's chunks are read */
    int64_t heartbeat;          /* atomic: clock_now_ms() of the last one */

    /* Of who sends, until all that is on its way has been hashed; then of who is busy. */
    EVP_MD_CTX *sha256; /* owned */
    int64_t hashed;     /* atomic: chunks in it, the first ones, in order */
};

/* staging.c: memory and threads. */

/* A buffer for a staged file that the caller is busy with: waits until one is free, or makes one so by
 * sending what is idle. */
int buffer_get(struct staged *s, int64_t n, const struct op *op, struct buffer **out, struct fail *f);
void buffer_put(struct staging *staging, struct buffer *buffer);
/* Hands the buffers of a staged file to the senders; under no lock. */
void staging_queue(struct staged *s);
/* Whether it is the caller's turn to count chunks ahead; he ends it. */
bool staging_may_count(struct staging *staging);
void staging_has_counted(struct staging *staging);
/* A new upload stands in the journal, or one has left it. */
void staging_count(struct staging *staging, int change);
/* Lets the keeper delete what the new id has in the database, or leaves it to the sweep where nobody knows
 * whether it was published; the staged file has no id afterwards. */
void staging_give_up(struct staged *s);

/* staged.c */
int staged_enter(struct staged *s, const struct op *op, struct fail *f);
void staged_leave(struct staged *s);
/* Waits until nothing is on its way; until at most `most` buffers are. */
int staged_wait_sent(struct staged *s, const struct op *op, struct fail *f);
int staged_wait_sending(struct staged *s, unsigned most, const struct op *op, struct fail *f);
/* The content of chunk n where it is not in memory: `len` bytes of it. */
int staged_load(struct staged *s, int64_t n, uint8_t *out, size_t len, const struct op *op, struct fail *f);
struct buffer *staged_slot(struct staged *s, int64_t n);        /* under the lock */
void staged_drop_slot(struct staged *s, struct buffer *buffer); /* under the lock, too */
/* Gives up what is in memory of the chunks from..to-1; nothing of them is on its way. */
void staged_drop_slots(struct staged *s, int64_t from, int64_t to);
/*
 * The buffer of chunk n, to be changed or sent. `keep`: bytes of the chunk that count, which are loaded when
 * it is not in memory. A batch that is full is handed to the senders.
 */
int staged_open_slot(struct staged *s, int64_t n, size_t keep, const struct op *op, struct buffer **out,
                     struct fail *f);
static inline uint8_t *buffer_data(struct buffer *buffer)
{
    return buffer->raw + CHUNK_HEAD;
}
/* Bytes of chunk n that lie within the file. */
static inline size_t staged_chunk_len(const struct staged *s, int64_t n)
{
    int64_t left = s->length - n * GRIDFS_CHUNK;
    return left <= 0 ? 0 : left < GRIDFS_CHUNK ? (size_t)left : GRIDFS_CHUNK;
}

/* staging_publish.c: counts the next slice of chunks that are all sent, so that there are fewer to be counted
 * when the file is published. May do nothing; takes at most half of the time that is left. */
void staged_count_ahead(struct staged *s, const struct op *op);

/* staging_send.c: one message; the journal's entry is made before the first. `tail`: bytes of the last chunk
 * of a file that is published, 0 = all are sent whole, filled up with zeros. */
int staging_send(struct staged *s, struct buffer **buffers, size_t n, size_t tail, const struct op *op,
                 struct fail *f);
/* Takes the buffers of a message out of the staged file, with the result `r` of sending it: what went through
 * is in the database, what did not is lost. Returns r, or -ENOMEM. */
int staged_sent(struct staged *s, struct buffer **buffers, size_t n, int r);
void buffers_sort(struct buffer **buffers, size_t n); /* by the number of the chunk */
/* Hashes what is to be handed to the senders, while they wait for the server; not before what is on its way.
 */
int staged_hash_ahead(struct staged *s);
/* The sha256 before the first chunk. */
int staged_hash_begin(struct staged *s);
/* The _id of the new revision as a document; the caller's to destroy. */
bson_t *staged_id(const struct staged *s);
